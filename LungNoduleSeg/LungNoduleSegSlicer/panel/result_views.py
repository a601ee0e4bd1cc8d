"""Results in Slicer's views: surfaces, points, a layout that has room for them."""

from typing import Any

import slicer

from CTLungScreeningSlicer.panel.slice_views import show_volume
from LungNoduleSegSlicer.scene.lung_window import show_in_lung_window
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes

_VIEWS = ("vtkMRMLSliceNode", "vtkMRMLViewNode")
"""What a layout must have for results to be seen: a slice and a 3-D view."""


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
