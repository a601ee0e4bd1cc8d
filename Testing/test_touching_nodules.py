"""Nodules that touch, in one mark of the network."""

import numpy as np
import pytest
import SimpleITK as sitk

from CTLungScreeningLib.geometry import image_like
from lung_block import TISSUE_HU, Block, ball, tube
from LungNoduleSegLib.nodules.finding import NoduleRules, find_nodules


def test_a_nodule_that_touches_others_is_not_lost_with_their_outline() -> None:
    balls = [
        ball(14, (0.0, 0.0, 0.0)),
        ball(12, (0.0, 13.2, 0.0)),
        ball(10, (0.0, 3.0, -11.8)),
    ]
    block = Block(2.5)
    for one in balls:
        block.draw(one, TISSUE_HU)
    hu = block.hu
    truth = [block.within(one) for one in balls]
    probability = image_like(np.any(truth, axis=0).astype(np.float32), hu)
    findings = find_nodules(probability, hu, block.lungs, NoduleRules(), hu)
    labels = sitk.GetArrayFromImage(findings.labels)
    assert [one.id for one in findings.nodules] == [1, 2]
    first, lost = labels == 1, labels == 2
    assert first[truth[0]].mean() > 0.9
    assert first[truth[2]].mean() > 0.9
    assert 2 * (lost & truth[1]).sum() / (lost.sum() + truth[1].sum()) > 0.95
    assert findings.nodules[1].volume_mm3 == pytest.approx(np.pi / 6 * 12**3, rel=0.06)


def test_the_stump_of_a_vessel_in_a_mark_is_no_nodule() -> None:
    nodule, vessel = ball(14), tube(5, 80)
    block = Block(2.5).draw(nodule, TISSUE_HU).draw(vessel, TISSUE_HU)
    hu = block.hu
    mark = block.within(nodule) | (block.within(vessel) & block.within(ball(36)))
    probability = image_like(mark.astype(np.float32), hu)
    assert len(find_nodules(probability, hu, block.lungs, NoduleRules(), hu).nodules) == 1
