"""Cancer risk in the panel: clinical data, results of each model, what moved a probability."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, get_args

import qt
from slicer.i18n import tr as _

from CTLungScreeningLib.colours import BLUE, VERMILION
from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.panel.widgets import fit_height
from LungNoduleSegLib.risk.assessment import Assessment
from LungNoduleSegLib.risk.facts import LABELS, fact_text
from LungNoduleSegLib.risk.features import SCAN_FEATURES
from LungNoduleSegLib.risk.guidelines import GuidelineResult
from LungNoduleSegLib.risk.lung_rads import ASSUMED_ABSENT
from LungNoduleSegLib.risk.prediction import SHOWN, RiskPrediction, feature_text
from LungNoduleSegLib.risk.published_models import ModelResult


@dataclass(frozen=True)
class Known:
    """The value of a fact that nobody has entered, in words, and its origin."""

    text: str
    origin: str

    def __str__(self) -> str:
        return f"{self.text} ({self.origin})"


class ClinicalDataForm:
    """Fills a grid of a .ui file with a row for each fact: its name, and a field for it.

    A combo box has the known value, or "unknown", as its first entry; a number shows it in grey.
    Choosing that entry, or emptying the field, withdraws the entered value. The names of facts that
    affect the results are bold.
    """

    def __init__(
        self,
        layout: Any,
        groups: Mapping[str, Mapping[str, Any]],
        enter: Callable[[str, Any], None],
    ) -> None:
        """Build the rows.

        Args:
            layout: an empty QGridLayout.
            groups: by their headings, "" for none: type of each fact by its name, as type hints
                give it.
            enter: called with a fact's name and its new value, None if it was withdrawn, or with
                the text, if it is not a number.
        """
        self._enter = enter
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

    def show(self, known: Mapping[str, Known], entered: Mapping[str, Any]) -> None:
        """Show known values, and those that a person entered."""
        for name, row in self._rows.items():
            row.show(known.get(name), entered.get(name))

    def _changed(self, name: str) -> None:
        row = self._rows[name]
        value = row.read()
        if value != row.entered:
            self._enter(name, value)


class _Choice:
    """A choice of values in a combo box."""

    def __init__(self, values: Iterable[Any]) -> None:
        self.entered: Any = None
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

    def show(self, known: Known | None, entered: Any) -> None:
        self.entered = entered
        self.widget.setItemText(0, _("unknown") if known is None else str(known))
        self.widget.currentIndex = self._values.index(entered)


class _Number:
    """A number, in a line."""

    def __init__(self, kind: type) -> None:
        self.entered: Any = None
        self._kind = kind
        self._shown = ""
        self.widget = qt.QLineEdit()

    def connect(self, slot: Callable[[], None]) -> None:
        self.widget.editingFinished.connect(slot)

    def read(self) -> Any:
        text = self.widget.text.strip()
        if text == self._shown:
            return self.entered
        try:
            return self._kind(text.replace(",", ".")) if text else None
        except ValueError:
            return text

    def show(self, known: Known | None, entered: Any) -> None:
        self.entered = entered
        self.widget.placeholderText = _("unknown") if known is None else str(known)
        self._shown = "" if entered is None else f"{entered:.10g}"
        if self.widget.text != self._shown:
            self.widget.text = self._shown


def _row(kind: Any) -> Any:
    if kind is bool:
        return _Choice((True, False))
    if issubclass(kind, StrEnum):
        return _Choice(kind)
    return _Number(kind)


def in_words(value: Any, name: str = "") -> str:
    """Write a value for people; a number by the name of its fact."""
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return fact_text(name, value)


def require_number(name: str, value: Any) -> None:
    """Raise `InputError` if a value is a text that is not a number."""
    if type(value) is str:
        raise InputError(f"“{value}” is not a number. Enter a number for {LABELS[name]}.")


BAR = (60, 12)
"""Width and height of the longest bars to both sides together, in pixels."""

RAISES, LOWERS = VERMILION, BLUE


def fill_contributions(table: Any, prediction: RiskPrediction) -> None:
    """Show the features that moved it most, each with its value and its part of the log odds."""
    shown = prediction.contributions[:SHOWN]
    table.rowCount = len(shown)
    most = max((abs(one.log_odds) for one in shown), default=0) or 1
    for row, one in enumerate(shown):
        about = SCAN_FEATURES[one.feature]
        value = "–" if one.value is None else f"{feature_text(one.value)} {about.unit}".strip()
        for column, text in enumerate((one.feature, value, f"{one.log_odds:+.3f}", "")):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(about.description)
            table.setItem(row, column, item)
        table.item(row, 3).setData(qt.Qt.DecorationRole, _bar(one.log_odds / most))
    fit_height(table, 1, len(shown))


def _bar(share: float) -> Any:
    """Draw a bar from the middle, to the right for what raises the probability."""
    width, height = BAR
    middle = width // 2
    length = max(1, round(abs(share) * middle))
    picture = qt.QPixmap(width, height)
    picture.fill(qt.QColor("transparent"))
    painter = qt.QPainter(picture)
    left = middle if share > 0 else middle - length
    painter.fillRect(left, 0, length, height, qt.QColor(RAISES if share > 0 else LOWERS))
    painter.end()
    return picture


NO_RESULT, WARNING = "–", "⚠"
_LONGEST_VALUE = 12
"""Characters that have room beside a name; a longer category stands below it."""


@dataclass(frozen=True)
class ResultRow:
    """One result in the panel.

    Attributes:
        name: of the guideline or model.
        value: the category or probability.
        detail: what follows from it, or why there is no result; may be empty.
        tool_tip: source, scope and how the result came about.
    """

    name: str
    value: str
    detail: str
    tool_tip: str


class RiskResults:
    """Fills a frame of a .ui file: guidelines first, then published models, then a trained one.

    Attributes:
        rows: what is shown now.
    """

    def __init__(self, layout: Any) -> None:
        """Take an empty QVBoxLayout to fill."""
        self.rows: tuple[ResultRow, ...] = ()
        self._layout = layout
        self._lines: list[_Line] = []

    def show(self, one: Assessment | None, prediction: RiskPrediction | None = None) -> None:
        """Show the results for a nodule, and the trained model's for its scan; None: no nodule."""
        models = one.models if one is not None else ()
        guidelines = one.guidelines if one is not None else ()
        rows = [_guideline_row(result) for result in guidelines]
        rows += [_model_row(result) for result in models]
        if prediction is not None:
            rows.append(_prediction_row(prediction))
        warnings = dict.fromkeys(
            [f"{one.guideline}: {notes}" for one in guidelines if (notes := _warnings(one))]
            + [warning for result in models for warning in result.warnings]
        )
        if warnings:
            rows.append(ResultRow("", "", f"{WARNING} {' '.join(warnings)}", ""))
        self.rows = tuple(rows)
        while len(self._lines) < len(rows):
            self._lines.append(_Line(self._layout))
        for number, line in enumerate(self._lines):
            line.show(rows[number] if number < len(rows) else None)


class _Line:
    """The labels of a row: name and value beside each other, the detail below."""

    def __init__(self, layout: Any) -> None:
        self._name, self._value, self._detail = qt.QLabel(), qt.QLabel(), qt.QLabel()
        self._name.wordWrap = self._detail.wordWrap = True
        self._value.alignment = qt.Qt.AlignRight | qt.Qt.AlignTop
        bold = qt.QFont(self._value.font)
        bold.setBold(True)
        self._value.font = bold
        line = qt.QHBoxLayout()
        line.addWidget(self._name, 1)
        line.addWidget(self._value)
        layout.addLayout(line)
        layout.addWidget(self._detail)

    def show(self, row: ResultRow | None) -> None:
        for label in (self._name, self._value, self._detail):
            label.visible = row is not None
        if row is not None:
            for label, text in (
                (self._name, row.name),
                (self._value, row.value),
                (self._detail, row.detail),
            ):
                label.text, label.toolTip = text, row.tool_tip
            self._name.visible = self._value.visible = bool(row.name)
            self._detail.visible = bool(row.detail)
            font = qt.QFont(self._name.font)
            font.setBold(bool(row.detail))
            self._name.font = font


def _guideline_row(result: GuidelineResult) -> ResultRow:
    value = result.category or result.provisional or NO_RESULT
    detail = result.management or result.not_for
    sign = f" {WARNING}" if _warnings(result) else ""
    if len(value) > _LONGEST_VALUE:
        value, detail = "", _lines(f"{value[0].upper()}{value[1:]}{sign}", detail)
    else:
        value += sign
    about = (result.source, result.scope, result.reason, *result.notes, _missing(result))
    return ResultRow(result.guideline, value, detail, _lines(*about))


def _warnings(result: GuidelineResult) -> str:
    """Return the notes but the one on facts assumed absent, which almost every nodule has."""
    return " ".join(note for note in result.notes if not note.startswith(ASSUMED_ABSENT))


def _model_row(result: ModelResult) -> ResultRow:
    value, terms = NO_RESULT, []
    if result.probability is not None:
        value = f"{100 * result.probability:.1f} %"
        terms = [_("Log odds:"), f"{result.constant:+.2f} {_('constant')}"]
        terms += [f"{term.log_odds:+.2f} {term.label}" for term in result.contributions]
        value += f" {WARNING}" if result.warnings else ""
    about = (result.source, result.scope, *terms, *result.warnings, _missing(result))
    return ResultRow(result.model, value, result.not_for, _lines(*about))


def _prediction_row(prediction: RiskPrediction) -> ResultRow:
    chance = prediction.probability
    return ResultRow(
        _("Trained model ({target})").format(target=prediction.target),
        NO_RESULT if chance is None else f"{100 * chance:.1f} %",
        "",
        _lines(f"{prediction.algorithm}, {prediction.model}", *prediction.warnings),
    )


def _missing(result: ModelResult | GuidelineResult) -> str:
    names = ", ".join(result.missing)
    return _("Missing: {names}.").format(names=names) if names else ""


def _lines(*texts: str) -> str:
    return "\n".join(filter(None, texts))
