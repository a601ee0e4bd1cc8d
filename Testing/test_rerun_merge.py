"""A run into the results of an earlier one: no verdict, correction or added nodule is lost."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.nodules.table import Verdict
from LungNoduleSegLib.results.reading import PROBABILITY
from mrml_grids import RIGHT, draw_segment, grid, masks, voxels_of, voxels_on, write_results

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

from CTLungScreeningSlicer.scene.mrml_volume import add_volume  # noqa: E402
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: E402
from LungNoduleSegSlicer.scene.mrml_results import own_segments  # noqa: E402
from LungNoduleSegSlicer.scene.nodule_segments import segment_id, tag  # noqa: E402
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes, volume_node_of  # noqa: E402
from LungNoduleSegSlicer.scene.review_state import VERDICT_TAG  # noqa: E402
from review_cases import RULES, Case  # noqa: E402


def rows(logic: LungNoduleSegLogic, results: ResultNodes) -> dict[int, Verdict | None]:
    return {one.nodule.id: one.verdict for one in logic.review.nodules(results)}


def segments(results: ResultNodes) -> dict[str, str]:
    segmentation = results.segmentation.GetSegmentation()
    return {one: segmentation.GetSegment(one).GetName() for one in segmentation.GetSegmentIDs()}


def nodes_of(results: ResultNodes) -> tuple[Any, Any, Any]:
    return results.segmentation, results.table, results.fiducials


@pytest.mark.parametrize("code", ["LPS", "RAI", "PIR"])
def test_a_judged_nodule_stays_and_what_is_found_in_its_place_is_left_out(
    logic: LungNoduleSegLogic, tmp_path: Path, code: str
) -> None:
    image = grid(code)
    volume = add_volume(image, "CT")
    first = logic.importResults(write_results(tmp_path / "1", image), volume)
    logic.review.setVerdict(first, 3, Verdict.REJECTED)
    voxels = voxels_on(image, first.segmentation.GetSegmentation(), segment_id(3))

    # The run finds the place of nodule 1 again as 2, that of nodule 3 as 4.
    again = write_results(tmp_path / "2", image, nodule_ids=(2, 4))
    second = logic.importResults(again, volume, *nodes_of(first))

    assert rows(logic, second) == {2: None, 3: Verdict.REJECTED}
    assert list(segments(second).values()) == ["Nodule 3", "Right lung", "Left lung", "Nodule 2"]
    segmentation = second.segmentation.GetSegmentation()
    assert voxels_on(image, segmentation, segment_id(3)) == voxels
    assert voxels_on(image, segmentation, segment_id(2)) == voxels_of(masks(image, (2, 4))[1], 2)
    assert tag(segmentation.GetSegment(segment_id(3)), VERDICT_TAG) == Verdict.REJECTED
    labels = [second.fiducials.GetNthControlPointLabel(i) for i in range(2)]
    assert sorted(labels) == ["Nodule 2", "Nodule 3"]


def test_a_new_nodule_takes_no_number_of_one_that_stays(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    first = logic.importResults(write_results(tmp_path / "1", image), volume)
    logic.review.setVerdict(first, 3, Verdict.ACCEPTED)  # in the left lung
    again = write_results(tmp_path / "2", image, nodule_ids=(3,))  # in the right one
    second = logic.importResults(again, volume, *nodes_of(first))
    assert rows(logic, second) == {3: Verdict.ACCEPTED, 4: None}
    segmentation = second.segmentation.GetSegmentation()
    assert segments(second)[segment_id(4)] == "Nodule 4"
    assert voxels_on(image, segmentation, segment_id(4)) == voxels_of(masks(image, (3,))[1], 3)
    # A third run knows nodule 4 as one of a run's and replaces it.
    assert segment_id(4) in own_segments(second.segmentation)
    third = logic.importResults(
        write_results(tmp_path / "3", image, nodule_ids=(1,)), volume, *nodes_of(first)
    )
    assert rows(logic, third) == {1: None, 3: Verdict.ACCEPTED}


def test_an_edited_nodule_stays_edited(logic: LungNoduleSegLogic, tmp_path: Path) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    first = logic.importResults(write_results(tmp_path / "1", image), volume)
    array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(first.segmentation, segment_id(1))
    array[0, 0, 0] = 1
    voxels = voxels_on(image, first.segmentation.GetSegmentation(), segment_id(1))
    second = logic.importResults(write_results(tmp_path / "2", image), volume, *nodes_of(first))
    assert rows(logic, second) == {1: None, 3: None}
    assert voxels_on(image, second.segmentation.GetSegmentation(), segment_id(1)) == voxels
    assert list(segments(second).values()).count("Nodule 1") == 1


def test_undo_brings_back_what_was_before_the_second_run(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    first = logic.importResults(write_results(tmp_path / "1", image), volume)
    logic.review.setVerdict(first, 1, Verdict.UNCERTAIN)
    before = rows(logic, first), segments(first)
    again = write_results(tmp_path / "2", image, nodule_ids=(5, 6))
    logic.importResults(again, volume, *nodes_of(first))
    assert rows(logic, first) == {1: Verdict.UNCERTAIN, 6: None}
    logic.history.undo()
    assert (rows(logic, first), segments(first)) == before


def test_undo_of_the_second_run_keeps_what_was_drawn_since(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    first = logic.importResults(write_results(tmp_path / "1", image), volume)
    node = first.segmentation
    before = {one: voxels_on(image, node.GetSegmentation(), one) for one in segments(first)}
    again = write_results(tmp_path / "2", image, nodule_ids=(3, 5))
    logic.importResults(again, volume, *nodes_of(first))
    draw_segment(node, image > 0, "mine")
    for one in (RIGHT, segment_id(5)):
        slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, one)[0] = 0
    drawn = {
        one: voxels_on(image, node.GetSegmentation(), one) for one in ("mine", RIGHT, segment_id(5))
    }
    logic.history.undo()
    after = {one: voxels_on(image, node.GetSegmentation(), one) for one in segments(first)}
    assert after == before | drawn
    assert rows(logic, first) == {1: None, 3: None}


def test_a_run_without_its_probability_takes_that_of_the_earlier_one_away(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path
) -> None:
    """Else the slider would find the nodules of the earlier run."""
    results, volume = plain.results, volume_node_of(plain.results.segmentation)
    folder = tmp_path / "again"
    shutil.copytree(tmp_path / "run", folder, ignore=shutil.ignore_patterns(PROBABILITY))
    again = logic.importResults(folder, volume, *nodes_of(results))
    assert again.probability is None
    assert logic.resultsOf(volume) == again
    logic.history.undo()
    assert logic.resultsOf(volume) == results
    assert logic.review.threshold(results) == RULES.threshold


def test_facts_follow_their_nodule_to_another_number(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    first = logic.importResults(write_results(tmp_path / "1", image, (1, 3)), volume)
    logic.risk.setFact(first, "spiculation", True, 3)
    logic.risk.setFact(first, "upper_lobe", False, 1)
    second = logic.importResults(
        write_results(tmp_path / "2", image, (3, 5)), volume, *nodes_of(first)
    )
    expected = {5: {"spiculation": True}, 3: {"upper_lobe": False}}
    assert logic.risk.enteredFacts(second).nodules == expected
    logic.risk.setFact(second, "age", 60.0)
    assert logic.risk.enteredFacts(second).nodules == expected


def test_without_a_review_all_is_replaced(logic: LungNoduleSegLogic, tmp_path: Path) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    first = logic.importResults(write_results(tmp_path / "1", image), volume)
    again = write_results(tmp_path / "2", image, nodule_ids=(5,))
    second = logic.importResults(again, volume, *nodes_of(first))
    assert rows(logic, second) == {5: None}
    assert list(segments(second).values()) == ["Right lung", "Left lung", "Nodule 5"]


def test_a_judged_nodule_without_voxels_is_gone(logic: LungNoduleSegLogic, tmp_path: Path) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    first = logic.importResults(write_results(tmp_path / "1", image), volume)
    logic.review.setVerdict(first, 1, Verdict.ACCEPTED)
    first.segmentation.GetSegmentation().RemoveSegment(segment_id(1))
    second = logic.importResults(write_results(tmp_path / "2", image), volume, *nodes_of(first))
    assert rows(logic, second) == {1: None, 3: None}


@pytest.mark.parametrize("judged", [True, False])
def test_results_of_another_volume_are_not_mixed_in(
    logic: LungNoduleSegLogic, tmp_path: Path, judged: bool
) -> None:
    image = grid()
    volume, other = (add_volume(image, name) for name in ("first", "second"))
    found = write_results(tmp_path / "1", image)
    first = logic.importResults(found, volume)
    if judged:
        logic.review.setVerdict(first, 3, Verdict.ACCEPTED)
    before = rows(logic, first)
    refused = "^first lungs and nodules holds the results of first: choose another for those of sec"
    with pytest.raises(InputError, match=refused):
        logic.process(other, *nodes_of(first))
    with pytest.raises(InputError, match=refused):
        logic.importResults(found, other, *nodes_of(first))
    for targets in ((None, first.table), (None, None, first.fiducials)):
        with pytest.raises(InputError, match=r"^first nodule.* holds the results of first: "):
            logic.importResults(found, other, *targets)
    assert rows(logic, first) == before
    assert logic.resultsOf(volume) == first
    assert logic.resultsOf(other) is None
