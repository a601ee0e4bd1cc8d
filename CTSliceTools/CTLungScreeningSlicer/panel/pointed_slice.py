"""The slice under the mouse pointer, or that of the red view."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

RED = "vtkMRMLSliceNodeRed"

BESIDE = "vtkMRMLSliceNodeCTSliceToolsBeside"
"""The view beside the red one, which shows a second volume at the same level."""


def pointed_view() -> Any | None:
    """Give the slice node of the view under the pointer.

    If the pointer is in no slice view, or in that of a second volume, which shows the level of the
    red one, it is the red one; None if there is none.
    """
    return _pointed()[0]


def pointed_ras() -> NDArray[np.float64] | None:
    """Give the place under the pointer in RAS mm of the world.

    If the pointer is not in the view of `pointed_view`, it is the middle of that.
    """
    return _pointed()[1]


def _pointed() -> tuple[Any | None, NDArray[np.float64] | None]:
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    xyz = [0.0, 0.0, 0.0]
    view = crosshair.GetCursorPositionXYZ(xyz) if crosshair is not None else None
    if view is not None and view.GetID() != BESIDE:
        return view, np.array(view.GetXYToRAS().MultiplyPoint((*xyz, 1)))[:3]
    red = slicer.mrmlScene.GetNodeByID(RED)
    return red, None if red is None else view_centre(red)


def view_centre(slice_node: Any) -> NDArray[np.float64]:
    """Give the middle of what a slice view shows, RAS mm of the world."""
    matrix = slice_node.GetSliceToRAS()
    return np.array([matrix.GetElement(row, 3) for row in range(3)])


def is_axial_view(slice_node: Any) -> bool:
    """Tell whether a slice view looks along the patient's axis, within 30 degrees."""
    return abs(slice_node.GetSliceToRAS().GetElement(2, 2)) > np.cos(np.radians(30))


def pointer_observers(callback: Callable[..., None]) -> list[tuple[Any, int]]:
    """Have `callback` called when the user points elsewhere or scrolls; give nodes and tags."""
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    return [
        (node, node.AddObserver(event, callback))
        for node, event in (
            (crosshair, slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent),
            (slicer.mrmlScene.GetNodeByID(RED), vtk.vtkCommand.ModifiedEvent),
        )
        if node is not None
    ]


def go_to(ras: Sequence[float] | NDArray[np.float64]) -> None:
    """Move all slice views to a place in RAS mm of the world, without panning them."""
    node_class = slicer.vtkMRMLSliceNode
    node_class.JumpAllSlices(slicer.mrmlScene, *map(float, ras), node_class.OffsetJumpSlice)
