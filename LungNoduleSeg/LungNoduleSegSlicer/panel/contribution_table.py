"""The features that moved a trained model's probability, as bars in a table of the panel."""

from typing import Any

import qt

from CTLungScreeningSlicer.panel.table_height import fit_height
from LungNoduleSegLib.risk.features import SCAN_FEATURES
from LungNoduleSegLib.risk.prediction import SHOWN, RiskPrediction

BAR = (60, 12)
"""Width and height of the longest bars to both sides together, in pixels."""

RAISES, LOWERS = "#d55e00", "#0072b2"


def fill_contributions(table: Any, prediction: RiskPrediction) -> None:
    """Show the features that moved it most, each with its value and its part of the log odds."""
    shown = prediction.contributions[:SHOWN]
    table.rowCount = len(shown)
    most = max((abs(one.log_odds) for one in shown), default=0) or 1
    for row, one in enumerate(shown):
        about = SCAN_FEATURES[one.feature]
        value = "–" if one.value is None else f"{one.value:.4g} {about.unit}".strip()
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
