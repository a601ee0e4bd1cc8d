"""Volumes are exported where they lie, processed by a child process, and saved as scenes."""

import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings

from bright_model import write_bright_model
from CTLungScreeningLib.child_process import complete
from CTLungScreeningLib.errors import Cancelled, InputError
from LungNoduleSegLib.nodules.table import read_nodules_csv
from LungNoduleSegLib.options import RunOptions
from LungNoduleSegLib.results.reading import TABLE
from mrml_grids import (
    LEFT,
    OBLIQUE,
    RIGHT,
    grid,
    grids,
    in_a_fresh_process,
    masks,
    node_ids,
    points,
    voxels_of,
    voxels_on,
    write_results,
)

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

import vtk  # noqa: E402

from CTLungScreeningSlicer.scene import mrml_host  # noqa: E402
from CTLungScreeningSlicer.scene.mrml_volume import add_volume, export_work  # noqa: E402
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: E402
from LungNoduleSegSlicer.scene.saving_logic import write_scene  # noqa: E402


@settings(max_examples=25)
@given(image=grids)
def test_a_volume_is_exported_where_it_lies(image: sitk.Image) -> None:
    mrml_host.start().Clear()
    volume = add_volume(image + sitk.Cast(masks(image)[0], sitk.sitkInt16), "CT")
    with TemporaryDirectory() as folder:
        complete(export_work(volume, Path(folder, "a.nrrd")))
        back = sitk.ReadImage(Path(folder, "a.nrrd"))
    np.testing.assert_allclose(back.GetOrigin(), image.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(back.GetSpacing(), image.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(back.GetDirection(), image.GetDirection(), atol=1e-6)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(back) + 900, sitk.GetArrayFromImage(masks(image)[0])
    )


def test_a_linear_transform_of_the_volume_is_applied(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    image = grid()
    transform = sitk.Euler3DTransform((3.0, 4.0, 5.0), 0.2, -0.4, 0.6, (10.0, -20.0, 30.0))
    moved = sitk.TransformGeometry(image, transform.GetInverse())
    volume = add_volume(image, "CT")
    node = logic.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Registration")
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    matrix[:3, 3] = transform.TransformPoint((0, 0, 0))
    to_ras = np.diag([-1, -1, 1, 1])
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(to_ras @ matrix @ to_ras))
    volume.SetAndObserveTransformNodeID(node.GetID())

    complete(export_work(volume, tmp_path / "a.nrrd"))
    back = sitk.ReadImage(tmp_path / "a.nrrd")
    first, last = (0, 0, 0), tuple(size - 1 for size in image.GetSize())
    for index in (first, last):
        np.testing.assert_allclose(
            back.TransformIndexToPhysicalPoint(index),
            transform.TransformPoint(image.TransformIndexToPhysicalPoint(index)),
            atol=1e-4,
        )
    np.testing.assert_allclose(back.GetOrigin(), moved.GetOrigin(), atol=1e-4)
    found = logic.importResults(write_results(tmp_path / "out", back), volume)
    lungs, _ = masks(back)
    segmentation = found.segmentation.GetSegmentation()
    assert voxels_on(back, segmentation, RIGHT) == voxels_of(lungs, 1)


def test_volumes_that_fit_no_image_file_are_refused(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    volume = add_volume(grid(), "CT")
    sheared = logic.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Shear")
    matrix = np.eye(4)
    matrix[1, 2] = 0.3
    sheared.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    bent = logic.scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Breathing")
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for corner_point in np.ndindex(2, 2, 2):
        source.InsertNextPoint(*(100.0 * np.array(corner_point)))
        target.InsertNextPoint(*(100.0 * np.array(corner_point) ** 2 + corner_point[0]))
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    bent.SetAndObserveTransformToParent(spline)
    empty = logic.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")
    cases = [(sheared, "right angles"), (bent, "non-linear transform Breathing")]
    for transform, message in cases:
        volume.SetAndObserveTransformNodeID(transform.GetID())
        with pytest.raises(InputError, match=message):
            complete(export_work(volume, tmp_path / "a.nrrd"))
    with pytest.raises(InputError, match="Nothing has no image"):
        logic.process(empty)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def bright_spot_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bright_model(tmp_path_factory.mktemp("model") / "bright.keras", 256, 2.5)


@pytest.mark.slow
def test_a_volume_under_a_transform_is_processed_where_it_lies(
    logic: LungNoduleSegLogic, tmp_path: Path, bright_spot_model: Path
) -> None:
    from LungNoduleSegLib.phantom.chest import PhantomSpec, make_phantom

    phantom = make_phantom(PhantomSpec(size=(256, 256, 75), spacing=(1.4, 1.4, 4), lesions=()))
    volume = add_volume(sitk.DICOMOrient(phantom.image, "RPI"), "Phantom")
    transform = logic.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    to_world = np.eye(4)
    to_world[:3, :3] = np.reshape(sitk.VersorTransform((0, 0, 1), 0.05).GetMatrix(), (3, 3))
    to_world[:3, 3] = 30, -20, 100
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(to_world))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    stages: list[str] = []

    found = logic.process(
        volume,
        progress=lambda stage, done, total: stages.append(stage),
        outputFolder=tmp_path / "out",
        options=RunOptions(model=bright_spot_model),
    )

    assert {"Lungs", "Nodules", "Results"} <= set(stages)
    assert {"report.html", "run.json", TABLE} <= {one.name for one in (tmp_path / "out").iterdir()}
    to_lps = np.diag([-1, -1, 1, 1]) @ to_world @ np.diag([-1, -1, 1, 1])
    moved = sitk.Image(phantom.image)
    moved.SetOrigin((to_lps @ [*phantom.image.GetOrigin(), 1])[:3])
    moved.SetDirection(to_lps[:3, :3].ravel())
    segmentation = found.segmentation.GetSegmentation()
    for side, segment_id in ((1, RIGHT), (2, LEFT)):
        lung = voxels_on(moved, segmentation, segment_id)
        truth = voxels_of(phantom.lungs, side)
        assert 2 * len(lung & truth) / (len(lung) + len(truth)) > 0.95
    spots = points(found.fiducials)
    assert segmentation.GetNumberOfSegments() == 2 + len(spots)
    assert spots
    for name in list(spots)[:3]:
        x, y, z = spots[name]
        index = moved.TransformPhysicalPointToContinuousIndex((-x, -y, z))
        voxels = voxels_on(moved, segmentation, f"CTLungScreening_{name.replace(' ', '_')}")
        np.testing.assert_allclose(index, np.mean(list(voxels), axis=0), atol=0.01)


@pytest.mark.slow
def test_a_volume_without_lungs_is_refused_by_the_child(
    logic: LungNoduleSegLogic, bright_spot_model: Path
) -> None:
    block = np.full((40, 64, 64), -1000, np.int16)
    block[:, 16:48, 16:48] = 40
    volume = add_volume(sitk.GetImageFromArray(block), "Water")
    before = node_ids()
    with pytest.raises(InputError, match=r"^[^/]*lung[^/]*$"):
        logic.process(volume, options=RunOptions(model=bright_spot_model))
    assert node_ids() == before
    assert list(Path(slicer.app.temporaryPath).glob("LungNoduleSeg-*")) == []


def test_cancelled_processing_leaves_no_node_and_no_file(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    volume = add_volume(grid(), "CT")
    before = node_ids()

    def cancel(stage: str, done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        logic.process(volume, progress=cancel, outputFolder=tmp_path / "out")
    assert node_ids() == before
    assert not (tmp_path / "out").exists()
    assert list(Path(slicer.app.temporaryPath).glob("LungNoduleSeg-*")) == []


REOPEN = """
import json, sys
from CTLungScreeningSlicer.scene import mrml_host
scene = mrml_host.start()
assert scene.ReadFromMRB(sys.argv[1])
import numpy as np, slicer
volume, segments, table, marks = (scene.GetFirstNodeByClass("vtkMRML" + kind + "Node")
    for kind in ("ScalarVolume", "Segmentation", "Table", "MarkupsFiducial"))
segmentation = segments.GetSegmentation()
spot = [0, 0, 0]
marks.GetNthControlPointPositionWorld(1, spot)
hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
print(json.dumps({
    "volume": [volume.GetName(), slicer.util.arrayFromVolume(volume).shape, volume.GetSpacing()],
    "segments": [segmentation.GetSegment(i).GetName() for i in segmentation.GetSegmentIDs()],
    "voxels": [
        int((slicer.util.arrayFromSegmentInternalBinaryLabelmap(segments, i)
            == segmentation.GetSegment(i).GetLabelValue()).sum())
        for i in segmentation.GetSegmentIDs()],
    "reference": segments.GetNodeReference("referenceImageGeometryRef").GetName(),
    "units": [table.GetColumnUnitLabel("diameter_mm"), table.GetColumnUnitLabel("mean_hu")],
    "diameters": slicer.util.arrayFromTableColumn(table, "diameter_mm").tolist(),
    "points": [marks.GetNthControlPointLabel(i) for i in range(marks.GetNumberOfControlPoints())],
    "spot": spot,
    "window": volume.GetDisplayNode().GetWindow(),
    "beside": len({hierarchy.GetItemParent(hierarchy.GetItemByDataNode(n))
        for n in (volume, segments, table, marks)}),
}))
"""


def test_a_saved_scene_opens_in_a_fresh_process(tmp_path: Path) -> None:
    mrml_host.start().Clear()
    image = grid("PIR", **OBLIQUE)
    results = write_results(tmp_path / "out", image)
    write_scene(results / "scene.saving", image, results)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    with pytest.raises(InputError, match="already holds"):
        write_scene(results / "scene.saving", image, results)
    assert not [file for file in results.iterdir() if file.name.startswith(".")]
    assert {
        name.split("/")[0] for name in zipfile.ZipFile(results / "scene.saving").namelist()
    } == {"scene"}

    found = in_a_fresh_process(REOPEN, results / "scene.saving")
    lungs, nodules = masks(image)
    assert found["volume"][:2] == ["Chest CT", list(image.GetSize()[::-1])]
    np.testing.assert_allclose(found["volume"][2], image.GetSpacing())
    assert found["segments"] == ["Right lung", "Left lung", "Nodule 1", "Nodule 3"]
    assert found["voxels"] == [
        len(voxels_of(labels, label))
        for labels, label in ((lungs, 1), (lungs, 2), (nodules, 1), (nodules, 3))
    ]
    assert found["reference"] == "Chest CT"
    assert found["units"] == ["mm", "HU"]
    assert found["diameters"] == [7.25, 7.25]
    assert found["points"] == ["Nodule 1", "Nodule 3"]
    nodule = read_nodules_csv(results / TABLE)[1]
    np.testing.assert_allclose(found["spot"], (-nodule.x, -nodule.y, nodule.z), atol=1e-4)
    assert found["window"] == 1500
    assert found["beside"] == 1


def test_a_scene_in_use_is_not_written_over(logic: LungNoduleSegLogic, tmp_path: Path) -> None:
    image = grid()
    add_volume(image, "Mine")
    results = write_results(tmp_path / "out", image)
    with pytest.raises(InputError, match="holds other data"):
        write_scene(results / "scene.saving", image, results)
    assert slicer.mrmlScene.GetFirstNodeByName("Mine") is not None
