"""The subject hierarchy, where Slicer shows which data belong together. Needs slicer."""

from typing import Any

import slicer

from CTLungScreeningSlicer.scene.volume_slices import INSTANCE_UIDS

_REFERENCED = "DICOM.ReferencedInstanceUIDs"
"""Attribute of an item: the SOP Instance UIDs that its data were made of."""


def place_beside(volume_node: Any, node: Any) -> None:
    """Put a node under the volume's parent in the subject hierarchy: its DICOM study, if any.

    If the volume is from DICOM, the node's item names its slices, as Slicer's DICOM export of
    segmentations wants it.
    """
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
        item = hierarchy.CreateItem(parent, node)
    if uids := volume_node.GetAttribute(INSTANCE_UIDS):
        hierarchy.SetItemAttribute(item, _REFERENCED, uids)
