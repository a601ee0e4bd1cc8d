"""Features of many scans in one CSV file, which can be stopped and taken up again."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import Cancelled, InputError, sentence_of
from CTLungScreeningLib.files import replace_text
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.staging import only_writer
from LungNoduleSegLib.feature_extraction.scan_sources import features_of, find_scans
from LungNoduleSegLib.risk.features import (
    IDENTIFIERS,
    NODULE_FEATURES,
    SCAN_FEATURES,
    Features,
)


@dataclass(frozen=True)
class ExtractionOutcome:
    """What `write_feature_table` did: scans added, found there already, and failed with why."""

    added: tuple[str, ...]
    kept: tuple[str, ...]
    errors: Mapping[str, str]


def write_feature_table(
    folder: Path, table: Path, runs: Path | None = None, progress: ProgressCallback = silent
) -> ExtractionOutcome:
    """Write the features of every scan in a folder to a CSV file, one row a scan.

    Rows that are in the table already are kept and their scans left alone, so a run that was
    stopped continues where it was. After each scan the table is rewritten beside itself and
    takes its own place at once; `NAME-nodules.csv` holds the features of every nodule. What
    fails is listed in `NAME-errors.csv` and tried again the next time.

    Args:
        folder: see `find_scans`; one scan will do.
        table: the CSV file, new or written by this function.
        runs: where CT scans are segmented; default `NAME-runs` beside the table.
        progress: callback, see `CTLungScreeningLib.progress`.

    Raises:
        InputError: if there is no scan, or a file of that name is something else.
    """
    folder = folder.resolve()
    scans = find_scans(folder)
    nodule_table = table.with_name(f"{table.stem}-nodules.csv")
    error_table = table.with_name(f"{table.stem}-errors.csv")
    with only_writer(table, "writing"):
        rows = _rows_of(table, (*IDENTIFIERS, *SCAN_FEATURES))
        done = {row["scan"] for row in rows}
        nodules = [
            row
            for row in _rows_of(nodule_table, ("scan", "nodule", *NODULE_FEATURES))
            if row["scan"] in done
        ]
        _rows_of(error_table, ("scan", "error"))
        runs = runs or table.with_name(f"{table.stem}-runs")
        added: list[str] = []
        kept: list[str] = []
        errors: dict[str, str] = {}
        for number, source in enumerate(scans):
            progress("Scans", number, len(scans))
            name = source.name if source == folder else source.relative_to(folder).as_posix()
            if name in done:
                kept.append(name)
                continue
            try:
                scan = features_of(source, name, runs)
            except (Cancelled, MemoryError):
                raise
            except Exception as error:  # whatever is wrong with one scan, the others go on
                errors[name] = sentence_of(error)
                continue
            rows.append(scan.identifiers | _texts(scan.features))
            nodules += [
                {"scan": name, "nodule": str(n)} | _texts(features)
                for n, features in scan.nodules.items()
            ]
            _replace(nodule_table, ("scan", "nodule", *NODULE_FEATURES), nodules)
            _replace(table, (*IDENTIFIERS, *SCAN_FEATURES), rows)
            added.append(name)
        progress("Scans", len(scans), len(scans))
        if errors or error_table.exists():
            lines = [{"scan": name, "error": text} for name, text in errors.items()]
            _replace(error_table, ("scan", "error"), lines)
        return ExtractionOutcome(tuple(added), tuple(kept), errors)


def _texts(features: Features) -> dict[str, str]:
    """Write numbers so that they read back to six digits; NaN as an empty cell."""
    return {name: "" if math.isnan(v) else f"{v:.6g}" for name, v in features.items()}


def _rows_of(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a table that this module wrote; none if there is no such file."""
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            if reader.fieldnames != list(columns):
                raise InputError(
                    f"{path} is no table of these features or one of another version: choose "
                    "another name for the output, nothing was overwritten."
                )
            return [{k: csv_files.unguarded(v or "") for k, v in row.items()} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}): choose another output.") from error


def _replace(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    """Write a table beside its own earlier version, then put it in its place at once."""
    text = io.StringIO()
    writer = csv_files.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, text.getvalue())
