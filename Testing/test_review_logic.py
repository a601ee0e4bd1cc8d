"""A reader's verdicts and corrections in a real MRML scene; what is not theirs stays."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from CTLungScreeningLib.child_process import complete
from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.lungs.labels import LOBES, Lobe
from LungNoduleSegLib.nodules.finding import NoduleRules, find_nodules
from LungNoduleSegLib.nodules.table import Nodule, Outline, Verdict, write_nodules_csv
from LungNoduleSegLib.nodules.threshold import to_steps
from LungNoduleSegLib.results.reading import (
    MASKS,
    PROBABILITY,
    RECORD,
    SEGMENTATION,
    TABLE,
    RunMasks,
)
from LungNoduleSegLib.results.segments import write_segmentation
from mrml_grids import voxels_of, voxels_on

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

import vtk  # noqa: E402

from CTLungScreeningLib.geometry import (  # noqa: E402
    AxialView,
    crop_to,
)
from CTLungScreeningSlicer.scene import mrml_host  # noqa: E402
from CTLungScreeningSlicer.scene.mrml_volume import add_volume  # noqa: E402
from LungNoduleSegSlicer.scene import (  # noqa: E402
    mrml_results,
    nodule_segments,
    review_state,
)
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: E402
from LungNoduleSegSlicer.scene.result_nodes import (  # noqa: E402
    RUN_RECORD,
    ResultNodes,
    nodules_of,
)
from LungNoduleSegSlicer.scene.review_state import VERDICT_TAG  # noqa: E402
from LungNoduleSegSlicer.scene.saving_logic import run_work  # noqa: E402

SPACING = (1.2, 1.2, 2.0)
RULES = NoduleRules(0.5, 0.6, 3.0, 0.5, 3.0)
BALLS = {
    # centre (x, y, z) mm from the first voxel, radius mm, highest probability
    (30.0, 40.0, 40.0): (6.0, 0.99),
    (90.0, 45.0, 50.0): (5.0, 0.9),
    (88.0, 30.0, 24.0): (5.0, 0.45),
}
UNSEEN = (34.0, 36.0, 68.0)
"""A nodule that the network missed."""


@dataclass
class Case:
    """A run on a made-up chest, in the scene; images lie on the scan's grid, LPS mm."""

    hu: sitk.Image
    lungs: sitk.Image
    probability: sitk.Image
    results: ResultNodes

    def found(self, threshold: float) -> tuple[sitk.Image, tuple[Nodule, ...]]:
        """What a run at that threshold gives, on the scan's grid."""
        return run(self.hu, self.lungs, self.probability, replace(RULES, threshold=threshold))[:2]

    def ras(self, centre: tuple[float, float, float]) -> tuple[float, float, float]:
        origin = np.array(self.axial_origin)
        x, y, z = (origin + centre).tolist()
        return -x, -y, z

    @property
    def axial_origin(self) -> tuple[float, ...]:
        return AxialView.of(self.hu, -1000).image.GetOrigin()


def run(
    hu: sitk.Image, lungs: sitk.Image, probability: sitk.Image, rules: NoduleRules
) -> tuple[sitk.Image, tuple[Nodule, ...], sitk.Image]:
    view = AxialView.of(hu, -1000)
    axial = [AxialView.of(one, 0).image for one in (lungs, probability)]
    box, hu_box, likely = crop_to(axial[0], view.image, axial[1])
    found = find_nodules(likely, hu_box, box, rules, hu)
    return view.restore(found.labels), found.nodules, likely


def chest() -> tuple[sitk.Image, sitk.Image, sitk.Image]:
    """HU, lungs and probability, axial."""
    shape = (50, 70, 100)
    z, y, x = np.meshgrid(
        *(np.arange(n) * s for n, s in zip(shape, SPACING[::-1], strict=True)),
        indexing="ij",
        sparse=True,
    )
    rng = np.random.default_rng(0)
    lungs = np.zeros(shape, np.uint8)
    for label, middle in ((1, 32.0), (2, 87.0)):
        inside = ((x - middle) / 24) ** 2 + ((y - 42) / 34) ** 2 + ((z - 49) / 44) ** 2 < 1
        lungs[inside] = label
    hu = np.where(lungs > 0, -850, 40) + rng.normal(0, 15, shape)
    likely = np.zeros(shape, np.float32)
    for (cx, cy, cz), (radius, top) in [*BALLS.items(), (UNSEEN, (5.0, 0.0))]:
        away = np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)
        hu = np.where(away < radius, 30 + rng.normal(0, 15, shape), hu)
        likely = np.maximum(likely, top * np.clip(1.5 - away / radius, 0, 1)).astype(np.float32)
    images = []
    for array in (hu.astype(np.int16), lungs, likely * (lungs > 0)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(SPACING)
        image.SetOrigin((-60, -30, 200))
        images.append(image)
    return images[0], images[1], images[2]


@pytest.fixture
def logic() -> Iterator[LungNoduleSegLogic]:
    mrml_host.start().Clear()
    yield LungNoduleSegLogic()
    slicer.mrmlScene.Clear()


@pytest.fixture(params=["LPS", "RAI", "PIR"])
def case(logic: LungNoduleSegLogic, tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    return make_case(logic, tmp_path / "run", request.param)


@pytest.fixture
def plain(logic: LungNoduleSegLogic, tmp_path: Path) -> Case:
    return make_case(logic, tmp_path / "run", "LPS")


def make_case(
    logic: LungNoduleSegLogic,
    folder: Path,
    code: str,
    *,
    probability: bool = True,
    lobes: sitk.Image | None = None,
) -> Case:
    hu, lungs, likely = (sitk.DICOMOrient(image, code) for image in chest())
    labels, nodules, cropped = run(hu, lungs, likely, RULES)
    folder.mkdir()
    write_segmentation(folder / SEGMENTATION, lungs, labels)
    write_nodules_csv(folder / TABLE, nodules)
    if lobes is not None:
        RunMasks.of(lungs, labels, lobes).write(folder / MASKS)
    if probability:
        sitk.WriteImage(to_steps(cropped), folder / PROBABILITY)
        (folder / RECORD).write_text(json.dumps({"parameters": {"rules": vars(RULES)}}))
    return Case(hu, lungs, likely, logic.importResults(folder, add_volume(hu, "CT")))


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


def test_a_comparison_uses_the_present_threshold_of_the_slider(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path
) -> None:
    """Two thresholds of one scan once made a nodule "grown"; see also `test_growth.py`."""
    plain.results.table.SetAttribute(RUN_RECORD, json.dumps({"parameters": {"rules": vars(RULES)}}))
    logic.review.setThreshold(plain.results, 0.3)
    complete(run_work(plain.results, tmp_path / "now"))
    record = json.loads((tmp_path / "now" / RECORD).read_text())
    assert record["parameters"]["rules"]["threshold"] == 0.3


def segments(case: Case) -> dict[str, set[tuple[int, ...]]]:
    segmentation = case.results.segmentation.GetSegmentation()
    return {one: voxels_on(case.hu, segmentation, one) for one in segmentation.GetSegmentIDs()}


def state(case: Case) -> Any:
    """All that a review may change, to be compared."""
    table = case.results.table.GetTable()
    verdicts = table.GetColumnByName("verdict")
    points = case.results.fiducials
    segmentation = case.results.segmentation.GetSegmentation()
    return (
        segments(case),
        nodules_of(case.results.table, rejected=True),
        [verdicts.GetValue(i) for i in range(table.GetNumberOfRows())] if verdicts else None,
        [points.GetNthControlPointLabel(i) for i in range(points.GetNumberOfControlPoints())],
        {
            one: nodule_segments.tag(segmentation.GetSegment(one), VERDICT_TAG)
            for one in segmentation.GetSegmentIDs()
        },
    )


def numbers(logic: LungNoduleSegLogic, case: Case) -> list[int]:
    return [one.nodule.id for one in logic.review.nodules(case.results)]


def own_segment(case: Case, name: str, layer_of: str = "") -> set[tuple[int, ...]]:
    """Add what a user drew, over all of the right lung or in the layer of another segment."""
    node = case.results.segmentation
    segmentation = node.GetSegmentation()
    segment = slicer.vtkSegment()
    segment.SetName(name)
    if layer_of:
        array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, layer_of)
        value = segmentation.GetUniqueLabelValueForSharedLabelmap(layer_of)
        array[:2, :3, :4] = value
        segment.SetLabelValue(value)
        labelmap = segmentation.GetSegment(layer_of).GetRepresentation("Binary labelmap")
    else:
        volume = add_volume(sitk.Cast(case.lungs == 1, sitk.sitkUInt8), "temporary")
        labelmap = slicer.vtkOrientedImageData()
        labelmap.DeepCopy(volume.GetImageData())
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        labelmap.SetGeometryFromImageToWorldMatrix(matrix)
        slicer.mrmlScene.RemoveNode(volume)
    segment.AddRepresentation("Binary labelmap", labelmap)
    assert segmentation.AddSegment(segment, name)
    return voxels_on(case.hu, segmentation, name)


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


def test_edited_lungs_count_in_what_is_measured_next(
    logic: LungNoduleSegLogic, plain: Case
) -> None:
    logic.review.prepare(plain.results)
    node = plain.results.segmentation
    lungs = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, "CTLungScreening_RightLung")
    lungs[lungs == 1] = 0
    node.GetSegmentation().GetSegment("CTLungScreening_RightLung").GetRepresentation(
        "Binary labelmap"
    ).Modified()
    with pytest.raises(InputError, match="no lung at the point"):
        logic.review.addNodule(plain.results, plain.ras(UNSEEN))


def test_the_steps_of_a_slider_are_undone_together(logic: LungNoduleSegLogic, case: Case) -> None:
    before = state(case)
    for threshold in (0.6, 0.7, 0.99):
        logic.review.setThreshold(case.results, threshold)
    assert state(case)[0] != before[0]
    logic.history.undo()
    assert state(case)[:2] == before[:2]


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


def test_without_the_probability_the_threshold_is_refused_in_a_sentence(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    case = make_case(logic, tmp_path / "run", "LPS", probability=False)
    before = state(case)
    assert logic.review.lowestThreshold(case.results) is None
    with pytest.raises(InputError, match="was not kept"):
        logic.review.setThreshold(case.results, 0.3)
    assert state(case) == before


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


def erase_upper_half(case: Case, number: int) -> None:
    node, one = case.results.segmentation, nodule_segments.segment_id(number)
    array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, one)
    value = node.GetSegmentation().GetSegment(one).GetLabelValue()
    slices = np.flatnonzero((array == value).any(axis=(1, 2)))
    half = array[slices[len(slices) // 2] :]
    half[half == value] = 0


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


def test_a_nodule_without_voxels_leaves_the_table(logic: LungNoduleSegLogic, plain: Case) -> None:
    plain.results.segmentation.GetSegmentation().RemoveSegment(nodule_segments.segment_id(2))
    assert logic.review.remeasure(plain.results) == (2,)
    assert numbers(logic, plain) == [1]


def test_what_others_drew_is_never_touched(logic: LungNoduleSegLogic, plain: Case) -> None:
    theirs = {
        "overlaps": own_segment(plain, "overlaps"),
        "in a layer": own_segment(plain, "in a layer", nodule_segments.segment_id(1)),
        "CTLungScreening_Nodule_4": own_segment(plain, "CTLungScreening_Nodule_4"),
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
        assert logic.history.lastChange == what
    for what in reversed(steps):
        assert logic.history.lastChange == what
        logic.history.undo()


def test_the_threshold_is_kept_in_the_scene_and_undone(
    logic: LungNoduleSegLogic, plain: Case
) -> None:
    assert logic.review.threshold(plain.results) == RULES.threshold
    logic.review.setThreshold(plain.results, 0.7)
    logic.review.setThreshold(plain.results, 0.3)
    assert logic.review.threshold(plain.results) == 0.3
    logic.history.undo()
    assert logic.review.threshold(plain.results) == RULES.threshold


def test_undo_after_the_scene_was_closed_does_nothing(
    logic: LungNoduleSegLogic, plain: Case
) -> None:
    logic.review.setThreshold(plain.results, 0.3)
    logic.review.removeNodule(plain.results, 1)
    slicer.mrmlScene.Clear()
    while logic.history.canUndo:
        logic.history.undo()
