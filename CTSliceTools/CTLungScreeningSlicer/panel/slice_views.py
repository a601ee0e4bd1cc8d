"""Which volumes Slicer's slice views show."""

from typing import Any

import slicer


def visible_volumes() -> list[Any]:
    """Give the scalar volumes of the scene that are not hidden from the user."""
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return [
        one
        for one in nodes
        if one.GetClassName() == "vtkMRMLScalarVolumeNode" and not one.GetHideFromEditors()
    ]


def shown_volume() -> Any | None:
    """Give the volume that a slice view shows; None if none does."""
    shown = _backgrounds()
    return next((one for one in visible_volumes() if one.GetID() in shown), None)


def is_in_view(volume: Any) -> bool:
    """Tell whether a slice view shows a volume."""
    return volume.GetID() in _backgrounds()


def show_volume(volume: Any) -> None:
    """Show a volume in all slice views, unless all show it already."""
    if _backgrounds() != {volume.GetID()}:
        slicer.util.setSliceViewerLayers(background=volume, fit=True)


def view_shows(slice_node: Any, volume: Any) -> bool:
    """Tell whether a slice view shows a volume."""
    logic = slicer.app.applicationLogic().GetSliceLogic(slice_node)
    composite = logic and logic.GetSliceCompositeNode()
    if composite is None:
        return False
    layers = composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()
    return volume.GetID() in layers


def _backgrounds() -> set[str | None]:
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return {one.GetBackgroundVolumeID() for one in nodes}
