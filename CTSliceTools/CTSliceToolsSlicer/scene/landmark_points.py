"""Landmarks of a volume as control points of a markups node, and in annotation files.

A control point's label is the landmark's name, its description the SOP Instance UID of the slice,
its associated node the volume. The points lie where the voxels lie, in whatever way the volume is
moved: put under a transform, taken off it, hardened, centred. Needs slicer.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.scene.mrml_volume import VolumeSlices, add_node, place_beside
from CTSliceToolsLib.dataset.annotation import (
    Annotation,
    SliceName,
    annotation_of_slices,
    read_annotated_slices,
    read_annotation,
    read_slice_names,
    write_annotation,
)
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME, LANDMARKS

VOLUME_ROLE = "CTSliceTools.volume"
"""Node reference from the markups node to the volume it annotates."""

_GRID = "CTSliceTools.grid"
"""Attribute of the markups node: the grid of the volume, and the transform, that it was set for."""

Places = Mapping[str, tuple[float, float, float]]
"""Landmark → voxel indices (i, j, k), fractions included."""


def find_points(volume_node: Any) -> Any:
    """Return the markups node that annotates a volume; None if there is none."""
    nodes = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode", volume_node.GetScene())
    return next((node for node in nodes if node.GetNodeReference(VOLUME_ROLE) is volume_node), None)


def add_points(volume_node: Any) -> Any:
    """Add an empty markups node that annotates a volume."""
    name = f"{volume_node.GetName()} landmarks"
    node = add_node(volume_node.GetScene(), "MarkupsFiducial", name)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    node.SetNodeReferenceID(VOLUME_ROLE, volume_node.GetID())
    follow(node, VolumeSlices.of(volume_node))
    place_beside(volume_node, node)
    return node


def follow(node: Any, slices: VolumeSlices) -> bool:
    """Move the points with the voxels that they mark, and update their descriptions.

    If the volume was moved, its voxels carry the points along. If its voxels were exchanged (it
    was cropped or flipped, say) or somebody moved the markups node itself, the points stay in the
    world.

    Returns:
        Whether voxels were exchanged, so that indices from before mean others now.
    """
    exchanged = False
    transform_id = slices.node.GetTransformNodeID()
    grid = {
        "size": slices.size,
        "ijk_to_ras": slices.ijk_to_ras.ravel().tolist(),
        "transform": transform_id,
    }
    text = json.dumps(grid)
    if node.GetAttribute(_GRID) != text or node.GetTransformNodeID() != transform_id:
        before = json.loads(node.GetAttribute(_GRID) or "{}")
        then = np.reshape(before.get("ijk_to_ras", slices.ijk_to_ras), (4, 4))
        moved = slices.ijk_to_ras @ np.linalg.inv(then)
        exchanged = before.get("size") != list(slices.size) or bool(np.linalg.det(moved) < 0)
        with slicer.util.NodeModify(node):
            if not exchanged and before["transform"] == node.GetTransformNodeID():
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
    return exchanged


def read_places(node: Any, slices: VolumeSlices) -> dict[str, tuple[float, float, float]]:
    """Return the voxels that the points mark; of several points of one landmark, the last."""
    return {
        node.GetNthControlPointLabel(index): _ijk(node, index, slices) for index in _indices(node)
    }


def find_places(
    node: Any, slices: VolumeSlices
) -> tuple[dict[str, tuple[float, float, float]], tuple[str, ...]]:
    """Find the voxels at which the landmarks of any markups node lie in the world.

    Returns:
        The voxels, and the names of those of its points left out: they have not the name of a
        landmark, or lie above or below the volume.

    Raises:
        InputError: if two points have the name of the same landmark, or all are left out.
    """
    for name, count in Counter(map(node.GetNthControlPointLabel, _indices(node))).items():
        if count > 1:
            raise InputError(
                f"{node.GetName()} holds {count} points {name}: keep one of them and try again."
            )
    places = {
        node.GetNthControlPointLabel(index): _rounded(
            slices.to_ijk(slices.from_world(node.GetNthControlPointPositionWorld(index)))
        )
        for index in _indices(node)
    }
    name, volume = node.GetName(), slices.node.GetName()
    if not places:
        raise InputError(
            f"{name} has no point with the name of a landmark, such as “{LANDMARKS[0].name}”: "
            "choose another, or rename its points."
        )
    inside = {one: ijk for one, ijk in places.items() if slices.number(ijk) is not None}
    if not inside:
        raise InputError(f"{name} has no landmark within {volume}: choose the points of this scan.")
    labels = map(node.GetNthControlPointLabel, range(node.GetNumberOfControlPoints()))
    return inside, tuple(label for label in labels if label not in inside)


def read_markups(file: Path) -> Any:
    """Read a `.mrk.json` file as a markups node outside the scene.

    Raises:
        InputError: if it is not one.
    """
    node = slicer.vtkMRMLMarkupsFiducialNode()
    node.SetName(str(file))
    if not _storage(file).ReadData(node):
        raise InputError(f"{file} is not a file of point markups: choose another.")
    return node


def write_markups(node: Any, file: Path) -> None:
    """Write the points of a markups node to a `.mrk.json` file, where they lie in the world.

    Raises:
        InputError: if it cannot be written.
    """
    copy = slicer.vtkMRMLMarkupsFiducialNode()
    copy.CopyContent(node)
    for index in range(node.GetNumberOfControlPoints()):
        if node.GetNthControlPointPositionStatus(index) == node.PositionDefined:
            position = node.GetNthControlPointPositionWorld(index)
            copy.SetNthControlPointPosition(index, *position)
    if not _storage(file).WriteData(copy):
        raise InputError(f"{file} cannot be written: choose another folder.")


def _storage(file: Path) -> Any:
    storage = slicer.vtkMRMLMarkupsJsonStorageNode()
    storage.SetFileName(str(file))
    return storage


def write_places(node: Any, slices: VolumeSlices, places: Places) -> None:
    """Make the points mark these voxels, and no others; points that are not landmarks stay."""
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
    return _rounded(slices.to_ijk(node.GetNthControlPointPosition(index)))


def _rounded(ijk: NDArray[np.float64]) -> tuple[float, float, float]:
    i, j, k = ijk.round(6).tolist()
    return i, j, k


def _describe(node: Any, index: int, slices: VolumeSlices) -> None:
    number = slices.number(_ijk(node, index, slices))
    uid = slices.uids[number] if slices.uids and number is not None else ""
    if node.GetNthControlPointDescription(index) != uid:
        node.SetNthControlPointDescription(index, uid)
    if node.GetNthControlPointAssociatedNodeID(index) != slices.node.GetID():
        node.SetNthControlPointAssociatedNodeID(index, slices.node.GetID())


def numbered(slices: VolumeSlices, numbers: Mapping[str, int]) -> Annotation:
    """Make an annotation that gives slice numbers.

    Raises:
        InputError: if the landmarks contradict anatomy.
    """
    z_mm = {landmark: slices.z_mm(number) for landmark, number in numbers.items()}
    return Annotation(slices.node.GetName(), numbers, z_mm)


def write_numbers(
    slices: VolumeSlices,
    numbers: Mapping[str, int],
    file: Path,
    files: Mapping[str, Path] | None,
    there: Mapping[str, SliceName] | None,
) -> dict[str, SliceName]:
    """Write an annotation file, see `AnnotationLogic.saveAnnotation`."""
    name = slices.node.GetName()
    if files and not slices.uids:
        raise InputError(
            f"{name} was cropped or resampled since it was loaded, and its slices are no longer "
            "those of the DICOM files: delete it and load the series again."
        )
    if files is None or _shared_names(files):
        return write_annotation(numbered(slices, numbers), file, there)
    paths = {}
    for landmark, number in numbers.items():
        if slices.uids[number] not in files:
            raise InputError(
                f"The DICOM file of slice {number} of {name} is not known: "
                "put it back into the folder or the DICOM database."
            )
        paths[landmark] = Path(files[slices.uids[number]])
    read = read_annotated_slices(name, paths)
    for landmark, one in read.items():
        if one.frame.sop_instance_uid != slices.uids[numbers[landmark]]:
            raise InputError(
                f"{paths[landmark]} is not slice {numbers[landmark]} of {name}: "
                "load the volume again."
            )
    return write_annotation(annotation_of_slices(name, read), file, there)


def _shared_names(files: Mapping[str, Path]) -> set[str]:
    """The names that several of the files have, which lie in different folders."""
    counts = Counter(path.name for path in set(map(Path, files.values())))
    return {name for name, count in counts.items() if count > 1}


def read_numbers(
    slices: VolumeSlices, file: Path, files: Mapping[str, Path] | None
) -> dict[str, int]:
    """Read an annotation file: landmark → slice number, see `AnnotationLogic.loadAnnotation`."""
    names = read_slice_names(file)
    if all(isinstance(name, int) for name in names.values()):
        heights = {number: slices.z_mm(number) for number in range(slices.count)}
        found = read_annotation(file, heights).slices
        return {landmark: int(number) for landmark, number in found.items()}
    return _numbers_of_files(slices, file, names, files or {})


def _numbers_of_files(
    slices: VolumeSlices,
    file: Path,
    names: Mapping[str, SliceName],
    files: Mapping[str, Path],
) -> dict[str, int]:
    """Landmark → number of the slice, found by the SOP Instance UIDs in the annotated files."""
    volume = slices.node.GetName()
    if not slices.uids:
        raise InputError(
            f"{file} names DICOM files, but {volume} does not record which of them it was made of: "
            "load the series from the DICOM database."
        )
    shared = _shared_names(files)
    for landmark, name in names.items():
        if name in shared:
            raise InputError(
                f"{file} names for {landmark} the file {name}, but {volume} was made of several "
                "files of that name: run organize on the series and annotate it again."
            )
    by_name = {Path(path).name: Path(path) for path in files.values()}
    paths = {
        landmark: by_name.get(str(name), file.parent / str(name))
        for landmark, name in names.items()
    }
    read = read_annotated_slices(str(file), paths)
    annotation_of_slices(str(file), read)
    numbers = {}
    for landmark, one in read.items():
        if one.frame.sop_instance_uid not in slices.uids:
            raise InputError(
                f"{file} names for {landmark} the file {names[landmark]}, which is not a slice of "
                f"{volume}: choose the volume it belongs to."
            )
        numbers[landmark] = slices.uids.index(one.frame.sop_instance_uid)
    return numbers
