"""Localization and matching on nodes of a real MRML scene, and the commands as child processes."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from coded_scans import (
    HEIGHT,
    coded_prediction,
    coded_volume,
    location_at,
    upright,
    write_coded_series,
)
from CTLungScreeningLib.child_process import ChildCommand
from CTLungScreeningLib.errors import Cancelled, InputError
from CTLungScreeningLib.model_card import ModelCard, file_sha256
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME
from CTSliceToolsLib.localizer.matching import find_level, match_slices
from CTSliceToolsLib.localizer.results import write_prediction
from mrml_grids import in_a_fresh_process, node_ids, points
from test_rigid_check import follow_up, patient

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

from CTLungScreeningSlicer.scene import mrml_host  # noqa: E402
from CTLungScreeningSlicer.scene.mrml_volume import add_volume  # noqa: E402
from CTSliceToolsSlicer.scene import prediction_nodes  # noqa: E402
from CTSliceToolsSlicer.scene.logic import CTSliceToolsLogic  # noqa: E402


@pytest.fixture
def logic() -> Iterator[CTSliceToolsLogic]:
    mrml_host.start().Clear()
    yield CTSliceToolsLogic()
    slicer.mrmlScene.Clear()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network of `coded_scans`, made in a process of its own as the scene is in this one."""
    file = tmp_path_factory.mktemp("model") / "reader.keras"
    code = "import sys, pathlib, coded_scans; coded_scans.save_reader(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, file], cwd=Path(__file__).parent, check=True)
    return file


@pytest.fixture
def unloaded(tmp_path: Path) -> Path:
    """A model file that fits its card, for runs that end before it is loaded."""
    file = tmp_path / "unloaded.keras"
    file.write_bytes(b"not looked at")
    card = ModelCard("unloaded", "", "", {}, files={file.name: file_sha256(file)})
    file.with_suffix(".json").write_text(json.dumps(asdict(card)))
    return file


def location(logic: CTSliceToolsLogic, volume: Any, z: float) -> float:
    return float(logic.prediction(volume).fit.location_at(z))


def leftovers() -> list[Path]:
    return list(Path(slicer.app.temporaryPath).glob("CTSliceTools-*"))


def localize(logic: CTSliceToolsLogic, volume: Any, meanwhile: Any = lambda: None) -> Any:
    """Do all of `predict` but the child, whose file is written here, and something meanwhile."""
    work = logic.predictWork(volume)
    step = next(step for step in work if isinstance(step, ChildCommand))
    arguments = step.arguments
    output = Path(arguments[arguments.index("-o") + 1])
    write_prediction(output, coded_prediction(upright()), plot=False)
    meanwhile()
    with pytest.raises(StopIteration) as end:
        work.send(None)
    return end.value.value


def transform(logic: CTSliceToolsLogic, volume: Any, matrix: np.ndarray) -> Any:
    node = logic.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    volume.SetAndObserveTransformNodeID(node.GetID())
    return node


@pytest.mark.slow
def test_a_moved_and_tilted_volume_is_localized_where_it_lies_in_the_world(
    logic: CTSliceToolsLogic, reader: Path
) -> None:
    grid = sitk.Image([60, 60, 90], sitk.sitkInt16)
    grid.SetSpacing((6.0, 6.0, 4.0))
    grid.SetOrigin((-177.0, -177.0, -358.0))
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(sitk.VersorTransform((1, 0, 0), 0.3).GetMatrix(), (3, 3))
    matrix[:3, 3] = 30, -20, 40
    to_lps = np.diag([-1, -1, 1, 1]) @ matrix @ np.diag([-1, -1, 1, 1])
    in_world = sitk.Image(grid)
    in_world.SetOrigin((to_lps @ [*grid.GetOrigin(), 1])[:3].tolist())
    in_world.SetDirection(to_lps[:3, :3].ravel().tolist())
    image = coded_volume(in_world)
    image.CopyInformation(grid)
    volume = add_volume(sitk.DICOMOrient(image, "RPI"), "Thorax")
    transform(logic, volume, matrix)
    stages: list[str] = []

    nodes = logic.predict(volume, reader, progress=lambda stage, done, total: stages.append(stage))

    assert {"Reading", "Locating"} <= set(stages)
    assert leftovers() == []
    found = points(nodes.markups)
    assert {"T1", "Aortic arch", "Bifurcation of trachea", "T12"} <= set(found)
    for name, (x, y, z) in found.items():
        if -280 < HEIGHT[name] < -40:
            assert z == pytest.approx(HEIGHT[name], abs=5)
            assert location(logic, volume, z) == pytest.approx(LANDMARK_BY_NAME[name].location)
        index = in_world.TransformPhysicalPointToContinuousIndex((-x, -y, z))
        np.testing.assert_allclose(index[:2], 29.5, atol=1e-3)
    assert logic.prediction(volume).model.name == "reader"


def test_nodes_hold_the_prediction_and_lie_beside_the_volume(logic: CTSliceToolsLogic) -> None:
    volume = add_volume(coded_volume(upright()), "Thorax")
    prediction = coded_prediction(upright())
    nodes = prediction_nodes.add_prediction(volume, prediction)

    table = nodes.table
    assert table.GetNumberOfRows() == len(prediction.slices)
    for name in ("z_mm", "raw", "location"):
        np.testing.assert_array_equal(
            slicer.util.arrayFromTableColumn(table, name),
            [getattr(one, name) for one in prediction.slices],
        )
    assert table.GetColumnUnitLabel("z_mm") == "mm"
    np.testing.assert_allclose(
        slicer.util.arrayFromTableColumn(table, "uncertainty_mm"),
        prediction.fit.uncertainty_at([one.z_mm for one in prediction.slices]),
    )
    (place, *_) = prediction.landmarks.values()
    uncertain = slicer.util.arrayFromTableColumn(nodes.landmarkTable, "uncertainty_mm")
    assert uncertain[0] == pytest.approx(place.uncertainty_mm)
    assert f"± {place.uncertainty_mm:.0f} mm" in nodes.markups.GetNthControlPointDescription(0)
    words = table.GetTable().GetColumnByName("description")
    assert words.GetValue(0) == prediction.slices[0].description

    chart = nodes.chart
    series = [chart.GetNthPlotSeriesNode(k) for k in range(chart.GetNumberOfPlotSeriesNodes())]
    plotted = [
        (one.GetTableNode(), one.GetXColumnName(), one.GetYColumnName(), one.GetLabelColumnName())
        for one in series
    ]
    assert plotted == [
        (table, "z_mm", "raw", ""),
        (table, "z_mm", "location", ""),
        (nodes.landmarkTable, "z_mm", "location", "name"),
    ]
    for one in series:
        data = one.GetTableNode().GetTable()
        assert data.GetColumnByName("z_mm").GetNumberOfValues() > 4
        assert data.GetColumnByName(one.GetYColumnName()) is not None

    landmarks = nodes.landmarkTable.GetTable()
    there = [landmarks.GetColumnByName("name").GetValue(k) for k in range(7)]
    assert there == list(prediction.landmarks) == list(points(nodes.markups))
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(logic.scene)
    parents = {
        hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
        for node in (volume, *vars(nodes).values())
    }
    assert len(parents) == 1


def test_a_second_prediction_takes_the_place_of_the_first(logic: CTSliceToolsLogic) -> None:
    volume = add_volume(coded_volume(upright()), "CT")
    mine = logic.scene.AddNewNodeByClass("vtkMRMLTableNode", "Mine")
    localize(logic, volume)
    after_one = node_ids()
    logic.annotateAsPredicted(volume)
    annotation = logic.annotation.markupsNode(volume)
    nodes = localize(logic, volume)
    assert len(node_ids()) > len(after_one)  # the annotation and its display
    assert logic.predictionNodes(volume) == nodes
    for kind, count in (("Table", 3), ("PlotChart", 1), ("PlotSeries", 3), ("MarkupsFiducial", 2)):
        assert logic.scene.GetNumberOfNodesByClass(f"vtkMRML{kind}Node") == count
    assert mine.GetScene() is logic.scene
    assert logic.annotation.markupsNode(volume) is annotation


def test_predicted_landmarks_become_an_annotation_that_can_be_undone(
    logic: CTSliceToolsLogic,
) -> None:
    volume = add_volume(coded_volume(upright()), "CT")
    prediction_nodes.add_prediction(volume, coded_prediction(upright()))
    logic.annotateAsPredicted(volume)
    found = logic.annotation.landmarks(volume)
    assert list(found) == [name for name, z in HEIGHT.items() if -341 < z < -9]
    for name, place in found.items():
        assert place.z_mm == pytest.approx(HEIGHT[name], abs=4)
    assert logic.annotation.contradiction(volume) is None
    nodes = logic.predictionNodes(volume)
    assert nodes is not None
    predicted, annotated = nodes.markups, logic.annotation.markupsNode(volume)
    looks = [
        (one.GetDisplayNode().GetSelectedColor(), one.GetDisplayNode().GetGlyphType())
        for one in (predicted, annotated)
    ]
    assert looks[0] != looks[1]
    logic.annotation.undo(volume)
    assert logic.annotation.landmarks(volume) == {}


def test_voxels_of_one_patient_correct_the_levels(logic: CTSliceToolsLogic) -> None:
    images = [patient(0), follow_up(patient(0))]
    volumes: list[Any] = []
    for image, shift in zip(images, (340.0, 340 - 37 + 10), strict=True):
        low, step = image.GetOrigin()[2], image.GetSpacing()[2]
        grid = upright(low, low + (image.GetDepth() - 1) * step, step)
        volumes.append(add_volume(sitk.Cast(image, sitk.sitkInt16), "CT"))
        prediction_nodes.add_prediction(volumes[-1], coded_prediction(grid, shift))
    before, after = volumes
    assert logic.isAligned(before, after) is None
    assert logic.alignment(*volumes).z_at(80) == pytest.approx(107, abs=3)
    stages: set[str] = set()
    logic.align(before, after, progress=lambda stage, done, total: stages.add(stage))
    assert "Comparing" in stages
    assert logic.isAligned(*volumes) is True
    assert logic.alignment(*volumes).z_at(80) == pytest.approx(117, abs=2)


@settings(max_examples=10)
@given(shift=st.floats(-200, 200), step=st.floats(1, 6), z=st.floats(-300, -40))
def test_two_volumes_are_matched_to_the_millimetre(shift: float, step: float, z: float) -> None:
    mrml_host.start().Clear()
    logic = CTSliceToolsLogic()
    later = upright(-360 + shift, 0 + shift, step)
    volumes = [add_volume(coded_volume(grid), "CT") for grid in (upright(), later)]
    for volume, prediction in zip(
        volumes, (coded_prediction(upright()), coded_prediction(later, shift)), strict=True
    ):
        prediction_nodes.add_prediction(volume, prediction)
    assert logic.alignment(volumes[1], volumes[0]).z_at(z) == pytest.approx(z + shift, abs=2)
    assert logic.alignment(volumes[0], volumes[1]).z_at(z + shift) == pytest.approx(z, abs=2)
    there = logic.prediction(volumes[1])
    best = match_slices(there, find_level(there, "Aortic arch"))[0]
    assert abs(best.offset_mm) <= step / 2 + 1e-6
    assert best.slice.z_mm == pytest.approx(HEIGHT["Aortic arch"] + shift, abs=step / 2 + 4)


def test_what_was_moved_exchanged_or_deleted_is_not_guessed(logic: CTSliceToolsLogic) -> None:
    volume = add_volume(coded_volume(upright()), "CT")
    with pytest.raises(InputError, match="CT has no slice locations yet"):
        location(logic, volume, -100)
    nodes = prediction_nodes.add_prediction(volume, coded_prediction(upright()))
    assert location(logic, volume, -100) == pytest.approx(float(location_at(-100)), abs=0.004)
    node = transform(
        logic, volume, np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 50], [0, 0, 0, 1]])
    )
    with pytest.raises(InputError, match="CT was moved since it was localized"):
        location(logic, volume, -100)
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.eye(4)))
    location(logic, volume, -100)
    nodes.table.SetAttribute(prediction_nodes.PREDICTION, "{}")
    with pytest.raises(InputError, match="holds no prediction any more"):
        location(logic, volume, -100)
    logic.scene.RemoveNode(nodes.chart)
    assert logic.predictionNodes(volume) is None


def test_slices_of_a_dicom_volume_keep_their_instances(
    logic: CTSliceToolsLogic, tmp_path: Path
) -> None:
    write_coded_series(tmp_path)
    scan = read_ct(tmp_path)
    uids = [one.sop_instance_uid for one in scan.slices]
    volume = add_volume(scan.image, "CT")
    volume.SetAttribute("DICOM.instanceUIDs", " ".join(uids))
    prediction_nodes.add_prediction(volume, coded_prediction(scan.image))
    sources = [one.source for one in logic.prediction(volume).slices]
    assert [source.sop_instance_uid for source in sources if source] == uids


@pytest.mark.parametrize(
    "last",
    ["start", *(pytest.param(one, marks=pytest.mark.slow) for one in ("Reading", "Locating"))],
)
def test_cancel_leaves_no_process_no_node_and_no_file(
    logic: CTSliceToolsLogic, request: pytest.FixtureRequest, last: str
) -> None:
    volume = add_volume(coded_volume(upright()), "CT")
    model = request.getfixturevalue("unloaded" if last == "start" else "reader")
    before = node_ids()

    def cancel(stage: str, done: int, total: int) -> None:
        if stage == last:
            raise Cancelled

    with pytest.raises(Cancelled):
        logic.predict(volume, model, progress=cancel)
    assert node_ids() == before
    assert leftovers() == []
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and ours():
        time.sleep(0.05)
    assert not ours()


def ours() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "CTSliceToolsLib" in child.cmdline()
    ]


def test_a_failure_halfway_leaves_the_scene_as_it_was(
    logic: CTSliceToolsLogic, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = add_volume(coded_volume(upright()), "CT")
    earlier = prediction_nodes.add_prediction(volume, coded_prediction(upright()))
    before = node_ids()

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(prediction_nodes, "_fill_points", fail)
    with pytest.raises(MemoryError):
        localize(logic, volume)
    assert node_ids() == before
    assert logic.predictionNodes(volume) == earlier
    assert leftovers() == []


def test_a_volume_that_goes_or_moves_during_the_run_gets_no_nodes(
    logic: CTSliceToolsLogic,
) -> None:
    before = node_ids()
    volume = add_volume(coded_volume(upright()), "CT")
    with pytest.raises(InputError, match="CT was deleted while"):
        localize(logic, volume, lambda: logic.scene.RemoveNode(volume))
    assert set(node_ids()) - set(before) == {volume.GetDisplayNodeID()}

    moved = add_volume(coded_volume(upright()), "Moved")
    there = node_ids()
    with pytest.raises(InputError, match="Moved was moved while"):
        localize(logic, moved, lambda: moved.SetOrigin(1, 2, 3))
    assert node_ids() == there
    assert leftovers() == []


def test_what_cannot_be_localized_is_refused_by_its_name(
    logic: CTSliceToolsLogic, unloaded: Path, tmp_path: Path
) -> None:
    empty = logic.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")
    with pytest.raises(InputError, match="Nothing has no image"):
        logic.predict(empty)
    mask = add_volume(sitk.Image([9, 9, 9], sitk.sitkUInt8), "Mask")
    before = node_ids()
    with pytest.raises(InputError, match=r"^Mask holds 8-bit values"):
        logic.predict(mask, unloaded)
    with pytest.raises(InputError, match=r"nowhere\.keras is missing"):
        logic.predict(add_volume(coded_volume(upright()), "CT"), tmp_path / "nowhere.keras")
    assert set(before) < set(node_ids())
    assert logic.scene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 0
    assert leftovers() == []


REOPEN = """
import json, sys
from CTSliceToolsSlicer.scene.logic import CTSliceToolsLogic
logic = CTSliceToolsLogic()
assert logic.scene.ReadFromMRB(sys.argv[1])
volume = logic.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
prediction = logic.prediction(volume)
nodes = logic.predictionNodes(volume)
print(json.dumps({
    "location": float(prediction.fit.location_at(-100)),
    "landmarks": {name: place.z_mm for name, place in prediction.landmarks.items()},
    "slices": [[one.z_mm, one.raw] for one in prediction.slices],
    "plotted": [nodes.chart.GetNthPlotSeriesNode(k).GetTableNode().GetName() for k in range(3)],
    "tensorflow": "tensorflow" in sys.modules,
}))
"""


def test_a_saved_scene_has_the_prediction(logic: CTSliceToolsLogic, tmp_path: Path) -> None:
    volume = add_volume(coded_volume(upright()), "CT")
    nodes = prediction_nodes.add_prediction(volume, coded_prediction(upright()))
    logic.saveScene(tmp_path / "scene.mrb")
    with pytest.raises(InputError, match=r"scene\.mrb"):
        logic.saveScene(tmp_path / "scene.mrb")
    found = in_a_fresh_process(REOPEN, tmp_path / "scene.mrb")
    here = logic.prediction(volume)
    assert found["location"] == pytest.approx(location(logic, volume, -100))
    assert found["landmarks"] == {n: pytest.approx(p.z_mm) for n, p in here.landmarks.items()}
    np.testing.assert_allclose(found["slices"], [[o.z_mm, o.raw] for o in here.slices], atol=1e-4)
    assert found["plotted"] == [
        nodes.table.GetName(),
        nodes.table.GetName(),
        nodes.landmarkTable.GetName(),
    ]
    assert not found["tensorflow"]


def test_a_command_reports_its_result_and_its_refusal_and_can_be_cancelled(
    logic: CTSliceToolsLogic, tmp_path: Path
) -> None:
    files = write_coded_series(tmp_path / "mixed", step=30)
    stages: set[str] = set()
    logic.commands.run(
        "organize",
        tmp_path / "mixed",
        tmp_path / "data",
        progress=lambda stage, *_: stages.add(stage),
    )
    assert stages > {"start"}
    assert len(list((tmp_path / "data").rglob("*.dcm"))) == len(files)
    with pytest.raises(InputError, match="nowhere"):
        logic.commands.run("normalize", tmp_path / "nowhere")
    with pytest.raises(Cancelled):
        logic.commands.run("convert", tmp_path / "data", tmp_path / "npz", progress=_cancel)
    assert not (tmp_path / "npz").exists()


@pytest.mark.slow
def test_commands_run_as_children_from_files_to_partition(
    logic: CTSliceToolsLogic, reader: Path, tmp_path: Path
) -> None:
    files = write_coded_series(tmp_path / "mixed", name="{k}.dcm", step=30)
    logic.commands.run("organize", tmp_path / "mixed", tmp_path / "data")
    copies = list((tmp_path / "data").rglob("*.dcm"))
    assert len(copies) == len(files)
    by_z = dict(zip(np.arange(-340, -9, 30).tolist(), range(len(files)), strict=True))
    (folder,) = {file.parent for file in copies}
    annotation = {"C7": f"{by_z[-40] + 1}.dcm", "T12": f"{by_z[-280] + 1}.dcm"}
    (folder / "annotation.json").write_text(json.dumps(annotation))
    logic.commands.run("normalize", tmp_path / "data")
    assert (tmp_path / "data" / "combined_normalized_locations.json").is_file()
    result = logic.commands.run("convert", tmp_path / "data", "-o", tmp_path / "npz")
    assert result["made"] == len(files)
    parts = tmp_path / "parts"
    logic.commands.run("partition", tmp_path / "npz", "-o", parts, "--hard-links")
    assert len(list(parts.rglob("*.npz"))) == len(files)
    with pytest.raises(InputError, match="nowhere"):
        logic.commands.run(
            "evaluate", tmp_path / "nowhere", "-o", tmp_path / "out", "--model", reader
        )
    with pytest.raises(InputError, match="nowhere"):
        logic.commands.run("train", tmp_path / "nowhere", "-o", tmp_path / "out.keras")


def _cancel(*_: Any) -> None:
    raise Cancelled
