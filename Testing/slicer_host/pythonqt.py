"""Makes PySide6 refuse what Slicer's PythonQt refuses.

PySide6 lets any attribute be set, PythonQt only what the class has as a writable property; and
methods that return a value of a type which PythonQt does not know fail when they are called. What a
class has is in `Testing/pythonqt_table.json`.
"""

import sys
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from pythonqt_table import read_table

from __feature__ import true_property  # isort: skip  # noqa: F401

STAND_IN = "slicer_host"
"""Beginning of the names of modules that may set whatever they like."""


def be_strict(stand_ins: tuple[type, ...]) -> None:
    """Check each attribute of a Qt object that is set from now on.

    Args:
        stand_ins: classes of ours that stand for those of CTK and Slicer.
    """
    for part in (QtCore, QtGui, QtWidgets):
        for one in vars(part).values():
            if isinstance(one, type) and issubclass(one, QtCore.QObject):
                one.__setattr__ = _set  # type: ignore[method-assign,assignment]
                _refuse_unknown(one)
    for one in stand_ins:
        _known[one] = read_table().get(one.__name__)


_known: dict[type, dict[str, set[str]] | None] = {}
"""What a class has; None for Python classes and others that may have any attribute."""


def _what_has(kind: type) -> dict[str, set[str]] | None:
    if kind not in _known:
        of_qt = kind.__module__.startswith("PySide6")
        names = [one.__name__ for one in kind.__mro__] if of_qt else []
        _known[kind] = next((read_table()[one] for one in names if one in read_table()), None)
    return _known[kind]


def _set(self: Any, name: str, value: Any) -> None:
    has = _what_has(type(self))
    if isinstance(value, QtCore.SignalInstance):  # PySide6 itself, as a signal is connected
        self.__dict__[name] = value
        return
    if has is not None and not _caller().startswith(STAND_IN):
        if name not in has["writable"]:
            kind = type(self).__name__
            raise AttributeError(f"'{name}' does not exist on {kind}, or cannot be set")
        if name == "toolTip":
            value = wrapped(value)
    attribute = getattr(type(self), name, None)
    if isinstance(attribute, property):
        attribute.__set__(self, value)
    elif isinstance(attribute, QtCore.Property):
        self.setProperty(name, value)
    else:
        self.__dict__[name] = value


def _refuse_unknown(kind: type) -> None:
    """Let the methods fail whose return type PythonQt does not know."""

    def refuse(self: Any, *_arguments: Any) -> None:
        raise ValueError(f"{type(self).__name__}: return type is unknown to PythonQt")

    for name in read_table().get(kind.__name__, {}).get("unknown", ()):
        setattr(kind, name, refuse)


def _caller() -> str:
    """Give the name of the module that asks for an attribute."""
    return str(sys._getframe(2).f_globals.get("__name__", ""))


def wrapped(tool_tip: str) -> str:
    """Give a tool tip as Slicer gives it back: plain words become paragraphs."""
    if not tool_tip or QtGui.Qt.mightBeRichText(tool_tip):
        return tool_tip
    return QtGui.Qt.convertFromPlainText(tool_tip, QtGui.Qt.WhiteSpaceNormal)
