"""What organizing did: a table for people and a CSV of the files that were left out."""

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.files import new_file
from CTSliceToolsLib.organizing.identifiers import LeftOut
from CTSliceToolsLib.organizing.transfer import Transfer


@dataclass
class Summary:
    """Counts of one run.

    Attributes:
        transfer: how files were brought to their places.
        patients: different patients among the files that have a place.
        studies: different studies among them.
        series: different series among them.
        placed: files copied, linked or moved.
        placed_bytes: their sizes together.
        already_there: files that the destination held before, with the same content.
        duplicates: files with the content of another file of this run.
        not_dicom: files left out as they are not DICOM.
        indexes: DICOMDIR files left out.
        broken: files left out as they are damaged, cut short or cannot be read.
        not_linked: files copied although links were asked for.
        seconds: how long the run took.
        left_out_table: CSV of the files left out, or None if there are none.
    """

    transfer: Transfer
    patients: int = 0
    studies: int = 0
    series: int = 0
    placed: int = 0
    placed_bytes: int = 0
    already_there: int = 0
    duplicates: int = 0
    not_dicom: int = 0
    indexes: int = 0
    broken: int = 0
    not_linked: int = 0
    seconds: float = 0.0
    left_out_table: Path | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what did not go as asked."""
        if not self.not_linked:
            return ()
        return (
            f"{self.not_linked} of {self.placed} files were copied: "
            "hard links need a source and destination on one file system that knows them.",
        )


_DONE = {Transfer.COPY: "copied", Transfer.LINK: "linked", Transfer.MOVE: "moved"}


def format_summary(summary: Summary) -> str:
    """A summary as a table for the terminal."""
    rows = {
        "Patients": f"{summary.patients:,}",
        "Studies": f"{summary.studies:,}",
        "Series": f"{summary.series:,}",
        f"Files {_DONE[summary.transfer]}": f"{summary.placed:,}",
        "Already there": f"{summary.already_there:,}",
        "Duplicates": f"{summary.duplicates:,}",
        "Not DICOM": f"{summary.not_dicom:,}",
        "DICOMDIR": f"{summary.indexes:,}",
        "Broken": f"{summary.broken:,}",
        "Megabytes": f"{summary.placed_bytes / 1e6:,.1f}",
        "Seconds": f"{summary.seconds:,.1f}",
    }
    wide = max(map(len, rows.values()))
    return "\n".join(f"{name:<15}{value:>{wide}}" for name, value in rows.items())


def write_left_out(rows: Iterable[tuple[Path, LeftOut]], destination: Path) -> Path:
    """Write the CSV (path, reason) as a new file, unless the same is there from an earlier run.

    Returns:
        `left-out.csv` in `destination`, or with the first number that is free.
    """
    text = io.StringIO()
    writer = csv_files.Writer(text, lineterminator="\n")
    writer.writerow(("path", "reason"))
    writer.writerows((path, left_out.reason) for path, left_out in sorted(rows, key=_by_path))
    content = text.getvalue().encode("utf-8", "backslashreplace")
    for number in count(1):
        path = destination / ("left-out.csv" if number == 1 else f"left-out-{number}.csv")
        if not path.is_symlink() and path.is_file() and path.read_bytes() == content:
            break
        if not os.path.lexists(path):
            with new_file(path) as temporary:
                temporary.write_bytes(content)
            break
    return path


def _by_path(row: tuple[Path, LeftOut]) -> Path:
    return row[0]
