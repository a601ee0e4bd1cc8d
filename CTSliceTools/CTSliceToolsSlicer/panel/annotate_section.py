"""The section Annotate: one key sets a landmark at the slice under the pointer."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.panel.dicom_database import instance_files
from CTLungScreeningSlicer.panel.section import Debounced, Section
from CTLungScreeningSlicer.panel.slice_views import (
    KeyShortcuts,
    go_to,
    is_axial_view,
    pointed_ras,
    pointed_view,
    pointer_observers,
    view_centre,
    view_shows,
)
from CTLungScreeningSlicer.panel.widgets import (
    choose_file,
    choose_new_file,
    fit_height,
    on_click,
    show_text,
    shown_errors,
)
from CTLungScreeningSlicer.scene.mrml_volume import VolumeSlices
from CTSliceToolsLib.dataset.annotation import ANNOTATION
from CTSliceToolsLib.landmarks import LANDMARKS
from CTSliceToolsSlicer.scene.annotation_logic import AnnotationLogic, LandmarkSlice

COLOR = (0.95, 0.71, 0.25)


class CornerLabels:
    """Shows in each slice view the text that a function gives for it, kept up to date.

    Slicer's own corner texts belong to its Data Probe, which writes over others; so this is an
    actor of our own.
    """

    def __init__(self, text_of: Callable[[Any], str]) -> None:
        """Take the function, which gets the slice node of a view."""
        self._text_of = text_of
        self._actors: dict[str, tuple[Any, Any]] = {}
        self._tags: list[tuple[Any, int]] = []
        self._add_soon = Debounced(self._add)

    def enable(self) -> None:
        """Show the texts in all views, also in those that another layout brings."""
        layout = slicer.app.layoutManager()
        if self._actors or layout is None:
            return
        node = layout.layoutLogic().GetLayoutNode()
        tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._add_soon)
        self._tags.append((node, tag))
        self._add()

    def _add(self) -> None:
        layout = slicer.app.layoutManager()
        for name in layout.sliceViewNames():
            if name in self._actors:
                continue
            widget = layout.sliceWidget(name)
            actor = _make_actor()
            _renderer(widget.sliceView()).AddViewProp(actor)
            self._actors[name] = (widget, actor)
            for node in (widget.mrmlSliceNode(), widget.sliceLogic().GetSliceCompositeNode()):
                tag = node.AddObserver(
                    vtk.vtkCommand.ModifiedEvent, lambda *_, name=name: self._update(name)
                )
                self._tags.append((node, tag))
        self.update()

    def disable(self) -> None:
        """Remove the texts."""
        self._add_soon.cancel()
        for node, tag in self._tags:
            node.RemoveObserver(tag)
        for widget, actor in self._actors.values():
            _renderer(widget.sliceView()).RemoveViewProp(actor)
            widget.sliceView().scheduleRender()
        self._tags, self._actors = [], {}

    def update(self) -> None:
        """Update all texts."""
        for name in self._actors:
            self._update(name)

    def texts(self) -> dict[str, str]:
        """Return the text that each view shows, by the view's name."""
        return {name: actor.GetInput() for name, (_, actor) in self._actors.items()}

    def _update(self, name: str) -> None:
        widget, actor = self._actors[name]
        text = self._text_of(widget.mrmlSliceNode())
        if text != (actor.GetInput() or ""):
            actor.SetInput(text)
            widget.sliceView().scheduleRender()


def _make_actor() -> Any:
    actor = vtk.vtkTextActor()
    actor.SetInput("")
    actor.GetPositionCoordinate().SetCoordinateSystemToNormalizedViewport()
    actor.SetPosition(0.5, 0.96)
    look = actor.GetTextProperty()
    look.SetFontSize(18)
    look.SetColor(*COLOR)
    look.SetShadow(True)
    look.SetJustificationToCentered()
    look.SetVerticalJustificationToTop()
    return actor


def _renderer(view: Any) -> Any:
    return view.renderWindow().GetRenderers().GetFirstRenderer()


KEY, NAME, SLICE, Z = range(4)
"""Columns."""


class LandmarkTable:
    """Shows which slice each landmark is set at; one that is not set is grey.

    Attributes:
        widget: the table of the .ui file, whose columns it has.
    """

    def __init__(self, widget: Any, go_to: Callable[[str], None]) -> None:
        """Fill the table; a click on a row calls `go_to` with the landmark's name."""
        self.widget = widget
        widget.rowCount = len(LANDMARKS)
        for row, landmark in enumerate(LANDMARKS):
            texts = {KEY: " ".join(landmark.keys), NAME: landmark.name}
            for column in range(widget.columnCount):
                widget.setItem(row, column, qt.QTableWidgetItem(texts.get(column, "")))
        header = widget.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(NAME, qt.QHeaderView.Stretch)
        fit_height(widget, 0, len(LANDMARKS))
        widget.cellClicked.connect(lambda row, column: go_to(LANDMARKS[row].name))
        self.show({}, {})

    def show(self, found: Mapping[str, LandmarkSlice], files: Mapping[str, str]) -> None:
        """Show the slices of landmarks; `files` names their files by SOP Instance UID, for tips."""
        present = qt.QBrush(self.widget.palette.color(qt.QPalette.Text))
        missing = qt.QBrush(qt.QColor(150, 150, 150))
        for row, landmark in enumerate(LANDMARKS):
            place = found.get(landmark.name)
            texts, file = {SLICE: "–", Z: ""}, ""
            if place is not None:
                texts = {SLICE: str(place.number), Z: f"{place.z_mm:.1f}"}
                file = files.get(place.sop_instance_uid, "")
            location = _("Normalized location {location:g}").format(location=landmark.location)
            for column, text in texts.items():
                self.widget.item(row, column).setText(text)
            for column in range(self.widget.columnCount):
                item = self.widget.item(row, column)
                item.setForeground(present if place else missing)
                item.setToolTip("\n".join(filter(None, (location, file))))

    def selected(self) -> list[str]:
        """Return the names of the landmarks in the selected rows."""
        rows = sorted({item.row() for item in self.widget.selectedItems()})
        return [LANDMARKS[row].name for row in rows]


MARKUPS_SUFFIX = ".mrk.json"


class AnnotateSection(Section):
    """Landmarks of one volume: keys, table, undo, files.

    Attributes:
        changed: signal without arguments: landmarks were set, moved or removed here.
        keys: the shortcuts, alive while annotation is on.
        labels: the texts in the slice views, shown while annotation is on.
        table: the landmarks.
        known_files: SOP Instance UID → DICOM file, where Slicer's DICOM database need not be asked.
    """

    def __init__(self, ui: Any, logic: AnnotationLogic) -> None:
        super().__init__()
        self.known_files: Mapping[str, Path] = {}
        self._ui, self._logic = ui, logic
        self._volume: Any = None
        self._tags: list[tuple[Any, int]] = []
        self._last: tuple[Any, Mapping[str, LandmarkSlice]] = None, {}
        self._refresh_soon = Debounced(self._follow)

        self.table = LandmarkTable(ui.landmarkTable, self.go_to_landmark)
        self.labels = CornerLabels(self._label_of_view)
        self.keys = KeyShortcuts(
            {
                **{
                    key: partial(self.label_slice, one.name)
                    for one in LANDMARKS
                    for key in one.keys
                },
                "Ctrl+Z": self.undo,
                "Ctrl+Y": self.redo,
            }
        )
        self._delete_key = qt.QShortcut(qt.QKeySequence(qt.Qt.Key_Delete), ui.landmarkTable)
        self._delete_key.context = qt.Qt.WidgetWithChildrenShortcut
        self._delete_key.activated.connect(self.remove_selected)
        ui.annotateButton.toggled.connect(self._switch)
        for button, action in (
            (ui.undoButton, self.undo),
            (ui.redoButton, self.redo),
            (ui.removeButton, self.remove_selected),
            (ui.loadButton, self._ask_and_load),
            (ui.saveButton, self._ask_and_save),
        ):
            on_click(button, action)
        ui.landmarkTable.itemSelectionChanged.connect(self._enable_buttons)
        self.refresh()

    @property
    def volume(self) -> Any | None:
        """The volume that is annotated."""
        return self._volume

    def set_volume(self, volume: Any | None) -> None:
        """Annotate a volume from now on, or none."""
        if volume is not self._volume:
            self._volume = volume
            self._observe()
            self._ui.landmarkTable.clearSelection()
            if volume is None:
                self._ui.annotateButton.checked = False
        self._follow()

    def stop(self) -> None:
        """Leave the section: keys and labels go, Slicer's shortcuts come back."""
        self._ui.annotateButton.checked = False
        self._refresh_soon.cancel()

    def label_slice(self, landmark: str) -> None:
        """Set a landmark at the slice that is pointed at."""
        number = self._pointed_number()
        if number is None:
            slicer.util.showStatusMessage(self._obstacle(), 3000)
            return
        self.change(lambda volume: self._logic.setLandmark(volume, landmark, number))

    def remove_selected(self) -> None:
        """Remove the landmarks of the selected rows."""
        names = self.table.selected()
        self.change(lambda volume: self._logic.removeLandmarks(volume, names))

    def undo(self) -> None:
        """Undo the last change."""
        self.change(self._logic.undo)

    def redo(self) -> None:
        """Redo the change that was undone last."""
        self.change(self._logic.redo)

    def go_to_landmark(self, landmark: str) -> None:
        """Move the slice views to a landmark, if it is set."""
        with shown_errors():
            place = self._logic.landmarks(self._volume).get(landmark) if self._volume else None
            if place is not None:
                go_to(self._logic.slices(self._volume).world_ras(place.number))

    def change(self, change: Callable[[Any], object]) -> None:
        """Call a function that changes the landmarks of the volume, and show what came out."""
        if self._volume is None:
            return
        with shown_errors():
            change(self._volume)
            self._observe()
            self._refresh_soon.cancel()
            self.refresh()
            self.changed.emit()

    def load(self, file: Path) -> None:
        """Read landmarks from a JSON annotation or a markups file; points left out are named.

        Raises:
            InputError: if it is neither, or does not fit the volume.
        """
        if file.name.endswith(MARKUPS_SUFFIX):
            left_out = self._logic.loadMarkups(self._volume, file)
            if left_out:
                text = _("Left out, as not landmarks or outside the volume: {names}.")
                slicer.util.infoDisplay(text.format(names=", ".join(left_out)))
            return
        files = instance_files(self._logic.slices(self._volume).uids, self.known_files)
        self._logic.loadAnnotation(self._volume, file, files or None)

    def save(self, file: Path) -> None:
        """Write landmarks to a JSON annotation, or to a markups file if it is named so.

        Where DICOM files of the slices are gone, or two have the same name, the annotation gives
        slice numbers.

        Raises:
            InputError: if they contradict anatomy, or the file cannot be written.
        """
        if file.name.endswith(MARKUPS_SUFFIX):
            self._logic.saveMarkups(self._volume, file)
            return
        files = instance_files(self._logic.slices(self._volume).uids, self.known_files)
        uids = {one.sop_instance_uid for one in self._logic.landmarks(self._volume).values()}
        self._logic.saveAnnotation(self._volume, file, files if uids <= files.keys() else None)

    def refresh(self) -> None:
        """Show the landmarks as they are now."""
        found: Mapping[str, LandmarkSlice] = {}
        order = ""
        if self._volume is not None:
            try:
                found = self._logic.landmarks(self._volume)
                order = self._logic.contradiction(self._volume) or ""
            except InputError as problem:
                order = str(problem)
        uids = [one.sop_instance_uid for one in found.values()]
        files = instance_files(uids, self.known_files)
        self.table.show(found, {uid: file.name for uid, file in files.items()})
        show_text(self._ui.orderLabel, order)
        if self._volume is not None:
            self._last = self._volume, found
        self._numbers = {place.number: name for name, place in found.items()}
        self.labels.update()
        self._show_pointed()
        self._enable_buttons()

    def _follow(self) -> None:
        """Show the landmarks; tell of a change in the scene, such as a drag or a deleted node."""
        volume, before = self._last
        self.refresh()
        if self._volume is volume and self._last[1] != before:
            self.changed.emit()

    def _observe(self) -> None:
        """Observe changes of the volume, its landmarks and the pointer."""
        for node, tag in self._tags:
            node.RemoveObserver(tag)
        self._tags = []
        if self._volume is None:
            return
        points = self._logic.markupsNode(self._volume)
        soon = self._refresh_soon
        for node, event in (
            (self._volume, vtk.vtkCommand.ModifiedEvent),
            (self._volume, slicer.vtkMRMLTransformableNode.TransformModifiedEvent),
            (points, vtk.vtkCommand.ModifiedEvent),
            (points, slicer.vtkMRMLMarkupsNode.PointModifiedEvent),
            (points, slicer.vtkMRMLMarkupsNode.PointRemovedEvent),
        ):
            if node is not None:
                self._tags.append((node, node.AddObserver(event, soon)))
        self._tags += pointer_observers(self._show_pointed)

    def _switch(self, on: bool) -> None:
        if on and self._volume is None:
            self._ui.annotateButton.checked = False
        elif on:
            self.keys.enable()
            self.labels.enable()
        else:
            self.keys.disable()
            self.labels.disable()
        self._show_pointed()

    def _slices(self) -> VolumeSlices | None:
        try:
            return self._logic.slices(self._volume) if self._volume is not None else None
        except InputError:
            return None

    def _pointed_number(self) -> int | None:
        view, slices, ras = pointed_view(), self._slices(), pointed_ras()
        if slices is None or ras is None or not view_shows(view, self._volume):
            return None
        return slices.number_at(ras)

    def _obstacle(self) -> str:
        """Return a sentence on why no slice of the volume is pointed at."""
        try:
            self._logic.slices(self._volume)
        except InputError as problem:
            return str(problem)
        view = pointed_view()
        if view is None:
            return _("Move the mouse pointer over a slice.")
        if view_shows(view, self._volume):
            return _("The mouse pointer is outside the volume.")
        return _("The view does not show {volume}: show it there, or choose another.").format(
            volume=self._volume.GetName()
        )

    def _show_pointed(self, *_arguments: Any) -> None:
        number = self._pointed_number() if self._ui.annotateButton.checked else None
        text = ""
        if number is not None:
            text = _("Slice {number}").format(number=number)
            if number in self._numbers:
                text += f": {self._numbers[number]}"
        elif self._ui.annotateButton.checked:
            text = self._obstacle()
        self._ui.sliceLabel.text = text
        self._ui.sliceLabel.visible = bool(self._ui.annotateButton.checked)

    def _label_of_view(self, slice_node: Any) -> str:
        slices = self._slices()
        if slices is None or not is_axial_view(slice_node):
            return ""
        if not view_shows(slice_node, self._volume):
            return ""
        number = slices.number_at(view_centre(slice_node))
        return self._numbers.get(number, "") if number is not None else ""

    def _enable_buttons(self) -> None:
        volume, ui = self._volume, self._ui
        there = volume is not None
        ui.annotateButton.enabled = there
        ui.undoButton.enabled = there and self._logic.canUndo(volume)
        ui.redoButton.enabled = there and self._logic.canRedo(volume)
        ui.removeButton.enabled = there and bool(self.table.selected())
        ui.loadButton.enabled = ui.saveButton.enabled = there

    def _ask_and_load(self) -> None:
        file = choose_file(_("Load landmarks"), _("Landmarks (*.json)"))
        if file is not None:
            self.change(lambda volume: self.load(file))

    def _ask_and_save(self) -> None:
        filters = _("Annotation, or markups with the ending .mrk.json (*.json)")
        title = _("Save landmarks")
        file = choose_new_file(title, ANNOTATION, filters, ".json", replaces=True)
        if file is not None:
            with shown_errors():
                self.save(file)
