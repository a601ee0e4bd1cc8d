"""Writing without loss: a temporary name first, then a rename that never overwrites."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from CTLungScreeningLib.errors import InputError


def beside(path: Path | None, suffix: str) -> Path | None:
    """Give the path beside another whose name is that one's with an addition; None for None."""
    return None if path is None else path.with_name(path.name + suffix)


def refuse_existing(folder: Path, names: Iterable[str]) -> None:
    """Raise `InputError` if any of `names` is already in `folder`."""
    there = sorted(name for name in names if (folder / name).exists())
    if there:
        raise InputError(
            f"{folder} already holds {', '.join(there)}: choose another output folder, "
            "nothing was overwritten."
        )


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the name `path`.

    The temporary name keeps every suffix of `path`, so that writers that choose the format by
    suffix work. On an exception the temporary file is removed and `path` is not made.

    Raises:
        InputError: if `path` exists.
    """
    refuse_existing(path.parent, [path.name])
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield temporary
        refuse_existing(path.parent, [path.name])
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Give a file new text in one step: whatever fails, the old or the new is there as a whole.

    For files of our own that are edited again and again; the caller sees to it that it is one.

    Raises:
        InputError: if it cannot be written.
    """
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): make room or choose another folder."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
