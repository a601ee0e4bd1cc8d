"""The first section: find the lungs and nodules of the volume, by a model and a method."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from CTLungScreeningLib.child_process import Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.panel.packages import ensure_packages
from CTLungScreeningSlicer.panel.run_bar import RunBar, duration_text
from CTLungScreeningSlicer.panel.section import Section, Signal
from CTLungScreeningSlicer.panel.widgets import ModelChooser, show_text
from CTLungScreeningSlicer.scene.mrml_volume import has_voxels
from LungNoduleSegLib.detectors.models import (
    add_model,
    find_card,
    model_names,
    read_zip_card,
    what_runs,
)
from LungNoduleSegLib.lungs.labels import LungMethod
from LungNoduleSegLib.options import RunOptions
from LungNoduleSegLib.results.segments import LUNG_STYLES
from LungNoduleSegLib.run_cost import EXTERNAL_LUNGS
from LungNoduleSegSlicer.panel.views import open_segment_editor, show_results
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic
from LungNoduleSegSlicer.scene.nodule_segments import segments_of
from LungNoduleSegSlicer.scene.result_nodes import (
    ResultNodes,
    geometry_source,
    is_in_place,
    volume_node_of,
)


def about_model(model: Path) -> tuple[str, str]:
    """Return name and description of a model.

    Raises:
        InputError: if it cannot be used.
    """
    card = find_card(model)
    return card.name, f"{card.description}\n\n{model}"


def added_models() -> list[Path]:
    """Return the names of the usable models that were added, as paths."""
    usable = []
    for name in model_names()[1:]:
        with suppress(InputError):
            find_card(Path(name))
            usable.append(Path(name))
    return usable


def added(file: Path) -> Path:
    """Add the model of a zip file and return its name, as a path; return any other file as it is.

    Raises:
        InputError: if the file is not a model, or the user does not agree to the program it runs.
    """
    if file.suffix.lower() != ".zip":
        return file
    card = read_zip_card(file)
    command = what_runs(card)
    if command:
        question = _(
            "{model} runs this program here, with your permissions, each time it is used:"
            "\n\n{command}\n\nAllow this?"
        ).format(model=card.name, command=command)
        if not slicer.util.confirmOkCancelDisplay(question, _("Add model")):
            raise InputError(f"{card.name} was not added: you did not allow its program.")
    add_model(file, may_run=command)
    return Path(card.name)


class LungsSection(Section):
    """The lungs in which the next run searches for nodules.

    Attributes:
        node: segmentation with the lungs to use; None to segment them.
        method: of the segmentation.
    """

    def __init__(self, ui: Any) -> None:
        super().__init__()
        self._ui = ui
        self.node: Any | None = None
        self.method = LungMethod.VOLUME
        self._parameters: Any = None
        self._volume: Any = None
        self._results: ResultNodes | None = None
        labels = {
            LungMethod.VOLUME: _("3-D (recommended)"),
            LungMethod.TUTORIAL: _("Slice by slice, as in the tutorial (slow)"),
            LungMethod.LUNGMASK: _("lungmask, with lobes (minutes without a GPU)"),
            LungMethod.TOTALSEGMENTATOR: _("TotalSegmentator, with lobes (minutes without a GPU)"),
        }
        for method in LungMethod:
            ui.lungMethodBox.addItem(labels[method], str(method))
        ui.lungMethodBox.activated.connect(self._choose_method)
        ui.showLungsBox.clicked.connect(self._show_lungs)
        ui.editLungsButton.clicked.connect(self._edit)

    @property
    def options(self) -> RunOptions:
        """The options of a run; the method is not needed with a `node`."""
        return RunOptions() if self.node is not None else RunOptions(self.method)

    @property
    def kind(self) -> str:
        """The kind of lungs, for `expectedCost`."""
        return str(self.method) if self.node is None else EXTERNAL_LUNGS

    def set_parameters(self, parameters: Any | None) -> None:
        """Show the choice."""
        self._parameters = parameters
        self.node = parameters and parameters.lungs
        name = parameters.lungMethod if parameters is not None else ""
        self.method = LungMethod(name) if name in list(LungMethod) else LungMethod.VOLUME
        self._ui.lungMethodBox.currentIndex = list(LungMethod).index(self.method)
        self._ui.lungMethodBox.enabled = self.node is None

    def set_volume(self, volume: Any | None) -> None:
        """Edit lungs on another volume; those chosen for the one before are not taken for it."""
        if self._parameters is None:
            return
        before, self._volume = self._volume, volume
        lungs = self._parameters.lungs
        if before is None or before is volume or lungs is None:
            return
        if volume is None or geometry_source(lungs) is not volume:
            self._parameters.lungs = None

    def stop(self) -> None:
        """Forget the volume before its scene is closed."""
        self._volume = None

    def set_results(self, results: ResultNodes | None) -> None:
        """Show the visibility of the lungs."""
        self._results = results
        lungs = self._lungs()
        self._ui.showLungsBox.enabled = self._ui.editLungsButton.enabled = bool(lungs)
        if results is not None and lungs:
            display = results.segmentation.GetDisplayNode()
            self._ui.showLungsBox.checked = any(map(display.GetSegmentVisibility, lungs))

    def _lungs(self) -> list[str]:
        """Segment ids of the lungs of the results."""
        if self._results is None or self._results.segmentation.GetDisplayNode() is None:
            return []
        return list(segments_of(self._results.segmentation, LUNG_STYLES))

    def _choose_method(self, *_arguments: Any) -> None:
        if self._parameters is not None:
            chosen = self._ui.lungMethodBox.itemData(self._ui.lungMethodBox.currentIndex)
            self._parameters.lungMethod = chosen

    def _show_lungs(self, *_arguments: Any) -> None:
        if self._results is not None:
            display = self._results.segmentation.GetDisplayNode()
            for one in self._lungs():
                display.SetSegmentVisibility(one, self._ui.showLungsBox.checked)

    def _edit(self, *_arguments: Any) -> None:
        """Open the Segment Editor; the next run uses the edited lungs."""
        if self._results is None or self._parameters is None:
            return
        self._parameters.lungs = self._results.segmentation
        open_segment_editor(self._results.segmentation, self._volume, self._lungs()[0])


TITLE = "Lung Nodule Segmentation"


class SegmentSection(Section):
    """One button that runs everything, in a child process.

    A run updates the results of the volume; a reader's changes to them are kept. If the volume was
    moved since, the run makes new results.

    Attributes:
        run_bar: runs it.
        finished: signal without arguments: the results of a run of the volume are shown.
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
        nodes = (
            (before.segmentation, before.table, before.fiducials)
            if before is not None and is_in_place(before)
            else ()
        )
        return self._logic.processWork(
            self._volume,
            *nodes,
            lungsNode=self._lungs.node,
            options=replace(self._lungs.options, model=self._model.file),
        )

    def _show(self, results: ResultNodes) -> None:
        """Show the results, unless the user works on another volume, or in another module."""
        volume = volume_node_of(results)
        if volume is self._volume:
            show_results(results, volume)
            self.changed.emit()
            self.finished.emit()
            return
        self.changed.emit()
        text = _("The results of {volume} are ready: choose it in {title}.")
        slicer.util.showStatusMessage(text.format(volume=volume.GetName(), title=_(TITLE)), 10000)

    def _show_cost(self) -> None:
        volume, model = self._volume, self._model.file
        there = has_voxels(volume)
        text = cost_text(self._logic, volume, model, self._lungs.kind) if there else ""
        show_text(self._ui.costLabel, text)


def cost_text(
    logic: LungNoduleSegLogic, volume: Any, model: Path | None, lungs: str = LungMethod.VOLUME
) -> str:
    """Describe the time and memory that a run needs, or why the model cannot be used."""
    try:
        cost = logic.expectedCost(volume, model, lungs)
    except InputError as problem:
        return str(problem)
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
