"""A reader's verdicts and corrections in a real MRML scene; what is not theirs stays."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from CTLungScreeningLib.child_process import complete
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import Grid, image_like
from lung_block import TISSUE_HU, TOUCHING_BALLS, Block
from LungNoduleSegLib.lungs.labels import LEFT_LUNG
from LungNoduleSegLib.nodules.measures import NoduleMeter
from LungNoduleSegLib.nodules.table import Side, Verdict
from LungNoduleSegLib.nodules.threshold import ThresholdedNodules, to_steps
from mrml_grids import LEFT, RIGHT, draw_in_layer, draw_segment, voxels_on

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")


from LungNoduleSegSlicer.scene import nodule_segments, result_nodes, review_state  # noqa: E402
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: E402
from LungNoduleSegSlicer.scene.result_nodes import nodules_of  # noqa: E402
from LungNoduleSegSlicer.scene.review_state import VERDICT_TAG, ReviewedScan  # noqa: E402
from review_cases import (  # noqa: E402
    SPACING,
    UNSEEN,
    Case,
    chest,
    erase_upper_half,
    make_case,
    numbers,
    redraw,
    segments,
    state,
)


def test_the_probability_is_not_offered_as_a_scan(plain: Case) -> None:
    assert plain.results.probability is not None
    assert plain.results.probability.GetHideFromEditors()


def test_a_verdict_changes_no_point_and_no_voxel(logic: LungNoduleSegLogic, plain: Case) -> None:
    """Slicer draws all views anew for each point and segment that changes."""
    points, segmentation = plain.results.fiducials, plain.results.segmentation
    seen: list[str] = []
    points.AddObserver("AnyEvent", lambda _node, event: seen.append(event))
    for event in (
        slicer.vtkSegmentation.SegmentAdded,
        slicer.vtkSegmentation.SegmentRemoved,
        slicer.vtkSegmentation.SourceRepresentationModified,
    ):
        segmentation.AddObserver(event, lambda _node, event: seen.append(event))
    logic.review.setVerdict(plain.results, 1, Verdict.ACCEPTED)
    logic.history.undo()
    assert seen == []


def test_edited_lungs_count_in_what_is_measured_next(
    logic: LungNoduleSegLogic, plain: Case
) -> None:
    logic.review.prepare(plain.results)
    node = plain.results.segmentation
    lungs = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, RIGHT)
    lungs[lungs == 1] = 0
    node.GetSegmentation().GetSegment(RIGHT).GetRepresentation("Binary labelmap").Modified()
    with pytest.raises(InputError, match="no lung at the point"):
        logic.review.addNodule(plain.results, plain.ras(UNSEEN))


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_verdict_is_in_table_and_tag_and_can_be_undone(
    logic: LungNoduleSegLogic, plain: Case, verdict: Verdict
) -> None:
    before = segments(plain)
    logic.review.setVerdict(plain.results, 2, verdict)
    assert [one.verdict for one in logic.review.nodules(plain.results)] == [None, verdict]
    assert plain.results.table.GetTable().GetColumnByName("verdict").GetValue(1) == verdict.value
    segment = plain.results.segmentation.GetSegmentation().GetSegment(nodule_segments.segment_id(2))
    assert nodule_segments.tag(segment, VERDICT_TAG) == verdict.value
    assert segments(plain) == before
    counted = [one.id for one in nodules_of(plain.results.table)]
    assert counted == ([1] if verdict is Verdict.REJECTED else [1, 2])
    logic.history.undo()
    assert [one.verdict for one in logic.review.nodules(plain.results)] == [None, None]
    assert nodule_segments.tag(segment, VERDICT_TAG) == ""


def test_a_verdict_survives_saving_the_scene(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path
) -> None:
    logic.review.setVerdict(plain.results, 2, Verdict.UNCERTAIN)
    logic.saveScene(tmp_path / "scene.saving")
    slicer.mrmlScene.Clear()
    assert slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.saving"))
    volume = next(
        node
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if node.GetName() == "CT"
    )
    results = logic.resultsOf(volume)
    assert results is not None
    again = replace(plain, results=results)
    assert [one.verdict for one in logic.review.nodules(again.results)] == [None, Verdict.UNCERTAIN]
    logic.review.setThreshold(again.results, 0.3)
    assert len(numbers(logic, again)) == len(plain.found(0.3)[1])


def test_a_scene_that_slicer_saves_can_be_opened_whatever_the_volume_s_name(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    """Slicer's dialog gives files safe names, but not those of hidden nodes."""
    make_case(logic, tmp_path / "run", "LPS", name="CHEST W & W/O")
    for node in slicer.util.getNodesByClass("vtkMRMLStorableNode"):
        listed = node.GetSaveWithScene() and not node.GetHideFromEditors()
        if listed and node.AddDefaultStorageNode() and node.GetStorageNode() is not None:
            ending = node.GetStorageNode().GetDefaultWriteFileExtension()
            node.GetStorageNode().SetFileName(f"{node.GetID()}.{ending}")
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    assert slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    results = logic.resultsOf(slicer.mrmlScene.GetFirstNodeByName("CHEST W & W/O"))
    assert results is not None
    logic.review.setThreshold(results, 0.3)


def test_without_the_file_of_the_probability_all_but_the_threshold_works(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path
) -> None:
    """A scene's files were not all copied: the next run brings it again."""
    kept, volume = (
        plain.results.probability,
        result_nodes.volume_node_of(plain.results),
    )
    assert kept is not None
    kept.SetAndObserveImageData(None)
    results = logic.resultsOf(volume)
    assert results is not None
    assert results.probability is None
    assert logic.review.threshold(results) is None
    logic.review.addNodule(results, plain.ras(UNSEEN))
    erase_upper_half(plain, 1)
    assert logic.review.remeasure(results) == (1,)
    with pytest.raises(InputError, match="was not kept: run it again"):
        logic.review.setThreshold(results, 0.3)
    nodes = results.segmentation, results.table, results.fiducials
    again = logic.importResults(tmp_path / "run", volume, *nodes)
    assert again.probability is kept
    assert logic.resultsOf(volume) == again
    logic.review.setThreshold(again, 0.3)


def test_a_run_does_not_replace_an_added_nodule(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path
) -> None:
    number = logic.review.addNodule(plain.results, plain.ras(UNSEEN))
    before = segments(plain)[nodule_segments.segment_id(number)]
    node = plain.results.segmentation
    volume = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
    logic.importResults(tmp_path / "run", volume, node, plain.results.table)
    assert segments(plain)[nodule_segments.segment_id(number)] == before


def test_removing_takes_segment_row_and_point_and_undo_brings_them_back(
    logic: LungNoduleSegLogic, plain: Case
) -> None:
    before = state(plain)
    order = list(plain.results.segmentation.GetSegmentation().GetSegmentIDs())
    logic.review.removeNodule(plain.results, 1)
    assert numbers(logic, plain) == [2]
    assert nodule_segments.segment_id(1) not in segments(plain)
    assert plain.results.fiducials.GetNumberOfControlPoints() == 1
    with pytest.raises(InputError, match="no nodule 1"):
        logic.review.removeNodule(plain.results, 1)
    logic.history.undo()
    assert state(plain)[0] == before[0]
    assert state(plain)[1] == before[1]
    assert list(plain.results.segmentation.GetSegmentation().GetSegmentIDs()) == order


def test_what_was_edited_is_measured_again_and_only_that(
    logic: LungNoduleSegLogic, plain: Case
) -> None:
    assert logic.review.remeasure(plain.results) == ()
    before = {one.nodule.id: one.nodule for one in logic.review.nodules(plain.results)}
    erase_upper_half(plain, 1)
    assert logic.review.edited(plain.results) == (1,)
    assert logic.review.remeasure(plain.results) == (1,)
    after = {one.nodule.id: one.nodule for one in logic.review.nodules(plain.results)}
    voxels = segments(plain)[nodule_segments.segment_id(1)]
    assert after[1].volume_mm3 == pytest.approx(len(voxels) * np.prod(SPACING), rel=1e-4)
    assert after[1].volume_mm3 < 0.7 * before[1].volume_mm3
    assert after[1].probability is not None
    assert after[2] == before[2]
    assert logic.review.remeasure(plain.results) == ()
    logic.history.undo()
    assert {one.nodule.id: one.nodule for one in logic.review.nodules(plain.results)} == before
    assert logic.review.remeasure(plain.results) == (1,)


def test_the_segment_editor_s_undo_does_not_hide_that_it_was_measured_since(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path
) -> None:
    before = nodules_of(plain.results.table)
    editor = slicer.vtkSegmentationHistory()
    editor.SetSegmentation(plain.results.segmentation.GetSegmentation())
    logic.review.prepare(plain.results)
    editor.SaveState()
    erase_upper_half(plain, 1)
    assert logic.review.remeasure(plain.results) == (1,)
    editor.RestorePreviousState()
    assert logic.review.edited(plain.results) == (1,)
    with pytest.raises(InputError, match="press Remeasure"):
        logic.saving.saveTable(plain.results, tmp_path / "nodules.csv")
    assert logic.review.remeasure(plain.results) == (1,)
    again = nodules_of(plain.results.table)[0]
    assert again.volume_mm3 == pytest.approx(before[0].volume_mm3, rel=0.05)
    editor.RestoreNextState()
    assert logic.review.edited(plain.results) == (1,)


def test_scenes_of_before_tell_by_tags_what_was_measured(
    logic: LungNoduleSegLogic, plain: Case
) -> None:
    erase_upper_half(plain, 1)
    logic.review.remeasure(plain.results)
    segmentation = plain.results.segmentation.GetSegmentation()
    first, second = map(nodule_segments.segment_id, (1, 2))
    mark = review_state.measured_on(plain.results)[1]
    segmentation.GetSegment(first).SetTag(review_state.MEASURED, mark)
    segmentation.GetSegment(second).SetName("mine")
    plain.results.table.RemoveAttribute(review_state.MEASURED)
    assert logic.review.edited(plain.results) == ()
    erase_upper_half(plain, 1)
    erase_upper_half(plain, 2)
    assert logic.review.edited(plain.results) == (1, 2)
    logic.review.setVerdict(plain.results, 1, Verdict.ACCEPTED)
    assert logic.review.edited(plain.results) == (1, 2)


def ball(case: Case, centre: tuple[float, float, float], radius: float) -> sitk.Image:
    """Mark a ball; centre in mm from the first voxel of the axial scan."""
    index = np.indices(case.hu.GetSize()[::-1]).reshape(3, -1)[::-1].T
    places = index * np.array(case.hu.GetSpacing()) @ np.reshape(case.hu.GetDirection(), (3, 3)).T
    away = places + case.hu.GetOrigin() - np.array(case.axial_origin) - centre
    inside = np.linalg.norm(away, axis=1) <= radius
    image = sitk.GetImageFromArray(inside.reshape(case.hu.GetSize()[::-1]).astype(np.uint8))
    image.CopyInformation(case.hu)
    return image


@pytest.mark.parametrize("probability", [True, False])
@pytest.mark.parametrize("code", ["LPS", "SAR"])
def test_all_that_was_drawn_is_measured(
    logic: LungNoduleSegLogic, tmp_path: Path, code: str, probability: bool
) -> None:
    """Also what reaches out of the surroundings of the lungs, and a lung that the run missed."""
    case = make_case(logic, tmp_path / "run", code, probability=probability, missed_lung=LEFT_LUNG)
    logic.review.prepare(case.results)
    mass = ball(case, (56.0, 42.0, 49.0), 18.0)
    redraw(case, nodule_segments.segment_id(1), mass)
    logic.review.remeasure(case.results)
    (found,) = nodules_of(case.results.table)
    voxels = np.count_nonzero(sitk.GetArrayViewFromImage(mass))
    assert found.volume_mm3 == pytest.approx(voxels * np.prod(SPACING), rel=1e-4)
    assert found.diameter_mm == pytest.approx(36, abs=1.5)

    _, lungs, _ = chest()
    redraw(case, LEFT, lungs == LEFT_LUNG)
    number = logic.review.addNodule(case.results, case.ras((90.0, 45.0, 50.0)))
    found = next(one for one in nodules_of(case.results.table) if one.id == number)
    assert found.side is Side.LEFT
    assert found.volume_mm3 == pytest.approx(4 / 3 * np.pi * 5**3, rel=0.2)


def between_slices(case: Case) -> sitk.Image:
    """Mark a sliver within nodule 1 that meets no voxel's centre."""
    image = sitk.Image((20, 20, 1), sitk.sitkUInt8) + 1
    image.SetSpacing((0.3, 0.3, 0.5))
    image.SetOrigin(np.add(case.axial_origin, (27.0, 37.0, 41.0)).tolist())
    return image


def test_a_nodule_that_cannot_be_measured_is_named(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    case = make_case(logic, tmp_path / "run", "LPS", missed_lung=LEFT_LUNG)
    before = nodules_of(case.results.table)
    far = ball(case, (105.0, 45.0, 50.0), 3.0)
    for mask, words in ((far, "outside the lungs"), (between_slices(case), "no voxel of the scan")):
        redraw(case, nodule_segments.segment_id(1), mask)
        with pytest.raises(InputError, match=f"Nodule 1 .*{words}"):
            logic.review.remeasure(case.results)
    assert nodules_of(case.results.table) == before


def test_a_nodule_without_voxels_leaves_the_table(logic: LungNoduleSegLogic, plain: Case) -> None:
    plain.results.segmentation.GetSegmentation().RemoveSegment(nodule_segments.segment_id(2))
    assert logic.review.remeasure(plain.results) == (2,)
    assert numbers(logic, plain) == [1]


def test_what_others_drew_is_never_touched(logic: LungNoduleSegLogic, plain: Case) -> None:
    node = plain.results.segmentation
    draw_segment(node, plain.lungs == 1, "overlaps")
    draw_in_layer(node, np.s_[:2, :3, :4], "in a layer", nodule_segments.segment_id(1))
    draw_segment(node, plain.lungs == 1, "CTLungScreening_Nodule_4")
    theirs = {
        one: voxels_on(plain.hu, node.GetSegmentation(), one)
        for one in ("overlaps", "in a layer", "CTLungScreening_Nodule_4")
    }
    lungs = {one: voxels for one, voxels in segments(plain).items() if one.endswith("Lung")}

    def untouched() -> bool:
        now = segments(plain)
        return all(now[one] == voxels for one, voxels in (theirs | lungs).items())

    steps = [
        lambda: logic.review.setThreshold(plain.results, 0.3),
        lambda: logic.review.addNodule(plain.results, plain.ras(UNSEEN)),
        lambda: logic.review.setVerdict(plain.results, 1, Verdict.ACCEPTED),
        lambda: logic.review.removeNodule(plain.results, 2),
        lambda: logic.review.remeasure(plain.results),
        lambda: logic.review.setThreshold(plain.results, 0.2),
    ]
    for step in steps:
        step()
        assert untouched()
    assert 4 not in numbers(logic, plain)
    while logic.history.canUndo:
        logic.history.undo()
        if set(theirs) <= set(segments(plain)):
            assert untouched()


def test_a_failure_leaves_all_as_it_was(
    logic: LungNoduleSegLogic, plain: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    logic.review.prepare(plain.results)
    before = state(plain)

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(nodule_segments, "add_nodule", fail)
    with pytest.raises(MemoryError):
        logic.review.setThreshold(plain.results, 0.3)
    monkeypatch.undo()
    assert state(plain)[:2] == before[:2]


def test_undo_says_what_it_takes_back(logic: LungNoduleSegLogic, plain: Case) -> None:
    results = plain.results
    assert logic.history.lastChange == "results of CT"
    steps = {
        "accept nodule 1": lambda: logic.review.setVerdict(results, 1, Verdict.ACCEPTED),
        "take back the verdict on nodule 1": lambda: logic.review.setVerdict(results, 1, None),
        "change the threshold": lambda: logic.review.setThreshold(results, 0.3),
        "add nodule 3": lambda: logic.review.addNodule(results, plain.ras(UNSEEN)),
        "remove nodule 2": lambda: logic.review.removeNodule(results, 2),
    }
    for what, step in steps.items():
        step()
        assert logic.history.lastChange == f"{what} of CT"
    for what in reversed(steps):
        assert logic.history.lastChange == f"{what} of CT"
        logic.history.undo()


def test_undo_after_the_scene_was_closed_does_nothing(
    logic: LungNoduleSegLogic, plain: Case
) -> None:
    logic.review.setThreshold(plain.results, 0.3)
    logic.review.removeNodule(plain.results, 1)
    slicer.mrmlScene.Clear()
    while logic.history.canUndo:
        logic.history.undo()


def test_a_click_in_a_cavity_takes_the_whole_nodule() -> None:
    block = Block(2.5).hollow(24, 4)
    hu, lungs = block.hu, block.lungs
    scan = ReviewedScan(Grid.of(hu), Grid.of(hu), NoduleMeter.of(hu, lungs, None, hu), None, None)
    outline = complete(scan.grow_work((0.0, 0.0, 0.0)))
    volume = outline.mask.sum() * block.spacing.prod()
    assert volume == pytest.approx(np.pi / 6 * 24**3, rel=0.06)


@pytest.mark.parametrize(("y", "number"), [(0.0, 0), (13.2, 1)])
def test_of_nodules_in_one_mark_a_click_takes_its_own(y: float, number: int) -> None:
    block = Block(2.5)
    for one in TOUCHING_BALLS:
        block.draw(one, TISSUE_HU)
    balls = [block.within(one) for one in TOUCHING_BALLS]
    hu, lungs = block.hu, block.lungs
    steps = to_steps(image_like(np.any(balls, axis=0).astype(np.float32), hu))
    finder = complete(ThresholdedNodules.work(steps, hu, lungs, hu))
    scan = ReviewedScan(Grid.of(hu), Grid.of(hu), finder.ruler, finder, None)
    outline = complete(scan.grow_work((0.0, -y, 0.0)))
    taken = [float(one[outline.box][outline.mask].mean()) for one in balls]
    assert np.argmax(taken) == number
