"""A place of a volume shown in the slice and 3-D views."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer

from LungNoduleSegSlicer.scene.lung_window import show_in_lung_window

LEAST_MM = 80.0
"""A slice view shows no less than this; so most nodules are seen at one magnification."""

SURROUNDINGS = 4.0
"""A slice view shows as many diameters of a nodule as this, if that is more."""


def show_in_views(volume: Any, ras: Sequence[float], diameter_mm: float) -> None:
    """Show a nodule in the middle of each slice view that shows its volume, in the lung window.

    If no view shows the volume, all do from now on. 3-D views turn about the nodule from now on.

    Args:
        volume: the volume node.
        ras: the nodule's centre in the world, mm.
        diameter_mm: its longest.
    """
    show_in_lung_window(volume)
    if not _logics_of(volume):
        slicer.util.setSliceViewerLayers(background=volume)
    for logic in _logics_of(volume):
        _centre(logic.GetSliceNode(), ras, max(LEAST_MM, SURROUNDINGS * diameter_mm))
    for camera in slicer.util.getNodesByClass("vtkMRMLCameraNode"):
        _turn_about(camera, ras)


def _logics_of(volume: Any) -> list[Any]:
    """Give the logics of the slice views that show a volume."""
    logics = slicer.app.applicationLogic().GetSliceLogics()
    shown = volume.GetID()
    return [
        one
        for one in logics
        if one.GetSliceCompositeNode() is not None
        and one.GetSliceCompositeNode().GetBackgroundVolumeID() == shown
    ]


def _centre(slice_node: Any, ras: Sequence[float], size_mm: float) -> None:
    """Let a slice view show at least so many mm to either side and up and down about a place."""
    width, height = slice_node.GetDimensions()[:2]
    if min(width, height) > 0:
        scale = size_mm / min(width, height)
        depth = slice_node.GetFieldOfView()[2]
        slice_node.SetFieldOfView(width * scale, height * scale, depth)
    slice_node.JumpSliceByCentering(*ras)


def _turn_about(camera_node: Any, ras: Sequence[float]) -> None:
    """Make a place the middle of a 3-D view, seen from the same side and distance."""
    move = np.subtract(ras, camera_node.GetFocalPoint())
    camera_node.SetFocalPoint(*ras)
    camera_node.SetPosition(*(np.add(camera_node.GetPosition(), move)))
    camera_node.ResetClippingRange()
