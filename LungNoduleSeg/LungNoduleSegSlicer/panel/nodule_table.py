"""The nodules as rows of a table widget, and the threshold that decides which are there."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import qt
from slicer.i18n import tr as _

from CTLungScreeningSlicer.panel.section import Debounced, Signal
from CTLungScreeningSlicer.panel.widgets import fit_height
from LungNoduleSegLib.nodules.table import COLUMNS, Column, Nodule, Verdict
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes
from LungNoduleSegSlicer.scene.review_logic import ReviewedNodule, ReviewLogic
from LungNoduleSegSlicer.scene.review_state import VERDICT_COLUMN

_SWATCH_PX = 12
_ROW_MARGIN_PX = 5

_LEAST_ROWS, _MOST_ROWS = 3, 10
"""Rows that the table has room for."""

_VERDICTS = (None, *Verdict)
"""Sort order of the column."""

_MARKS = {Verdict.ACCEPTED: "✓", Verdict.REJECTED: "✗", Verdict.UNCERTAIN: "?"}
_COLORS = {Verdict.ACCEPTED: "#3a9d4f", Verdict.REJECTED: "#e5533d", Verdict.UNCERTAIN: "#c77f00"}
"""Colours of verdicts, legible on a light and on a dark background."""


@dataclass(frozen=True)
class _Shown:
    """A column of the widget.

    Attributes:
        about: its title, unit and description.
        text: of a cell.
        key: what it is sorted by.
        falling: whether the first click on its title puts the greatest first.
    """

    about: Column
    text: Callable[[ReviewedNodule], str]
    key: Callable[[ReviewedNodule], Any]
    falling: bool = False


def _odds(one: ReviewedNodule) -> float:
    """Return the network's probability; what a person has drawn counts as more than certain."""
    return math.inf if one.nodule.probability is None else one.nodule.probability


_SHOWN = (
    _Shown(COLUMNS["id"], lambda one: str(one.nodule.id), lambda one: one.nodule.id),
    _Shown(
        replace(COLUMNS["diameter_mm"], title="Size", unit=""),
        lambda one: f"{one.nodule.diameter_mm:.1f} mm",
        lambda one: one.nodule.diameter_mm,
        falling=True,
    ),
    _Shown(COLUMNS["kind"], lambda one: _(one.nodule.kind), lambda one: one.nodule.kind),
    _Shown(
        replace(COLUMNS["probability"], title="Prob."),
        lambda one: _("manual") if one.nodule.probability is None else f"{_odds(one):.2f}",
        _odds,
        falling=True,
    ),
    _Shown(
        VERDICT_COLUMN,
        lambda one: f"{_MARKS[one.verdict]} {_(one.verdict)}" if one.verdict else "",
        lambda one: _VERDICTS.index(one.verdict),
    ),
)
_BY_PROBABILITY, _VERDICT = 3, 4


class NoduleTable:
    """Shows nodules, the most probable first until a title is clicked.

    A verdict is seen in its whole row: accepted is green, rejected is grey and struck out,
    uncertain is slanted.

    The selection stays with the place of a nodule, as a threshold may give it another number.

    Attributes:
        chosen: signal with the nodule of the row that the user has chosen, by mouse or key.
    """

    def __init__(self, widget: Any) -> None:
        """Give a table widget of a .ui file its columns."""
        self.chosen = Signal()
        self._widget = widget
        self._rows: list[ReviewedNodule] = []
        self._colors: Mapping[int, tuple[float, float, float]] = {}
        self._sorted_by, self._falling = _BY_PROBABILITY, True
        self._filling = False
        widget.columnCount = len(_SHOWN)
        for number, column in enumerate(_SHOWN):
            words = _(column.about.title), f"({column.about.unit})" if column.about.unit else ""
            title = qt.QTableWidgetItem("\n".join(filter(None, words)))
            title.setToolTip(_(column.about.description))
            widget.setHorizontalHeaderItem(number, title)
        header = widget.horizontalHeader()
        # Fitted once a filling: a header that fits itself does so for every single cell.
        header.setSectionResizeMode(qt.QHeaderView.Interactive)
        header.setSectionResizeMode(len(_SHOWN) - 1, qt.QHeaderView.Stretch)
        header.highlightSections = False
        header.showSortIndicator = True
        header.sectionClicked.connect(self.sort_by)
        widget.verticalHeader().visible = False
        widget.verticalHeader().setSectionResizeMode(qt.QHeaderView.Fixed)
        line_height = qt.QFontMetrics(widget.font).height()
        widget.verticalHeader().defaultSectionSize = line_height + _ROW_MARGIN_PX
        widget.itemSelectionChanged.connect(self._choose)
        widget.cellClicked.connect(lambda row, column: self._choose())

    @property
    def selected(self) -> ReviewedNodule | None:
        """The nodule of the selected row."""
        rows = {item.row() for item in self._widget.selectedItems()}
        return self._rows[rows.pop()] if len(rows) == 1 else None

    def show(
        self,
        nodules: Sequence[ReviewedNodule],
        colors: Mapping[int, tuple[float, float, float]],
    ) -> None:
        """Show these nodules and no others.

        Args:
            nodules: in any order.
            colors: red, green, blue from 0 to 1 by number, of those that have one.
        """
        before = self.selected
        self._rows, self._colors = list(nodules), colors
        self._fill(same_nodule(before.nodule, self._rows) if before else None)

    def sort_by(self, column: int) -> None:
        """Sort by a column, the other way round if it is sorted by it already."""
        again = column == self._sorted_by
        self._falling = not self._falling if again else _SHOWN[column].falling
        self._sorted_by = column
        self._fill(self.selected)

    def select(self, number: int) -> None:
        """Select a nodule by its number; the user has not chosen it, so `chosen` is silent."""
        self._select(next((one for one in self._rows if one.nodule.id == number), None))

    def step(self, by: int) -> None:
        """Choose the nodule `by` rows further down, from the last on to the first."""
        if self._rows:
            now = self.selected
            start = self._rows.index(now) if now else (-1 if by > 0 else 0)
            self._select(self._rows[(start + by) % len(self._rows)])
            self._choose()

    def _fill(self, selected: ReviewedNodule | None) -> None:
        self._rows.sort(key=lambda one: one.nodule.id)
        self._rows.sort(key=_SHOWN[self._sorted_by].key, reverse=self._falling)
        order = qt.Qt.DescendingOrder if self._falling else qt.Qt.AscendingOrder
        self._widget.horizontalHeader().setSortIndicator(self._sorted_by, order)
        self._filling = True
        self._widget.rowCount = len(self._rows)
        grey = qt.QBrush(self._widget.palette.color(qt.QPalette.Disabled, qt.QPalette.Text))
        for row, one in enumerate(self._rows):
            font = qt.QFont(self._widget.font)
            font.setStrikeOut(one.verdict is Verdict.REJECTED)
            font.setItalic(one.verdict is Verdict.UNCERTAIN)
            for number, column in enumerate(_SHOWN):
                item = qt.QTableWidgetItem(column.text(one))
                if number != _VERDICT:
                    item.setFont(font)
                if number != _VERDICT and one.verdict is Verdict.REJECTED:
                    item.setForeground(grey)
                elif one.verdict is Verdict.ACCEPTED or (one.verdict and number == _VERDICT):
                    item.setForeground(qt.QBrush(qt.QColor(_COLORS[one.verdict])))
                self._widget.setItem(row, number, item)
            if one.nodule.id in self._colors:
                self._widget.item(row, 0).setIcon(_swatch(self._colors[one.nodule.id]))
        self._widget.resizeColumnsToContents()
        self._widget.setColumnWidth(0, self._widget.sizeHintForColumn(0))
        fit_height(self._widget, _LEAST_ROWS, _MOST_ROWS)
        self._select(selected)

    def _select(self, one: ReviewedNodule | None) -> None:
        self._filling = True
        if one is None:
            self._widget.clearSelection()
            self._widget.setCurrentCell(-1, -1)
        else:
            self._widget.selectRow(self._rows.index(one))
        self._filling = False

    def _choose(self) -> None:
        if not self._filling and self.selected is not None:
            self.chosen.emit(self.selected.nodule)


def same_nodule(before: Nodule, now: Sequence[ReviewedNodule]) -> ReviewedNodule | None:
    """Find the nodule at the place of one that was there before, whatever its number is now."""

    def away(one: ReviewedNodule) -> float:
        place = one.nodule.x, one.nodule.y, one.nodule.z
        return math.dist(place, (before.x, before.y, before.z))

    nearest = min(now, key=away, default=None)
    if nearest is None:
        return None
    reach = max(before.diameter_mm, nearest.nodule.diameter_mm) / 2
    return nearest if away(nearest) <= reach else None


def _swatch(color: tuple[float, float, float]) -> Any:
    picture = qt.QPixmap(_SWATCH_PX, _SWATCH_PX)
    picture.fill(qt.QColor(*(round(255 * part) for part in color)))
    return qt.QIcon(picture)


class ThresholdSlider:
    """The threshold of the nodules as a slider.

    Attributes:
        moved: signal with the new threshold; places that it passed while the window was busy are
            left out.
    """

    def __init__(self, slider: Any, hint: Any, logic: ReviewLogic) -> None:
        """Take the widgets; `hint` is shown where there is nothing to move."""
        self.moved = Signal()
        self._slider, self._hint, self._logic = slider, hint, logic
        self._showing = False
        self._tell_soon = Debounced(lambda: self.moved.emit(slider.value))
        slider.valueChanged.connect(self._move)

    def show(self, results: ResultNodes | None, *, in_use: bool = False) -> None:
        """Show the threshold of results, unless the slider is `in_use` and goes before them."""
        threshold = None if results is None else self._logic.threshold(results)
        self._slider.enabled = threshold is not None
        self._hint.visible = threshold is None
        if results is None or threshold is None:
            return
        self._showing = True
        if self._logic.isReady(results):
            self._slider.minimum = self._logic.lowestThreshold(results)
        if not in_use and not self._tell_soon.waiting:
            self._slider.value = threshold
        self._showing = False

    def stop(self) -> None:
        """Move without a signal."""
        self._tell_soon.cancel()

    def _move(self, value: float) -> None:
        if not self._showing:
            self._tell_soon()
