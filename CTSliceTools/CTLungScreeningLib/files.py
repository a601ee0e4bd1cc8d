"""Writing without loss: into a private folder first, then to a name that nothing else has.

Nothing here follows a symbolic link inside an output folder, writes through one or replaces one.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from CTLungScreeningLib.errors import InputError


def beside(path: Path | None, suffix: str) -> Path | None:
    """Give the path beside another whose name is that one's with an addition; None for None."""
    return None if path is None else path.with_name(path.name + suffix)


def refuse_existing(folder: Path, names: Iterable[str]) -> None:
    """Raise `InputError` if any of `names` is already in `folder`, if only as a broken link."""
    there = sorted(name for name in names if os.path.lexists(folder / name))
    if there:
        raise InputError(
            f"{folder} already holds {', '.join(there)}: choose another output folder, "
            "nothing was overwritten."
        )


def refuse_links(*paths: Path) -> None:
    """Raise `InputError` if one of the paths is a symbolic link."""
    for path in paths:
        if path.is_symlink():
            raise InputError(
                f"{path} is a link, and nothing in an output folder is written through links: "
                "remove it, or choose another folder."
            )


@contextmanager
def private_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder in `parent` that only this user can open, and remove it at the end.

    Its name begins with `prefix` and cannot be guessed, so nobody can have put a link in its place.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success the file written there appears at `path`.

    The temporary file has the name of `path` in a private folder beside it, so that writers that
    choose the format by suffix work. On an exception `path` is not made.

    Raises:
        InputError: if there is something at `path`, if only a broken link.
    """
    refuse_existing(path.parent, [path.name])
    path.parent.mkdir(parents=True, exist_ok=True)
    with private_folder(path.parent, f".{path.name[:40]}-") as folder:
        temporary = folder / path.name
        yield temporary
        try:
            rename_new(temporary, path)
        except FileExistsError:
            refuse_existing(path.parent, [path.name])
            raise


def rename_new(file: Path, target: Path) -> None:
    """Rename a file, but never over another, which `os.rename` does on POSIX.

    Raises:
        FileExistsError: if there is something at `target`, if only a broken link.
        OSError: if it cannot be renamed.
    """
    try:
        os.link(file, target)
    except FileExistsError:
        raise
    except OSError:  # No hard links here, or another file system.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        file.rename(target)
    else:
        file.unlink()


def make_folders(root: Path, folder: Path) -> None:
    """Make a folder below `root`, none of whose parents below `root` may be a link.

    Raises:
        InputError: if one of them is a link.
        OSError: if one cannot be made.
    """
    inside = root
    for part in folder.relative_to(root).parts:
        inside /= part
        refuse_links(inside)
        inside.mkdir(exist_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Give a file new text in one step: whatever fails, the old or the new is there as a whole.

    For files of our own that are edited again and again; the caller sees to it that it is one.

    Raises:
        InputError: if it cannot be written, or is a link.
    """
    refuse_links(path)
    try:
        with private_folder(path.parent, f".{path.name[:40]}-") as folder:
            temporary = folder / path.name
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): make room or choose another folder."
        ) from error
