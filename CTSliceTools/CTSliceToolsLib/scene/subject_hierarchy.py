"""The subject hierarchy, where Slicer shows which data belong together. Needs slicer."""

from typing import Any

import slicer


def place_beside(volume_node: Any, node: Any) -> None:
    """Put a node under the volume's parent in the subject hierarchy: its DICOM study, if any."""
    scene = volume_node.GetScene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    volume = hierarchy.GetItemByDataNode(volume_node)
    if not volume:  # outside the application items do not come by themselves
        volume = hierarchy.CreateItem(hierarchy.GetSceneItemID(), volume_node)
    parent = hierarchy.GetItemParent(volume)
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)
