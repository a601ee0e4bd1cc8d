"""The results table of a batch: one row per scan, and its CSV file."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import replace_text

RESULTS_TABLE = "results.csv"


@dataclass(frozen=True)
class ScanRow:
    """What the table says of one scan; None and "" are empty cells.

    Attributes:
        scan: its name, see `Case`.
        source: folder or file it was read from.
        results: folder of its results, relative to that of the table.
        patient_id: from DICOM, as are the next three.
        study_instance_uid: see `patient_id`.
        series_instance_uid: see `patient_id`.
        study_date: YYYYMMDD.
        nodules: how many were found.
        largest_diameter_mm: longest axial diameter of any.
        largest_volume_mm3: volume of the largest.
        total_volume_mm3: of all nodules.
        right_lung_ml: volume of the patient's right lung.
        left_lung_ml: volume of the left one.
        pancan_1a: probability of cancer of the nodule with the largest volume, where the facts that
            the model asks for are there; as are those of the next six models.
        pancan_1b: see `pancan_1a`.
        pancan_2a: see `pancan_1a`.
        pancan_2b: see `pancan_1a`.
        mayo: see `pancan_1a`.
        herder: see `pancan_1a`.
        va: see `pancan_1a`.
        lung_rads: its Lung-RADS category.
        fleischner: its class in the Fleischner guideline.
        bts: likewise of the BTS.
        nelson: likewise of the NELSON trial.
        examination: the Lung-RADS category of the examination.
        seconds: that the run took.
        error: a sentence if there is no result.
    """

    scan: str
    source: str
    results: str = ""
    patient_id: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    study_date: str = ""
    nodules: int | None = None
    largest_diameter_mm: float | None = None
    largest_volume_mm3: float | None = None
    total_volume_mm3: float | None = None
    right_lung_ml: float | None = None
    left_lung_ml: float | None = None
    pancan_1a: float | None = None
    pancan_1b: float | None = None
    pancan_2a: float | None = None
    pancan_2b: float | None = None
    mayo: float | None = None
    herder: float | None = None
    va: float | None = None
    lung_rads: str = ""
    fleischner: str = ""
    bts: str = ""
    nelson: str = ""
    examination: str = ""
    seconds: float | None = None
    error: str = ""

    def cells(self) -> dict[str, str]:
        """Its cells by column; numbers to six digits."""
        return {name: _text(value) for name, value in asdict(self).items()}


COLUMNS = [field.name for field in fields(ScanRow)]


def read_table(path: Path) -> dict[str, dict[str, str]]:
    """Read the rows that a batch wrote, by the names of their scans; none if there is no file.

    Raises:
        InputError: if it is something else.
    """
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            if reader.fieldnames != COLUMNS:
                raise InputError(
                    f"{path} is no table of a batch or one of another version: choose another "
                    "folder for the output, nothing was overwritten."
                )
            rows = [{k: csv_files.unguarded(v or "") for k, v in row.items()} for row in reader]
            return {row["scan"]: row for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read ({error}): choose another folder for the output."
        ) from error


def write_table(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Put the table in the place of its earlier version in one step.

    Raises:
        InputError: if it cannot be written.
    """
    text = io.StringIO()
    writer = csv_files.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_text(path, text.getvalue())


def _text(value: str | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
