"""The first section: find the lungs and nodules of the volume."""

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from CTSliceToolsLib.child_work import Work
from CTSliceToolsLib.panel.model_chooser import ModelChooser
from CTSliceToolsLib.panel.packages import ensure_packages
from CTSliceToolsLib.panel.run_bar import RunBar
from LungNoduleSegLib.scene.logic import LungNoduleSegLogic
from LungNoduleSegLib.scene.result_nodes import ResultNodes
from LungNoduleSegLib.widgets.section import Section

TITLE = "Lung Nodule Segmentation"


class SegmentSection(Section):
    """One button that runs the whole way, in a child process.

    Attributes:
        run_bar: runs it.
    """

    def __init__(
        self, ui: Any, logic: LungNoduleSegLogic, model: ModelChooser, requirements: Path
    ) -> None:
        """Build the section; `requirements` are installed when a run is first started."""
        super().__init__()
        self._ui, self._logic, self._model = ui, logic, model
        self._requirements = requirements
        self._volume: Any = None
        self.run_bar = RunBar(
            ui.segmentRun,
            _("Apply"),
            _("Find the lungs and nodules of the volume and put them into the scene."),
            self._make_work,
            self._show,
        )

    def set_volume(self, volume: Any | None) -> None:
        """Work on a volume from now on."""
        self._volume = volume
        self.run_bar.set_obstacle("" if volume is not None else _("Choose a chest CT first."))

    def set_results(self, results: ResultNodes | None) -> None:
        """Say what has been found."""
        self._ui.resultLabel.text = "" if results is None else summary(results)

    def stop(self) -> None:
        """End the run, if there is one, with its child process."""
        self.run_bar.runner.stop()

    def _make_work(self) -> Work[ResultNodes] | None:
        if not ensure_packages(self._requirements, TITLE):
            return None
        return self._logic.processWork(self._volume, modelFile=self._model.file)

    def _show(self, nodes: ResultNodes) -> None:
        selection = slicer.app.applicationLogic().GetSelectionNode()
        selection.SetActiveTableID(nodes.table.GetID())
        self.changed.emit()


def summary(results: ResultNodes) -> str:
    """Say how many nodules there are, and which nodes hold them."""
    count = results.table.GetNumberOfRows()
    found = _("1 nodule") if count == 1 else _("{count} nodules").format(count=count)
    return _("{found}; see {nodes} in the scene.").format(
        found=found, nodes=f"{results.segmentation.GetName()}, {results.table.GetName()}"
    )
