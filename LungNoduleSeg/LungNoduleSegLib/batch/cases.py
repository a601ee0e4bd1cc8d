"""The scans of a batch: below a folder, listed in a CSV file, or a single one."""

import csv
import io
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import replace_text
from CTLungScreeningLib.model_card import file_sha256
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_reading import IndexedScan, index_scans
from CTLungScreeningLib.reading.volume_files import VOLUME_SUFFIXES, volume_size
from LungNoduleSegLib.results.reading import is_run

PATH, SERIES, FACTS = "path", "series", "facts"
"""Columns of a CSV file of scans; only the first is required."""

_SLICE_PIXELS = 512 * 512


@dataclass(frozen=True)
class Case:
    """One scan of a batch.

    Attributes:
        name: its name in the table: SeriesInstanceUID, with the folder if others that differ have
            the same; path of a volume file below the searched folder; or path as in the CSV file.
        source: a series with its files, or an input of `read_ct`.
        series: SeriesInstanceUID, if `source` is a folder with several.
        facts: JSON file with clinical data.
        note: a sentence on how it is listed.
    """

    name: str
    source: IndexedScan | Path
    series: str | None = None
    facts: Path | None = None
    note: str = ""

    @property
    def place(self) -> Path:
        """Its folder or file."""
        return self.source.folder if isinstance(self.source, IndexedScan) else self.source


def find_cases(
    source: Path, progress: ProgressCallback = silent, notes: list[str] | None = None
) -> list[Case]:
    """Find the scans of a batch, each once, ordered by path.

    Args:
        source: a folder, searched with its subfolders for CT series and volume files, except for
            results of runs and hidden folders; a CSV file with a column `path` and optionally
            `series` and `facts`, with paths relative to it; or one scan.
        progress: counts the examined files, in the stage "Searching".
        notes: gets a sentence on what `cases_below` left out.

    Raises:
        InputError: if there are none, or the CSV file cannot be read or contradicts itself.
    """
    source = source.resolve()
    if not source.exists():
        raise InputError(f"{source} does not exist: name a folder of scans, a CSV file or a scan.")
    if source.is_dir():
        cases = list(cases_below(source, progress, notes=notes))
    elif source.suffix.lower() == ".csv":
        cases = _listed(source)
    else:
        cases = [Case(source.name, source)]
    if not cases:
        raise InputError(f"{source} has no scans, only results: name the folder of the scans.")
    return cases


def write_list(table: Path, series: Iterable[tuple[Path, str]]) -> None:
    """Write a CSV file for `find_cases`, replacing an earlier list.

    Args:
        table: the file; its folder is made if missing.
        series: folder and SeriesInstanceUID of each scan.

    Raises:
        InputError: if it cannot be written, or the existing file is not such a list.
    """
    if table.exists() and not table.read_bytes().startswith(f"{PATH},{SERIES}\n".encode()):
        raise InputError(
            f"{table} is not a list of scans from this program: move it away, or choose another "
            "folder."
        )
    try:
        table.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{table.parent} cannot be made ({error.strerror}): choose another folder."
        ) from error
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([PATH, SERIES])
    writer.writerows(series)
    replace_text(table, text.getvalue())


def voxels(case: Case) -> int:
    """Estimate the number of voxels of a scan without reading its pixels; 0 if that fails."""
    try:
        if case.place.is_file() and case.place.name.lower().endswith(VOLUME_SUFFIXES):
            return math.prod(volume_size(case.place))
        files = _files(case)
        stored = sum(file.stat().st_size for file in files) // 2  # two bytes a voxel
        return max(stored, len(files) * _SLICE_PIXELS)
    except (OSError, IndexError, InputError):
        return 0


def cases_below(
    folder: Path,
    progress: ProgressCallback = silent,
    *,
    required: bool = True,
    notes: list[str] | None = None,
) -> Iterator[Case]:
    """Find the scans in a folder, see `find_cases`; arguments as for `index_scans`.

    Of exact copies of a series, the first of those nearest to the folder stands for all.
    """
    results: dict[Path, bool] = {}
    found = []
    for scan in index_scans(folder, progress, required=required, notes=notes):
        first = folder / scan.files[0]
        for parent in first.parents:
            if parent not in results:
                results[parent] = is_run(parent)
        hidden = any(part.startswith(".") for part in Path(scan.files[0]).parts)
        if not hidden and not any(results[parent] for parent in first.parents):
            found.append(_narrowed(scan) if scan.uid else scan)
    series: dict[str, list[IndexedScan]] = defaultdict(list)
    for scan in found:
        if scan.uid:
            series[scan.uid].append(scan)
    left_out: list[Path] = []
    kept = {uid: _distinct(copies, left_out) for uid, copies in series.items()}
    for scan in found:
        if not scan.uid:
            yield Case(Path(scan.files[0]).as_posix(), folder / scan.files[0])
        elif scan in kept[scan.uid]:
            yield Case(scan.name if len(kept[scan.uid]) > 1 else scan.uid, scan)
    if left_out and notes is not None:
        notes.append(f"Exact copies of series left out: {len(left_out)}, such as {left_out[0]}.")


def _narrowed(scan: IndexedScan) -> IndexedScan:
    """The same series, relative to the common folder of its files."""
    files = [scan.folder / name for name in scan.files]
    folder = Path(os.path.commonpath([file.parent for file in files]))
    names = tuple(str(file.relative_to(folder)) for file in files)
    return replace(scan, folder=folder, files=names)


def _distinct(copies: list[IndexedScan], left_out: list[Path]) -> list[IndexedScan]:
    """Leave out exact copies: of the same images in files of the same sizes, the first equal."""
    if len(copies) == 1:
        return copies
    found: dict[object, IndexedScan] = {}
    for one in sorted(copies, key=lambda one: len(one.folder.parts)):
        images = sorted(zip(one.instances, one.files, strict=True))
        files = [one.folder / file for _, file in images]
        sizes = [(uid, file.stat().st_size) for (uid, _), file in zip(images, files, strict=True)]
        if found.setdefault((*sizes, file_sha256(files[0])), one) is not one:
            left_out.append(one.folder)
    return [one for one in copies if one in found.values()]


def _listed(table: Path) -> list[Case]:
    cases: dict[str, Case] = {}
    lines: dict[str, int] = {}
    try:
        with csv_files.open_table(table) as (header, found):
            if PATH not in (name.strip().lower() for name in header):
                raise InputError(
                    f"{table} has no column {PATH}: name its columns on the first line, {PATH} and "
                    f"optionally {SERIES} and {FACTS}."
                )
            rows = [
                (line, {name.strip().lower(): cell.strip() for name, cell in row.items()})
                for line, row in found
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{table} cannot be read as a table ({error}): save it as CSV in UTF-8."
        ) from error
    for line, row in rows:
        path, series, facts = (row.get(name, "") for name in (PATH, SERIES, FACTS))
        if not path:
            continue
        name = f"{path} {series}" if series else path
        place = _beside(table, facts) if facts else None
        case = Case(name, _beside(table, path), series or None, place)
        first = cases.get(name)
        if first is None:
            cases[name], lines[name] = case, line
            continue
        if case.series != first.series or case.facts not in (None, first.facts):
            raise InputError(
                f"{table} line {line} repeats the scan of line {lines[name]} with another series "
                "or other facts: list each scan once."
            )
        note = f"{table} line {line} repeats the scan of line {lines[name]}: it is run once."
        cases[name] = replace(first, note=note)
    if not cases:
        raise InputError(f"{table} lists no scans: write one path per line below {PATH}.")
    return list(cases.values())


def _beside(table: Path, path: str) -> Path:
    return Path(os.path.normpath(table.parent / path))


def _files(case: Case) -> list[Path]:
    if isinstance(case.source, IndexedScan):
        return [case.source.folder / name for name in case.source.files]
    folder = case.source if case.source.is_dir() else case.source.parent
    return [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
