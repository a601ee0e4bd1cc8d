"""Nodules at one threshold after another are those that a run finds at each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.child_process import complete
from LungNoduleSegLib.nodules import measures
from LungNoduleSegLib.nodules.finding import (
    NoduleFindings,
    NoduleRules,
    find_nodules,
)
from LungNoduleSegLib.nodules.marks import STEPS, steps_of
from LungNoduleSegLib.nodules.threshold import LabelledNodule, ThresholdedNodules, to_steps

SHAPE = (20, 40, 60)


class Chest:
    """Two lungs with smooth noise as probability, which falls apart in many ways."""

    def __init__(self, seed: int, spacing: tuple[float, float, float] = (0.7, 0.7, 1.25)) -> None:
        rng = np.random.default_rng(seed)
        self.lungs = np.zeros(SHAPE, np.uint8)
        self.lungs[2:-2, 3:-3, 3:28] = 1
        self.lungs[2:-2, 3:-3, 32:57] = 2
        noise = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.6)
        likely = np.clip(noise / noise.max() * 1.2, 0, 1) * (self.lungs > 0)
        self.spacing = spacing
        self.probability = self.image(likely.astype(np.float32))
        self.hu = self.image(rng.normal(-700, 200, SHAPE).astype(np.int16))
        self.lung_image = self.image(self.lungs)

    def image(self, array: NDArray[np.generic]) -> sitk.Image:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(self.spacing)
        image.SetOrigin((-30, 12.5, -200))
        return image

    def run(self, rules: NoduleRules) -> NoduleFindings:
        return find_nodules(self.probability, self.hu, self.lung_image, rules, self.hu)

    def showing(self, likely: NDArray[np.float32]) -> ThresholdedNodules:
        self.probability = self.image(likely)
        return self.slider()

    def slider(self) -> ThresholdedNodules:
        steps = to_steps(self.probability)
        return complete(ThresholdedNodules.work(steps, self.hu, self.lung_image, self.hu))


def found_by(
    slider: ThresholdedNodules,
    rules: NoduleRules,
    numbers: Sequence[int] = (),
    avoid: Sequence[LabelledNodule] = (),
) -> tuple[LabelledNodule, ...]:
    return complete(slider.find_work(rules, numbers, avoid))


def voxels(slider: ThresholdedNodules, threshold: float) -> list[int]:
    """Count those of each nodule, without rules; noise has no outline but the mark."""
    found = found_by(slider, NoduleRules(threshold, None, None, None, None))
    return [int(one.mask.sum()) for one in found]


def assert_same(found: tuple[LabelledNodule, ...], run: NoduleFindings) -> None:
    labels = np.zeros(SHAPE, np.uint16)
    for one in found:
        assert not labels[one.box][one.mask].any()
        labels[one.box][one.mask] = one.nodule.id
    np.testing.assert_array_equal(labels, sitk.GetArrayViewFromImage(run.labels))
    for one, nodule in zip(found, run.nodules, strict=True):
        assert one.nodule.probability is not None
        assert nodule.probability is not None
        assert 0 <= nodule.probability - one.nodule.probability <= 1 / STEPS + 1e-3
        same = vars(nodule) | {
            "probability": one.nodule.probability,
            "mean_probability": one.nodule.mean_probability,
        }
        assert vars(one.nodule) == same


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), steps=st.lists(st.integers(10, 190), min_size=2, max_size=2))
def test_every_threshold_gives_what_a_run_gives(seed: int, steps: list[int]) -> None:
    chest = Chest(seed)
    slider = chest.slider()
    for step in steps:
        rules = NoduleRules(threshold=step / STEPS, min_diameter_mm=1.5, min_probability=0.3)
        assert_same(found_by(slider, rules), chest.run(rules))


def test_without_rules_every_component_is_found_in_any_order() -> None:
    chest = Chest(3)
    slider = chest.slider()
    for threshold in (0.9, 0.1, 0.5, 0.1):
        rules = NoduleRules(threshold, None, None, None, None)
        run = chest.run(rules)
        assert_same(found_by(slider, rules), run)
    assert len(run.nodules) > 10


def test_parts_that_meet_only_at_corners_are_one_nodule() -> None:
    chest = Chest(0)
    likely = np.zeros(SHAPE, np.float32)
    likely[5:7, 5:7, 5:7] = 0.8
    likely[7:9, 7:9, 7:9] = 0.3
    likely[9, 9, 9] = 0.2
    likely[5, 12, 5] = 0.8
    slider = chest.showing(likely)
    sizes = {threshold: voxels(slider, threshold) for threshold in (0.2, 0.3, 0.31, 0.8, 0.805)}
    assert sizes == {0.2: [17, 1], 0.3: [16, 1], 0.31: [8, 1], 0.8: [8, 1], 0.805: []}


def test_a_threshold_shows_a_nodule_or_hides_it_and_leaves_its_mark() -> None:
    chest = Chest(0)
    likely = np.zeros(SHAPE, np.float32)
    likely[5:9, 8:16, 8:16] = 0.51
    likely[8, 15, 14:16] = 0.68
    likely[4, 8:16, 8:16] = 0.35
    likely[9, 8:16, 8:16] = 0.33  # less than half
    likely[14, 10, 40] = 0.71
    slider = chest.showing(likely)
    marks = {threshold: voxels(slider, threshold) for threshold in (0.4, 0.5, 0.55, 0.68, 0.7)}
    assert marks == {0.4: [1, 320], 0.5: [1, 320], 0.55: [1, 320], 0.68: [1, 320], 0.7: [1]}
    for threshold in marks:
        rules = NoduleRules(threshold, None, None, None, None)
        assert_same(found_by(slider, rules), chest.run(rules))


def bridged(strongest: float) -> ThresholdedNodules:
    """Mark two nodules, the other one at 0.7, and at 0.46 what lies between them."""
    likely = np.zeros(SHAPE, np.float32)
    likely[8:12, 10:14, 8:24] = 0.46
    likely[8:12, 10:14, 8:12] = strongest
    likely[8:12, 10:14, 20:24] = 0.7
    return Chest(0).showing(likely)


def test_marks_that_join_above_half_are_one_nodule_at_any_threshold() -> None:
    slider = bridged(0.8)
    assert voxels(slider, 0.45) == voxels(slider, 0.6) == voxels(slider, 0.75) == [256]


def test_what_lies_between_two_nodules_is_that_of_the_nearer_one() -> None:
    slider = bridged(1)
    assert voxels(slider, 0.45) == [256]
    assert voxels(slider, 0.6) == [64, 128]


def test_a_mark_that_goes_on_and_on_reaches_no_lower_than_the_threshold() -> None:
    chest = Chest(0)
    likely = np.zeros(SHAPE, np.float32)
    likely[8:12, 10:14, 5:50] = 0.4  # 31 mm
    likely[8:12, 10:14, 5:15] = 0.6
    assert voxels(chest.showing(likely), 0.5) == [160]
    likely[:, :, 35:] = 0
    assert voxels(chest.showing(likely), 0.5) == [480]


def test_the_mark_at_a_point() -> None:
    chest = Chest(0)
    likely = np.zeros(SHAPE, np.float32)
    likely[5:9, 8:12, 8:12] = 0.9
    likely[5:9, 8:12, 12:14] = 0.1  # less than its candidates reach down to
    likely[14:17, 30:33, 40:43] = 0.06  # refused by the classifier
    likely[5:8, 30:33, 40:43] = 0.04
    likely[5:8, 20, 3:57] = 0.3
    slider = chest.showing(likely)

    def marked(z: float, y: float, x: float) -> int | None:
        point = chest.hu.TransformContinuousIndexToPhysicalPoint((x, y, z))
        mark = slider.mark_at(point)
        if mark is None:
            return None
        box, mask = mark
        assert likely[box][mask].all()
        return int(np.count_nonzero(mask))

    assert marked(7, 10, 10) == marked(7, 10, 13) == 64
    assert marked(15, 31, 41) == 27
    assert marked(6, 31, 41) is None
    assert marked(12, 15, 20) is None
    assert marked(6, 20, 30) == 3 * 54  # 38 mm
    assert marked(-9, 20, 30) is None


def test_the_border_of_the_grid_joins_nothing() -> None:
    chest = Chest(0)
    likely = np.zeros(SHAPE, np.float32)
    likely[4, 4, -1] = likely[4, 5, 0] = 0.9  # neighbours in memory only
    found = found_by(chest.showing(likely), NoduleRules(0.5, None, None, None, None))
    assert len(found) == 2


def test_nothing_marked_gives_nothing() -> None:
    chest = Chest(0)
    chest.probability = chest.image(np.zeros(SHAPE, np.float32))
    assert found_by(chest.slider(), NoduleRules()) == ()


def test_only_what_changed_is_outlined_again(monkeypatch: pytest.MonkeyPatch) -> None:
    outlined: list[int] = []
    refine = measures.refine_outline

    def count(*arguments: Any) -> Any:
        outlined.append(1)
        return refine(*arguments)

    monkeypatch.setattr(measures, "refine_outline", count)
    chest = Chest(3)
    slider = chest.slider()
    rules = NoduleRules(0.3, None, None, None, None)
    first = found_by(slider, rules)
    assert len(outlined) == len(first) > 3
    second = found_by(slider, rules, avoid=first[:1])
    assert [one.nodule.id for one in second] == list(range(1, len(first)))
    assert len(outlined) < 2 * len(first) - 1
    before = len(outlined)
    assert_same(found_by(slider, rules), chest.run(rules))
    assert len(outlined) == before + len(first), "only the run has outlined"


def test_nodules_that_stay_keep_their_numbers_and_their_place() -> None:
    chest = Chest(5)
    slider = chest.slider()
    rules = NoduleRules(0.3, None, None, None, None)
    before = found_by(slider, rules)
    stays = before[2]
    lower = found_by(
        slider, NoduleRules(0.2, None, None, None, None), numbers=[stays.nodule.id], avoid=[stays]
    )
    numbers = [one.nodule.id for one in lower]
    assert stays.nodule.id not in numbers
    assert numbers == sorted(numbers)
    painted = np.zeros(SHAPE, bool)
    painted[stays.box][stays.mask] = True
    assert not any((painted[one.box] & one.mask).any() for one in lower)
    assert len(lower) >= len(found_by(slider, NoduleRules(0.2, None, None, None, None))) - 1


def test_a_network_that_marks_all_raises_the_lowest_threshold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("LungNoduleSegLib.nodules.threshold.MAX_VOXELS", 500)
    chest = Chest(1)
    slider = chest.slider()
    steps = steps_of(sitk.GetArrayViewFromImage(chest.probability))
    assert slider.lowest > 0.05
    assert np.count_nonzero(steps >= round(slider.lowest * STEPS)) <= 500
    rules = NoduleRules(slider.lowest, None, None, None, None)
    assert_same(found_by(slider, rules), chest.run(rules))
    assert_same(found_by(slider, NoduleRules(0.01, None, None, None, None)), chest.run(rules))


@given(st.integers(0, STEPS), st.floats(0, 1))
def test_thresholds_on_a_step_hold_for_rounded_probabilities(step: int, exact: float) -> None:
    rounded = steps_of(np.array([exact]))[0]
    assert (rounded >= step) == (exact >= step / STEPS or exact * STEPS + 1e-9 >= step)
    assert steps_of(np.array([rounded / STEPS]))[0] == rounded
