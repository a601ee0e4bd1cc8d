"""Show results and nodules in slice views, the 3-D view and the Segment Editor."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer

from CTLungScreeningSlicer.panel.slice_views import show_volume
from CTLungScreeningSlicer.scene.mrml_volume import show_in_lung_window
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes

_VIEWS = ("vtkMRMLSliceNode", "vtkMRMLViewNode")
"""Views that a layout needs to show results: a slice and a 3-D view."""


def show_results(results: ResultNodes, volume_node: Any) -> None:
    """Show what a run has found in slice and 3-D views.

    Another layout is set only if the one that is shown lacks one of them, and the lung window only
    if the volume's window was left to Slicer.
    """
    with slicer.util.WaitCursor():
        results.segmentation.CreateClosedSurfaceRepresentation()
    display = volume_node.GetDisplayNode()
    if display is not None and display.GetAutoWindowLevel():
        show_in_lung_window(volume_node)
    selection = slicer.app.applicationLogic().GetSelectionNode()
    selection.SetActiveTableID(results.table.GetID())
    slicer.modules.markups.logic().SetActiveList(results.fiducials)
    if not all(map(_is_shown, _VIEWS)):
        slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    show_volume(volume_node)
    slicer.util.resetThreeDViews()


def _is_shown(view_class: str) -> bool:
    return any(view.IsMappedInLayout() for view in slicer.util.getNodesByClass(view_class))


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
    """Return the logics of the slice views that show a volume."""
    logics = slicer.app.applicationLogic().GetSliceLogics()
    shown = volume.GetID()
    return [
        one
        for one in logics
        if one.GetSliceCompositeNode() is not None
        and one.GetSliceCompositeNode().GetBackgroundVolumeID() == shown
    ]


def _centre(slice_node: Any, ras: Sequence[float], size_mm: float) -> None:
    """Zoom a slice view out to at least so many mm on all sides of a place."""
    width, height = slice_node.GetDimensions()[:2]
    if min(width, height) > 0:
        scale = size_mm / min(width, height)
        depth = slice_node.GetFieldOfView()[2]
        slice_node.SetFieldOfView(width * scale, height * scale, depth)
    slice_node.JumpSliceByCentering(*ras)


def _turn_about(camera_node: Any, ras: Sequence[float]) -> None:
    """Centre a 3-D view on a place, from the same side and distance."""
    move = np.subtract(ras, camera_node.GetFocalPoint())
    camera_node.SetFocalPoint(*ras)
    camera_node.SetPosition(*(np.add(camera_node.GetPosition(), move)))
    camera_node.ResetClippingRange()


_NODE = "SegmentEditor"
"""Singleton tag of the node that holds what the module's panel shows."""


def open_segment_editor(segmentation_node: Any, volume: Any, segment_id: str) -> None:
    """Show the Segment Editor with a segment selected; painting leaves other segments as they are.

    Args:
        segmentation_node: that holds it.
        volume: to draw on.
        segment_id: of the segment.
    """
    scene = slicer.mrmlScene
    node = scene.GetSingletonNode(_NODE, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag(_NODE)
        node = scene.AddNode(node)
    node.SetAndObserveSegmentationNode(segmentation_node)
    node.SetAndObserveSourceVolumeNode(volume)
    node.SetOverwriteMode(node.OverwriteNone)
    slicer.util.selectModule("SegmentEditor")
    # Not before: the module selects the first segment when it is first opened.
    node.SetSelectedSegmentID(segment_id)
