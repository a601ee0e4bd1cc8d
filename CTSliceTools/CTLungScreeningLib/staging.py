"""One run at a time writes into an output folder, and what it has not finished is out of sight."""

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import private_folder, refuse_links

_LOCK = ".lock"
_UNFINISHED = ".unfinished-"


@contextmanager
def staging_folder(destination: Path, doing: str) -> Iterator[Path]:
    """Yield a private folder inside `destination` where things may be unfinished.

    It is removed at the end, as is what a killed run left; the lock goes with the process, however
    that ends.

    Args:
        destination: made if it is not there.
        doing: what is done there, one word such as "organizing", for the message.

    Raises:
        InputError: if another run holds `destination`, or it cannot be locked.
    """
    destination.mkdir(parents=True, exist_ok=True)
    with _only_writer(destination / _LOCK, destination, doing):
        _remove_leftovers(destination, _UNFINISHED)
        with private_folder(destination, _UNFINISHED) as folder:
            yield folder


@contextmanager
def _only_writer(file: Path, output: Path, doing: str) -> Iterator[None]:
    """Hold the lock of an output; its file is removed at the end, while it is still held."""
    refuse_links(file)
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        raise InputError(
            f"{file} cannot be made ({error.strerror}): choose another folder for the output."
        ) from error
    with open(handle, "r+b") as stream:  # noqa: PTH123 - a descriptor
        if not _locked(stream, file):
            raise InputError(
                f"Another run is {doing} into {output}: wait for its end, or give another folder."
            )
        try:
            yield
        finally:
            if os.name == "nt":
                stream.close()  # Windows removes no open file.
            with suppress(OSError):
                file.unlink()


def _locked(stream: IO[bytes], file: Path) -> bool:
    """Lock an open file, unless another process has; a file system without locks is trusted."""
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 - Windows only

            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415 - POSIX only

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass
    try:
        return os.path.samestat(os.fstat(stream.fileno()), file.lstat())
    except FileNotFoundError:  # The run that held it has just ended and removed it.
        return False


def _remove_leftovers(parent: Path, prefix: str) -> None:
    """Remove the folders of killed runs: real folders of this user's that nobody else can open."""
    for entry in os.scandir(parent):
        if not entry.name.startswith(prefix):
            continue
        status = entry.stat(follow_symlinks=False)
        private = os.name != "posix" or (
            status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == stat.S_IRWXU
        )
        if stat.S_ISDIR(status.st_mode) and private:
            shutil.rmtree(entry.path, ignore_errors=True)
