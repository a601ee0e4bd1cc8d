"""The results of models and guidelines for a nodule, in a table of the panel."""

from typing import Any

import qt
from slicer.i18n import tr as _

from LungNoduleSegLib.risk.assessment import Assessment
from LungNoduleSegLib.risk.guidelines import GuidelineResult
from LungNoduleSegLib.risk.logistic_model import ModelResult


def fill_results(table: Any, one: Assessment) -> None:
    """Show a row for each model and guideline: with its source, the result and what follows."""
    rows = [_model_row(result) for result in one.models]
    rows += [_guideline_row(result) for result in one.guidelines]
    table.rowCount = len(rows)
    for row, (texts, tip) in enumerate(rows):
        for column, text in enumerate(texts):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(tip)
            table.setItem(row, column, item)
    table.resizeRowsToContents()


def _model_row(result: ModelResult) -> tuple[tuple[str, str, str], str]:
    known = result.probability is not None
    percent = f"{100 * (result.probability or 0):.1f} %" if known else "–"
    terms = [f"{result.constant:+.2f} {_('constant')}"] if known else []
    terms += [f"{term.log_odds:+.2f} {term.label}" for term in result.contributions]
    follows = " ".join(result.warnings) if known else _why_not(result)
    heading = _("Log odds:") if terms else ""
    return (
        (f"{result.model}\n{result.source}", percent, follows),
        "\n".join(line for line in (result.scope, heading, *terms) if line),
    )


def _guideline_row(result: GuidelineResult) -> tuple[tuple[str, str, str], str]:
    follows = result.management if result.category else _why_not(result)
    return (
        (f"{result.guideline}\n{result.source}", result.category or "–", follows),
        "\n".join(line for line in (result.scope, result.reason, *result.notes) if line),
    )


def _why_not(result: ModelResult | GuidelineResult) -> str:
    return result.not_for or _("Missing: {missing}.").format(missing=", ".join(result.missing))
