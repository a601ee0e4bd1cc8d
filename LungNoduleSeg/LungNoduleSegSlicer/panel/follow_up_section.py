"""The section Follow-up: a prior scan beside the current one, and what became of the nodules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from CTLungScreeningLib.child_process import Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.panel.packages import ensure_packages
from CTLungScreeningSlicer.panel.run_bar import RunBar
from CTLungScreeningSlicer.panel.section import Section
from CTLungScreeningSlicer.panel.side_by_side import SideBySide
from CTLungScreeningSlicer.panel.widgets import ModelChooser, fit_height, on_click, show_text
from CTLungScreeningSlicer.scene.mrml_volume import has_voxels
from LungNoduleSegLib.options import RunOptions
from LungNoduleSegLib.risk.growth_table import GROWTH_COLUMNS, Row
from LungNoduleSegLib.risk.timeline import check_days
from LungNoduleSegSlicer.panel.segment_section import TITLE, cost_text
from LungNoduleSegSlicer.scene.growth_logic import CHART_ROLE, growth_notes, same_levels
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic
from LungNoduleSegSlicer.scene.mrml_results import rows_of
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes, nodules_of

_CHANGE, _LINE = 2, 9
"""The widest column of the table, and the characters in one line of it."""

PAIR_WIDTH_MM = 120.0
"""Width of each view of a pair."""


class FollowUpSection(Section):
    """Compares two scans of one patient, and shows their nodules side by side.

    Attributes:
        run_bar: compares them, and finds the nodules of the prior scan if need be.
        views: the two slice views.
    """

    def __init__(
        self, ui: Any, logic: LungNoduleSegLogic, model: ModelChooser, requirements: Path
    ) -> None:
        """Build the section.

        Args:
            ui: widgets of the .ui file.
            logic: compares.
            model: gives the network that finds nodules of the prior scan.
            requirements: packages installed when a run is first started.
        """
        super().__init__()
        self._ui, self._logic, self._model = ui, logic, model
        self._requirements = requirements
        self._volume: Any = None
        self._prior: Any = None
        self._pair: tuple[Any, Any] = None, None
        self._has_image = False
        self._days = 0
        self._side_by_side = False
        self._results: ResultNodes | None = None
        self._growth: Any = None
        self._rows: list[Row] = []
        self._filled: list[Row] | None = None
        self.views = SideBySide()
        self.views.closed.connect(lambda: setattr(ui.followUpSideBySideBox, "checked", False))
        self.run_bar = RunBar(
            ui.compareRun,
            _("Compare"),
            _("Match the nodules of the scans and measure their growth."),
            self._make_work,
            lambda node: None,
        )
        self.run_bar.runner.ended.connect(lambda *_: self.changed.emit())
        header = ui.pairTable.horizontalHeader()
        header.highlightSections = False
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(_CHANGE, qt.QHeaderView.Stretch)
        ui.pairTable.itemSelectionChanged.connect(self._show_details)
        ui.pairTable.cellClicked.connect(lambda row, column: self.go_to_pair(row))
        on_click(ui.growthPlotButton, self._show_plot)
        on_click(ui.removeGrowthButton, self._remove)
        self._refresh()

    def set_parameters(self, parameters: Any | None) -> None:
        """Compare with the prior scan that the parameters name.

        The interval that was entered for a pair of scans is not taken for another pair.
        """
        last, self._pair = self._pair, (None, None)
        if parameters is not None:
            self._pair = parameters.volume, parameters.priorVolume
            if None not in last and last != self._pair:
                parameters.intervalDays = 0
        before = self._prior, self._has_image, self._days, self._side_by_side
        self._prior = parameters and parameters.priorVolume
        self._has_image = has_voxels(self._prior)
        self._days = parameters.intervalDays if parameters is not None else 0
        self._side_by_side = parameters is not None and parameters.followUpSideBySide
        if before != (self._prior, self._has_image, self._days, self._side_by_side):
            self._refresh()

    def set_volume(self, volume: Any | None) -> None:
        """Compare this scan from now on."""
        self._volume = volume

    def set_results(self, results: ResultNodes | None) -> None:
        """Show what became of the nodules."""
        self._results = results
        self._refresh()

    def stop(self) -> None:
        """Stop the run, and restore the earlier views."""
        self.run_bar.runner.stop()
        self.views.close()

    def go_to_pair(self, row: int) -> None:
        """Show a nodule of the table in the red view, and its place in the prior scan beside it."""
        self._ui.followUpSideBySideBox.checked = True
        one = self._rows[row]
        here, there = (_ras(one, scan) for scan in ("current", "prior"))
        self.views.show_points(here, there, PAIR_WIDTH_MM)

    def _prior_results(self) -> ResultNodes | None:
        return None if self._prior is None else self._logic.resultsOf(self._prior)

    def _refresh(self) -> None:
        """Show what the scene holds of the two scans."""
        ui, prior = self._ui, self._prior_results()
        problem = self._problem()
        self._growth = None
        if not problem and self._results is not None and prior is not None:
            self._growth = self._logic.growth.find(self._results, prior)
        self._rows = rows_of(self._growth, GROWTH_COLUMNS) if self._growth is not None else []
        self.run_bar.set_obstacle(problem)
        ui.priorLabel.text = problem or self._prior_text(prior)
        notes = growth_notes(self._growth) if self._growth is not None else []
        if self._growth is not None and self._results is not None:
            notes += self._logic.growth.warnings(self._results)
        show_text(ui.growthNotes, "\n".join(notes))
        for button in (ui.growthPlotButton, ui.removeGrowthButton):
            button.visible = self._growth is not None
        self._fill_table()
        self._show_views(prior)

    def _problem(self) -> str:
        if self._volume is None:
            return _("Choose a chest CT first.")
        if self._prior is None:
            return _("Choose a prior scan of the same patient.")
        if self._prior is self._volume:
            return _("The prior scan is the same as the current one. Choose another scan.")
        if not self._has_image:
            return _("{scan} has no image. Choose another prior scan.").format(
                scan=self._prior.GetName()
            )
        if self._results is None:
            return _("Find the nodules of {scan} first: press Apply.").format(
                scan=self._volume.GetName()
            )
        return ""

    def _prior_text(self, prior: ResultNodes | None) -> str:
        name = self._prior.GetName()
        if prior is None:
            text = _("{scan} has no results yet. Compare will find its nodules first.").format(
                scan=name
            )
            return f"{text} {cost_text(self._logic, self._prior, self._model.file)}"
        count = len(nodules_of(prior.table))
        text = _("{scan} has 1 nodule.") if count == 1 else _("{scan} has {count} nodules.")
        return text.format(scan=name, count=count)

    def _make_work(self) -> Work[Any] | None:
        if not ensure_packages(self._requirements, TITLE):
            return None
        assert self._results is not None
        priors = [self._prior]
        if self._ui.earlierScansBox.checked:
            earlier = self._logic.growth.earlierScans(self._prior)
            priors = [*(one for one in earlier if one is not self._volume), self._prior]
        days = self._days or None
        check_days(len(priors) + 1, days)
        return self._compare(priors, self._results, days)

    def _compare(self, volumes: Sequence[Any], current: ResultNodes, days: int | None) -> Work[Any]:
        prior = []
        for volume in volumes:
            results = self._logic.resultsOf(volume)
            if results is None:
                results = yield from self._logic.processWork(
                    volume, options=RunOptions(model=self._model.file)
                )
            prior.append(results)
        if current.table.GetScene() is None:
            raise InputError("The results of the current scan were deleted during the run.")
        return (yield from self._logic.growth.compareWork(prior, current, days))

    def _show_views(self, prior: ResultNodes | None) -> None:
        if not self._side_by_side or self._volume is None or self._prior in (None, self._volume):
            self.views.close()
            return
        self.views.show(self._volume, self._prior)
        self.views.keep_apart(_shown_with(self._results), _shown_with(prior))
        self.views.align(None if self._growth is None else same_levels(self._growth))

    def _show_plot(self) -> None:
        chart = self._growth.GetNodeReference(CHART_ROLE)
        if chart is not None:
            slicer.modules.plots.logic().ShowChartInLayout(chart)

    def _remove(self) -> None:
        """Remove all comparisons of the two scans, also earlier ones."""
        current, prior = self._results, self._prior_results()
        while current is not None and (growth := self._logic.growth.find(current, prior)):
            self._logic.growth.remove(growth)
        self.changed.emit()

    def _fill_table(self) -> None:
        table = self._ui.pairTable
        if self._rows == self._filled:
            return
        self._filled = self._rows
        table.clearSelection()
        table.rowCount = len(self._rows)
        for row, one in enumerate(self._rows):
            for column, text in enumerate(_texts(one)):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        table.visible = bool(self._rows)
        height = table.verticalHeader().defaultSectionSize
        for row, one in enumerate(self._rows):
            more_lines = len(str(one["change"])) // _LINE
            table.setRowHeight(row, height + qt.QFontMetrics(table.font).height() * more_lines)
        fit_height(table, 1, 6)
        self._show_details()

    def _show_details(self) -> None:
        row = self._ui.pairTable.currentRow()
        there = self._ui.pairTable.selectedItems() and row < len(self._rows)
        details = _details(self._rows[row]) if there else _("Select a row.")
        self._ui.pairDetails.text = details
        self._ui.pairDetails.visible = bool(self._rows)


def _ras(one: Row, scan: str) -> tuple[float, float, float]:
    """Position of a nodule, or its expected position, in one of the scans, RAS mm."""
    x, y, z = (float(one[f"{scan}_{axis}"] or 0) for axis in "xyz")
    return -x, -y, z


def _texts(one: Row) -> tuple[str, ...]:
    """Row of the table for a nodule at two times."""
    share = one["volume_change_percent"]
    return (
        _number(one["current_id"], 0),
        _number(one["prior_id"], 0),
        str(one["change"]),
        "" if share is None else f"{share:+.0f} %",
        _number(one["doubling_days"], 0),
    )


def _details(one: Row) -> str:
    """Further data of a nodule at two times."""
    lung_rads = one["lung_rads_change"]
    parts = (
        _("Mean diameter {mm} mm").format(mm=_both(one, "mean_mm", 1)),
        _("volume {mm3} mm³").format(mm3=_both(one, "volume_mm3", 0)),
        _("Lung-RADS: {change}").format(change=lung_rads) if lung_rads else "",
    )
    return ", ".join(filter(None, parts))


def _both(one: Row, what: str, digits: int) -> str:
    was, now = (_number(one[f"{scan}_{what}"], digits) for scan in ("prior", "current"))
    return f"{was} → {now}" if was and now else was or now


def _number(value: Any, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _shown_with(results: ResultNodes | None) -> list[Any]:
    """Nodes of a scan that would be drawn over the other one too."""
    return [] if results is None else [results.segmentation, results.fiducials]
