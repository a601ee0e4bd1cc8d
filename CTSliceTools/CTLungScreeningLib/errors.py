"""Errors that are not bugs: unusable input, and cancellation."""

import errno
import tokenize
import traceback
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE_SETS = {
    "keras": "train",
    "onnx": "train",
    "tensorboard": "train",
    "tensorflow": "train",
    "sklearn": "risk",
    "skops": "risk",
    "xgboost": "risk",
    "dask": "cluster",
    "distributed": "cluster",
}
"""The optional set of packages, an extra in `pyproject.toml`, that a module belongs to."""


DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError),
    *(ValueError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
"""What Python, NumPy, zipfile and skops raise for a file that is damaged or made to harm."""


class InputError(ValueError):
    """Input that cannot be used: one sentence that names the file and says what to do.

    The command line prints the sentence and exits with status 2; the panel shows it.
    """


class Cancelled(Exception):  # noqa: N818 - not an error
    """Raised out of a progress callback to stop the work at the next step."""


@contextmanager
def missing_packages_named() -> Iterator[None]:
    """Replace the error of a missing optional module by one that says how to install it.

    Raises:
        InputError: instead of ModuleNotFoundError, if the module is in `PACKAGE_SETS`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").split(".")[0]
        if name not in PACKAGE_SETS:
            raise
        extra = PACKAGE_SETS[name]
        raise InputError(
            f"This needs the package {name}, which is not installed: run "
            f"`pip install '.[{extra}]'` in a clone of CTLungScreening."
        ) from error


def sentence_of(error: BaseException) -> str:
    """Describe an error in one sentence for a terminal, with a remedy if there is one.

    Args:
        error: `InputError`; an error of the operating system or SimpleITK, such as a full disk; or
            anything else, which is reported as a bug.
    """
    text = one_line(error)
    if is_of_users(error):
        return _of_users(error, text)
    at = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"Internal error: {type(error).__name__}: {text} "
        f"({Path(at.filename).name}, line {at.lineno}); please report it."
    )


def _of_users(error: BaseException, text: str) -> str:
    if isinstance(error, InputError):
        return text
    if isinstance(error, OSError):
        while error.errno is None and isinstance(error.__cause__, OSError):
            error = error.__cause__  # pydicom puts a traceback into the text of another error
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        where = one_line(" and ".join(names)) if names else "A file"
        remedy = _REMEDY.get(error.errno, _LOOK)
        return f"{where} cannot be read or written ({error.strerror or text}): {remedy}."
    if _out_of_memory(error):
        return "There is not enough memory: close programs, or use a smaller scan or batch."
    if isinstance(error, RecursionError):
        return "A file is nested too deeply to be read: download it again."
    if isinstance(error, OverflowError):
        return f"A number is too large ({text}): use a smaller one."
    return f"A file cannot be read or written ({text[-200:]}): {_LOOK}."


_LOOK = "check that the disk has space and that you may write there"
_REMEDY: dict[int | None, str] = {
    errno.ENOSPC: "free space on the disk",
    errno.EDQUOT: "free space on the disk",
    errno.EFBIG: "choose a disk that allows larger files",
    errno.EACCES: "choose another place, or change its permissions",
    errno.EPERM: "choose another place, or change its permissions",
    errno.EROFS: "choose another place for the output",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ENOENT: "check that it exists",
    errno.EEXIST: "choose another name for the output",
    errno.ENOTDIR: "name a folder",
    errno.EISDIR: "name a file",
}


def is_of_users(error: BaseException) -> bool:
    """Whether an error is caused by input or environment, not by a bug."""
    causes = (InputError, RecursionError, OverflowError, OSError)
    return isinstance(error, causes) or _out_of_memory(error) or _of_itk(error)


def _out_of_memory(error: BaseException) -> bool:
    """Whether Python, NumPy, TensorFlow or ITK ran out of memory."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "ResourceExhaustedError"
        or (_of_itk(error) and "allocate memory" in str(error))
    )


def _of_itk(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and ("sitk" in str(error) or "ITK" in str(error))


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, which gets an `s` unless it is one."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def one_line(text: object) -> str:
    """Return a text on one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
