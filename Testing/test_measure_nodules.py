"""Nodules of another source: measured as they are, or refused in a sentence."""

from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk

from annotated_scans import NODULES, chest
from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib import measure_nodules, segment_lungs
from LungNoduleSegLib.training_data.luna16 import sphere_labels

SCAN = chest(1).image


@pytest.fixture(scope="module")
def lungs() -> sitk.Image:
    return segment_lungs(SCAN)


def nodules() -> sitk.Image:
    centres, diameters = zip(*NODULES, strict=True)
    return sphere_labels(SCAN, np.array(centres), np.array(diameters) / 2)


def elsewhere(labels: sitk.Image) -> sitk.Image:
    moved = sitk.Image(labels)
    moved.SetOrigin((9999, 0, 0))
    return moved


def renumbered(labels: sitk.Image, first: int) -> sitk.Image:
    return sitk.ChangeLabel(sitk.Cast(labels, sitk.sitkInt32), {1: first})


@pytest.mark.parametrize("kind", [sitk.sitkFloat32, sitk.sitkInt64, sitk.sitkUInt8])
def test_labels_of_any_type_and_orientation_are_measured(lungs: sitk.Image, kind: int) -> None:
    labels = sitk.DICOMOrient(sitk.Cast(nodules(), kind), "PIR")
    found = measure_nodules(SCAN, renumbered(labels, 40), lungs)
    assert [one.id for one in found] == [2, 40]
    for one, (centre, diameter) in zip(found, NODULES[::-1], strict=True):
        assert (one.x, one.y, one.z) == pytest.approx(centre, abs=2)
        assert one.volume_mm3 == pytest.approx(np.pi / 6 * diameter**3, rel=0.2)
    assert measure_nodules(SCAN, labels * 0, lungs) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (elsewhere, "nodule 1 where the scan has no voxel"),
        (lambda labels: renumbered(labels, 70000), "the value 70000: number the nodules from 1"),
        (lambda labels: renumbered(labels, -3), "values below 0, down to -3"),
        (lambda labels: sitk.Cast(labels > 0, sitk.sitkFloat32) * 0.7, r"the value 0\.7: number"),
        (lambda labels: sitk.Mean(sitk.Cast(labels, sitk.sitkFloat32)), "as probabilities"),
    ],
)
def test_labels_that_would_be_lost_are_refused(
    lungs: sitk.Image, change: Callable[[sitk.Image], sitk.Image], words: str
) -> None:
    with pytest.raises(InputError, match=f"The label image of the nodules has .*{words}"):
        measure_nodules(SCAN, change(nodules()), lungs)


def test_lungs_may_have_any_labels_but_must_be_lungs(lungs: sitk.Image) -> None:
    expected = measure_nodules(SCAN, nodules(), lungs)
    lobes = lungs + 2 * sitk.Cast(lungs > 0, sitk.sitkUInt8)
    assert [one.side for one in measure_nodules(SCAN, nodules(), lobes)] == [
        one.side for one in expected
    ]
    for wrong in (elsewhere(lungs), 3 * sitk.Cast(lungs > 0, sitk.sitkUInt8) - lungs):
        with pytest.raises(InputError, match="The label image of the lungs"):
            measure_nodules(SCAN, nodules(), wrong)
