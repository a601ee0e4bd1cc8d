"""Join and validate a feature table and a label table."""

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.model_card import file_sha256
from LungNoduleSegLib.risk.features import IDENTIFIERS, SCAN_FEATURES, SLICE_FEATURES

LABEL_COLUMNS = ("label", "cancer")
"""Names of the label column: 1 for cancer, 0 for none."""

Row = dict[str, str]


class FeatureSet(StrEnum):
    """The features a classifier is trained on."""

    ALL = "all"
    TUTORIAL = "tutorial"
    PHYSICAL = "physical"
    """Features in mm and HU."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the set."""
        if self is FeatureSet.TUTORIAL:
            return tuple(SLICE_FEATURES)
        if self is FeatureSet.PHYSICAL:
            return tuple(name for name in SCAN_FEATURES if name not in SLICE_FEATURES)
        return tuple(SCAN_FEATURES)


@dataclass(frozen=True)
class TrainingData:
    """Scans with features and labels.

    Attributes:
        scans: name of each.
        patients: of each scan, "" if unknown, see also `_own_patients`.
        groups: of each scan, see `_groups`; cross-validation keeps those of a group together.
        features: names of the columns of `x`.
        empty: features left out because no scan has a value.
        x: (scans, features), NaN where a value is missing.
        y: (scans,) 1 for cancer, 0 for none.
        sha256: of both files, by their names.
    """

    scans: tuple[str, ...]
    patients: tuple[str, ...]
    groups: tuple[str, ...]
    features: tuple[str, ...]
    empty: tuple[str, ...]
    x: NDArray[np.float64]
    y: NDArray[np.int64]
    sha256: dict[str, str]


def read_training_data(
    features: Path, labels: Path, chosen: FeatureSet = FeatureSet.ALL
) -> TrainingData:
    """Join a feature table and a label table.

    Args:
        features: written by `write_feature_table`.
        labels: CSV with a column `scan` or `patient_id` and a column `label` or `cancer`. With
            both, rows are joined by scan, and their patients are those of this table where it names
            them.
        chosen: the features to use.

    Raises:
        InputError: naming the file and the line with the problem.
    """
    table = _read(features, ("scan", "patient_id", *chosen.names))
    if not table:
        raise InputError(f"{features} has no rows: compute the features of some scans first.")
    _refuse_repeated(features, "scan", [row["scan"] for _, row in table])
    truth, key, patients = _read_labels(labels)
    y = []
    missing = []
    for line, row in table:
        name = row[key]
        if not name:
            raise InputError(
                f"{features} line {line} has no {key}: label this scan by the column scan."
            )
        if name in truth:
            y.append(truth[name])
        elif name not in missing:
            missing.append(name)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{labels} has no label for {key} {missing[0]}{more}: add it, or remove the scan from "
            f"{features.name}."
        )
    if len(set(y)) < 2:
        raise InputError(
            f"{labels} labels every scan {y[0]}: training needs scans with and without cancer."
        )
    names = chosen.names
    x = np.array([[_number(features, line, row, name) for name in names] for line, row in table])
    filled = ~np.isnan(x).all(axis=0)
    if not filled.any() or not np.nanstd(x[:, filled], axis=0).any():
        raise InputError(
            f"{features} has the same values for every scan, so nothing can be learned: check that "
            "the segmentations are not all empty."
        )
    rows = [row for _, row in table]
    told = [patients.get(row["scan"], "") for row in rows]
    own = _own_patients(rows, told)
    return TrainingData(
        scans=tuple(row["scan"] for row in rows),
        patients=tuple(name or mine for name, mine in zip(told, own, strict=True)),
        groups=_groups(rows, told, own),
        features=tuple(np.array(names)[filled].tolist()),
        empty=tuple(np.array(names)[~filled].tolist()),
        x=x[:, filled],
        y=np.array(y),
        sha256={file.name: file_sha256(file) for file in (features, labels)},
    )


def _own_patients(rows: Sequence[Row], told: Sequence[str]) -> list[str]:
    """Patients of the feature table, "" for an ID whose scans have two in the label table.

    Where scans are anonymous, everyone may have the same ID.

    Args:
        rows: of the feature table.
        told: the patient of each in the label table, "" where it names none.
    """
    own = [row["patient_id"] for row in rows]
    named = {(mine, name) for mine, name in zip(own, told, strict=True) if name}
    names = Counter(mine for mine, _ in named)
    return [mine if names[mine] < 2 else "" for mine in own]


def _groups(rows: Sequence[Row], told: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """Name the group of each scan, by its first: scans that may be of one patient are in one.

    Those are scans of the same patient in either table, or of the same series.

    Args:
        rows: of the feature table.
        told: the patient of each in the label table, "" where it names none.
        own: in the feature table, see `_own_patients`.
    """
    first: dict[tuple[str, str], int] = {}
    groups = list(range(len(rows)))
    for number, (row, name, mine) in enumerate(zip(rows, told, own, strict=True)):
        series = row.get("series_instance_uid", "")
        links = ("patient", name), ("patient", mine), ("series", series)
        known = [link for link in links if link[1]]
        joined = {number, *(groups[first.setdefault(link, number)] for link in known)}
        if len(joined) > 1:
            groups = [min(joined) if one in joined else one for one in groups]
    names = [
        f"patient {patient}" if (patient := name or mine) else f"scan {row['scan']}"
        for row, name, mine in zip(rows, told, own, strict=True)
    ]
    return tuple(names[number] for number in groups)


def _read_labels(path: Path) -> tuple[dict[str, int], str, dict[str, str]]:
    """Read the labels, the column, scan or patient, that they are keyed by, and the patients."""
    rows = _read(path, ())
    columns = list(rows[0][1]) if rows else []
    keys = [name for name in IDENTIFIERS[:2] if name in columns]
    values = [name for name in LABEL_COLUMNS if name in columns]
    if not keys or not values:
        raise InputError(
            f"{path} is not a label table: it needs a column patient_id or scan, and a column "
            "label with 1 for cancer and 0 for none."
        )
    key, value = keys[0], values[0]
    _refuse_repeated(path, key, [row[key] for _, row in rows])
    truth = {}
    for line, row in rows:
        try:
            number = float(row[value])
        except ValueError:
            number = math.nan
        if number not in (0, 1):
            raise InputError(
                f"{path} line {line}: '{row[value]}' is not a label; write 1 for cancer or 0 for "
                "none."
            )
        truth[row[key]] = int(number)
    patients = {row["scan"]: row.get("patient_id", "") for _, row in rows if key == "scan"}
    return truth, key, patients


def _read(path: Path, required: tuple[str, ...]) -> list[tuple[int, Row]]:
    """Read a CSV file with a header: line numbers and cells."""
    try:
        with csv_files.open_table(path) as (header, rows):
            repeated = [name for name, count in Counter(header).items() if count > 1]
            if repeated:
                raise InputError(f"{path} has two columns {repeated[0]}: keep one.")
            missing = [name for name in required if name not in header]
            if missing:
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                raise InputError(
                    f"{path} has no column {missing[0]}{more}: make it with "
                    "`lung-nodule-seg features`."
                )
            return [
                (line, {name: csv_files.unguarded(cell.strip()) for name, cell in row.items()})
                for line, row in rows
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({error}): save it as CSV.") from error


def _refuse_repeated(path: Path, column: str, names: list[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{path} has the {column} {repeated[0]} more than once: keep one line.")


def _number(path: Path, line: int, row: Row, name: str) -> float:
    try:
        value = float(row[name] or "nan")
    except ValueError:
        value = math.inf
    if abs(value) > float(np.finfo(np.float32).max):
        raise InputError(
            f"{path} line {line}: '{row[name]}' is not a number for {name} that training can use; "
            "compute the features again."
        )
    return value
