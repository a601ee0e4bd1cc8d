"""The first section: find the lungs and nodules of the volume, and take that back."""

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from CTSliceToolsLib.child_work import Work
from CTSliceToolsLib.panel.packages import ensure_packages
from CTSliceToolsLib.panel.run_bar import RunBar
from LungNoduleSegLib.scene.logic import LungNoduleSegLogic
from LungNoduleSegLib.scene.result_nodes import ResultNodes

TITLE = "Lung Nodule Segmentation"


class SegmentSection:
    """One button that runs the whole way, in a child process.

    Attributes:
        run_bar: runs it.
    """

    def __init__(self, ui: Any, logic: LungNoduleSegLogic, requirements: Path) -> None:
        """Build the section; `requirements` are installed when a run is first started."""
        self._ui, self._logic, self._requirements = ui, logic, requirements
        self._volume: Any = None
        self.run_bar = RunBar(
            ui.segmentRun,
            _("Apply"),
            _("Find the lungs and nodules of the volume and put them into the scene."),
            self._make_work,
            self._show,
        )
        ui.undoButton.clicked.connect(self._undo)
        self._clear()

    def set_volume(self, volume: Any | None) -> None:
        """Work on a volume from now on, or on none; a run goes on with the one it began with."""
        self._volume = volume
        self.run_bar.set_obstacle("" if volume is not None else _("Choose a chest CT first."))

    def stop(self) -> None:
        """End the run, if there is one, with its child process, and forget its results."""
        self.run_bar.runner.stop()
        self._clear()

    def _make_work(self) -> Work[ResultNodes] | None:
        if not ensure_packages(self._requirements, TITLE):
            return None
        return self._logic.processWork(self._volume)

    def _show(self, nodes: ResultNodes) -> None:
        count = nodes.table.GetNumberOfRows()
        found = _("1 nodule") if count == 1 else _("{count} nodules").format(count=count)
        self._ui.resultLabel.text = _("{found}; see {nodes} in the scene.").format(
            found=found, nodes=f"{nodes.segmentation.GetName()}, {nodes.table.GetName()}"
        )
        self._ui.undoButton.enabled = True
        selection = slicer.app.applicationLogic().GetSelectionNode()
        selection.SetActiveTableID(nodes.table.GetID())

    def _undo(self, *_arguments: Any) -> None:
        self._logic.undo()
        self._clear()

    def _clear(self) -> None:
        self._ui.resultLabel.text = ""
        self._ui.undoButton.enabled = False
