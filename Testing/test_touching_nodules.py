"""Nodules that touch, in one mark of the network."""

import numpy as np
import pytest
import SimpleITK as sitk

from CTLungScreeningLib.child_process import complete
from CTLungScreeningLib.geometry import image_like
from lung_block import TISSUE_HU, TOUCHING_BALLS, Block, ball, tube
from LungNoduleSegLib.nodules.finding import NoduleRules, find_nodules
from LungNoduleSegLib.nodules.threshold import ThresholdedNodules, to_steps


@pytest.fixture(scope="module")
def block() -> Block:
    made = Block(2.5)
    for one in TOUCHING_BALLS:
        made.draw(one, TISSUE_HU)
    return made


def marked(block: Block) -> sitk.Image:
    inside = np.any([block.within(one) for one in TOUCHING_BALLS], axis=0)
    return image_like(inside.astype(np.float32), block.hu)


def test_a_nodule_that_touches_others_is_not_lost_with_their_outline(block: Block) -> None:
    hu, truth = block.hu, [block.within(one) for one in TOUCHING_BALLS]
    findings = find_nodules(marked(block), hu, block.lungs, NoduleRules(), hu)
    labels = sitk.GetArrayFromImage(findings.labels)
    assert [one.id for one in findings.nodules] == [1, 2]
    first, lost = labels == 1, labels == 2
    assert first[truth[0]].mean() > 0.9
    assert first[truth[2]].mean() > 0.9
    assert 2 * (lost & truth[1]).sum() / (lost.sum() + truth[1].sum()) > 0.95
    assert findings.nodules[1].volume_mm3 == pytest.approx(np.pi / 6 * 12**3, rel=0.06)


def test_a_threshold_finds_it_as_a_run_does(block: Block) -> None:
    hu, lungs, probability = block.hu, block.lungs, marked(block)
    slider = complete(ThresholdedNodules.work(to_steps(probability), hu, lungs, hu))
    found = complete(slider.find_work(NoduleRules()))
    assert tuple(one.nodule for one in found) == (
        find_nodules(probability, hu, lungs, NoduleRules(), hu).nodules
    )


def test_the_stump_of_a_vessel_in_a_mark_is_no_nodule() -> None:
    nodule, vessel = ball(14), tube(5, 80)
    block = Block(2.5).draw(nodule, TISSUE_HU).draw(vessel, TISSUE_HU)
    hu = block.hu
    mark = block.within(nodule) | (block.within(vessel) & block.within(ball(36)))
    probability = image_like(mark.astype(np.float32), hu)
    assert len(find_nodules(probability, hu, block.lungs, NoduleRules(), hu).nodules) == 1
