"""Bringing one file to its place: copied, linked or moved, whole or not at all."""

import errno
import os
import shutil
import stat
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from CTLungScreeningLib.files import rename_new

_BLOCK_BYTES, _RANGE_BYTES = 1 << 18, 1 << 30


class Transfer(StrEnum):
    """How a file gets from the source to the destination."""

    COPY = "copy"
    LINK = "link"
    MOVE = "move"


def transfer_file(source: Path, target: Path, transfer: Transfer, part: Path) -> bool:
    """Bring a file to `target`, which appears complete or not at all.

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
