"""Slicer's Segment Editor, opened on one segment."""

from typing import Any

import slicer

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
