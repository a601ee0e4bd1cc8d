"""The nodes that hold the results of one volume, and reading them back. LPS mm out of RAS mm."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, get_args, get_type_hints

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from CTSliceToolsLib.errors import InputError
from CTSliceToolsLib.geometry.affine import LPS_TO_RAS
from CTSliceToolsLib.scene.mrml_volume import ijk_to_world
from LungNoduleSegLib.nodules.table import COLUMNS, Nodule
from LungNoduleSegLib.results.segments import LUNG_STYLES, nodule_style
from LungNoduleSegLib.risk.growth import ChestScan
from LungNoduleSegLib.scene.mrml_results import BINARY_LABELMAP


@dataclass(frozen=True)
class ResultNodes:
    """The nodes that hold the results of one volume."""

    segmentation: Any
    table: Any
    fiducials: Any


def nodules_of(table_node: Any) -> tuple[Nodule, ...]:
    """Read the nodules back from a table node that holds those of a run.

    Raises:
        InputError: if it holds something else.
    """
    table = table_node.GetTable()
    columns = {name: table.GetColumnByName(name) for name in COLUMNS}
    if any(column is None for column in columns.values()):
        raise InputError(f"{table_node.GetName()} is no table of nodules: choose that of a run.")
    types = get_type_hints(Nodule)
    try:
        return tuple(
            Nodule(
                **{
                    name: _value(column.GetValue(row), types[name])
                    for name, column in columns.items()
                }
            )
            for row in range(table.GetNumberOfRows())
        )
    except ValueError as error:
        raise InputError(
            f"{table_node.GetName()} holds a value that is none of a nodule ({error}): "
            "correct it or run the scan again."
        ) from error


def lungs_of(segmentation_node: Any) -> sitk.Image:
    """Give the lungs of a segmentation node as labels in the world, LPS mm.

    Raises:
        InputError: if it has no segment of a lung as a run makes them.
    """
    segmentation = segmentation_node.GetSegmentation()
    ids = {label: style.id for label, style in LUNG_STYLES.items()}
    found = {label: one for label, one in ids.items() if segmentation.GetSegment(one)}
    if not found or segmentation_node.GetParentTransformNode() is not None:
        raise InputError(
            f"{segmentation_node.GetName()} has no lungs of a run, or is under a transform: "
            "choose the segmentation of a run, its transform hardened."
        )
    return _merged(segmentation, found)


def nodule_labels_of(result: ResultNodes) -> sitk.Image:
    """Give the nodules of the table as labels, their numbers, on the grid of the volume.

    Raises:
        InputError: if the segmentation lacks a nodule of the table, or names no volume.
    """
    hu = volume_of(result.segmentation)
    segmentation = result.segmentation.GetSegmentation()
    found = {one.id: nodule_style(one.id, 0).id for one in nodules_of(result.table)}
    for number, segment_id in found.items():
        if segmentation.GetSegment(segment_id) is None:
            raise InputError(
                f"{result.segmentation.GetName()} has no segment of nodule {number} of "
                f"{result.table.GetName()}: choose segmentation and table of the same run."
            )
    if not found:
        empty = sitk.Image(hu.GetSize(), sitk.sitkUInt16)
        empty.CopyInformation(hu)
        return empty
    return _merged(segmentation, found, hu)


def volume_of(segmentation_node: Any) -> sitk.Image:
    """Give the HU of the volume that a segmentation names as its reference, in the world, LPS mm.

    Raises:
        InputError: if it names none with an image.
    """
    volume = _volume_node(segmentation_node)
    to_lps = LPS_TO_RAS @ ijk_to_world(volume)
    return _placed(slicer.util.arrayFromVolume(volume), to_lps, (0, 0, 0))


def chest_of(result: ResultNodes) -> ChestScan:
    """Give a scan with its lungs and nodules; its name is that of the volume.

    Raises:
        InputError: as `lungs_of`, `volume_of` and `nodules_of`.
    """
    volume = _volume_node(result.segmentation)
    return ChestScan(
        volume.GetName(),
        volume_of(result.segmentation),
        lungs_of(result.segmentation),
        nodules_of(result.table),
    )


def dicom_ids(segmentation_node: Any) -> tuple[str, str]:
    """Give patient ID and SeriesInstanceUID of the volume, as the subject hierarchy holds them.

    Either is empty where the volume is not from DICOM.
    """
    volume = _volume_node(segmentation_node)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume.GetScene())
    names = slicer.vtkMRMLSubjectHierarchyConstants
    item = hierarchy.GetItemByDataNode(volume)
    if not item:
        return "", ""
    patient = hierarchy.GetAttributeFromItemAncestor(
        item, names.GetDICOMPatientIDAttributeName(), names.GetDICOMLevelPatient()
    )
    return patient, hierarchy.GetItemUID(item, names.GetDICOMUIDName())


def _volume_node(segmentation_node: Any) -> Any:
    role = segmentation_node.GetReferenceImageGeometryReferenceRole()
    volume = segmentation_node.GetNodeReference(role)
    if volume is None or volume.GetImageData() is None:
        raise InputError(
            f"{segmentation_node.GetName()} names no volume that it is from: choose the "
            "segmentation of a run, with its scan in the scene."
        )
    return volume


def _merged(
    segmentation: Any, segment_ids: Mapping[int, str], grid: sitk.Image | None = None
) -> sitk.Image:
    """Bring segments to one label image, whose values are the keys; None: the first one's grid."""
    merged: sitk.Image | None = None
    for label, segment_id in segment_ids.items():
        segment = segmentation.GetSegment(segment_id)
        labelmap = segment.GetRepresentation(BINARY_LABELMAP)
        one = _labels(labelmap, segment.GetLabelValue()) * label
        grid = grid or one
        if not grid.IsSameImageGeometryAs(one):
            one = sitk.Resample(one, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        merged = one if merged is None else sitk.Maximum(merged, one)
    return merged


def _labels(labelmap: Any, value: int) -> sitk.Image:
    """One segment of a labelmap as an image, LPS mm."""
    low_x, high_x, low_y, high_y, low_z, high_z = labelmap.GetExtent()
    shape = (high_z - low_z + 1, high_y - low_y + 1, high_x - low_x + 1)
    voxels = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(shape)
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    to_lps = LPS_TO_RAS @ slicer.util.arrayFromVTKMatrix(matrix)
    return _placed((voxels == value).astype(np.uint16), to_lps, (low_x, low_y, low_z))


def _placed(
    voxels: np.ndarray[Any, Any], to_lps: np.ndarray[Any, Any], first: tuple[int, int, int]
) -> sitk.Image:
    image = sitk.GetImageFromArray(voxels)
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((to_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((to_lps @ [*first, 1.0])[:3].tolist())
    return image


def _value(value: Any, kind: Any) -> Any:
    if isinstance(kind, UnionType):
        return None if np.isnan(value) else _value(value, get_args(kind)[0])
    return kind(value)
