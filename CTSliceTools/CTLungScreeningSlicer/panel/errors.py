"""Show unusable input as one sentence instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

import slicer

from CTLungScreeningLib.errors import InputError


@contextmanager
def shown_errors() -> Iterator[None]:
    """Show an `InputError` raised within, and go on after it."""
    try:
        yield
    except InputError as problem:
        slicer.util.errorDisplay(str(problem))
