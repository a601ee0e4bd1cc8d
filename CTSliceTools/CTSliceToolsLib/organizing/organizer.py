"""Sort DICOM files into folders by patient, study and series, and say what was done."""

import hashlib
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.files import FolderNames, make_folders, new_file
from CTLungScreeningLib.options import choice_of
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.staging import staging_folder
from CTSliceToolsLib.organizing.identifiers import Identifiers, Kind, LeftOut, pseudonym
from CTSliceToolsLib.organizing.transfer import (
    Transfer,
    identified,
    list_files,
    remove_if_kept,
    same_content,
    transfer_file,
)


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
        annotations: annotations of series, left out as they are not DICOM.
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
    annotations: int = 0
    seconds: float = 0.0
    left_out_table: Path | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what did not go as asked."""
        notes = []
        if self.not_linked:
            notes.append(
                f"{self.not_linked} of {self.placed} files were copied: "
                "hard links need a source and destination on one file system that supports them."
            )
        if self.annotations and self.transfer is Transfer.MOVE:
            notes.append(
                f"{counted(self.annotations, 'annotation')} of series stayed in the source, as the "
                "files have other names now: annotate the organized series again."
            )
        return tuple(notes)


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
    lines = ((path, left_out.reason) for path, left_out in sorted(rows, key=_by_path))
    text = csv_files.table_text(("path", "reason"), lines, "\n")
    content = text.encode("utf-8", "backslashreplace")
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


_DIGEST_LENGTH = 16
_READ_BYTES = 1 << 20
_PART = "part"
_LEVELS = ("patient", "study", "series")


def organize(
    source: Path,
    destination: Path,
    transfer: Transfer = Transfer.COPY,
    key: bytes | None = None,
    progress: ProgressCallback = silent,
) -> Summary:
    """Transfer the DICOM files below a folder to DESTINATION/patient/study/series/number.dcm.

    Only headers are read to find the place of a file. A file whose InstanceNumber is missing or
    taken by another content gets a name with a digest of its own content; one whose content is
    there already is counted and not written again. Nothing in `destination` is overwritten. Run
    again after an interruption, it goes on to the result that one run would have had. What is not
    DICOM, a DICOMDIR, broken or cut short is listed in `left-out.csv` in `destination`.

    Args:
        source: searched with its subfolders, without `destination` if that is one of them; links
            to folders are not followed. Untouched, unless files are moved.
        destination: made if it is not there.
        transfer: how files get there. A move also removes the source of what is there already.
        key: if given, patients, studies and series are named by `pseudonym` with this key, else by
            `folder_name`. The files are the same in both cases.
        progress: counts the files brought to their places, as stage "Organizing"; a `Cancelled`
            that it raises leaves whole files only.

    Raises:
        InputError: if there is no such transfer, if `source` is not a folder or inside
            `destination`, if another run is organizing into `destination`, or if something cannot
            be written or removed.
    """
    transfer = choice_of(Transfer, transfer, "transfer")
    began = time.monotonic()
    _check_folders(source, destination)
    run = _Run(destination, transfer, key)
    try:
        with (
            staging_folder(destination, "organizing") as staging,
            warnings.catch_warnings(action="ignore"),
        ):
            files, run.left_out = list_files(source, destination, progress)
            total = sum(len(names) for _, names in files)
            for done, (file, found) in enumerate(identified(files)):
                progress("Organizing", done, total)
                run.take(file, found, staging / _PART)
            progress("Organizing", total, total)
            return run.finished(began)
    except OSError as error:
        raise InputError(
            f"{error.filename2 or error.filename or destination} cannot be written or removed "
            f"({error.strerror}): fix that and run the command again, which continues."
        ) from error


def _check_folders(source: Path, destination: Path) -> None:
    if not source.is_dir():
        raise InputError(f"{source} is not a folder: give the folder that holds the DICOM files.")
    if not destination.exists():
        return
    if not destination.is_dir():
        raise InputError(f"{destination} is a file: give a folder for the organized files.")
    whole = source.resolve()
    if any(folder.samefile(destination) for folder in (whole, *whole.parents)):
        raise InputError(f"{source} is inside {destination}: give a destination outside of it.")


def file_names(file: Path, number: int | None) -> Iterator[str]:
    """The names that a file may have in the folder of its series, best first.

    They depend on its number and content alone: `12.dcm`, and where that is another file's or the
    number is missing, a name with the start of the content's SHA-256.
    """
    if number is not None:
        yield f"{number}.dcm"
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()[:_DIGEST_LENGTH]
    stem = f"{'no-number' if number is None else number}-{digest}"
    yield f"{stem}.dcm"
    yield from (f"{stem}-{k}.dcm" for k in count(2))


@dataclass
class _Series:
    """A series' folder and the names in it that hold content of files of this run."""

    folder: Path
    names: set[str] = field(default_factory=set)


class _Run:
    """The progress of one run."""

    def __init__(self, destination: Path, transfer: Transfer, key: bytes | None) -> None:
        self.left_out: list[tuple[Path, LeftOut]] = []
        self._summary = Summary(transfer)
        self._destination = destination
        self._key = key
        self._names = FolderNames()
        self._series: dict[tuple[str, str, str], _Series] = {}

    def take(self, file: Path, found: Identifiers | LeftOut, part: Path) -> None:
        """Transfer one file, or record that it has no place."""
        if isinstance(found, Identifiers):
            try:
                self._place(file, found, part)
            except OSError:
                if not (reason := _why_unreadable(file)):
                    raise
                found = LeftOut(Kind.BROKEN, f"cannot be read: {reason}")
        if isinstance(found, LeftOut):
            self.left_out.append((file, found))

    def _place(self, file: Path, found: Identifiers, part: Path) -> None:
        summary = self._summary
        series = self._series_of(found)
        for name in file_names(file, found.number):
            target = series.folder / name
            if not os.path.lexists(target):
                try:
                    as_asked = transfer_file(file, target, summary.transfer, part)
                except FileExistsError:  # Somebody else has made it meanwhile.
                    continue
                summary.placed += 1
                summary.placed_bytes += found.size
                summary.not_linked += not as_asked
                break
            if same_content(file, target):
                if name in series.names:
                    summary.duplicates += 1
                else:
                    summary.already_there += 1
                if summary.transfer is Transfer.MOVE:
                    remove_if_kept(file, target)
                break
        series.names.add(name)

    def _series_of(self, found: Identifiers) -> _Series:
        identifiers = (found.patient, found.study, found.series)
        if identifiers not in self._series:
            folder = self._destination
            for level, identifier in zip(_LEVELS, identifiers, strict=True):
                name = pseudonym(self._key, level, identifier) if self._key else identifier
                folder = self._names.child(folder, name)
            make_folders(self._destination, folder)
            self._series[identifiers] = _Series(folder)
        return self._series[identifiers]

    def finished(self, began: float) -> Summary:
        """Write the table of what was left out and count the rest."""
        summary = self._summary
        summary.patients = len({patient for patient, _, _ in self._series})
        summary.studies = len({identifiers[:2] for identifiers in self._series})
        summary.series = len(self._series)
        kinds = [one.kind for _, one in self.left_out]
        summary.not_dicom = kinds.count(Kind.NOT_DICOM)
        summary.indexes = kinds.count(Kind.INDEX)
        summary.broken = kinds.count(Kind.BROKEN)
        if self.left_out:
            from CTSliceToolsLib.dataset.annotation import ANNOTATION  # noqa: PLC0415 - slow

            summary.annotations = sum(file.name == ANNOTATION for file, _ in self.left_out)
            summary.left_out_table = write_left_out(self.left_out, self._destination)
        summary.seconds = time.monotonic() - began
        return summary


def _why_unreadable(file: Path) -> str | None:
    try:
        with file.open("rb") as stream:
            while stream.read(_READ_BYTES):
                pass
    except OSError as error:
        return error.strerror or str(error)
    return None
