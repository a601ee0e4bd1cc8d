"""A run into the results of an earlier one: no verdict, correction or added nodule is lost."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.nodules.table import Verdict, write_nodules_csv
from LungNoduleSegLib.results.reading import PROBABILITY, SEGMENTATION, TABLE
from LungNoduleSegLib.results.segments import write_segmentation
from mrml_grids import RIGHT, draw_segment, grid, masks, voxels_of, voxels_on, write_results

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

from CTLungScreeningSlicer.scene.mrml_volume import add_volume  # noqa: E402
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: E402
from LungNoduleSegSlicer.scene.mrml_results import own_segments  # noqa: E402
from LungNoduleSegSlicer.scene.nodule_segments import segment_id, tag  # noqa: E402
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes, volume_node_of  # noqa: E402
from LungNoduleSegSlicer.scene.review_state import VERDICT_TAG  # noqa: E402
from review_cases import RULES, Case, erase_upper_half, run  # noqa: E402
from review_cases import segments as voxels_in  # noqa: E402


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
        slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, one)[0, 0] = 0
    drawn = {
        one: voxels_on(image, node.GetSegmentation(), one) for one in ("mine", RIGHT, segment_id(5))
    }
    logic.history.undo()
    after = {one: voxels_on(image, node.GetSegmentation(), one) for one in segments(first)}
    drawn[segment_id(3)] = drawn.pop(segment_id(5))  # the same nodule
    assert after == before | drawn
    assert rows(logic, first) == {1: None, 3: None}


def run_again(logic: LungNoduleSegLogic, case: Case, folder: Path, ids: dict[int, int]) -> None:
    """Run at a threshold of 0.3 into the results, with nodules renumbered, others left out."""
    rules = replace(RULES, threshold=0.3, min_probability=None)
    labels, nodules, _ = run(case.hu, case.lungs, case.probability, rules)
    again = folder / "again"
    shutil.copytree(folder / "run", again, ignore=shutil.ignore_patterns(SEGMENTATION, TABLE))
    numbers = {one.id: ids.get(one.id, 0) for one in nodules}
    write_segmentation(again / SEGMENTATION, case.lungs, sitk.ChangeLabel(labels, numbers))
    found = [replace(one, id=ids[one.id]) for one in nodules if one.id in ids]
    write_nodules_csv(again / TABLE, found)
    logic.importResults(again, volume_node_of(case.results), *nodes_of(case.results))


def places(logic: LungNoduleSegLogic, case: Case) -> dict[int, tuple[float, float, float]]:
    """Where the row of each nodule says that it is, which has to be within its voxels."""
    found = {}
    for one in logic.review.nodules(case.results):
        place = one.nodule.x, one.nodule.y, one.nodule.z
        index = case.hu.TransformPhysicalPointToIndex(place)
        assert index in voxels_in(case)[segment_id(one.nodule.id)], one.nodule.id
        found[one.nodule.id] = place
    return found


@pytest.mark.parametrize("number", [1, 7])
def test_undo_makes_room_for_a_drawn_nodule_that_the_earlier_run_lacks(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path, number: int
) -> None:
    """Nodule 3 of 0.3, which the second run calls 1 or 7."""
    before, at = voxels_in(plain), places(logic, plain)
    run_again(logic, plain, tmp_path, {3: number})
    erase_upper_half(plain, number)
    drawn = voxels_in(plain)[segment_id(number)]
    logic.history.undo()
    new = 3 if number == 1 else number
    assert voxels_in(plain) == before | {segment_id(new): drawn}
    assert segments(plain.results)[segment_id(new)] == f"Nodule {new}"
    assert rows(logic, plain.results) == {1: None, 2: None, new: None}
    assert plain.results.fiducials.GetNumberOfControlPoints() == 3
    assert logic.review.remeasure(plain.results) == (new,)
    after = places(logic, plain)
    assert {one: after[one] for one in at} == at
    # Neither a threshold nor taking that back loses what was drawn.
    logic.review.setThreshold(plain.results, 0.99)
    logic.history.undo()
    assert voxels_in(plain) == before | {segment_id(new): drawn}


def test_undo_puts_a_drawn_nodule_in_the_row_of_the_one_that_it_shows(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path
) -> None:
    before, at = voxels_in(plain), places(logic, plain)
    run_again(logic, plain, tmp_path, {1: 2, 2: 1})
    erase_upper_half(plain, 1)
    plain.results.segmentation.GetSegmentation().GetSegment(segment_id(1)).SetName("mine")
    drawn = voxels_in(plain)[segment_id(1)]
    logic.history.undo()
    assert voxels_in(plain) == before | {segment_id(2): drawn}
    assert segments(plain.results)[segment_id(1)] == "Nodule 1"
    assert segments(plain.results)[segment_id(2)] == "mine"
    assert rows(logic, plain.results) == {1: None, 2: None}
    assert logic.review.remeasure(plain.results) == (2,)
    assert places(logic, plain)[1] == at[1]


def test_undo_of_the_slider_does_so_too(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path
) -> None:
    run_again(logic, plain, tmp_path, {1: 2, 2: 1})
    before, at = voxels_in(plain), places(logic, plain)
    logic.review.setThreshold(plain.results, 0.55)  # numbers the two the other way round
    assert places(logic, plain)[1] == at[2]
    erase_upper_half(plain, 1)
    drawn = voxels_in(plain)[segment_id(1)]
    logic.history.undo()
    assert voxels_in(plain) == before | {segment_id(2): drawn}
    assert logic.review.edited(plain.results) == (2,)
    logic.review.remeasure(plain.results)
    assert places(logic, plain)[1] == at[1]


def test_undo_brings_back_a_nodule_whose_number_was_erased(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path
) -> None:
    before = voxels_in(plain)
    run_again(logic, plain, tmp_path, {3: 1})
    node = plain.results.segmentation
    slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, segment_id(1))[:] = 0
    logic.history.undo()
    assert voxels_in(plain) == before
    assert logic.review.edited(plain.results) == ()


def test_undo_leaves_what_was_drawn_of_a_judged_nodule(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path
) -> None:
    logic.review.setVerdict(plain.results, 2, Verdict.ACCEPTED)
    before = voxels_in(plain)
    run_again(logic, plain, tmp_path, {1: 1, 2: 2, 3: 3})
    erase_upper_half(plain, 2)
    drawn = voxels_in(plain)[segment_id(2)]
    logic.history.undo()
    assert voxels_in(plain) == before | {segment_id(2): drawn}
    assert rows(logic, plain.results) == {1: None, 2: Verdict.ACCEPTED}


def test_a_run_without_its_probability_takes_that_of_the_earlier_one_away(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path
) -> None:
    """Else the slider would find the nodules of the earlier run."""
    results, volume = plain.results, volume_node_of(plain.results)
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
