"""Another threshold or a click finds nodules as a run would; what a reader judged stays."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from CTLungScreeningLib.child_process import Work, complete
from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.lungs.labels import LOBES, Lobe
from LungNoduleSegLib.nodules.table import Outline, Verdict, read_nodules_csv, write_nodules_csv
from LungNoduleSegLib.results.reading import (
    MASKS,
    PROBABILITY,
    RECORD,
    SEGMENTATION,
    TABLE,
    RunMasks,
)
from LungNoduleSegLib.results.segments import write_segmentation
from mrml_grids import voxels_of

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

import review_cases  # noqa: E402
from LungNoduleSegSlicer.scene import mrml_results, nodule_segments, review_state  # noqa: E402
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: E402
from LungNoduleSegSlicer.scene.result_nodes import (  # noqa: E402
    RUN_RECORD,
    nodules_of,
    volume_node_of,
)
from LungNoduleSegSlicer.scene.saving_logic import run_work  # noqa: E402
from review_cases import (  # noqa: E402
    BALLS,
    RULES,
    SPACING,
    UNSEEN,
    Case,
    chest,
    erase_upper_half,
    make_case,
    numbers,
    segments,
    state,
)


@pytest.fixture(params=["LPS", "RAI", "PIR"])
def case(logic: LungNoduleSegLogic, tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    return make_case(logic, tmp_path / "run", request.param)


def test_every_threshold_shows_what_a_run_at_it_gives(
    logic: LungNoduleSegLogic, case: Case
) -> None:
    for threshold in (0.8, 0.3, 0.65, 0.5):
        logic.review.setThreshold(case.results, threshold)
        labels, expected = case.found(threshold)
        found = nodules_of(case.results.table)
        assert [one.id for one in found] == [one.id for one in expected]
        shown = segments(case)
        assert len(shown) == 2 + len(expected)
        for one, other in zip(found, expected, strict=True):
            assert shown[nodule_segments.segment_id(one.id)] == voxels_of(labels, one.id)
            assert other.probability is not None
            assert one.probability == pytest.approx(other.probability, abs=0.006)
            chances = {"probability": 0.0, "mean_probability": 0.0}
            assert vars(one) | chances == vars(other) | chances
        points = case.results.fiducials
        assert points.GetNumberOfControlPoints() == len(expected)


def test_segments_look_as_those_of_a_run(logic: LungNoduleSegLogic, plain: Case) -> None:
    segmentation = plain.results.segmentation.GetSegmentation()

    def looks() -> list[tuple[Any, ...]]:
        return [
            (
                one,
                segmentation.GetSegment(one).GetName(),
                segmentation.GetSegment(one).GetTerminology(),
                [round(part, 4) for part in segmentation.GetSegment(one).GetColor()],
                nodule_segments.tag(segmentation.GetSegment(one), "CTLungScreening"),
            )
            for one in segmentation.GetSegmentIDs()
        ]

    before = looks()
    logic.review.setThreshold(plain.results, 0.8)
    logic.review.setThreshold(plain.results, 0.5)
    assert looks() == before


def test_a_threshold_leaves_segments_whose_voxels_stay(
    logic: LungNoduleSegLogic, plain: Case
) -> None:
    segmentation = plain.results.segmentation
    segmentation.CreateClosedSurfaceRepresentation()
    before = {one: segmentation.GetSegmentation().GetSegment(one) for one in segments(plain)}
    gone: list[str] = []
    for event in (slicer.vtkSegmentation.SegmentAdded, slicer.vtkSegmentation.SegmentRemoved):
        segmentation.AddObserver(event, lambda _node, event: gone.append(event))
    logic.review.setThreshold(plain.results, 0.55)
    after = {one: segmentation.GetSegmentation().GetSegment(one) for one in segments(plain)}
    assert (after, gone) == (before, [])
    surface = after[nodule_segments.segment_id(1)].GetRepresentation("Closed surface")
    assert surface.GetNumberOfPoints() > 0


def test_the_steps_of_a_slider_are_undone_together(logic: LungNoduleSegLogic, case: Case) -> None:
    before = state(case)
    for threshold in (0.6, 0.7, 0.99):
        logic.review.setThreshold(case.results, threshold)
    assert state(case)[0] != before[0]
    logic.history.undo()
    assert state(case)[:2] == before[:2]


def test_undo_takes_out_what_only_a_later_step_of_the_slider_found(
    logic: LungNoduleSegLogic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_cases, "RULES", replace(RULES, min_probability=None))
    case = make_case(logic, tmp_path / "run", "LPS")
    before = state(case)
    for threshold in (0.7, 0.3):
        logic.review.setThreshold(case.results, threshold)
    assert len(segments(case)) > len(before[0])
    logic.history.undo()
    assert state(case)[:2] == before[:2]


@pytest.mark.parametrize("number", [1, 2])
def test_undo_of_the_slider_keeps_what_was_drawn_since(
    logic: LungNoduleSegLogic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Also what only the slider found: nodule 2 of 0.3 is none of 0.95."""
    monkeypatch.setattr(review_cases, "RULES", replace(RULES, threshold=0.95))
    case = make_case(logic, tmp_path / "run", "LPS")
    assert numbers(logic, case) == [1]
    logic.review.setThreshold(case.results, 0.3)
    erase_upper_half(case, number)
    drawn = segments(case)[nodule_segments.segment_id(number)]
    logic.review.setThreshold(case.results, 0.4)
    logic.history.undo()
    assert logic.review.threshold(case.results) == 0.95
    assert numbers(logic, case) == list(range(1, number + 1))
    assert segments(case)[nodule_segments.segment_id(number)] == drawn
    assert logic.review.edited(case.results) == (number,)
    assert not logic.history.lastChange.startswith("change the threshold")


@pytest.mark.parametrize("added", [False, True])
def test_a_run_that_ends_meanwhile_is_what_counts(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path, added: bool
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(tmp_path / "run", folder)
    steps = sitk.ReadImage(folder / PROBABILITY)
    sitk.WriteImage(0 * steps, folder / PROBABILITY)
    for name in (SEGMENTATION, TABLE):
        (folder / name).unlink()
    write_segmentation(folder / SEGMENTATION, plain.lungs, sitk.Image(0 * plain.lungs))
    write_nodules_csv(folder / TABLE, [])
    results = plain.results
    logic.review.prepare(results)
    if added:
        work: Work[Any] = logic.review.addWork(results, plain.ras(UNSEEN))
    else:
        work = logic.review.thresholdWork(results, 0.3)
    next(work)
    volume = volume_node_of(results)
    logic.importResults(folder, volume, results.segmentation, results.table, results.fiducials)
    assert logic.review.nodules(results) == ()
    for _ in work:
        pass
    assert logic.review.isReady(results)
    assert len(logic.review.nodules(results)) == added


def test_the_threshold_is_kept_in_the_scene_and_undone(
    logic: LungNoduleSegLogic, plain: Case
) -> None:
    assert logic.review.threshold(plain.results) == RULES.threshold
    logic.review.setThreshold(plain.results, 0.7)
    logic.review.setThreshold(plain.results, 0.3)
    assert logic.review.threshold(plain.results) == 0.3
    logic.history.undo()
    assert logic.review.threshold(plain.results) == RULES.threshold


def test_without_the_probability_the_threshold_is_refused_in_a_sentence(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    case = make_case(logic, tmp_path / "run", "LPS", probability=False)
    before = state(case)
    assert logic.review.lowestThreshold(case.results) is None
    with pytest.raises(InputError, match="was not kept"):
        logic.review.setThreshold(case.results, 0.3)
    assert state(case) == before


def test_a_comparison_uses_the_present_threshold_of_the_slider(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path
) -> None:
    """Two thresholds of one scan once made a nodule "grown"; see also `test_growth.py`."""
    plain.results.table.SetAttribute(RUN_RECORD, json.dumps({"parameters": {"rules": vars(RULES)}}))
    logic.review.setThreshold(plain.results, 0.3)
    complete(run_work(plain.results, tmp_path / "now"))
    record = json.loads((tmp_path / "now" / RECORD).read_text())
    assert record["parameters"]["rules"]["threshold"] == 0.3


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_what_is_saved_while_nodules_change_is_of_one_moment(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path, steps: int
) -> None:
    plain.results.table.SetAttribute(RUN_RECORD, json.dumps({"parameters": {}}))
    work = run_work(plain.results, tmp_path / "run-now", logic.risk.evaluate)
    for _ in range(steps):
        next(work)
    erase_upper_half(plain, 2)
    logic.review.remeasure(plain.results)
    logic.review.removeNodule(plain.results, 1)
    (left,) = nodules_of(plain.results.table)
    for _ in work:
        pass
    saved = tmp_path / "run-now"
    assert read_nodules_csv(saved / TABLE) == (left,)
    (mask,) = RunMasks.read(saved / MASKS).nodules.values()
    assert len(segments(plain)[nodule_segments.segment_id(2)]) == mask.voxels.sum()
    assert len(json.loads((saved / RECORD).read_text())["risk"]["nodules"]) == 1


def test_what_a_reader_judged_added_or_edited_stays_at_any_threshold(
    logic: LungNoduleSegLogic, plain: Case
) -> None:
    added = logic.review.addNodule(plain.results, plain.ras(UNSEEN))
    logic.review.setVerdict(plain.results, 1, Verdict.REJECTED)
    before = segments(plain)
    first = next(one for one in logic.review.nodules(plain.results) if one.nodule.id == 1)
    logic.review.setThreshold(plain.results, 0.95)
    assert numbers(logic, plain) == [1, added]
    logic.review.setThreshold(plain.results, 0.3)
    after = segments(plain)
    kept = [nodule_segments.segment_id(n) for n in (1, added)]
    assert {one: after[one] for one in kept} == {one: before[one] for one in kept}
    assert next(one for one in logic.review.nodules(plain.results) if one.nodule.id == 1) == first
    for one, voxels in after.items():
        if "Nodule" in one and one not in kept:
            assert not any(voxels & after[other] for other in kept)


def test_facts_wait_for_a_nodule_that_is_below_the_threshold(
    logic: LungNoduleSegLogic, plain: Case
) -> None:
    first, second = numbers(logic, plain)
    for number, value in ((first, True), (second, False)):
        logic.risk.setFact(plain.results, "spiculation", value, number)
    entered = logic.risk.enteredFacts(plain.results)
    logic.review.setThreshold(plain.results, 0.95)
    assert numbers(logic, plain) == [first]
    logic.risk.setFact(plain.results, "age", 60.0)
    assert dict(logic.risk.enteredFacts(plain.results).nodules) == {first: {"spiculation": True}}
    logic.review.setThreshold(plain.results, 0.5)
    assert logic.risk.enteredFacts(plain.results).nodules == entered.nodules
    logic.risk.clearFacts(plain.results)
    assert not logic.risk.enteredFacts(plain.results).nodules


def test_the_lobe_of_a_nodule_is_kept_at_any_threshold_and_when_it_is_edited(
    logic: LungNoduleSegLogic, plain: Case
) -> None:
    lobes = [Lobe.RIGHT_UPPER, Lobe.LEFT_LOWER]
    rows = nodules_of(plain.results.table)
    named = [replace(one, lobe=lobes[one.side == "left"]) for one in rows]
    mrml_results.fill_table(plain.results.table, named)
    expected = {one.id: one.lobe for one in named}
    for threshold in (0.95, 0.5):  # at the first most of them are gone
        logic.review.setThreshold(plain.results, threshold)
    assert {one.id: one.lobe for one in nodules_of(plain.results.table)} == expected
    erase_upper_half(plain, 1)
    assert logic.review.remeasure(plain.results) == (1,)
    assert {one.id: one.lobe for one in nodules_of(plain.results.table)} == expected


def test_lobes_of_a_run_name_those_of_added_nodules_and_of_any_threshold(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    _, lungs, _ = chest()
    array = sitk.GetArrayViewFromImage(lungs)
    upper = np.arange(len(array))[:, None, None] >= 25
    labels = np.zeros(array.shape, np.uint8)
    for side, lobe, part in (
        (1, Lobe.RIGHT_UPPER, upper),
        (1, Lobe.RIGHT_LOWER, ~upper),
        (2, Lobe.LEFT_UPPER, upper),
        (2, Lobe.LEFT_LOWER, ~upper),
    ):
        labels[(array == side) & part] = LOBES.index(lobe) + 1
    lobes = sitk.GetImageFromArray(labels)
    lobes.CopyInformation(lungs)
    case = make_case(logic, tmp_path / "run", "LPS", lobes=lobes)
    segmentation = case.results.segmentation.GetSegmentation()
    display = case.results.segmentation.GetDisplayNode()
    shown = {
        segmentation.GetSegment(one).GetName(): display.GetSegmentVisibility(one)
        for one in segmentation.GetSegmentIDs()
        if "Lobe" in one
    }
    assert shown == {
        "Right upper lobe": False,
        "Right lower lobe": False,
        "Left upper lobe": False,
        "Left lower lobe": False,
    }
    number = logic.review.addNodule(case.results, case.ras(UNSEEN))
    added = next(one for one in nodules_of(case.results.table) if one.id == number)
    assert added.lobe is Lobe.RIGHT_UPPER
    logic.review.setThreshold(case.results, 0.4)
    found = nodules_of(case.results.table)
    assert len(found) == 3
    for one in found:
        z = one.z - case.axial_origin[2]
        assert one.lobe == f"{one.side} {'lower' if z < 50 else 'upper'}"
    complete(run_work(case.results, tmp_path / "saved"))
    assert sorted(RunMasks.read(tmp_path / "saved" / MASKS).lobes) == [1, 3, 4, 5]


def test_a_click_adds_the_nodule_that_the_network_missed(
    logic: LungNoduleSegLogic, case: Case
) -> None:
    before = state(case)
    number = logic.review.addNodule(case.results, case.ras(UNSEEN))
    assert number == 3
    added = logic.review.nodules(case.results)[-1]
    assert logic.review.edited(case.results) == ()
    assert added.nodule.id == number
    assert added.nodule.probability is None
    assert added.nodule.equivalent_diameter_mm == pytest.approx(10, abs=0.6)
    np.testing.assert_allclose(logic.review.place(case.results, number), case.ras(UNSEEN), atol=0.5)
    voxels = segments(case)[nodule_segments.segment_id(number)]
    assert len(voxels) * np.prod(SPACING) == pytest.approx(
        added.nodule.volume_mm3, abs=float(np.prod(SPACING))
    )
    index = np.mean(sorted(voxels), axis=0)
    x, y, z = case.hu.TransformContinuousIndexToPhysicalPoint(index.tolist())
    np.testing.assert_allclose(
        (x, y, z), (added.nodule.x, added.nodule.y, added.nodule.z), atol=0.01
    )
    with pytest.raises(InputError, match="is there already"):
        logic.review.addNodule(case.results, case.ras(UNSEEN))
    with pytest.raises(InputError, match=r"no lung at the point|outside"):
        logic.review.addNodule(case.results, case.ras((60.0, 2.0, 2.0)))
    logic.history.undo()
    assert state(case)[:2] == before[:2]
    assert state(case)[3] == before[3]


def test_a_click_takes_the_faint_mark_of_the_network(
    logic: LungNoduleSegLogic, plain: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("there is a mark, nothing is grown")

    monkeypatch.setattr(review_state, "grow_work", refuse)
    (faint,) = (centre for centre, (_, top) in BALLS.items() if top < RULES.threshold)
    before = state(plain)
    number = logic.review.addNodule(plain.results, plain.ras(faint))
    added = logic.review.nodules(plain.results)[-1].nodule
    assert added.id == number
    assert added.outline is Outline.IMAGE
    assert added.equivalent_diameter_mm == pytest.approx(10, abs=0.6)
    logic.history.undo()
    assert state(plain)[:2] == before[:2]
