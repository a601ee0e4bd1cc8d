"""Staging folders: one writer per output folder, unfinished results kept out of sight."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import (
    hidden_name,
    made_folder,
    private_folder,
    private_folders,
    publish,
    refuse_links,
    remove_leftovers,
    take_back,
)

LOCK = ".lock"
"""Name of the lock inside a folder; it is no content of the folder."""

_CONTENT = "content"


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
    with only_writer_in(destination, doing):
        for leftover in private_folders(destination, ""):
            shutil.rmtree(leftover, ignore_errors=True)
        remove_leftovers(destination)
        with private_folder(destination) as folder:
            yield folder


@contextmanager
def whole_output(output: Path) -> Iterator[Path]:
    """Yield an empty folder; its content is moved into `output` at the end, as a whole.

    The folder lies in a private one beside `output`, or inside it if it exists already. If
    anything fails, nothing of it appears; if the process is killed, the next run with the same
    output removes what it left.

    Args:
        output: new, or a folder that has nothing of the same names.

    Raises:
        InputError: if `output` is a file or a broken link, if another run writes there, or if
            something of the same name has come up there meanwhile.
    """
    if output.is_dir():
        output = output.resolve()
        place, name = output, ""
    else:
        if os.path.lexists(output):
            raise InputError(f"{output} is a file: name a folder for the results.")
        place, name = output.parent, output.name
    with (
        made_folder(place),
        _locked_by(place.resolve() / hidden_name(name, LOCK), output, "writing"),
    ):
        place = place.resolve()
        for leftover in private_folders(place, name):
            take_back(_targets(leftover / _CONTENT, output))
            shutil.rmtree(leftover, ignore_errors=True)
        with private_folder(place, name) as folder:
            content = folder / _CONTENT
            content.mkdir()
            yield content
            _publish(content, output)


@contextmanager
def only_writer(file: Path, doing: str) -> Iterator[None]:
    """Hold the lock of a file that is written at the end, or repeatedly.

    Args:
        file: its folder is made if it is not there.
        doing: what is done there, one word such as "training", for the message.

    Raises:
        InputError: if another run holds it, or it cannot be locked.
    """
    place = file.parent
    with made_folder(place), _locked_by(place / hidden_name(file.name, LOCK), file, doing):
        yield


@contextmanager
def only_writer_in(folder: Path, doing: str) -> Iterator[None]:
    """Hold the lock of a folder that is filled bit by bit, `LOCK` inside it.

    Args:
        folder: made if it is not there.
        doing: what is done there, one word such as "converting", for the message.

    Raises:
        InputError: if another run holds it, or it cannot be locked.
    """
    with made_folder(folder), _locked_by(folder / LOCK, folder, doing):
        yield


def _publish(content: Path, output: Path) -> None:
    """Move the whole content of a folder into `output`, or nothing."""
    if not os.path.lexists(output):
        content.rename(output)
        return
    for one, target in _targets(content, output):
        refuse_links(target)
        if one.is_dir():
            target.mkdir(exist_ok=True)
    publish([pair for pair in _targets(content, output) if not pair[0].is_dir()])


def _targets(content: Path, output: Path) -> list[tuple[Path, Path]]:
    """Files and folders in `content`, with their targets in `output`."""
    return [(one, output / one.relative_to(content)) for one in sorted(content.rglob("*"))]


@contextmanager
def _locked_by(file: Path, output: Path, doing: str) -> Iterator[None]:
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
                f"Another run is {doing} into {output}: wait until it ends, or give another folder."
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
