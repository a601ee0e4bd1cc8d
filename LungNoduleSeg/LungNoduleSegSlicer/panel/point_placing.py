"""One click in a view that gives a place."""

from typing import Any

import slicer
from slicer.i18n import tr as _

from CTLungScreeningSlicer.panel.events import Debounced, Signal
from CTLungScreeningSlicer.panel.shortcuts import KeyShortcuts
from CTLungScreeningSlicer.scene.history import remove_nodes

_CLASS = "vtkMRMLMarkupsFiducialNode"


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
