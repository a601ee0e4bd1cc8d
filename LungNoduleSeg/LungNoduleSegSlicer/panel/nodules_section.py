"""The section Nodules: what was found, looked at one by one, judged and corrected."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

import slicer
import vtk
from slicer.i18n import tr as _

from CTLungScreeningLib.child_process import Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.panel.run_bar import WorkRunner
from CTLungScreeningSlicer.panel.section import Debounced, Section, Signal
from CTLungScreeningSlicer.panel.slice_views import KeyShortcuts, is_in_view
from CTLungScreeningSlicer.panel.widgets import on_click, show_text, shown_errors
from CTLungScreeningSlicer.scene.history import remove_nodes
from LungNoduleSegLib.nodules.table import Nodule, Verdict, most_suspicious
from LungNoduleSegSlicer.panel.nodule_table import NoduleTable, ThresholdSlider
from LungNoduleSegSlicer.panel.views import open_segment_editor, show_in_views
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic
from LungNoduleSegSlicer.scene.nodule_segments import segment_id
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes
from LungNoduleSegSlicer.scene.review_logic import ReviewedNodule

_CLASS = "vtkMRMLMarkupsFiducialNode"

REST_MS = 300
"""Pause after a change of results before the other sections are updated."""

MakeWork: TypeAlias = Callable[[ResultNodes], Work[Any]]
"""Returns the work that changes results."""


class PointPlacing:
    """Slicer's own mode of placing, for one point that does not stay in the scene.

    Attributes:
        placed: signal with the place that was clicked on, RAS mm of the world.
        changed: signal without arguments: it was begun or has ended.
    """

    def __init__(self) -> None:
        self.placed = Signal()
        self.changed = Signal()
        self._node: Any = None
        self._tags: list[tuple[Any, int]] = []
        self._before: tuple[str | None, str | None] = None, None
        self._look_soon = Debounced(self._look)
        self._keys = KeyShortcuts({"Esc": self.cancel})

    @property
    def active(self) -> bool:
        """Whether the next click gives a place."""
        return self._node is not None

    def start(self) -> None:
        """Wait for a click; Escape, a right click and any other tool of Slicer's end that."""
        if self.active:
            return
        application = slicer.app.applicationLogic()
        selection, interaction = application.GetSelectionNode(), application.GetInteractionNode()
        self._node = slicer.mrmlScene.AddNewNodeByClass(_CLASS, _("New nodule"))
        self._node.SetHideFromEditors(True)
        self._node.SetSaveWithScene(False)
        self._node.CreateDefaultDisplayNodes()
        self._node.SetControlPointLabelFormat("")
        self._before = selection.GetActivePlaceNodeClassName(), selection.GetActivePlaceNodeID()
        selection.SetReferenceActivePlaceNodeClassName(_CLASS)
        selection.SetActivePlaceNodeID(self._node.GetID())
        interaction.SwitchToSinglePlaceMode()
        for node, event in (
            (self._node, self._node.PointPositionDefinedEvent),
            (interaction, interaction.InteractionModeChangedEvent),
            (slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent),
        ):
            self._tags.append((node, node.AddObserver(event, self._look_soon)))
        self._keys.enable()
        self.changed.emit()

    def cancel(self) -> None:
        """Wait no longer."""
        if not self.active:
            return
        self._keys.disable()
        self._look_soon.cancel()
        for node, tag in self._tags:
            node.RemoveObserver(tag)
        self._tags = []
        application = slicer.app.applicationLogic()
        interaction = application.GetInteractionNode()
        if interaction.GetCurrentInteractionMode() == interaction.Place:
            interaction.SwitchToViewTransformMode()
        selection = application.GetSelectionNode()
        class_name, node_id = self._before
        selection.SetReferenceActivePlaceNodeClassName(class_name)
        selection.SetActivePlaceNodeID(node_id)
        node, self._node = self._node, None
        parts = [one.GetID() for one in (node.GetDisplayNode(), node) if one is not None]
        remove_nodes(slicer.mrmlScene, [one for one in parts if one is not None])
        self.changed.emit()

    def _look(self) -> None:
        """See what has become of the point."""
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        if self._node.GetNumberOfDefinedControlPoints() > 0:
            ras = [0.0, 0.0, 0.0]
            self._node.GetNthControlPointPositionWorld(0, ras)
            self.cancel()
            self.placed.emit(ras)
        elif self._node.GetScene() is None or (
            interaction.GetCurrentInteractionMode() != interaction.Place
        ):
            self.cancel()


class NodulesSection(Section):
    """The nodules of the results; what they hold is the truth, whoever changes it.

    Attributes:
        table: the nodules.
        chosen: signal with the number of a nodule that was selected, by the user or for them.
        threshold: finds them again.
        runner: of what takes a while; steps of a threshold, for instance.
        placing: waits for the click on a nodule to be added.
        keys: the shortcuts, alive while the panel is shown with results and the section is open.
    """

    def __init__(self, ui: Any, logic: LungNoduleSegLogic) -> None:
        super().__init__()
        self._ui, self._logic = ui, logic
        self._volume: Any = None
        self._results: ResultNodes | None = None
        self._tags: list[tuple[Any, int]] = []
        self._edited: tuple[int, ...] = ()
        self._in_editor = False
        self._summary = ""
        self._next: tuple[MakeWork, Callable[[Any], None]] | None = None
        self._refresh_soon = Debounced(self.refresh)
        self._compare_soon = Debounced(self._compare)
        self._tell_at_rest = Debounced(self.changed.emit, REST_MS)
        self.table = NoduleTable(ui.noduleTable)
        self.table.chosen.connect(self.go_to)
        self.chosen = Signal()
        self.table.chosen.connect(lambda nodule: self.chosen.emit(nodule.id))
        self.threshold = ThresholdSlider(ui.thresholdSlider, ui.thresholdHint, logic.review)
        self.threshold.moved.connect(self.set_threshold)
        self.runner = WorkRunner()
        self.runner.changed.connect(self._show_label)
        self.runner.ended.connect(self._end_change)
        self.placing = PointPlacing()
        self.placing.placed.connect(self.add)
        self.placing.changed.connect(self._show_state)
        self._verdicts = {
            Verdict.ACCEPTED: ui.acceptButton,
            Verdict.REJECTED: ui.rejectButton,
            Verdict.UNCERTAIN: ui.uncertainButton,
        }
        self.keys = KeyShortcuts(
            {
                "N": partial(self.table.step, 1),
                "P": partial(self.table.step, -1),
                "A": partial(self.judge_in_view, Verdict.ACCEPTED),
                "X": partial(self.judge_in_view, Verdict.REJECTED),
                "U": partial(self.judge_in_view, Verdict.UNCERTAIN),
                "Ctrl+Z": self.undo,
            }
        )
        ui.nodulesSection.contentsCollapsed.connect(lambda *_: self._switch_keys())
        ui.noduleTable.itemSelectionChanged.connect(self._show_state)
        actions: tuple[tuple[Any, Callable[[], object]], ...] = (
            (ui.nextNoduleButton, partial(self.table.step, 1)),
            (ui.previousNoduleButton, partial(self.table.step, -1)),
            *((button, partial(self.judge, one)) for one, button in self._verdicts.items()),
            (ui.addNoduleButton, self.toggle_placing),
            (ui.removeNoduleButton, self.remove),
            (ui.editNoduleButton, self.edit),
            (ui.measureNodulesButton, self.measure_again),
        )
        for button, action in actions:
            on_click(button, action)
        self.refresh()

    def set_volume(self, volume: Any | None) -> None:
        """Set the volume, without results until `set_results`."""
        self._volume = volume

    def set_results(self, results: ResultNodes | None) -> None:
        """Show the nodules of these results; measure again what was edited in the meantime."""
        if results != self._results:
            self.stop()
            self._results = results
            self._observe()
        self._compare()
        if results is not None and self._in_editor:
            self._in_editor = False
            if self._edited:
                self.measure_again()
        self.refresh()
        self._switch_keys()

    def stop(self) -> None:
        """Stop waiting for a click, and all other work."""
        self.placing.cancel()
        self.threshold.stop()
        self._stop_change()
        self._tell_at_rest.cancel()
        self._refresh_soon.cancel()
        self._compare_soon.cancel()

    def go_to(self, nodule: Nodule) -> None:
        """Show a nodule in all views."""
        if self._volume is not None:
            show_in_views(self._volume, (-nodule.x, -nodule.y, nodule.z), nodule.diameter_mm)

    def go_to_most_suspicious(self) -> None:
        """Select the most suspicious nodule and show it in all views, if there is any."""
        if self._results is None:
            return
        nodules = [
            one.nodule for one in self._logic.review.nodules(self._results) if not one.verdict
        ]
        nodule = most_suspicious(nodules)
        if nodule is not None:
            self._select(nodule.id)
            self._show_state()
            self.go_to(nodule)

    def judge(self, verdict: Verdict) -> None:
        """Give the selected nodule a verdict, or take it back if it has that one."""
        one = self._selected()
        if one is not None:
            new = None if one.verdict is verdict else verdict
            self._change_now(
                lambda results: self._logic.review.setVerdict(results, one.nodule.id, new)
            )

    def judge_in_view(self, verdict: Verdict) -> None:
        """Judge by a key, unless the slice views show another volume."""
        if is_in_view(self._volume):
            self.judge(verdict)
        else:
            text = _("No view shows {volume}: show it, or choose another.")
            slicer.util.showStatusMessage(text.format(volume=self._volume.GetName()), 3000)

    def toggle_placing(self) -> None:
        """Wait for a click on a nodule to be added, or wait no longer."""
        if self.placing.active:
            self.placing.cancel()
        elif self._results is not None:
            self.placing.start()

    def add(self, ras: list[float]) -> None:
        """Add the nodule at a place of the world, RAS mm, and select it."""
        self._change(lambda results: self._logic.review.addWork(results, ras), self._select)

    def set_threshold(self, threshold: float) -> None:
        """Find the nodules again at a threshold."""
        self._change(lambda results: self._logic.review.thresholdWork(results, threshold))

    def remove(self) -> None:
        """Remove the selected nodule."""
        one = self._selected()
        if one is not None:
            self._change_now(
                lambda results: self._logic.review.removeNodule(results, one.nodule.id)
            )

    def edit(self) -> None:
        """Open the selected nodule in the Segment Editor; back here it is measured again."""
        one = self._selected()
        if one is None or self._results is None:
            return
        self.go_to(one.nodule)
        self._in_editor = True
        open_segment_editor(self._results.segmentation, self._volume, segment_id(one.nodule.id))

    def measure_again(self) -> None:
        """Measure the nodules whose segments were edited."""
        self._change(self._logic.review.remeasureWork)

    def undo(self) -> None:
        """Undo the last change of the results in any section, or cancel a running one."""
        if self.runner.busy:
            self._stop_change()
        elif self._logic.history.canUndo:
            # Also one of another scan, which is not to be seen.
            text = _("Undone: {what}.").format(what=self._logic.history.lastChange)
            self._logic.history.undo()
            slicer.util.showStatusMessage(text, 5000)
        self.changed.emit()

    def refresh(self) -> None:
        """Show the nodules as they are now."""
        problem = self._missing()
        nodules: tuple[ReviewedNodule, ...] = ()
        if self._results is not None:
            try:
                nodules = self._logic.review.nodules(self._results)
            except InputError as reason:
                problem = str(reason)
        self._ui.nodulesBox.visible = not problem
        self._summary = problem or _summary(nodules)
        self._show_label()
        self.table.show(nodules, self._colors(nodules))
        in_use = self.runner.busy or self._next is not None
        self.threshold.show(self._results, in_use=in_use)
        self._show_state()

    def _missing(self) -> str:
        if self._volume is None:
            return _("Choose a chest CT first.")
        if self._results is None:
            return _("No results for {volume} yet. Press Apply first.").format(
                volume=self._volume.GetName()
            )
        return ""

    def _select(self, number: int) -> None:
        self.table.select(number)
        self.chosen.emit(number)

    def _selected(self) -> ReviewedNodule | None:
        one = self.table.selected
        if one is None:
            slicer.util.showStatusMessage(_("Select a nodule first."), 3000)
        return one

    def _change_now(self, change: Callable[[ResultNodes], None]) -> None:
        """Call a function that changes the results at once."""
        if self._results is not None:
            with shown_errors():
                change(self._results)
            self.changed.emit()

    def _change(
        self, make_work: MakeWork, done: Callable[[Any], None] = lambda result: None
    ) -> None:
        """Change the results step by step, after what is under way; only the last one waits."""
        if self._results is not None:
            self._next = make_work, done
            self._begin_change()

    def _begin_change(self) -> None:
        if self._next is not None and self._results is not None and not self.runner.busy:
            (make_work, done), self._next = self._next, None
            self.runner.start(make_work(self._results), done)

    def _end_change(self, error: str, details: str) -> None:
        if error:
            slicer.util.errorDisplay(error, windowTitle=_("Cannot continue"))
        self.refresh()
        self._tell_at_rest()
        self._begin_change()

    def _stop_change(self) -> None:
        """Leave the results as they are."""
        self._next = None
        self.runner.stop()

    def _show_label(self) -> None:
        """Show the number of nodules, and the progress of a change."""
        progress = self.runner.progress.text if self.runner.busy else ""
        self._ui.nodulesLabel.text = " – ".join(filter(None, (self._summary, progress)))

    def _colors(self, nodules: tuple[ReviewedNodule, ...]) -> dict[int, tuple[float, float, float]]:
        """Return the colours of the nodules' segments by number."""
        if self._results is None:
            return {}
        segmentation = self._results.segmentation.GetSegmentation()
        numbers = [one.nodule.id for one in nodules]
        segments = {one: segmentation.GetSegment(segment_id(one)) for one in numbers}
        return {one: segment.GetColor() for one, segment in segments.items() if segment}

    def _show_state(self, *_arguments: Any) -> None:
        """Show what can be done, and what there is to know before."""
        ui, one = self._ui, self.table.selected
        for verdict, button in self._verdicts.items():
            button.enabled = one is not None
            button.checked = one is not None and one.verdict is verdict
        ui.removeNoduleButton.enabled = ui.editNoduleButton.enabled = one is not None
        ui.addNoduleButton.checked = self.placing.active
        ui.measureNodulesButton.enabled = bool(self._edited)
        hint = ""
        if self.placing.active:
            hint = _("Click a nodule in a slice view. Press Esc to cancel.")
        elif self._edited:
            numbers = ", ".join(map(str, self._edited))
            hint = _("Edited after measuring: nodule {numbers}.").format(numbers=numbers)
        show_text(ui.nodulesHint, hint)
        ui.noduleDetails.text = _("Select a nodule.") if one is None else _details(one.nodule)

    def _switch_keys(self) -> None:
        if self._results is not None and not self._ui.nodulesSection.collapsed:
            self.keys.enable()
        else:
            self.keys.disable()

    def _compare(self) -> None:
        """See which nodules were edited since they were measured."""
        self._edited = ()
        if self._results is not None:
            with suppress(InputError):  # refresh() shows it
                self._edited = self._logic.review.edited(self._results)
        self._show_state()

    def _observe(self) -> None:
        """Observe the nodes of the results."""
        for node, tag in self._tags:
            node.RemoveObserver(tag)
        self._tags = []
        if self._results is None:
            return
        table, segmentation = self._results.table, self._results.segmentation
        kinds = slicer.vtkSegmentation
        for node, event, soon in (
            (table, vtk.vtkCommand.ModifiedEvent, self._refresh_soon),
            (segmentation, kinds.SegmentModified, self._refresh_soon),
            (segmentation, kinds.SourceRepresentationModified, self._compare_soon),
            (segmentation, kinds.SegmentRemoved, self._compare_soon),
        ):
            self._tags.append((node, node.AddObserver(event, soon)))


def _summary(nodules: tuple[ReviewedNodule, ...]) -> str:
    """Describe the number of nodules, and of those that were judged."""
    if not nodules:
        return _("No nodules at this threshold.")
    count = len(nodules)
    found = _("1 nodule") if count == 1 else _("{count} nodules").format(count=count)
    judged = Counter(one.verdict for one in nodules if one.verdict)
    parts = [f"{number} {_(verdict)}" for verdict in Verdict if (number := judged[verdict])]
    return ", ".join([found, *parts])


def _details(nodule: Nodule) -> str:
    """Describe the place and size of a nodule, beyond its row."""
    return _("{place}, slice {slice}, {long:.1f} × {short:.1f} mm, {volume:,.0f} mm³").format(
        place=_(nodule.place).capitalize(),
        slice=nodule.slice,
        long=nodule.diameter_mm,
        short=nodule.perpendicular_mm,
        volume=nodule.volume_mm3,
    )
