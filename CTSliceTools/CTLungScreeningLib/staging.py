"""A folder for unfinished files inside the destination, held by one run at a time."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from CTLungScreeningLib.errors import InputError

_LOCK = "lock"


@contextmanager
def staging_folder(destination: Path, doing: str) -> Iterator[Path]:
    """Yield the one folder below `destination` where things may be unfinished.

    What a killed run left there is removed, and at the end whatever is there. The lock goes with
    the process, however that ends.

    Args:
        destination: made if it is not there.
        doing: what is done there, one word such as "organizing".

    Raises:
        InputError: if another run holds the folder.
    """
    folder = destination / f".{doing}"
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / _LOCK
    with lock.open("w") as stream:
        if not _locked(stream, lock):
            raise InputError(
                f"Another run is {doing} into {destination}: wait for its end, or give another "
                "folder."
            )
        try:
            _clear(folder)
            yield folder
        finally:
            _clear(folder)
            if os.name == "nt":
                stream.close()  # Windows removes no open file.
            with suppress(OSError):
                lock.unlink()
                folder.rmdir()


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != _LOCK:
            entry.unlink(missing_ok=True)


def _locked(stream: IO[str], path: Path) -> bool:
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
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:  # The run that held it has just ended and removed it.
        return False
