"""The two ways in which work ends early without a fault in the program."""

from collections.abc import Iterator
from contextlib import contextmanager

PACKAGE_SETS = {
    "keras": "train",
    "tensorboard": "train",
    "tensorflow": "train",
    "sklearn": "risk",
    "skops": "risk",
    "xgboost": "risk",
    "dask": "cluster",
    "distributed": "cluster",
    "slicer": "host",
}
"""The optional set of packages, an extra in `pyproject.toml`, that brings a module."""


class InputError(ValueError):
    """Input that cannot be used: one sentence that names the file and says what to do.

    The command line prints the sentence and exits with status 2; the panel shows it.
    """


class Cancelled(Exception):  # noqa: N818 - not an error: somebody pressed Cancel
    """Raised out of a progress callback to stop the work at the next step."""


@contextmanager
def missing_packages_named() -> Iterator[None]:
    """Turn a missing module of an optional set into the sentence that says how to install it.

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
