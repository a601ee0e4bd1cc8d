"""The files below a folder, and bringing each to its place: copied, linked or moved, whole."""

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from CTLungScreeningLib.files import rename_new
from CTLungScreeningLib.progress import ProgressCallback
from CTSliceToolsLib.options import Transfer
from CTSliceToolsLib.organizing.identifiers import Identifiers, Kind, LeftOut, identify

_BATCH = 64

FolderFiles = tuple[Path, list[str]]
"""A folder and the names of the files in it: a million names take less room than paths."""

Identified = tuple[Path, Identifiers | LeftOut]


def list_files(
    source: Path, without: Path, progress: ProgressCallback
) -> tuple[list[FolderFiles], list[tuple[Path, LeftOut]]]:
    """List the files below a folder, sorted; links to folders are not followed.

    Args:
        source: the folder.
        without: a folder, wherever it is, that is not looked into.
        progress: counts the folders examined, in the stage "Searching".

    Returns:
        The folders with their files, and what was left out: links to folders, and folders that
        cannot be opened.
    """
    files: list[FolderFiles] = []
    left_out: list[tuple[Path, LeftOut]] = []

    def unreadable(error: OSError) -> None:
        reason = f"is a folder that cannot be opened: {error.strerror}"
        left_out.append((Path(error.filename), LeftOut(Kind.BROKEN, reason)))

    excluded = without.stat()
    known = 1
    for done, (parent, folders, names) in enumerate(os.walk(source, onerror=unreadable)):
        progress("Searching", done, max(known, done + 1))
        inner = []
        for name in sorted(folders):
            folder = Path(parent, name)
            try:
                if folder.is_symlink():
                    reason = "is a link to a folder, which was not followed"
                    left_out.append((folder, LeftOut(Kind.NOT_DICOM, reason)))
                elif not os.path.samestat(folder.stat(), excluded):
                    inner.append(name)
            except OSError as error:  # its parent may be listed but not entered
                unreadable(error)
        folders[:] = inner
        known += len(inner)
        files.append((Path(parent), sorted(names)))
    progress("Searching", known, known)
    return files, left_out


def identified(files: Iterable[FolderFiles]) -> Iterator[Identified]:
    """Return each file with its identifiers.

    Headers are read a few dozen files ahead: one header, one copy in turn would empty the
    processor's caches again and again, and takes a tenth more time.
    """
    paths = (folder / name for folder, names in files for name in names)
    while batch := list(islice(paths, _BATCH)):
        yield from [(file, identify(file)) for file in batch]


_BLOCK_BYTES, _RANGE_BYTES = 1 << 18, 1 << 30


def transfer_file(source: Path, target: Path, transfer: Transfer, part: Path) -> bool:
    """Transfer a file to `target`, which appears complete or not at all.

    A link that the file systems do not allow becomes a copy. A move across file systems removes
    the source after its copy was written to the disk, read again and found equal.

    Args:
        source: the file; a link to one is followed, and itself removed by a move.
        target: its new path, in an existing folder.
        transfer: how.
        part: a path for an unfinished copy, on the file system of `target`.

    Returns:
        False if the file was to be linked and was copied.

    Raises:
        FileExistsError: if there is something at `target`, which is left as it is.
        OSError: if something cannot be read or written.
    """
    if transfer is Transfer.LINK:
        try:
            os.link(source.resolve(), target)
        except FileExistsError:
            raise
        except OSError:
            pass
        else:
            return True
    if transfer is Transfer.MOVE and not source.is_symlink():
        try:
            rename_new(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        else:
            return True
    _copy(source, part)
    if transfer is Transfer.MOVE:
        with part.open("r+b") as stream:
            os.fsync(stream.fileno())
        if not same_content(source, part):
            raise OSError(errno.EIO, "the copy differs from the file", str(part))
    rename_new(part, target)
    if transfer is Transfer.MOVE:
        source.unlink()
    return transfer is not Transfer.LINK


def _copy(source: Path, target: Path) -> None:
    """Copy the content, on Linux within the kernel, which shares blocks if the file system can."""
    if hasattr(os, "copy_file_range"):
        with (
            suppress(OSError),  # Not everywhere possible; any other reason comes up again below.
            source.open("rb", buffering=0) as reader,
            target.open("wb", buffering=0) as writer,
        ):
            while os.copy_file_range(reader.fileno(), writer.fileno(), _RANGE_BYTES):
                pass
            if writer.tell() == os.fstat(reader.fileno()).st_size:
                return
    shutil.copyfile(source, target)


def remove_if_kept(source: Path, kept: Path) -> None:
    """Remove a file whose content is also at `kept`, unless both are one entry of one folder."""
    status = source.stat()
    if status.st_nlink > 1 or source.is_symlink() or not os.path.samestat(status, kept.stat()):
        source.unlink()


def same_content(first: Path, second: Path) -> bool:
    """Whether `second` is a regular file with the content of `first`; a link is not."""
    try:
        there = second.lstat()
    except FileNotFoundError:
        return False
    here = first.stat()
    if not stat.S_ISREG(there.st_mode) or here.st_size != there.st_size:
        return False
    if os.path.samestat(here, there):
        return True
    with first.open("rb") as one, second.open("rb") as other:
        while block := one.read(_BLOCK_BYTES):
            if block != other.read(_BLOCK_BYTES):
                return False
        return not other.read(1)
