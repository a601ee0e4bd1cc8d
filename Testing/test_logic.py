"""Results in a real MRML scene: where they lie, what they say, and what they leave alone."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.nodules.table import COLUMNS, read_nodules_csv
from LungNoduleSegLib.results.reading import SEGMENTATION, TABLE
from mrml_grids import (
    LEFT,
    OBLIQUE,
    RIGHT,
    draw_in_layer,
    draw_segment,
    grid,
    grids,
    masks,
    node_ids,
    points,
    voxels_of,
    voxels_on,
    write_results,
)

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

import vtk  # noqa: E402

from CTLungScreeningSlicer.scene import mrml_host, mrml_volume  # noqa: E402
from CTLungScreeningSlicer.scene.mrml_volume import add_volume  # noqa: E402
from LungNoduleSegSlicer.scene import mrml_results  # noqa: E402
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: E402

NODULE_1, NODULE_3 = "CTLungScreening_Nodule_1", "CTLungScreening_Nodule_3"
OURS = [RIGHT, LEFT, NODULE_1, NODULE_3]


def ids(segmentation_node: Any) -> list[str]:
    return list(segmentation_node.GetSegmentation().GetSegmentIDs())


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def keep_apart(file: Path, data: str) -> None:
    """Let a segmentation say that its voxels are in another file."""
    (file.parent / "v.raw").write_bytes(bytes(99))
    file.write_bytes(
        file.read_bytes().replace(b"\nencoding", f"\ndata file: {data}\nencoding".encode(), 1)
    )


def corner(image: sitk.Image) -> sitk.Image:
    """Make a mask of two voxels in the first slice, where no lung is."""
    mask = sitk.Image(image.GetSize(), sitk.sitkUInt8)
    mask.CopyInformation(image)
    mask[3:5, 0, 0] = 1
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
    draw_segment(given_node, masks(image)[0] > 0, "overlaps both lungs")
    first = logic.importResults(write_results(tmp_path / "1", image), volume, given_node)
    assert not draw_in_layer(given_node, np.s_[0, 0, 0], "shares the lungs' layer", RIGHT)
    draw_segment(given_node, corner(image), "shares the nodules' layer")
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
        assert points(mine)["Carina"].tolist() == [1, 2, 3]

    table = logic.scene.AddNewNodeByClass("vtkMRMLTableNode", "Doses")
    table.AddColumn().InsertNextValue("2 mSv")
    before = node_ids()
    with pytest.raises(InputError, match="Doses holds other data"):
        logic.importResults(results, volume, tableNode=table)
    assert node_ids() == before
    assert table.GetNumberOfRows() == 1


def test_undo_takes_back_the_last_import(logic: LungNoduleSegLogic, tmp_path: Path) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    first = logic.importResults(write_results(tmp_path / "1", image), volume)
    assert not draw_in_layer(first.segmentation, np.s_[0, 0, 0], "mine", RIGHT)
    segmentation = first.segmentation.GetSegmentation()
    before = {one: voxels_on(image, segmentation, one) for one in ids(first.segmentation)}
    here = node_ids()

    second = write_results(tmp_path / "2", image, nodule_ids=(5,))
    logic.importResults(second, volume, first.segmentation, None, first.fiducials)
    assert len(node_ids()) > len(here)
    logic.history.undo()

    assert node_ids() == here
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
    here = node_ids()

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(mrml_volume, "place_beside", fail)
    second = write_results(tmp_path / "2", image, nodule_ids=(5,))
    with pytest.raises(MemoryError):
        logic.importResults(second, volume, first.segmentation)
    assert node_ids() == here
    assert {one: voxels_on(image, segmentation, one) for one in ids(first.segmentation)} == before


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda folder: (folder / SEGMENTATION).unlink(),
            f"{SEGMENTATION} cannot be opened",
        ),
        (lambda folder: (folder / SEGMENTATION).write_text("NRRD?"), "neither MetaImage nor NRRD"),
        (lambda folder: truncate(folder / SEGMENTATION), f"{SEGMENTATION} is cut short"),
        (lambda folder: keep_apart(folder / SEGMENTATION, "v.raw"), "voxels in another file"),
        (lambda folder: keep_apart(folder / SEGMENTATION, "%999999d.raw 1 8 1"), "several files"),
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
    before = node_ids()
    with pytest.raises(InputError, match=message):
        logic.importResults(results, volume)
    assert node_ids() == before


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
