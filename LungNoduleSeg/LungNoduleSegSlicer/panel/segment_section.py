"""The first section: find the lungs and nodules of the volume."""

from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from CTLungScreeningLib.child_process import Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.panel.packages import ensure_packages
from CTLungScreeningSlicer.panel.run_bar import RunBar, duration_text
from CTLungScreeningSlicer.panel.section import Section, Signal
from CTLungScreeningSlicer.panel.widgets import ModelChooser, show_text
from CTLungScreeningSlicer.scene.mrml_volume import has_voxels
from LungNoduleSegLib.options import RunOptions
from LungNoduleSegLib.run_cost import ExpectedCost
from LungNoduleSegSlicer.panel.lungs_section import LungsSection
from LungNoduleSegSlicer.panel.views import show_results
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes, volume_node_of

TITLE = "Lung Nodule Segmentation"


class SegmentSection(Section):
    """One button that runs everything, in a child process.

    A run updates the results of the volume; a reader's changes to them are kept.

    Attributes:
        run_bar: runs it.
        finished: signal without arguments: the results of a run are in the scene.
    """

    def __init__(
        self,
        ui: Any,
        logic: LungNoduleSegLogic,
        model: ModelChooser,
        lungs: LungsSection,
        requirements: Path,
    ) -> None:
        """Build the section.

        Args:
            ui: widgets of the .ui file.
            logic: runs it.
            model: has the network.
            lungs: has the method of lung segmentation; updated before this section.
            requirements: packages installed when a run is first started.
        """
        super().__init__()
        self._ui, self._logic, self._model, self._lungs = ui, logic, model, lungs
        self._requirements = requirements
        self._volume: Any = None
        self._results: ResultNodes | None = None
        self._running: Any = None
        self.finished = Signal()
        self.run_bar = RunBar(
            ui.segmentRun,
            _("Apply"),
            _("Segment the lungs and find the nodules of the chest CT."),
            self._make_work,
            self._show,
        )

    def set_parameters(self, parameters: Any | None) -> None:
        """Show the cost of a run with these parameters; cancel it if its volume is gone."""
        if self.run_bar.runner.busy and self._running.GetScene() is None:
            self.run_bar.runner.cancel()
        self._show_cost()

    def set_volume(self, volume: Any | None) -> None:
        """Work on another volume."""
        self._volume = volume
        self.run_bar.set_obstacle("" if volume is not None else _("Choose a chest CT first."))
        self._show_cost()

    def set_results(self, results: ResultNodes | None) -> None:
        """Show the number of nodules."""
        self._results = results
        show_text(self._ui.resultLabel, "" if results is None else summary(results))

    def stop(self) -> None:
        """Stop the run and its child process."""
        self.run_bar.runner.stop()
        self._running = None

    def _make_work(self) -> Work[ResultNodes] | None:
        if not ensure_packages(self._requirements, TITLE):
            return None
        self._running = self._volume
        before = self._results
        nodes = () if before is None else (before.segmentation, before.table, before.fiducials)
        return self._logic.processWork(
            self._volume,
            *nodes,
            lungsNode=self._lungs.node,
            options=RunOptions(self._lungs.method, self._model.file),
        )

    def _show(self, results: ResultNodes) -> None:
        show_results(results, volume_node_of(results.segmentation))
        self.changed.emit()
        self.finished.emit()

    def _show_cost(self) -> None:
        text = ""
        if has_voxels(self._volume):
            try:
                cost = self._logic.expectedCost(self._volume, self._model.file, self._lungs.kind)
            except InputError as problem:
                text = str(problem)
            else:
                text = cost_text(cost)
        show_text(self._ui.costLabel, text)


def cost_text(cost: ExpectedCost) -> str:
    """Describe the time and memory that a run needs."""
    source = (
        _("from earlier runs on this computer")
        if cost.runs
        else _("measured on two cores; updated after your first run")
    )
    return _("Takes about {time} and {memory:.1f} GiB of memory ({source}).").format(
        time=duration_text(cost.seconds), memory=cost.gib, source=source
    )


def summary(results: ResultNodes) -> str:
    """Describe the number of nodules."""
    count = results.table.GetNumberOfRows()
    return _("1 nodule found.") if count == 1 else _("{count} nodules found.").format(count=count)
