"""The nodes of results refer to each other and to their volume, whatever a user changes besides."""

from pathlib import Path
from typing import Any

import pytest

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.nodules.table import Verdict
from mrml_grids import LEFT

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

from CTLungScreeningSlicer.scene.mrml_volume import add_volume  # noqa: E402
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: E402
from LungNoduleSegSlicer.scene.result_nodes import (  # noqa: E402
    VOLUME_ROLE,
    geometry_source,
    volume_node_of,
    write_lungs,
)
from review_cases import Case, make_case  # noqa: E402

SOURCES = ["MarkupsROI", "Model", "ScalarVolume"]


def specify_geometry(case: Case, kind: str) -> Any:
    """Give the segmentation another source of its geometry, as the Segment Editor does."""
    scene, segmentation = slicer.mrmlScene, case.results.segmentation
    if kind == "ScalarVolume":
        source = add_volume(case.hu, "other")
    else:
        source = scene.AddNewNodeByClass(f"vtkMRML{kind}Node", "other")
    role = segmentation.GetReferenceImageGeometryReferenceRole()
    segmentation.SetNodeReferenceID(role, source.GetID())
    return source


@pytest.mark.parametrize("kind", SOURCES)
def test_the_source_of_the_geometry_is_not_taken_for_the_scan(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path, kind: str
) -> None:
    volume, results = volume_node_of(plain.results), plain.results
    other = specify_geometry(plain, kind)
    assert logic.resultsOf(volume) == results
    assert logic.resultsOf(other) is None
    logic.review.setVerdict(results, 1, Verdict.ACCEPTED)
    logic.review.setThreshold(results, 0.3)
    write_lungs(results.segmentation, tmp_path / "lungs.nrrd")
    logic.risk.evaluate(results)
    again = logic.importResults(tmp_path / "run", volume, *list(vars(results).values())[:3])
    assert again == results
    if kind == "ScalarVolume":
        with pytest.raises(InputError, match="holds the results of CT"):
            logic.importResults(tmp_path / "run", other, results.segmentation)
    logic.saveScene(tmp_path / "scene.mrb")
    slicer.mrmlScene.Clear()
    assert slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    loaded = logic.resultsOf(slicer.mrmlScene.GetFirstNodeByName("CT"))
    assert loaded is not None
    assert logic.review.nodules(loaded)[0].verdict is Verdict.ACCEPTED


@pytest.mark.parametrize("kind", SOURCES[:2])
def test_scenes_of_before_have_it_by_the_geometry(
    logic: LungNoduleSegLogic, plain: Case, kind: str
) -> None:
    volume, results = volume_node_of(plain.results), plain.results
    results.table.RemoveNodeReferenceIDs(VOLUME_ROLE)
    assert logic.resultsOf(volume) == results
    specify_geometry(plain, kind)
    assert logic.resultsOf(volume) is None
    with pytest.raises(InputError, match="names no volume that it is from"):
        logic.review.prepare(results)


def test_a_segmentation_without_a_source_gets_the_scan(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path
) -> None:
    """Such as one loaded from a file."""
    volume, segmentation = volume_node_of(plain.results), plain.results.segmentation
    segmentation.GetSegmentation().GetSegment(LEFT).SetName("mine")
    segmentation.RemoveNodeReferenceIDs(segmentation.GetReferenceImageGeometryReferenceRole())
    slicer.mrmlScene.RemoveNode(plain.results.table)
    results = logic.importResults(tmp_path / "run", volume, segmentation)
    assert geometry_source(segmentation) is volume
    assert logic.resultsOf(volume) == results
    logic.review.prepare(results)


@pytest.mark.parametrize("new", ["segmentation", "fiducials"])
def test_undo_of_a_run_into_some_of_the_nodes_connects_the_earlier_ones(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path, new: str
) -> None:
    results, volume = plain.results, volume_node_of(plain.results)
    nodes = {name: node for name, node in vars(results).items() if name != "probability"}
    second = logic.importResults(tmp_path / "run", volume, *(nodes | {new: None}).values())
    assert getattr(second, new) is not getattr(results, new)
    logic.history.undo()
    assert logic.resultsOf(volume) == results
    logic.review.setThreshold(results, 0.3)


def test_undo_of_a_run_into_empty_nodes_leaves_no_results(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    case = make_case(logic, tmp_path / "run", "LPS")
    volume = volume_node_of(case.results)
    nodes = [
        slicer.mrmlScene.AddNewNodeByClass(f"vtkMRML{kind}Node")
        for kind in ("Segmentation", "Table", "MarkupsFiducial")
    ]
    second = logic.importResults(tmp_path / "run", volume, *nodes)
    assert logic.resultsOf(volume) == second
    assert [second.segmentation, second.table, second.fiducials] == nodes
    logic.history.undo()
    assert logic.resultsOf(volume) == case.results
