"""A form for what models of risk ask: what the image tells stands there until somebody tells it."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, get_args

import qt
from slicer.i18n import tr as _

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.risk.facts import LABELS


@dataclass(frozen=True)
class Known:
    """What is known of a fact as long as nobody tells it: a value and who says it."""

    value: Any
    origin: str

    def __str__(self) -> str:
        return f"{in_words(self.value)} ({self.origin})"


class ClinicalDataForm:
    """Fills a grid of a .ui file with a row for each fact: its name, and a field for it.

    A choice has as its first entry what is known, or that nothing is; a number shows it in grey.
    Choosing that entry, or emptying the field, takes back what was told. The names of facts that
    matter to the results are bold.
    """

    def __init__(
        self,
        layout: Any,
        groups: Mapping[str, Mapping[str, Any]],
        tell: Callable[[str, Any], None],
    ) -> None:
        """Build the rows.

        Args:
            layout: an empty QGridLayout.
            groups: by their headings, "" for none: type of each fact by its name, as type hints
                give it.
            tell: called with a fact's name and its new value, None if it was taken back, or with
                the text of a number that is none.
        """
        self._tell = tell
        self._rows: dict[str, Any] = {}
        self._labels: dict[str, Any] = {}
        layout.setColumnStretch(0, 1)
        layout.setColumnStretch(1, 1)
        for heading, kinds in groups.items():
            if heading:
                title = qt.QLabel(f"<i>{heading}</i>")
                layout.addWidget(title, layout.rowCount(), 0, 1, 2)
            for name, kind in kinds.items():
                self._add(layout, name, get_args(kind)[0] if get_args(kind) else kind)

    def _add(self, layout: Any, name: str, kind: Any) -> None:
        self._rows[name] = row = _row(kind)
        text = f"{LABELS[name][0].upper()}{LABELS[name][1:]}"
        self._labels[name] = label = qt.QLabel(text)
        label.wordWrap = True
        row.widget.objectName = f"fact_{name}"
        row.widget.toolTip = text
        row.connect(lambda: self._changed(name))
        line = layout.rowCount()
        layout.addWidget(label, line, 0)
        layout.addWidget(row.widget, line, 1)

    def mark(self, names: Collection[str]) -> None:
        """Make the names of these facts bold, and of no others."""
        for name, label in self._labels.items():
            font = qt.QFont(label.font)
            font.setBold(name in names)
            label.font = font

    def show(self, known: Mapping[str, Known], told: Mapping[str, Any]) -> None:
        """Show what is known without anybody's telling, and what was told."""
        for name, row in self._rows.items():
            row.show(known.get(name), told.get(name))

    def _changed(self, name: str) -> None:
        row = self._rows[name]
        value = row.read()
        if value != row.told:
            self._tell(name, value)


class _Choice:
    """One of some values, in a combo box."""

    def __init__(self, values: Iterable[Any]) -> None:
        self.told: Any = None
        self._values = [None, *values]
        self.widget = qt.QComboBox()
        self.widget.sizeAdjustPolicy = qt.QComboBox.AdjustToMinimumContentsLengthWithIcon
        self.widget.minimumContentsLength = 8
        for value in self._values:
            self.widget.addItem("" if value is None else in_words(value))

    def connect(self, slot: Callable[[], None]) -> None:
        self.widget.activated.connect(lambda *_: slot())

    def read(self) -> Any:
        return self._values[self.widget.currentIndex]

    def show(self, known: Known | None, told: Any) -> None:
        self.told = told
        self.widget.setItemText(0, _("unknown") if known is None else str(known))
        self.widget.currentIndex = self._values.index(told)


class _Number:
    """A number, in a line."""

    def __init__(self, kind: type) -> None:
        self.told: Any = None
        self._kind = kind
        self._shown = ""
        self.widget = qt.QLineEdit()

    def connect(self, slot: Callable[[], None]) -> None:
        self.widget.editingFinished.connect(slot)

    def read(self) -> Any:
        text = self.widget.text.strip()
        if text == self._shown:
            return self.told
        try:
            return self._kind(text.replace(",", ".")) if text else None
        except ValueError:
            return text

    def show(self, known: Known | None, told: Any) -> None:
        self.told = told
        self.widget.placeholderText = _("unknown") if known is None else str(known)
        self._shown = "" if told is None else in_words(told)
        if self.widget.text != self._shown:
            self.widget.text = self._shown


def _row(kind: Any) -> Any:
    if kind is bool:
        return _Choice((True, False))
    if issubclass(kind, StrEnum):
        return _Choice(kind)
    return _Number(kind)


def in_words(value: Any) -> str:
    """Write a value for people."""
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def require_number(name: str, value: Any) -> None:
    """Raise `InputError` if a value is a text that is no number."""
    if type(value) is str:
        raise InputError(f"“{value}” is not a number. Enter a number for {LABELS[name]}.")
