"""Signals of plain Python, as Qt's are not reliable in Python classes; and functions that wait."""

from collections.abc import Callable
from typing import Any

import qt


class Signal:
    """Functions that are called, in the order in which they were connected, when it is emitted."""

    def __init__(self) -> None:
        self._slots: list[Callable[..., Any]] = []

    def connect(self, slot: Callable[..., Any]) -> None:
        """Have `slot` called from now on."""
        self._slots.append(slot)

    def emit(self, *arguments: Any) -> None:
        """Call all that are connected at this moment."""
        for slot in list(self._slots):
            slot(*arguments)


class Debounced:
    """Calls a function once the events that are now being handled have been."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._timer = qt.QTimer()
        # Not `.singleShot =`, which is a function as well.
        self._timer.setProperty("singleShot", True)
        self._timer.interval = 0
        self._timer.timeout.connect(function)

    def __call__(self, *_arguments: Any) -> None:
        """Have it called, once however often this is asked; takes what any event passes."""
        self._timer.start()

    @property
    def waiting(self) -> bool:
        """Whether it is still to be called."""
        return bool(self._timer.active)

    def cancel(self) -> None:
        """Have it not called."""
        self._timer.stop()
