"""Staging folders: one writer per output folder, unfinished results kept out of sight."""

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import private_folder, refuse_existing, refuse_links, rename_new

_LOCK = ".lock"
_UNFINISHED = ".unfinished-"
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
    destination.mkdir(parents=True, exist_ok=True)
    with _locked_by(destination / _LOCK, destination, doing):
        for leftover in _leftovers(destination, _UNFINISHED):
            shutil.rmtree(leftover, ignore_errors=True)
        with private_folder(destination, _UNFINISHED) as folder:
            yield folder


@contextmanager
def whole_output(output: Path, doing: str) -> Iterator[Path]:
    """Yield an empty folder; what is in it at the end comes into `output` as a whole.

    The folder lies in a private one beside `output`, or inside it if it exists already. If
    anything fails, nothing of it appears; if the process is killed, the next run with the same
    output removes what it left.

    Args:
        output: new, or a folder that has nothing of the same names.
        doing: what is done there, one word such as "writing", for the message.

    Raises:
        InputError: if `output` is a file or a broken link, if another run writes there, or if
            something of the same name has come up there meanwhile.
    """
    if output.is_dir():
        output = output.resolve()
        place, prefix = output, ""
    else:
        if os.path.lexists(output):
            raise InputError(f"{output} is a file: name a folder for the results.")
        output.parent.mkdir(parents=True, exist_ok=True)
        place, prefix = output.parent.resolve(), f".{output.name[:40]}"
    with _locked_by(place / (prefix + _LOCK), output, doing):
        for leftover in _leftovers(place, prefix + _UNFINISHED):
            _take_back(leftover / _CONTENT, output)
            shutil.rmtree(leftover, ignore_errors=True)
        with private_folder(place, prefix + _UNFINISHED) as folder:
            content = folder / _CONTENT
            content.mkdir()
            yield content
            _publish(content, output)


@contextmanager
def only_writer(file: Path, doing: str) -> Iterator[None]:
    """Hold the lock of a file that is written in the end, or again and again.

    Args:
        file: its folder is made if it is not there.
        doing: what is done there, one word such as "training", for the message.

    Raises:
        InputError: if another run holds it, or it cannot be locked.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with _locked_by(file.with_name(f".{file.name[:40]}{_LOCK}"), file, doing):
        yield


def _publish(content: Path, output: Path) -> None:
    """Give `output` all that is in `content`, or nothing."""
    if not os.path.lexists(output):
        content.rename(output)
        return
    try:
        for one in sorted(content.rglob("*")):
            target = output / one.relative_to(content)
            refuse_links(target)
            if one.is_dir():
                target.mkdir(exist_ok=True)
            else:
                _link(one, target)
    except FileExistsError as error:
        _take_back(content, output)
        refuse_existing(target.parent, [target.name])
        raise InputError(f"{target} is in the way: choose another output folder.") from error
    except BaseException:
        _take_back(content, output)
        raise


def _link(file: Path, target: Path) -> None:
    """Give a file a second name, which tells what is ours until the first is removed."""
    try:
        os.link(file, target)
    except FileExistsError:
        raise
    except OSError:  # no hard links here
        rename_new(file, target)


def _take_back(content: Path, output: Path) -> None:
    """Remove from `output` the files that are also in `content`: one file with two names."""
    for one in content.rglob("*"):
        target = output / one.relative_to(content)
        with suppress(OSError):
            if not one.is_dir() and os.path.samestat(one.lstat(), target.lstat()):
                target.unlink()


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


def _leftovers(parent: Path, prefix: str) -> list[Path]:
    """The folders of killed runs: real folders of this user's that nobody else can open."""
    found = []
    for entry in os.scandir(parent):
        if not entry.name.startswith(prefix):
            continue
        status = entry.stat(follow_symlinks=False)
        private = os.name != "posix" or (
            status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == stat.S_IRWXU
        )
        if stat.S_ISDIR(status.st_mode) and private:
            found.append(Path(entry.path))
    return found
