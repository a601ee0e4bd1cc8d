"""What all plots share."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import rc_context


@contextmanager
def plain_text() -> Iterator[None]:
    """Draw texts as they are, such as names of files: no `$` in them begins a formula.

    Letters that the font lacks become boxes without a warning.
    """
    with rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield
