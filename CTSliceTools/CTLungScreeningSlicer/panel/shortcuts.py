"""Keyboard shortcuts that are active while a section is in use."""

from collections.abc import Callable, Mapping
from typing import Any

import qt
import slicer


class KeyShortcuts:
    """Keys that call functions anywhere in Slicer's windows, between `enable` and `disable`.

    Slicer's own shortcuts on the same keys rest meanwhile. A text field that has the focus gets
    its keys as ever: Qt offers them to it before any shortcut.

    Attributes:
        handlers: function by key, such as "1" or "Ctrl+Z".
    """

    def __init__(self, handlers: Mapping[str, Callable[[], object]]) -> None:
        self.handlers = handlers
        self._ours: list[Any] = []
        self._resting: list[Any] = []
        self._without_key: list[tuple[Any, Any]] = []

    @property
    def enabled(self) -> bool:
        """Whether the keys are alive."""
        return bool(self._ours)

    def enable(self) -> None:
        """Make the keys work; without a main window there are none."""
        window = slicer.util.mainWindow()
        if self.enabled or window is None:
            return
        self._rest_others(window)
        for key, handler in self.handlers.items():
            shortcut = qt.QShortcut(qt.QKeySequence(key), window)
            shortcut.context = qt.Qt.ApplicationShortcut
            shortcut.autoRepeat = False
            shortcut.activated.connect(handler)
            self._ours.append(shortcut)

    def disable(self) -> None:
        """Take the keys away and give Slicer's own back."""
        for shortcut in self._ours:
            shortcut.enabled = False
            shortcut.deleteLater()
        for shortcut in self._resting:
            shortcut.enabled = True
        for action, key in self._without_key:
            action.shortcut = key
        self._ours, self._resting, self._without_key = [], [], []

    def _rest_others(self, window: Any) -> None:
        """Turn off shortcuts on our keys: two on one key would both be dead."""
        keys = {qt.QKeySequence(key).toString() for key in self.handlers}
        for shortcut in window.findChildren(qt.QShortcut):
            if shortcut.enabled and shortcut.key.toString() in keys:
                shortcut.enabled = False
                self._resting.append(shortcut)
        for action in window.findChildren(qt.QAction):
            if action.shortcut.toString() in keys:
                self._without_key.append((action, action.shortcut))
                action.shortcut = qt.QKeySequence()
