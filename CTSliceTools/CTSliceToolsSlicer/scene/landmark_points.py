"""Landmarks of a volume as control points of a markups node that stays with the volume.

A control point's label is the landmark's name, its description the SOP Instance UID of the slice,
its associated node the volume. The points lie where the voxels lie, in whatever way the volume is
moved: put under a transform, taken off it, hardened, centred. Needs slicer.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.scene.nodes import add_node
from CTLungScreeningSlicer.scene.subject_hierarchy import place_beside
from CTLungScreeningSlicer.scene.volume_slices import VolumeSlices
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME

VOLUME_ROLE = "CTSliceTools.volume"
"""Node reference from the markups node to the volume it annotates."""

_GRID = "CTSliceTools.grid"
"""Attribute of the markups node: the grid of the volume, and the transform, that it was set for."""

Places = Mapping[str, tuple[float, float, float]]
"""Landmark → voxel indices (i, j, k), fractions included."""


def find_points(volume_node: Any) -> Any:
    """Give the markups node that annotates a volume; None if there is none."""
    nodes = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode", volume_node.GetScene())
    return next((node for node in nodes if node.GetNodeReference(VOLUME_ROLE) is volume_node), None)


def add_points(volume_node: Any) -> Any:
    """Add an empty markups node that annotates a volume."""
    name = f"{volume_node.GetName()} landmarks"
    node = add_node(volume_node.GetScene(), "MarkupsFiducial", name)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    adopt_points(node, VolumeSlices.of(volume_node))
    place_beside(volume_node, node)
    return node


def adopt_points(node: Any, slices: VolumeSlices) -> None:
    """Make a markups node annotate a volume; its points stay where they are in the world.

    Raises:
        InputError: if two points have the name of the same landmark.
    """
    for name, count in Counter(map(node.GetNthControlPointLabel, _indices(node))).items():
        if count > 1:
            raise InputError(
                f"{node.GetName()} holds {count} points {name}: keep one of them and try again."
            )
    node.SetNodeReferenceID(VOLUME_ROLE, slices.node.GetID())
    node.RemoveAttribute(_GRID)
    follow(node, slices)


def follow(node: Any, slices: VolumeSlices) -> None:
    """Bring the points to where the voxels they mark lie now, and their descriptions up to date.

    If the volume was moved, its voxels carry the points along. If its voxels were exchanged (it
    was cropped, say) or somebody moved the markups node itself, the points stay in the world.
    """
    transform_id = slices.node.GetTransformNodeID()
    grid = {
        "size": slices.size,
        "ijk_to_ras": slices.ijk_to_ras.ravel().tolist(),
        "transform": transform_id,
    }
    text = json.dumps(grid)
    if node.GetAttribute(_GRID) != text or node.GetTransformNodeID() != transform_id:
        before = json.loads(node.GetAttribute(_GRID) or "{}")
        with slicer.util.NodeModify(node):
            if (
                before.get("size") == list(slices.size)
                and before["transform"] == node.GetTransformNodeID()
            ):
                then = np.reshape(before["ijk_to_ras"], (4, 4))
                moved = slices.ijk_to_ras @ np.linalg.inv(then)
                for index in range(node.GetNumberOfControlPoints()):
                    position = np.array([*node.GetNthControlPointPosition(index), 1])
                    node.SetNthControlPointPosition(index, *(moved @ position)[:3])
                node.SetAndObserveTransformNodeID(transform_id)
            else:
                places = [
                    np.array(node.GetNthControlPointPositionWorld(index))
                    for index in range(node.GetNumberOfControlPoints())
                ]
                node.SetAndObserveTransformNodeID(transform_id)
                for index, place in enumerate(places):
                    node.SetNthControlPointPosition(index, *slices.from_world(place))
            node.SetAttribute(_GRID, text)
    for index in _indices(node):
        _describe(node, index, slices)


def read_places(node: Any, slices: VolumeSlices) -> dict[str, tuple[float, float, float]]:
    """Give the voxels that the points mark; of several points of one landmark, the last."""
    return {
        node.GetNthControlPointLabel(index): _ijk(node, index, slices) for index in _indices(node)
    }


def write_places(node: Any, slices: VolumeSlices, places: Places) -> None:
    """Make the points mark these voxels, and no others; points that are no landmarks stay."""
    with slicer.util.NodeModify(node):
        there: dict[str, int] = {}
        for index in reversed(_indices(node)):
            name = node.GetNthControlPointLabel(index)
            if name not in places or name in there:
                node.RemoveNthControlPoint(index)
                there = {one: at - (at > index) for one, at in there.items()}
            else:
                there[name] = index
        for name, ijk in places.items():
            position = slices.to_ras(ijk)
            index = there.get(name, -1)
            if index < 0:
                index = node.AddControlPoint(vtk.vtkVector3d(*position), name)
            else:
                node.SetNthControlPointPosition(index, *position)
            _describe(node, index, slices)


def _indices(node: Any) -> list[int]:
    """The control points that are landmarks and are placed."""
    return [
        index
        for index in range(node.GetNumberOfControlPoints())
        if node.GetNthControlPointLabel(index) in LANDMARK_BY_NAME
        and node.GetNthControlPointPositionStatus(index) == node.PositionDefined
    ]


def _ijk(node: Any, index: int, slices: VolumeSlices) -> tuple[float, float, float]:
    ijk: NDArray[np.float64] = slices.to_ijk(node.GetNthControlPointPosition(index))
    i, j, k = ijk.round(6).tolist()
    return i, j, k


def _describe(node: Any, index: int, slices: VolumeSlices) -> None:
    number = slices.number(_ijk(node, index, slices))
    uid = slices.uids[number] if slices.uids and number is not None else ""
    if node.GetNthControlPointDescription(index) != uid:
        node.SetNthControlPointDescription(index, uid)
    if node.GetNthControlPointAssociatedNodeID(index) != slices.node.GetID():
        node.SetNthControlPointAssociatedNodeID(index, slices.node.GetID())
