"""Results in a real MRML scene: where they lie, what they say, and what they leave alone."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings

from CTLungScreeningLib.errors import Cancelled, InputError
from LungNoduleSegLib.nodules.table import COLUMNS, read_nodules_csv
from LungNoduleSegLib.options import RunOptions
from LungNoduleSegLib.results.reading import SEGMENTATION, TABLE
from mrml_grids import OBLIQUE, grid, grids, masks, voxels_of, voxels_on, write_results

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

import vtk  # noqa: E402

from CTLungScreeningSlicer.scene import (  # noqa: E402
    mrml_host,
    mrml_volume,
)
from CTLungScreeningSlicer.scene.mrml_volume import add_volume, export_volume  # noqa: E402
from LungNoduleSegSlicer.scene import mrml_results  # noqa: E402
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: E402
from LungNoduleSegSlicer.scene.saving_logic import write_scene  # noqa: E402

RIGHT, LEFT = "CTLungScreening_RightLung", "CTLungScreening_LeftLung"
NODULE_1, NODULE_3 = "CTLungScreening_Nodule_1", "CTLungScreening_Nodule_3"
OURS = [RIGHT, LEFT, NODULE_1, NODULE_3]


@pytest.fixture
def logic() -> Iterator[LungNoduleSegLogic]:
    mrml_host.start().Clear()
    yield LungNoduleSegLogic()
    slicer.mrmlScene.Clear()


def nodes() -> list[str]:
    scene = slicer.mrmlScene
    return sorted(scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes()))


def ids(segmentation_node: Any) -> list[str]:
    return list(segmentation_node.GetSegmentation().GetSegmentIDs())


def points(node: Any) -> dict[str, list[float]]:
    found = {}
    for index in range(node.GetNumberOfControlPoints()):
        position = [0.0, 0.0, 0.0]
        node.GetNthControlPointPositionWorld(index, position)
        found[node.GetNthControlPointLabel(index)] = position
    return found


def own_segment(segmentation_node: Any, labels: sitk.Image, name: str, layer_of: str = "") -> Any:
    """Add what a user drew, in a labelmap of its own or in the one that holds `layer_of`."""
    segmentation = segmentation_node.GetSegmentation()
    segment = slicer.vtkSegment()
    segment.SetName(name)
    if layer_of:
        neighbour = segmentation.GetSegment(layer_of)
        labelmap = neighbour.GetRepresentation("Binary labelmap")
        array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(segmentation_node, layer_of)
        value = segmentation.GetUniqueLabelValueForSharedLabelmap(layer_of)
        mask = sitk.GetArrayViewFromImage(labels) > 0
        assert not array[mask].any()
        array[mask] = value
        segment.SetLabelValue(value)
    else:
        volume = add_volume(labels, "temporary")
        labelmap = slicer.vtkOrientedImageData()
        labelmap.DeepCopy(volume.GetImageData())
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        labelmap.SetGeometryFromImageToWorldMatrix(matrix)
        slicer.mrmlScene.RemoveNode(volume)
    segment.AddRepresentation("Binary labelmap", labelmap)
    assert segmentation.AddSegment(segment, name)
    return segment


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def corner(image: sitk.Image, start: int = 0, size: int = 1) -> sitk.Image:
    """Make a small mask in the first slice, where no lung is."""
    mask = sitk.Image(image.GetSize(), sitk.sitkUInt8)
    mask.CopyInformation(image)
    for x in range(start, start + size):
        mask[x, 0, 0] = 1
    return mask


@settings(max_examples=15)
@given(image=grids)
def test_segments_and_points_lie_where_the_voxels_are(image: sitk.Image) -> None:
    mrml_host.start().Clear()
    with TemporaryDirectory() as folder:
        results = write_results(Path(folder, "out"), image)
        found = LungNoduleSegLogic().importResults(results, add_volume(image, "CT"))
        nodules = {one.id: one for one in read_nodules_csv(results / TABLE)}
    lungs, labels = masks(image)
    segmentation = found.segmentation.GetSegmentation()
    for segment_id, mask, label in zip(
        OURS, (lungs, lungs, labels, labels), (1, 2, 1, 3), strict=True
    ):
        assert voxels_on(image, segmentation, segment_id) == voxels_of(mask, label)
    for name, ras in points(found.fiducials).items():
        nodule = nodules[int(name.removeprefix("Nodule "))]
        np.testing.assert_allclose(ras, (-nodule.x, -nodule.y, nodule.z), atol=1e-6)
        index = image.TransformPhysicalPointToContinuousIndex((-ras[0], -ras[1], ras[2]))
        np.testing.assert_allclose(
            index, np.mean(sorted(voxels_of(labels, nodule.id)), axis=0), atol=1e-3
        )


def test_nodes_are_named_described_and_placed_beside_the_volume(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    image = grid("RPI")
    volume = add_volume(image, "Thorax")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(logic.scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.CreateItem(study, volume)
    found = logic.importResults(write_results(tmp_path / "out", image), volume)

    for node in (found.segmentation, found.table, found.fiducials):
        assert node.GetName().startswith("Thorax ")
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    assert found.segmentation.GetNodeReference("referenceImageGeometryRef") is volume
    segmentation = found.segmentation.GetSegmentation()
    assert segmentation.GetNumberOfLayers() == 3  # the lungs share one
    assert float(segmentation.GetConversionParameter("Smoothing factor")) == 0

    table = found.table
    assert table.GetNumberOfRows() == 2
    for name, about in COLUMNS.items():
        assert table.GetColumnUnitLabel(name) == about.unit
        assert table.GetColumnDescription(name) == about.description
    assert list(slicer.util.arrayFromTableColumn(table, "id")) == [1, 3]
    assert list(slicer.util.arrayFromTableColumn(table, "diameter_mm")) == [7.25, 7.25]
    assert np.isnan(slicer.util.arrayFromTableColumn(table, "mean_probability")).all()
    kinds = table.GetTable().GetColumnByName("kind")
    assert kinds.GetValue(0) == "solid"
    assert found.fiducials.GetNthControlPointDescription(0).endswith("7.2 mm, solid, right lung")


def test_a_small_nodule_keeps_its_volume_as_a_surface(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    image = grid()
    found = logic.importResults(write_results(tmp_path / "out", image), add_volume(image, "CT"))
    assert found.segmentation.CreateClosedSurfaceRepresentation()
    surface = vtk.vtkPolyData()
    assert found.segmentation.GetClosedSurfaceRepresentation(RIGHT, surface)
    mass = vtk.vtkMassProperties()
    mass.SetInputData(surface)
    voxels = len(voxels_of(masks(image)[0], 1)) * float(np.prod(image.GetSpacing()))
    assert 0.7 * voxels < mass.GetVolume() <= voxels


def test_no_nodule_gives_lungs_and_an_empty_table(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    image = grid()
    results = write_results(tmp_path / "out", image, nodule_ids=())
    found = logic.importResults(results, add_volume(image, "CT"))
    assert ids(found.segmentation) == [RIGHT, LEFT]
    assert found.table.GetNumberOfRows() == 0
    assert found.table.GetNumberOfColumns() == len(COLUMNS)
    assert found.fiducials.GetNumberOfControlPoints() == 0


@pytest.mark.parametrize("angle", [0, 0.4])
def test_what_the_user_drew_survives_a_second_run_bit_for_bit(
    logic: LungNoduleSegLogic, tmp_path: Path, angle: float
) -> None:
    image = grid(axis=OBLIQUE["axis"], angle=angle)
    volume = add_volume(image, "CT")
    given_node = logic.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    own_segment(given_node, masks(image)[0] > 0, "overlaps both lungs")
    first = logic.importResults(write_results(tmp_path / "1", image), volume, given_node)
    own_segment(given_node, corner(image), "shares the lungs' layer", layer_of=RIGHT)
    own_segment(given_node, corner(image, 3, 2), "shares the nodules' layer")
    segmentation = given_node.GetSegmentation()
    segmentation.CollapseBinaryLabelmaps(False)  # as when a scene is saved
    mine = [segment_id for segment_id in ids(given_node) if segment_id not in OURS]
    assert len(mine) == 3
    before = {one: voxels_on(image, segmentation, one) for one in mine}
    assert [len(before[one]) for one in mine] == [len(voxels_of(masks(image)[0] > 0, 1)), 1, 2]

    second = write_results(tmp_path / "2", image, nodule_ids=(5,))
    found = logic.importResults(second, volume, given_node, first.table, first.fiducials)

    assert found == type(found)(given_node, first.table, first.fiducials)
    assert ids(given_node) == [*mine, RIGHT, LEFT, "CTLungScreening_Nodule_5"]
    assert {one: voxels_on(image, segmentation, one) for one in mine} == before
    assert voxels_on(image, segmentation, "CTLungScreening_Nodule_5") == voxels_of(
        masks(image, (5,))[1], 5
    )
    assert voxels_on(image, segmentation, RIGHT) == voxels_of(masks(image)[0], 1)
    assert found.table.GetNumberOfRows() == 1
    assert list(points(found.fiducials)) == ["Nodule 5"]


def test_renamed_and_edited_segments_of_ours_are_the_users(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    found = logic.importResults(write_results(tmp_path / "1", image), volume)
    node = found.segmentation
    segmentation = node.GetSegmentation()
    segmentation.GetSegment(NODULE_1).SetName("Spiculated")
    array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, NODULE_3)
    array[:] = segmentation.GetSegment(NODULE_3).GetLabelValue()
    kept = {one: voxels_on(image, segmentation, one) for one in (NODULE_1, NODULE_3)}

    logic.importResults(write_results(tmp_path / "2", image), volume, node)

    names = [segmentation.GetSegment(one).GetName() for one in ids(node)]
    assert names == ["Spiculated", "Nodule 3", "Right lung", "Left lung", "Nodule 1", "Nodule 3"]
    assert {one: voxels_on(image, segmentation, one) for one in kept} == kept


def test_an_import_keeps_its_tag_after_saving_and_loading(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    image = grid("SAL", **OBLIQUE)
    volume = add_volume(image, "CT")
    node = logic.importResults(write_results(tmp_path / "1", image), volume).segmentation
    storage = slicer.vtkMRMLSegmentationStorageNode()
    logic.scene.AddNode(storage)
    storage.SetFileName(str(tmp_path / "again.seg.nrrd"))
    assert storage.WriteData(node)
    loaded = logic.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert storage.ReadData(loaded)
    assert mrml_results.own_segments(loaded) == OURS


def test_the_users_points_and_other_tables_are_kept(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    mine = logic.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Mine")
    mine.AddControlPoint(vtk.vtkVector3d(1, 2, 3), "Carina")
    results = write_results(tmp_path / "1", image)
    for _ in range(2):
        logic.importResults(results, volume, fiducialNode=mine)
        assert list(points(mine)) == ["Carina", "Nodule 1", "Nodule 3"]
        assert points(mine)["Carina"] == [1, 2, 3]

    table = logic.scene.AddNewNodeByClass("vtkMRMLTableNode", "Doses")
    table.AddColumn().InsertNextValue("2 mSv")
    before = nodes()
    with pytest.raises(InputError, match="Doses holds other data"):
        logic.importResults(results, volume, tableNode=table)
    assert nodes() == before
    assert table.GetNumberOfRows() == 1


def test_undo_takes_back_the_last_import(logic: LungNoduleSegLogic, tmp_path: Path) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    first = logic.importResults(write_results(tmp_path / "1", image), volume)
    own_segment(first.segmentation, corner(image), "mine", layer_of=RIGHT)
    segmentation = first.segmentation.GetSegmentation()
    before = {one: voxels_on(image, segmentation, one) for one in ids(first.segmentation)}
    here = nodes()

    second = write_results(tmp_path / "2", image, nodule_ids=(5,))
    logic.importResults(second, volume, first.segmentation, None, first.fiducials)
    assert len(nodes()) > len(here)
    logic.history.undo()

    assert nodes() == here
    assert {one: voxels_on(image, segmentation, one) for one in ids(first.segmentation)} == before
    assert list(points(first.fiducials)) == ["Nodule 1", "Nodule 3"]


def test_names_are_numbered_only_where_a_node_has_them(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    results = write_results(tmp_path / "1", image)
    first = logic.importResults(results, volume).table.GetName()
    assert logic.importResults(results, volume).table.GetName() == f"{first}_1"
    logic.history.undo()
    logic.history.undo()
    assert logic.importResults(results, volume).table.GetName() == first


def test_a_failure_halfway_leaves_the_scene_as_it_was(
    logic: LungNoduleSegLogic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    first = logic.importResults(write_results(tmp_path / "1", image), volume)
    segmentation = first.segmentation.GetSegmentation()
    before = {one: voxels_on(image, segmentation, one) for one in ids(first.segmentation)}
    here = nodes()

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(mrml_volume, "place_beside", fail)
    second = write_results(tmp_path / "2", image, nodule_ids=(5,))
    with pytest.raises(MemoryError):
        logic.importResults(second, volume, first.segmentation)
    assert nodes() == here
    assert {one: voxels_on(image, segmentation, one) for one in ids(first.segmentation)} == before


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / SEGMENTATION).unlink(), "no segmentation that Slicer can read"),
        (lambda folder: (folder / SEGMENTATION).write_text("NRRD?"), "no segmentation"),
        (lambda folder: truncate(folder / SEGMENTATION), "no segmentation"),
        (lambda folder: (folder / TABLE).write_text("id,x\n1,2\n"), "not a table of nodules"),
    ],
)
def test_broken_results_are_refused_before_anything_changes(
    logic: LungNoduleSegLogic, tmp_path: Path, break_it: Any, message: str
) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    results = write_results(tmp_path / "out", image)
    break_it(results)
    before = nodes()
    with pytest.raises(InputError, match=message):
        logic.importResults(results, volume)
    assert nodes() == before


def test_results_of_another_volume_are_refused(logic: LungNoduleSegLogic, tmp_path: Path) -> None:
    results = write_results(tmp_path / "out", grid())
    elsewhere = add_volume(grid(origin=(0, 0, 0)), "Another")
    with pytest.raises(InputError, match="does not lie where Another lies"):
        logic.importResults(results, elsewhere)


def test_the_same_space_in_another_voxel_order_is_taken(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    image = grid("LPS", **OBLIQUE)
    flipped = sitk.Flip(image, (False, True, True))
    found = logic.importResults(write_results(tmp_path / "o", image), add_volume(flipped, "CT"))
    lungs, _ = masks(image)
    segmentation = found.segmentation.GetSegmentation()
    assert voxels_on(image, segmentation, RIGHT) == voxels_of(lungs, 1)


@settings(max_examples=25)
@given(image=grids)
def test_a_volume_is_exported_where_it_lies(image: sitk.Image) -> None:
    mrml_host.start().Clear()
    volume = add_volume(image + sitk.Cast(masks(image)[0], sitk.sitkInt16), "CT")
    with TemporaryDirectory() as folder:
        export_volume(volume, Path(folder, "a.nrrd"))
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

    export_volume(volume, tmp_path / "a.nrrd")
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
            export_volume(volume, tmp_path / "a.nrrd")
    with pytest.raises(InputError, match="Nothing has no image"):
        logic.process(empty)
    assert list(tmp_path.iterdir()) == []


def test_nodes_under_a_transform_or_of_surfaces_are_refused(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    results = write_results(tmp_path / "out", image)
    node = logic.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    transform = logic.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(InputError, match="Mine is under a transform"):
        logic.importResults(results, volume, node)
    node.SetAndObserveTransformNodeID(None)

    sphere = vtk.vtkSphereSource()
    sphere.Update()
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    node.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "Ball")
    with pytest.raises(InputError, match="Mine holds its segments as Closed surface"):
        logic.importResults(results, volume, node)
    assert len(ids(node)) == 1


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

    done = subprocess.run(
        [sys.executable, "-c", REOPEN, str(results / "scene.saving")],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
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


@pytest.fixture(scope="module")
def bright_spot_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of one weight that finds what is 2.5 standard deviations brighter than lung."""
    from CTLungScreeningLib.keras_loader import keras
    from CTLungScreeningLib.model_card import ModelCard, save_model

    inputs = keras.Input((256, 256, 1))
    layer = keras.layers.Conv2D(1, 1, activation="sigmoid")
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.full((1, 1, 1, 1), 5.0), np.array([-12.5])])
    file = tmp_path_factory.mktemp("model") / "bright.keras"
    save_model(model, ModelCard("bright", "a test", "probability", {"size": 256}), file)
    return file


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
    before = nodes()
    with pytest.raises(InputError, match=r"^[^/]*lung[^/]*$"):
        logic.process(volume, options=RunOptions(model=bright_spot_model))
    assert nodes() == before
    assert list(Path(slicer.app.temporaryPath).glob("LungNoduleSeg-*")) == []


def test_cancelled_processing_leaves_no_node_and_no_file(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    volume = add_volume(grid(), "CT")
    before = nodes()

    def cancel(stage: str, done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        logic.process(volume, progress=cancel, outputFolder=tmp_path / "out")
    assert nodes() == before
    assert not (tmp_path / "out").exists()
    assert list(Path(slicer.app.temporaryPath).glob("LungNoduleSeg-*")) == []
