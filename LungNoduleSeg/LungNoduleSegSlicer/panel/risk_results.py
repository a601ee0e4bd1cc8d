"""The results of guidelines and models for a nodule, one below the other in the panel."""

from dataclasses import dataclass
from typing import Any

import qt
from slicer.i18n import tr as _

from LungNoduleSegLib.risk.assessment import Assessment
from LungNoduleSegLib.risk.guidelines import GuidelineResult
from LungNoduleSegLib.risk.logistic_model import ModelResult
from LungNoduleSegLib.risk.prediction import RiskPrediction

NO_RESULT, WARNING = "–", "⚠"
_LONGEST_VALUE = 12
"""Characters that have room beside a name; a longer category stands below it."""


@dataclass(frozen=True)
class ResultRow:
    """What the panel shows of one result.

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
        """Take an empty QVBoxLayout."""
        self.rows: tuple[ResultRow, ...] = ()
        self._layout = layout
        self._lines: list[_Line] = []

    def show(self, one: Assessment | None, prediction: RiskPrediction | None = None) -> None:
        """Show the results for a nodule, and the trained model's for its scan; None: no nodule."""
        models = one.models if one is not None else ()
        rows = [_guideline_row(result) for result in (one.guidelines if one is not None else ())]
        rows += [_model_row(result) for result in models]
        if prediction is not None:
            rows.append(_prediction_row(prediction))
        warnings = dict.fromkeys(one for result in models for one in result.warnings)
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
    value, detail = result.category or NO_RESULT, result.management or result.not_for
    if len(value) > _LONGEST_VALUE:
        value, detail = "", _lines(f"{value[0].upper()}{value[1:]}", detail)
    about = (result.source, result.scope, result.reason, *result.notes, _missing(result))
    return ResultRow(result.guideline, value, detail, _lines(*about))


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
    return ResultRow(
        _("Trained model ({target})").format(target=prediction.target),
        f"{100 * prediction.probability:.1f} %",
        "",
        _lines(f"{prediction.algorithm}, {prediction.model}", *prediction.warnings),
    )


def _missing(result: ModelResult | GuidelineResult) -> str:
    names = ", ".join(result.missing)
    return _("Missing: {names}.").format(names=names) if names else ""


def _lines(*texts: str) -> str:
    return "\n".join(filter(None, texts))
