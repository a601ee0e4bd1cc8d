"""Slicer's slice views: what they show, the slice under the pointer, and keys that act there."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import qt
import slicer
import vtk
from numpy.typing import NDArray

from CTLungScreeningSlicer.scene.mrml_volume import visible_volumes


def shown_volume() -> Any | None:
    """Return the volume that a slice view shows; None if none does."""
    shown = _backgrounds()
    return next((one for one in visible_volumes(slicer.mrmlScene) if one.GetID() in shown), None)


def is_in_view(volume: Any) -> bool:
    """Whether a slice view shows a volume."""
    return volume.GetID() in _backgrounds()


def show_volume(volume: Any) -> None:
    """Show a volume in all slice views, unless all show it already."""
    if _backgrounds() != {volume.GetID()}:
        slicer.util.setSliceViewerLayers(background=volume, fit=True)


def view_shows(slice_node: Any, volume: Any) -> bool:
    """Whether a slice view shows a volume, which a transparent foreground does not."""
    logic = slicer.app.applicationLogic().GetSliceLogic(slice_node)
    composite = logic and logic.GetSliceCompositeNode()
    if composite is None:
        return False
    layers = [composite.GetBackgroundVolumeID()]
    if composite.GetForegroundOpacity() > 0:
        layers.append(composite.GetForegroundVolumeID())
    return volume.GetID() in layers


def _backgrounds() -> set[str | None]:
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return {one.GetBackgroundVolumeID() for one in nodes}


RED = "vtkMRMLSliceNodeRed"

BESIDE = "vtkMRMLSliceNodeCTSliceToolsBeside"
"""The view beside the red one, which shows a second volume at the same level."""


def pointed_view() -> Any | None:
    """Return the slice node of the view under the pointer.

    If the pointer is in no slice view, or in that of a second volume, which shows the level of the
    red one, it is the red one, if the layout shows it; else the axial view, if it shows one only;
    else None.
    """
    return _pointed()[0]


def pointed_ras() -> NDArray[np.float64] | None:
    """Return the place under the pointer in RAS mm of the world.

    If the pointer is not in the view of `pointed_view`, it is the middle of that.
    """
    return _pointed()[1]


def _pointed() -> tuple[Any | None, NDArray[np.float64] | None]:
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    xyz = [0.0, 0.0, 0.0]
    view = crosshair.GetCursorPositionXYZ(xyz) if crosshair is not None else None
    if view is not None and view.IsMappedInLayout() and view.GetID() != BESIDE:
        return view, np.array(view.GetXYToRAS().MultiplyPoint((*xyz, 1)))[:3]
    shown = [one for one in _slice_nodes() if one.IsMappedInLayout() and one.GetID() != BESIDE]
    red = [one for one in shown if one.GetID() == RED]
    axial = red or [one for one in shown if is_axial_view(one)]
    return (axial[0], view_centre(axial[0])) if len(axial) == 1 else (None, None)


def _slice_nodes() -> list[Any]:
    return list(slicer.util.getNodesByClass("vtkMRMLSliceNode"))


def view_centre(slice_node: Any) -> NDArray[np.float64]:
    """Return the middle of what a slice view shows, RAS mm of the world."""
    matrix = slice_node.GetSliceToRAS()
    return np.array([matrix.GetElement(row, 3) for row in range(3)])


def is_axial_view(slice_node: Any) -> bool:
    """Whether a slice view looks along the patient's axis, within 30 degrees."""
    return abs(slice_node.GetSliceToRAS().GetElement(2, 2)) > np.cos(np.radians(30))


def pointer_observers(callback: Callable[..., None]) -> list[tuple[Any, int]]:
    """Call `callback` when the user points elsewhere or scrolls; return nodes and tags."""
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    return [
        (node, node.AddObserver(event, callback))
        for node, event in (
            (crosshair, slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent),
            *((one, vtk.vtkCommand.ModifiedEvent) for one in _slice_nodes()),
        )
        if node is not None
    ]


def go_to(ras: Sequence[float] | NDArray[np.float64]) -> None:
    """Move all slice views to a place in RAS mm of the world, without panning them."""
    node_class = slicer.vtkMRMLSliceNode
    node_class.JumpAllSlices(slicer.mrmlScene, *map(float, ras), node_class.OffsetJumpSlice)


class KeyShortcuts:
    """Keys that call functions anywhere in Slicer's windows, between `enable` and `disable`.

    Slicer's own shortcuts on the same keys rest meanwhile. A text field that has the focus gets
    its keys as ever: Qt offers them to it before any shortcut.

    Attributes:
        handlers: function by key, such as "1" or "Ctrl+Z".
    """

    def __init__(self, handlers: Mapping[str, Callable[[], object]]) -> None:
        self.handlers = handlers
        self._ours: list[Any] = []
        self._resting: list[Any] = []
        self._without_key: list[tuple[Any, Any]] = []

    @property
    def enabled(self) -> bool:
        """Whether the keys are alive."""
        return bool(self._ours)

    def enable(self) -> None:
        """Make the keys work; without a main window there are none."""
        window = slicer.util.mainWindow()
        if self.enabled or window is None:
            return
        self._rest_others(window)
        for key, handler in self.handlers.items():
            shortcut = qt.QShortcut(qt.QKeySequence(key), window)
            shortcut.context = qt.Qt.ApplicationShortcut
            shortcut.autoRepeat = False
            shortcut.activated.connect(handler)
            self._ours.append(shortcut)

    def disable(self) -> None:
        """Remove the keys and restore Slicer's own."""
        for shortcut in self._ours:
            shortcut.enabled = False
            shortcut.deleteLater()
        for shortcut in self._resting:
            shortcut.enabled = True
        for action, key in self._without_key:
            action.shortcut = key
        self._ours, self._resting, self._without_key = [], [], []

    def _rest_others(self, window: Any) -> None:
        """Turn off shortcuts on our keys: two on one key would both be dead."""
        keys = {qt.QKeySequence(key).toString() for key in self.handlers}
        for shortcut in window.findChildren(qt.QShortcut):
            if shortcut.enabled and shortcut.key.toString() in keys:
                shortcut.enabled = False
                self._resting.append(shortcut)
        for action in window.findChildren(qt.QAction):
            if action.shortcut.toString() in keys:
                self._without_key.append((action, action.shortcut))
                action.shortcut = qt.QKeySequence()
