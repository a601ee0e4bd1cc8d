"""Show unusable input as one sentence instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

import slicer
from slicer.i18n import tr as _

from CTLungScreeningLib.errors import InputError

OLDEST = 5, 10
"""The oldest Slicer that has all that is used."""


@contextmanager
def shown_errors() -> Iterator[None]:
    """Show an `InputError` raised within, and go on after it; so with what an old Slicer lacks."""
    try:
        yield
    except InputError as problem:
        slicer.util.errorDisplay(str(problem), windowTitle=_("Cannot continue"))
    except (AttributeError, ImportError) as problem:
        text = lacking(problem)
        if not text:
            raise
        slicer.util.errorDisplay(text, windowTitle=_("Slicer is too old"))


def lacking(problem: Exception) -> str:
    """Say in one sentence that this Slicer is too old, "" if it is not, or that is not the reason.

    Args:
        problem: that was raised; a class or method that is missing is told by an `AttributeError`
            or `ImportError`.
    """
    version = int(slicer.app.majorVersion), int(slicer.app.minorVersion)
    if version >= OLDEST or not isinstance(problem, AttributeError | ImportError):
        return ""
    return _(
        "This is Slicer {major}.{minor}, which lacks something that is needed here ({problem}): "
        "install Slicer {oldest} or newer."
    ).format(major=version[0], minor=version[1], problem=problem, oldest=".".join(map(str, OLDEST)))
