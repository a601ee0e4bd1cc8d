"""The CSV files of the LUNA16 challenge: marks of a system, findings of the readers, scans.

Positions are LPS mm, as in the challenge's MetaImage files.
"""

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.files import new_file
from LungNoduleSegLib.nodules.table import NoduleKind, Place

SERIES, DIAMETER, PROBABILITY = "seriesuid", "diameter_mm", "probability"
PATIENT = "patient_id"
POSITION = ("coordX", "coordY", "coordZ")
TEXTURE, PLACE = "texture", "place"
"""Optional columns of the annotations."""

MOST_MM = 300
"""No finding in a lung has a larger diameter."""


@dataclass(frozen=True)
class Places:
    """Points in scans, one row each.

    Attributes:
        series: (n,) SeriesInstanceUID.
        position: (n, 3) LPS mm.
        value: (n,) the probability of a mark, or the diameter of a finding in mm.
    """

    series: NDArray[np.str_]
    position: NDArray[np.float64]
    value: NDArray[np.float64]

    @classmethod
    def of(cls, rows: Iterable[tuple[str, Sequence[float], float]]) -> "Places":
        """Gather rows of (series, position, value); there may be none."""
        listed = list(rows)
        return cls(
            np.array([series for series, _, _ in listed], dtype=np.str_),
            np.array([position for _, position, _ in listed], float).reshape(-1, 3),
            np.array([value for _, _, value in listed], float),
        )


@dataclass(frozen=True)
class Truth:
    """The reference for marks.

    Attributes:
        scans: SeriesInstanceUIDs of all scans, including those without nodules.
        nodules: to be detected; `value` is the diameter.
        excluded: findings on which marks are ignored.
        textures: of the nodules, None where unknown; empty if all are.
        places: likewise.
    """

    scans: tuple[str, ...]
    nodules: Places
    excluded: Places
    textures: tuple[NoduleKind | None, ...] = ()
    places: tuple[Place | None, ...] = ()


Word = TypeVar("Word")


_HEADERS = (SERIES, "seriesinstanceuid", "scan")
"""Words above the scans in a list of them, in any case, with underscores or without."""


class _Row(NamedTuple):
    line: int
    cells: dict[str, str]


def read_challenge(
    submission: Path, annotations: Path, excluded: Path | None, seriesuids: Path
) -> tuple[Places, Truth, tuple[str, ...]]:
    """Read a submission and its reference.

    Args:
        submission: CSV with seriesuid, coordX, coordY, coordZ and probability.
        annotations: CSV with seriesuid, coordX, coordY, coordZ and diameter_mm; texture (see
            `NoduleKind.of_texture`) and place (see `Place`) may be there, in whole or in part.
        excluded: of the same format, or None.
        seriesuids: one SeriesInstanceUID per line, without header.

    Returns:
        Marks and findings in the scans of `seriesuids`, and notes on rows of other scans, which are
        left out, and repeated rows, which count again, both as in the challenge.

    Raises:
        InputError: naming the file and the line with the problem.
    """
    scans = read_scans(seriesuids)
    notes: list[str] = []
    marks, _ = _read_places(submission, PROBABILITY, scans, seriesuids, notes)
    if not len(marks.series):
        raise InputError(
            f"{submission} has no marks in the scans of {seriesuids.name} after line 1: choose a "
            "submission and a list of scans that belong together."
        )
    nodules, rows = _read_places(annotations, DIAMETER, scans, seriesuids, notes, positive=True)
    if not len(nodules.series):
        raise InputError(
            f"{annotations} has no nodules in the scans of {seriesuids.name} after line 1: choose "
            "annotations and a list of scans that belong together."
        )
    # The challenge's file repeats thousands of excluded findings, which has no effect.
    ignored = (
        Places.of(())
        if excluded is None
        else _read_places(excluded, DIAMETER, scans, seriesuids, [])[0]
    )
    textures = _words(annotations, TEXTURE, rows, NoduleKind.of_texture)
    places = _words(annotations, PLACE, rows, Place)
    return marks, Truth(scans, nodules, ignored, textures, places), tuple(notes)


def read_scans(path: Path) -> tuple[str, ...]:
    """Read the SeriesInstanceUIDs of the scans; one of `_HEADERS` may stand above them.

    Raises:
        InputError: if there are none, or one is repeated.
    """
    seen: dict[str, int] = {}
    for line, cells in _lines(path):
        uid = cells[0].strip()
        header = not seen and uid.lower().replace("_", "") in _HEADERS
        if header or not uid:
            continue
        if uid in seen:
            raise InputError(
                f"{path} line {line} repeats the scan of line {seen[uid]}: list each scan once."
            )
        seen[uid] = line
    if not seen:
        raise InputError(f"{path} lists no scans: write one SeriesInstanceUID per line.")
    return tuple(seen)


def read_findings(path: Path, scans: Sequence[str]) -> Places:
    """Read the findings in some scans; `value` is the diameter. Other scans are left out.

    Args:
        path: CSV with seriesuid, coordX, coordY, coordZ and diameter_mm.
        scans: SeriesInstanceUIDs.

    Raises:
        InputError: naming the file and the line with the problem.
    """
    return _read_places(path, DIAMETER, scans, path, [])[0]


def read_patients(path: Path) -> dict[str, str]:
    """Read the patient of each scan from a CSV file with seriesuid and patient_id.

    Raises:
        InputError: naming the file and the line with the problem.
    """
    patients: dict[str, str] = {}
    for line, cells in _table(path, (SERIES, PATIENT)):
        uid, patient = cells[SERIES].strip(), cells[PATIENT].strip()
        if not patient:
            raise InputError(f"{path} line {line} has no {PATIENT}: complete it.")
        if patients.setdefault(uid, patient) != patient:
            raise InputError(
                f"{path} line {line} names another patient of the scan {uid} than a line "
                "before: keep the right one."
            )
    return patients


def write_places(path: Path, value: str, places: Places) -> None:
    """Write marks (`value` is `PROBABILITY`) or findings (`DIAMETER`) in the challenge's format.

    Raises:
        InputError: if `path` exists.
    """
    columns = (places.series.tolist(), places.position.tolist(), places.value.tolist())
    rows = ((series, *position, number) for series, position, number in zip(*columns, strict=True))
    csv_files.write_table(path, (SERIES, *POSITION, value), rows)


def write_annotations(path: Path, truth: Truth) -> None:
    """Write the nodules in the challenge's format, with texture and place where they are known.

    Raises:
        InputError: if `path` exists.
    """
    more = {TEXTURE: truth.textures, PLACE: truth.places}
    more = {name: column for name, column in more.items() if column}
    nodules = truth.nodules
    columns = (nodules.series.tolist(), nodules.position.tolist(), nodules.value.tolist())
    rows = (
        (series, *position, diameter, *words)
        for series, position, diameter, *words in zip(*columns, *more.values(), strict=True)
    )
    csv_files.write_table(path, (SERIES, *POSITION, DIAMETER, *more), rows)


def write_scans(path: Path, scans: Iterable[str]) -> None:
    """Write SeriesInstanceUIDs, one per line.

    Raises:
        InputError: if `path` exists.
    """
    with new_file(path) as temporary:
        temporary.write_text("".join(f"{uid}\n" for uid in scans), encoding="utf-8")


def _read_places(
    path: Path,
    value: str,
    scans: Sequence[str],
    listed_in: Path,
    notes: list[str],
    positive: bool = False,
) -> tuple[Places, list[_Row]]:
    """Read the marks or findings of some scans, with their rows."""
    names = (*POSITION, value)
    known = set(scans)
    kept: list[_Row] = []
    others: list[_Row] = []
    for row in _table(path, (SERIES, *names)):
        chosen = kept if row.cells[SERIES].strip() in known else others
        chosen.append(row)
    numbers = _numbers(path, kept, names)
    values = numbers[:, 3]
    too_large = (value == DIAMETER) & (values > MOST_MM)
    for wrong in np.flatnonzero(too_large | (positive & (values <= 0))):
        remedy = "correct it" if too_large[wrong] else "correct it, or list the finding as excluded"
        raise InputError(
            f"{path} line {kept[wrong].line}: no nodule has {values[wrong]:g} as its {value}; "
            f"{remedy}."
        )
    places = Places(
        np.array([row.cells[SERIES].strip() for row in kept], dtype=np.str_),
        numbers[:, :3],
        values,
    )
    if others:
        notes.append(
            f"{path} line {others[0].line} is the first of {counted(len(others), 'row')} whose "
            f"scan is not in {listed_in.name}: left out."
        )
    notes += _repeats(path, kept, places)
    return places, kept


def _words(
    path: Path, name: str, rows: Sequence[_Row], of: Callable[[str], Word]
) -> tuple[Word | None, ...]:
    """Read an optional column of rows of a table, None where it is empty."""
    found = {column.lower(): column for column in rows[0].cells}
    if name not in found:
        return ()
    words: list[Word | None] = []
    for row in rows:
        text = row.cells[found[name]].strip()
        try:
            words.append(of(text) if text else None)
        except ValueError:
            raise InputError(
                f"{path} line {row.line}: '{text}' is not a {name}; correct it or leave it empty."
            ) from None
    return tuple(words)


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Read the non-empty lines of a CSV file, with their numbers."""
    if not path.is_file():
        raise InputError(f"{path} is not a file: name a CSV file.")
    reader = None
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            return [(reader.line_num, cells) for cells in reader if any(cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        line = max(reader.line_num, 1) if reader else 1
        raise InputError(
            f"{path} cannot be read as CSV near line {line} ({error}): save it as UTF-8 text with "
            "commas."
        ) from error


def _table(path: Path, names: Sequence[str]) -> list[_Row]:
    """Read the rows of a table that has some columns."""
    lines = _lines(path)
    if not lines:
        raise InputError(f"{path} line 1 is empty: name a CSV file with {', '.join(names)}.")
    first, cells = lines[0]
    header = [cell.strip() for cell in csv_files.trimmed(cells)]
    csv_files.refuse_other_separators(path, first, header)
    if missing := [name for name in names if name not in header]:
        raise InputError(
            f"{path} line {first} lacks the column {', '.join(missing)}: the first line must name "
            f"{', '.join(names)}, in any order."
        )
    return [
        _Row(line, dict(zip(header, csv_files.whole_row(path, line, cells, header), strict=True)))
        for line, cells in lines[1:]
    ]


def _numbers(path: Path, rows: Sequence[_Row], names: Sequence[str]) -> NDArray[np.float64]:
    listed = [[_number(row.cells[name]) for name in names] for row in rows]
    numbers = np.array(listed, np.float64).reshape(-1, len(names))
    for row, column in np.argwhere(~np.isfinite(numbers)):
        raise InputError(
            f"{path} line {rows[row].line}: '{rows[row].cells[names[column]]}' is not a number "
            f"for {names[column]}; correct it."
        )
    return numbers


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _repeats(path: Path, rows: Sequence[_Row], places: Places) -> list[str]:
    """Note the first repeated row."""
    first: dict[tuple[object, ...], int] = {}
    repeated = []
    keys = zip(places.series.tolist(), *places.position.T.tolist(), places.value.tolist())  # noqa: B905
    for row, key in zip(rows, keys, strict=True):
        if first.setdefault(key, row.line) != row.line:
            repeated.append((row.line, first[key]))
    if not repeated:
        return []
    line, earlier = repeated[0]
    more = f", the first of {len(repeated)} such rows" if len(repeated) > 1 else ""
    return [f"{path} line {line} repeats line {earlier}{more}: each counts, as in the challenge."]
