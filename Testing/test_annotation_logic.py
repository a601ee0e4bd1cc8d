"""Landmarks in a real MRML scene: on the right slice however the volume lies, moves or is saved."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

import dicom_files as files
from ct_checks import PATIENT_ORIENTATIONS
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTSliceToolsLib.dataset.annotation import ANNOTATION, read_slice_files
from CTSliceToolsLib.landmarks import LANDMARKS
from CTSliceToolsLib.localizer.prediction import ModelUsed, ScanPrediction, SliceLocation
from CTSliceToolsLib.localizer.scan_fit import landmark_fit
from mrml_grids import ORIENTATIONS, SIZE, grid, points

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

import vtk  # noqa: E402

from CTLungScreeningSlicer.scene import mrml_host  # noqa: E402
from CTLungScreeningSlicer.scene.mrml_volume import (  # noqa: E402
    add_scan,
    add_volume,
    middles_of_grid,
)
from CTSliceToolsSlicer.scene.annotation_logic import AnnotationLogic  # noqa: E402
from CTSliceToolsSlicer.scene.prediction_nodes import (  # noqa: E402
    add_prediction,
    read_prediction_nodes,
)

AXIAL = {name: values for name, values in PATIENT_ORIENTATIONS.items() if "first" in name}
SLIGHTLY_OBLIQUE: Any = {"axis": (0.6, 0.8, 0), "angle": 0.3}


@pytest.fixture
def logic() -> Iterator[AnnotationLogic]:
    mrml_host.start().Clear()
    yield AnnotationLogic()
    slicer.mrmlScene.Clear()


def numbers(logic: AnnotationLogic, volume: Any) -> dict[str, int]:
    return {name: one.number for name, one in logic.landmarks(volume).items()}


def put_under(volume: Any, matrix: np.ndarray) -> Any:
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def moved(angle: float = 0.4, shift: tuple[float, float, float] = (30, -20, 55)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(sitk.VersorTransform((0.36, 0.48, 0.8), angle).GetMatrix(), (3, 3))
    matrix[:3, 3] = shift
    return matrix


def dicom_volume(folder: Path, orientation: tuple[float, ...]) -> tuple[Any, dict[str, Path]]:
    """A DICOM series in the scene as Slicer makes it, and its files by UID."""
    files.write_series(folder, orientation, name="{k}.dcm")
    scan = read_ct(folder)
    volume = add_volume(scan.image, "CT")
    volume.SetAttribute("DICOM.instanceUIDs", " ".join(one.sop_instance_uid for one in scan.slices))
    return volume, {one.sop_instance_uid: one.file for one in scan.slices}


def flip_slices(volume: Any) -> None:
    """Let k run the other way, the voxels staying where they are, as some readers have it."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    array = slicer.util.arrayFromVTKMatrix(matrix)
    last = volume.GetImageData().GetDimensions()[2] - 1
    flip = np.diag([1.0, 1, -1, 1])
    flip[2, 3] = last
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(array @ flip))
    uids = volume.GetAttribute("DICOM.instanceUIDs").split()
    volume.SetAttribute("DICOM.instanceUIDs", " ".join(reversed(uids)))


@settings(max_examples=25)
@given(
    code=st.sampled_from(ORIENTATIONS),
    spacing=st.tuples(*[st.floats(0.3, 5)] * 3),
    angle=st.floats(-0.5, 0.5),
    axis=st.sampled_from([(0.0, 0.0, 1.0), (0.36, 0.48, 0.8), (1.0, 0.0, 0.0)]),
    transformed=st.booleans(),
    number=st.integers(0, SIZE[2] - 1),
)
def test_points_lie_in_the_middle_of_their_slice_and_count_from_the_feet(
    code: str,
    spacing: tuple[float, float, float],
    angle: float,
    axis: tuple[float, float, float],
    transformed: bool,
    number: int,
) -> None:
    mrml_host.start().Clear()
    logic = AnnotationLogic()
    image = grid(code, spacing, axis, angle)
    volume = add_volume(image, "CT")
    matrix = moved(0.2) if transformed else np.eye(4)
    put_under(volume, matrix)
    logic.setLandmark(volume, "C7", number)
    # What is meant, said without the code: the LPS-ordered image counts from the feet.
    axial = sitk.DICOMOrient(image, "LPS")
    columns, rows, _ = axial.GetSize()
    lps = axial.TransformContinuousIndexToPhysicalPoint(
        ((columns - 1) / 2, (rows - 1) / 2, float(number))
    )
    world = matrix @ [-lps[0], -lps[1], lps[2], 1]
    node = logic.markupsNode(volume)
    np.testing.assert_allclose(points(node)["C7"], world[:3], atol=1e-6)
    found = logic.landmarks(volume)["C7"]
    assert found.number == number
    assert found.z_mm == pytest.approx(world[2], abs=1e-6)
    slices = logic.slices(volume)
    assert slices.number_at(world[:3]) == number
    assert slices.number_at_z(world[2]) == number
    assert slices.z_mm(number) == pytest.approx(lps[2], abs=1e-6)


def test_slices_of_a_volume_too_oblique_or_empty_are_refused(logic: AnnotationLogic) -> None:
    oblique = add_volume(grid("LPS", axis=(1, 0, 0), angle=np.radians(42)), "oblique")
    with pytest.raises(InputError, match="oblique has no axial slices"):
        logic.setLandmark(oblique, "C7", 0)
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    with pytest.raises(InputError, match="empty has no image"):
        logic.landmarks(empty)


def test_set_move_and_remove(logic: AnnotationLogic) -> None:
    volume = add_volume(grid(), "CT")
    assert logic.landmarks(volume) == {}
    logic.setLandmarks(volume, {"T1": 4, "C7": 6})
    assert list(numbers(logic, volume).items()) == [("C7", 6), ("T1", 4)]
    logic.setLandmark(volume, "C7", 9)
    assert numbers(logic, volume) == {"C7": 9, "T1": 4}
    assert logic.markupsNode(volume).GetNumberOfControlPoints() == 2
    logic.removeLandmarks(volume, ["T1", "L1"])
    assert numbers(logic, volume) == {"C7": 9}
    with pytest.raises(InputError, match="unknown landmark, “C8”"):
        logic.setLandmark(volume, "C8", 1)
    with pytest.raises(InputError, match="CT has no slice 10: choose one from 0 to 9"):
        logic.setLandmarks(volume, {"T1": 3, "C7": 10})
    assert numbers(logic, volume) == {"C7": 9}


def test_landmarks_lie_under_the_study_of_the_volume(logic: AnnotationLogic) -> None:
    volume = add_volume(grid(), "CT")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.CreateItem(study, volume)
    logic.setLandmark(volume, "C7", 3)
    item = hierarchy.GetItemByDataNode(logic.markupsNode(volume))
    assert hierarchy.GetItemParent(item) == study


def test_heights_become_slices(logic: AnnotationLogic) -> None:
    volume = add_volume(grid("RAS", (0.7, 0.8, 2.5)), "CT")
    heights = logic.slices(volume).world_z_mm()
    assert (np.diff(heights) > 0).all()
    logic.setLandmarksAtZ(volume, {"C7": heights[7] + 1.2, "T1": heights[5] - 1.2})
    assert numbers(logic, volume) == {"C7": 7, "T1": 5}
    with pytest.raises(InputError, match="extends from z ="):
        logic.setLandmarksAtZ(volume, {"C7": heights[-1] + 1.3})


def test_two_volumes_of_one_name_have_their_own(logic: AnnotationLogic) -> None:
    one, two = add_volume(grid(), "CT"), add_volume(grid(), "CT")
    two.SetName("CT")
    logic.setLandmark(one, "C7", 3)
    logic.setLandmark(two, "C7", 5)
    assert (numbers(logic, one), numbers(logic, two)) == ({"C7": 3}, {"C7": 5})
    logic.undo(two)
    assert (numbers(logic, one), numbers(logic, two)) == ({"C7": 3}, {})


def test_every_change_is_undone_and_redone(logic: AnnotationLogic) -> None:
    volume = add_volume(grid(), "CT")
    assert not logic.canUndo(volume)
    states: list[dict[str, int]] = [{}]
    for step in (
        lambda: logic.setLandmark(volume, "C7", 3),
        lambda: logic.setLandmark(volume, "C7", 3),  # nothing new
        lambda: logic.setLandmark(volume, "C7", 8),
        lambda: logic.setLandmarks(volume, {"T1": 5, "T12": 2}),
        lambda: logic.removeLandmarks(volume, ["C7", "T12"]),
        lambda: logic.removeLandmarks(volume, ["C7"]),  # nothing new
    ):
        step()
        if numbers(logic, volume) != states[-1]:
            states.append(numbers(logic, volume))
    assert len(states) == 5
    for state in reversed(states[:-1]):
        assert logic.canUndo(volume)
        logic.undo(volume)
        assert numbers(logic, volume) == state
    assert not logic.canUndo(volume)
    logic.undo(volume)
    for state in states[1:]:
        assert logic.canRedo(volume)
        logic.redo(volume)
        assert numbers(logic, volume) == state
    assert not logic.canRedo(volume)
    logic.undo(volume)
    logic.setLandmark(volume, "L1", 1)
    assert not logic.canRedo(volume)


def test_undo_takes_back_a_point_that_was_dragged_too(logic: AnnotationLogic) -> None:
    volume = add_volume(grid(spacing=(1, 1, 2)), "CT")
    logic.setLandmark(volume, "C7", 3)
    node = logic.markupsNode(volume)
    node.SetNthControlPointPositionWorld(0, points(node)["C7"] + [3, 2, 4.2])
    assert numbers(logic, volume) == {"C7": 5}
    logic.setLandmark(volume, "T1", 1)
    logic.undo(volume)
    assert numbers(logic, volume) == {"C7": 5}
    logic.undo(volume)
    assert numbers(logic, volume) == {}
    logic.redo(volume)
    assert numbers(logic, volume) == {"C7": 5}


def test_a_point_dragged_out_of_the_volume_does_not_count(logic: AnnotationLogic) -> None:
    volume = add_volume(grid(), "CT")
    logic.setLandmarks(volume, {"C7": 9, "T1": 2})
    node = logic.markupsNode(volume)
    node.SetNthControlPointPositionWorld(0, points(node)["C7"] + [0, 0, 100])
    assert numbers(logic, volume) == {"T1": 2}
    logic.setLandmark(volume, "C7", 8)
    assert numbers(logic, volume) == {"C7": 8, "T1": 2}
    assert node.GetNumberOfControlPoints() == 2


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_landmarks_stay_on_their_slices_when_the_volume_is_moved(
    logic: AnnotationLogic, code: str
) -> None:
    volume = add_volume(grid(code, **SLIGHTLY_OBLIQUE), "CT")
    given = {"C7": 8, "T1": 5, "L1": 1}
    logic.setLandmarks(volume, given)
    node = logic.markupsNode(volume)

    def check() -> None:
        assert numbers(logic, volume) == given
        slices = logic.slices(volume)
        for name, number in given.items():
            np.testing.assert_allclose(points(node)[name], slices.world_ras(number), atol=1e-6)

    transform = put_under(volume, moved())
    check()
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(moved(-0.3)))
    check()
    volume.HardenTransform()
    check()
    volume.SetOrigin(0, 0, 0)
    check()
    put_under(volume, moved(0.1))
    check()
    volume.HardenTransform()
    node.HardenTransform()
    check()
    volume.SetAndObserveTransformNodeID(None)
    check()
    logic.undo(volume)
    assert numbers(logic, volume) == {}
    logic.redo(volume)
    check()


def test_landmarks_stay_in_the_world_when_the_volume_is_cropped(logic: AnnotationLogic) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    logic.setLandmarks(volume, {"C7": 8, "T1": 5, "L1": 1})
    before = points(logic.markupsNode(volume))
    cropped = add_volume(image[:, :, 3:], "part")
    volume.SetAndObserveImageData(cropped.GetImageData())
    volume.SetOrigin(cropped.GetOrigin())
    assert numbers(logic, volume) == {"C7": 5, "T1": 2}
    after = points(logic.markupsNode(volume))
    for name, position in before.items():
        np.testing.assert_allclose(after[name], position)
    assert not logic.canUndo(volume)


def test_landmarks_stay_in_the_world_when_the_slices_are_stored_the_other_way(
    logic: AnnotationLogic, tmp_path: Path
) -> None:
    volume, _ = dicom_volume(tmp_path, files.AXIAL)
    logic.setLandmark(volume, "C7", 6)
    before = points(logic.markupsNode(volume))
    flip_slices(volume)
    logic.undo(volume)
    assert numbers(logic, volume) == {"C7": 6}
    np.testing.assert_allclose(points(logic.markupsNode(volume))["C7"], before["C7"])
    assert not logic.canUndo(volume)


def test_a_warped_volume_keeps_its_slices(logic: AnnotationLogic) -> None:
    volume = add_volume(grid(), "CT")
    warp = vtk.vtkThinPlateSplineTransform()
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for corner in np.ndindex(2, 2, 2):
        place = np.array(corner) * 200.0 - [100, 100, 500]
        source.InsertNextPoint(place)
        target.InsertNextPoint(place + np.array([0, 5, 12 * corner[2]]))
    warp.SetSourceLandmarks(source)
    warp.SetTargetLandmarks(target)
    warp.SetBasisToR()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    node.SetAndObserveTransformToParent(warp)
    volume.SetAndObserveTransformNodeID(node.GetID())
    logic.setLandmarks(volume, {"C7": 8, "T1": 2})
    assert numbers(logic, volume) == {"C7": 8, "T1": 2}
    slices = logic.slices(volume)
    for number in range(slices.count):
        assert slices.number_at_z(slices.world_ras(number)[2]) == number


def test_volume_that_goes_leaves_no_trouble(logic: AnnotationLogic) -> None:
    volume = add_volume(grid(), "CT")
    logic.setLandmark(volume, "C7", 8)
    slicer.mrmlScene.RemoveNode(volume)
    other = add_volume(grid(), "CT")
    assert logic.landmarks(other) == {}
    logic.setLandmark(other, "C7", 2)
    slicer.mrmlScene.Clear()
    third = add_volume(grid(), "CT")
    assert logic.landmarks(third) == {}
    assert not logic.canUndo(third)
    assert not logic._histories


def test_markups_of_somebody_else_become_landmarks(logic: AnnotationLogic) -> None:
    volume = add_volume(grid(), "CT")
    put_under(volume, moved(0.1))
    logic.setLandmark(volume, "L1", 0)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "mine")
    slices = logic.slices(volume)
    for name, number in {"C7": 7, "F-1": 5, "T1": 3}.items():
        place = slices.world_ras(number) + np.array([2, 3, 0.1])
        node.AddControlPointWorld(vtk.vtkVector3d(*place), name)
    before = points(node)
    logic.useMarkups(volume, node)
    assert numbers(logic, volume) == {"C7": 7, "T1": 3}
    there = points(logic.markupsNode(volume))
    assert set(there) == {"C7", "T1"}
    for name, position in there.items():
        np.testing.assert_allclose(position, before[name], atol=1e-6)
    np.testing.assert_equal(points(node), before)
    logic.undo(volume)
    assert numbers(logic, volume) == {"L1": 0}
    node.AddControlPointWorld(vtk.vtkVector3d(0, 0, 0), "T1")
    with pytest.raises(InputError, match="mine holds 2 points T1"):
        logic.useMarkups(volume, node)


@pytest.mark.parametrize("degrees", [-20, 20])
def test_slices_of_a_tilted_gantry_lie_where_their_files_say(
    logic: AnnotationLogic, tmp_path: Path, degrees: int
) -> None:
    tilt = np.radians(degrees)
    orientation = (1, 0, 0, 0, np.cos(tilt), np.sin(tilt))
    places = np.array([0, 0, -50.0]) + np.arange(40)[:, None] * [0, 0, 3.0]
    files.write_series(tmp_path, orientation, places, name="{k:03}.dcm")
    scan = read_ct(tmp_path)
    volume = add_scan(scan, "CT")
    stored, _ = read_slice_files(tmp_path)
    heights = [stored[one.file.name].z_mm for one in scan.slices]
    np.testing.assert_allclose(logic.slices(volume).world_z_mm(), heights, atol=1e-3)
    grid = replace(logic.slices(volume), middles=middles_of_grid(scan.image.GetSize(), 2))
    assert np.abs(grid.world_z_mm() - heights).max() > 5
    fit = landmark_fit({"Aortic arch": heights[35], "Bifurcation of trachea": heights[5]})
    slices = tuple(SliceLocation(k, z, 0.2, 0.2) for k, z in enumerate(grid.world_z_mm()))
    add_prediction(volume, ScanPrediction(tmp_path, None, slices, fit, ModelUsed("m")))
    shown = read_prediction_nodes(volume).slices
    np.testing.assert_allclose([one.z_mm for one in shown], heights, atol=1e-3)
    assert [one.source and one.source.sop_instance_uid for one in shown] == [
        one.sop_instance_uid for one in scan.slices
    ]
    logic.setLandmarksAtZ(
        volume, {"Aortic arch": heights[35], "Bifurcation of trachea": heights[5]}
    )
    assert numbers(logic, volume) == {"Aortic arch": 35, "Bifurcation of trachea": 5}


def test_markups_file_holds_places_in_the_world(logic: AnnotationLogic, tmp_path: Path) -> None:
    volume = add_volume(grid(), "CT")
    put_under(volume, moved(0.1))
    logic.setLandmarks(volume, {"C7": 7, "T1": 3})
    world = points(logic.markupsNode(volume))
    file = tmp_path / "landmarks.mrk.json"
    logic.saveMarkups(volume, file)
    for one in json.loads(file.read_text())["markups"][0]["controlPoints"]:
        np.testing.assert_allclose(one["position"] * np.array([-1, -1, 1]), world[one["label"]])
    logic.setLandmarks(volume, {"T1": 2, "L1": 0})
    logic.loadMarkups(volume, file)
    assert numbers(logic, volume) == {"C7": 7, "T1": 3}
    assert len(slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")) == 1
    logic.undo(volume)
    assert numbers(logic, volume) == {"C7": 7, "T1": 2, "L1": 0}
    (tmp_path / "other.mrk.json").write_text("{}")
    with pytest.raises(InputError, match="not a file of point markups"):
        logic.loadMarkups(volume, tmp_path / "other.mrk.json")
    with pytest.raises(InputError, match=r"nowhere.* cannot be written"):
        logic.saveMarkups(volume, tmp_path / "nowhere" / "landmarks.mrk.json")


def test_markups_without_landmarks_change_nothing(logic: AnnotationLogic) -> None:
    volume = add_volume(grid(), "CT")
    logic.setLandmarks(volume, {"C7": 7, "T1": 3})
    world = [logic.slices(volume).world_ras(number) for number in (8, 5)]
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "mine")
    with pytest.raises(InputError, match="mine has no point with the name of a landmark"):
        logic.useMarkups(volume, node)
    node.AddControlPointWorld(vtk.vtkVector3d(*world[0]), "F-1")
    with pytest.raises(InputError, match="mine has no point with the name of a landmark"):
        logic.useMarkups(volume, node)
    node.AddControlPointWorld(vtk.vtkVector3d(0, 0, 5000), "T12")
    with pytest.raises(InputError, match="mine has no landmark within CT"):
        logic.useMarkups(volume, node)
    assert numbers(logic, volume) == {"C7": 7, "T1": 3}
    node.AddControlPointWorld(vtk.vtkVector3d(*world[1]), "C7")
    assert logic.useMarkups(volume, node) == ("F-1", "T12")
    assert numbers(logic, volume) == {"C7": 5}


def test_landmarks_survive_a_scene_and_a_markups_file(
    logic: AnnotationLogic, tmp_path: Path
) -> None:
    volume = add_volume(grid("RAS"), "CT")
    logic.setLandmarks(volume, {"C7": 7, "T1": 3})
    storage = slicer.vtkMRMLMarkupsJsonStorageNode()
    storage.SetFileName(str(tmp_path / "landmarks.mrk.json"))
    assert storage.WriteData(logic.markupsNode(volume))
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    assert slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    (again,) = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    assert numbers(AnnotationLogic(), again) == {"C7": 7, "T1": 3}
    other = add_volume(grid("RAS"), "other")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "loaded")
    assert storage.ReadData(node)
    logic.useMarkups(other, node)
    assert numbers(logic, other) == {"C7": 7, "T1": 3}


@pytest.mark.parametrize("flipped", [False, True], ids=["", "k down"])
@pytest.mark.parametrize("orientation", AXIAL.values(), ids=AXIAL)
def test_dicom_annotation_names_the_file_of_the_slice(
    logic: AnnotationLogic, tmp_path: Path, orientation: tuple[float, ...], flipped: bool
) -> None:
    volume, by_uid = dicom_volume(tmp_path, orientation)
    if flipped:
        flip_slices(volume)
    put_under(volume, moved(0.2))
    logic.setLandmarks(volume, {"C7": 6, "T1": 2})
    found = logic.landmarks(volume)
    node = logic.markupsNode(volume)
    for index in range(2):
        name = node.GetNthControlPointLabel(index)
        assert node.GetNthControlPointDescription(index) == found[name].sop_instance_uid
        assert node.GetNthControlPointAssociatedNodeID(index) == volume.GetID()
    heights = {
        file.name: float(place[2])
        for file, place in zip(sorted(by_uid.values()), files.positions(orientation), strict=True)
    }
    logic.saveAnnotation(volume, tmp_path / ANNOTATION, by_uid)
    saved = json.loads((tmp_path / ANNOTATION).read_text())
    from_feet = sorted(heights, key=lambda name: heights[name])
    assert saved == {"C7": from_feet[6], "T1": from_feet[2]}
    logic.removeLandmarks(volume, ["C7", "T1"])
    logic.loadAnnotation(volume, tmp_path / ANNOTATION)
    assert numbers(logic, volume) == {"C7": 6, "T1": 2}
    logic.undo(volume)
    (tmp_path / "elsewhere").mkdir()
    elsewhere = (tmp_path / ANNOTATION).rename(tmp_path / "elsewhere" / ANNOTATION)
    with pytest.raises(InputError, match="which is not in"):
        logic.loadAnnotation(volume, elsewhere)
    logic.loadAnnotation(volume, elsewhere, by_uid)
    assert numbers(logic, volume) == {"C7": 6, "T1": 2}


def test_annotation_of_another_series_or_file_is_refused(
    logic: AnnotationLogic, tmp_path: Path
) -> None:
    volume, by_uid = dicom_volume(tmp_path / "one", files.AXIAL)
    dicom_volume(tmp_path / "two", files.AXIAL)
    (tmp_path / "two" / ANNOTATION).write_text('{"C7": "3.dcm"}')
    with pytest.raises(InputError, match="not a slice of CT"):
        logic.loadAnnotation(volume, tmp_path / "two" / ANNOTATION)
    plain = add_volume(grid(), "plain")
    with pytest.raises(InputError, match="plain does not record"):
        logic.loadAnnotation(plain, tmp_path / "two" / ANNOTATION)
    logic.setLandmark(volume, "C7", 3)
    uids = list(by_uid)
    swapped = {**by_uid, uids[3]: by_uid[uids[4]]}
    with pytest.raises(InputError, match="is not slice 3 of CT"):
        logic.saveAnnotation(volume, tmp_path / "new.json", swapped)
    with pytest.raises(InputError, match="slice 3 of CT is not known"):
        logic.saveAnnotation(volume, tmp_path / "new.json", {})
    assert not (tmp_path / "new.json").exists()


def test_files_of_one_name_in_two_folders(logic: AnnotationLogic, tmp_path: Path) -> None:
    places = files.positions(count=9)
    for part, some in {"a": places[:5], "b": places[5:]}.items():
        files.write_series(tmp_path / part, places=some, series="one", name="{k}.dcm")
    scan = read_ct(tmp_path)
    volume = add_scan(scan, "CT")
    by_uid = {one.sop_instance_uid: one.file for one in scan.slices}
    logic.setLandmarks(volume, {"C7": 6, "T1": 1})
    logic.saveAnnotation(volume, tmp_path / ANNOTATION, by_uid)
    assert json.loads((tmp_path / ANNOTATION).read_text()) == {"C7": 6, "T1": 1}
    logic.removeLandmarks(volume, ["T1"])
    logic.loadAnnotation(volume, tmp_path / ANNOTATION, by_uid)
    assert numbers(logic, volume) == {"C7": 6, "T1": 1}
    (tmp_path / ANNOTATION).write_text('{"T1": "1.dcm"}')
    with pytest.raises(InputError, match=r"for T1 the file 1.dcm, but CT was made of several"):
        logic.loadAnnotation(volume, tmp_path / ANNOTATION, by_uid)
    assert numbers(logic, volume) == {"C7": 6, "T1": 1}


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_other_volumes_are_annotated_by_slice_numbers(
    logic: AnnotationLogic, tmp_path: Path, code: str
) -> None:
    volume = add_volume(grid(code), "CT")
    logic.setLandmarks(volume, {"C7": 7, "T1": 3})
    logic.saveAnnotation(volume, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"C7": 7, "T1": 3}
    other = add_volume(grid("SAL"), "the same, stored otherwise")
    logic.loadAnnotation(other, tmp_path / "a.json")
    assert numbers(logic, other) == {"C7": 7, "T1": 3}
    assert logic.landmarks(other)["C7"].z_mm == pytest.approx(logic.landmarks(volume)["C7"].z_mm)
    (tmp_path / "b.json").write_text('{"C7": 70}')
    with pytest.raises(InputError, match="the slice 70, which is not in the scan"):
        logic.loadAnnotation(other, tmp_path / "b.json")
    assert numbers(logic, other) == {"C7": 7, "T1": 3}


def test_contradictory_landmarks_are_reported_and_not_saved(
    logic: AnnotationLogic, tmp_path: Path
) -> None:
    volume = add_volume(grid(), "CT")
    logic.setLandmarks(volume, {"C7": 7, "T1": 3})
    assert logic.contradiction(volume) is None
    logic.saveAnnotation(volume, tmp_path / "a.json")
    logic.setLandmark(volume, "T1", 8)
    assert "CT contradicts anatomy: T1" in str(logic.contradiction(volume))
    with pytest.raises(InputError, match="contradicts anatomy"):
        logic.saveAnnotation(volume, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"C7": 7, "T1": 3}


def test_all_landmarks_of_a_large_volume_without_a_look_at_its_voxels(
    logic: AnnotationLogic, tmp_path: Path
) -> None:
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "large")
    image = vtk.vtkImageData()
    image.SetDimensions(512, 512, 600)
    volume.SetAndObserveImageData(image)  # no voxels are there to be looked at
    volume.SetSpacing(0.7, 0.7, 1.25)
    uids = [f"1.2.3.{k}" for k in range(600)]
    volume.SetAttribute("DICOM.instanceUIDs", " ".join(uids))
    for at, landmark in enumerate(LANDMARKS):
        logic.setLandmark(volume, landmark.name, 580 - 40 * at)
    found = logic.landmarks(volume)
    assert [one.sop_instance_uid for one in found.values()] == uids[580:139:-40]
    assert logic.contradiction(volume) is None


def test_real_scan(logic: AnnotationLogic, shared_data: Path, tmp_path: Path) -> None:
    truth = json.loads((shared_data / "landmarks.json").read_text())["CMB-CRC-MSB-01068.nrrd"]
    volume = add_volume(read_ct(shared_data / "CMB-CRC-MSB-01068.nrrd").image, "CMB")
    logic.setLandmarksAtZ(volume, {name: about["z_mm"] for name, about in truth.items()})
    assert numbers(logic, volume) == {name: about["index"] for name, about in truth.items()}
    logic.saveAnnotation(volume, tmp_path / "a.json")
