"""Plain-Python signals: own Qt signals are unreliable in Python classes under PythonQt."""

from collections.abc import Callable
from typing import Any


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
