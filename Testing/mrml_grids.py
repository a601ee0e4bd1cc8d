"""Grids and small results that the tests of segments and scene share."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from hypothesis import strategies as st
from numpy.typing import NDArray

from CTLungScreeningLib.geometry import LPS_TO_RAS, ijk_to_lps
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG
from LungNoduleSegLib.nodules.table import Nodule, NoduleKind, Side, write_nodules_csv
from LungNoduleSegLib.results.reading import SEGMENTATION, TABLE
from LungNoduleSegLib.results.segments import write_segmentation

SIZE = (15, 12, 10)
ORIENTATIONS = ["LPS", "RAS", "RPI", "SAL", "PIR"]

RIGHT, LEFT = "CTLungScreening_RightLung", "CTLungScreening_LeftLung"
"""Ids of the segments of the lungs."""


def grid(
    code: str = "LPS",
    spacing: tuple[float, float, float] = (0.7, 0.8, 2.5),
    axis: tuple[float, float, float] = (0, 0, 1),
    angle: float = 0,
    origin: tuple[float, float, float] = (-20.5, 31, -400.25),
) -> sitk.Image:
    """Make an empty volume: turned about `axis` by `angle` radians, its axes named by `code`."""
    image = sitk.Image(SIZE, sitk.sitkInt16) - 900
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(sitk.VersorTransform(axis, angle).GetMatrix())
    return sitk.DICOMOrient(image, code)


OBLIQUE: Any = {"axis": (0.36, 0.48, 0.8), "angle": 0.4}

grids = st.builds(
    grid,
    code=st.sampled_from(ORIENTATIONS),
    spacing=st.tuples(*[st.floats(0.3, 5)] * 3),
    axis=st.sampled_from([(0.0, 0.0, 1.0), (0.36, 0.48, 0.8), (1.0, 0.0, 0.0)]),
    angle=st.floats(-1.2, 1.2).map(lambda angle: round(angle, 6)),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
)


def masks(image: sitk.Image, nodule_ids: tuple[int, ...] = (1, 3)) -> tuple[sitk.Image, sitk.Image]:
    """Make lungs, and at most one nodule in each, on a grid of `SIZE`."""
    shape = image.GetSize()[::-1]
    lungs = np.zeros(shape, np.uint8)
    half = shape[2] // 2
    lungs[1:-1, 1:-2, 1 : half - 1] = RIGHT_LUNG
    lungs[1:-1, 2:-1, half + 1 : -1] = LEFT_LUNG
    nodules = np.zeros(shape, np.uint16)
    for nodule, side in zip(nodule_ids, (RIGHT_LUNG, LEFT_LUNG), strict=False):
        inside = np.argwhere(lungs == side)
        nodules[tuple(inside[40 : 45 + nodule % 7].T)] = nodule
    return _like(image, lungs), _like(image, nodules)


def write_results(folder: Path, image: sitk.Image, nodule_ids: tuple[int, ...] = (1, 3)) -> Path:
    """Write into `folder` what a run on `image` writes, as far as a scene needs it."""
    folder.mkdir(parents=True)
    lungs, nodules = masks(image, nodule_ids)
    write_segmentation(folder / SEGMENTATION, lungs, nodules)
    write_nodules_csv(folder / TABLE, [nodule_row(nodules, one) for one in nodule_ids])
    return folder


def voxels_on(image: sitk.Image, segmentation: Any, segment_id: str) -> set[tuple[int, ...]]:
    """Give a segment's voxels as indices (x, y, z) of `image`, by way of the world.

    Fails if a voxel's centre is not the centre of one of `image`.
    """
    import slicer
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    segment = segmentation.GetSegment(segment_id)
    labelmap = segment.GetRepresentation("Binary labelmap")
    extent = labelmap.GetExtent()
    shape = [extent[2 * axis + 1] - extent[2 * axis] + 1 for axis in (2, 1, 0)]
    scalars = vtk_to_numpy(labelmap.GetPointData().GetScalars())
    where = np.argwhere(scalars.reshape(shape) == segment.GetLabelValue())[:, ::-1]
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    to_ras = slicer.util.arrayFromVTKMatrix(matrix)
    indices = where + np.array(extent[::2])
    to_image = np.linalg.inv(LPS_TO_RAS @ ijk_to_lps(image)) @ to_ras
    found = indices @ to_image[:3, :3].T + to_image[:3, 3]
    np.testing.assert_allclose(found, np.rint(found), atol=1e-3)
    return {tuple(index) for index in np.rint(found).astype(int).tolist()}


def node_ids() -> list[str]:
    """Give the ids of all nodes in the scene, sorted."""
    import slicer

    scene = slicer.mrmlScene
    return sorted(scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes()))


def points(markups: Any) -> dict[str, NDArray[Any]]:
    """Give the place of each control point by its label, world RAS mm."""
    return {
        markups.GetNthControlPointLabel(index): np.array(
            markups.GetNthControlPointPositionWorld(index)
        )
        for index in range(markups.GetNumberOfControlPoints())
    }


def draw_segment(node: Any, labels: sitk.Image, name: str) -> None:
    """Add what a user drew to a segmentation node, in a labelmap of its own."""
    import slicer
    import vtk

    from CTLungScreeningSlicer.scene.mrml_volume import add_volume

    volume = add_volume(labels, "temporary")
    labelmap = slicer.vtkOrientedImageData()
    labelmap.DeepCopy(volume.GetImageData())
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    labelmap.SetGeometryFromImageToWorldMatrix(matrix)
    slicer.mrmlScene.RemoveNode(volume)
    _add_segment(node, name, labelmap)


def draw_in_layer(node: Any, where: Any, name: str, layer_of: str) -> bool:
    """Add what a user drew to a segmentation node, in the labelmap of another segment.

    Args:
        node: the segmentation node.
        where: index (z, y, x) into that labelmap.
        name: of the new segment.
        layer_of: id of the other segment.

    Returns:
        Whether it took voxels from another segment.
    """
    import slicer

    segmentation = node.GetSegmentation()
    array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, layer_of)
    took = bool(array[where].any())
    value = segmentation.GetUniqueLabelValueForSharedLabelmap(layer_of)
    array[where] = value
    labelmap = segmentation.GetSegment(layer_of).GetRepresentation("Binary labelmap")
    _add_segment(node, name, labelmap, value)
    return took


def _add_segment(node: Any, name: str, labelmap: Any, value: int = 1) -> None:
    import slicer

    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.SetLabelValue(value)
    segment.AddRepresentation("Binary labelmap", labelmap)
    assert node.GetSegmentation().AddSegment(segment, name)


def in_a_fresh_process(script: str, file: Path) -> Any:
    """Run a script on a file, in Python without this scene; gives the JSON of its last line."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def voxels_of(labels: sitk.Image, label: int) -> set[tuple[int, ...]]:
    """Give the indices (x, y, z) of a label."""
    where = np.argwhere(sitk.GetArrayViewFromImage(labels) == label)[:, ::-1]
    return {tuple(index) for index in where.tolist()}


def _like(image: sitk.Image, array: NDArray[Any]) -> sitk.Image:
    made = sitk.GetImageFromArray(array)
    made.CopyInformation(image)
    return made


def nodule_row(nodules: sitk.Image, one: int) -> Nodule:
    """Make the row of the table for a label, its place measured, the rest made up."""
    voxels = np.array(sorted(voxels_of(nodules, one)))
    x, y, z = nodules.TransformContinuousIndexToPhysicalPoint(voxels.mean(axis=0).tolist())
    return Nodule(
        id=one,
        x=x,
        y=y,
        z=z,
        slice=int(voxels[:, 2].mean()),
        diameter_mm=7.25,
        perpendicular_mm=5.5,
        equivalent_diameter_mm=6.1,
        volume_mm3=float(np.prod(nodules.GetSpacing()) * len(voxels)),
        mean_hu=-20.0,
        std_hu=60.0,
        min_hu=-300.0,
        p10_hu=-110.0,
        median_hu=-15.0,
        p90_hu=50.0,
        max_hu=80.0,
        kind=NoduleKind.SOLID,
        solid_mm=None,
        side=Side.RIGHT,
        pleura_mm=3.0,
        probability=0.875,
        mean_probability=None,
    )
