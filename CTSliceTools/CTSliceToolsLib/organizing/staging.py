"""A folder for unfinished files inside the destination, held by one run at a time."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from CTSliceToolsLib.errors import InputError

FOLDER = ".organizing"
_LOCK, _PART = "lock", "part"


@contextmanager
def staging_file(destination: Path) -> Iterator[Path]:
    """Yield the one path below `destination` where a file may be unfinished.

    What a killed run left there is removed, and at the end whatever is there. The lock goes with
    the process, however that ends.

    Raises:
        InputError: if another run holds the folder.
    """
    folder = destination / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    part, lock = folder / _PART, folder / _LOCK
    with lock.open("w") as stream:
        if not _locked(stream, lock):
            raise InputError(
                f"Another run is organizing into {destination}: wait for its end, or give another "
                "folder."
            )
        try:
            part.unlink(missing_ok=True)
            yield part
        finally:
            part.unlink(missing_ok=True)
            if os.name == "nt":
                stream.close()  # Windows removes no open file.
            with suppress(OSError):
                lock.unlink()
                folder.rmdir()


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
