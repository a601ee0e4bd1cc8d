"""Nodules with a cavity are seen and measured as a whole; cysts, bronchi and lung are left."""

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from CTLungScreeningLib.geometry import image_like
from lung_block import AIR_HU, LUNG_HU, TISSUE_HU, Block, ball, tube
from LungNoduleSegLib.detectors.detection import Detection, Mark
from LungNoduleSegLib.detectors.models import open_detector
from LungNoduleSegLib.nodules.cavities import fill_cavities
from LungNoduleSegLib.nodules.finding import NoduleRules, find_nodules
from LungNoduleSegLib.nodules.measures import measure_labels
from LungNoduleSegLib.nodules.table import NoduleKind, Outline
from LungNoduleSegLib.options import DEFAULT_MODEL
from LungNoduleSegLib.pipeline import cavitated


def filled_ml(block: Block) -> float:
    hu = block.hu
    before, after = map(sitk.GetArrayFromImage, (hu, fill_cavities(hu, block.lungs)))
    return float((before != after).sum() * block.spacing.prod() / 1000)


@pytest.mark.parametrize(
    ("diameter", "wall", "slice_mm"),
    [
        (12, 2.5, 0.7),
        (16, 4, 2.5),
        (20, 3, 1.25),
        (28, 3, 2.5),
        (28, 5, 5),
        (36, 6, 2.5),
        (45, 4, 1.25),
    ],
)
def test_a_cavity_with_a_thick_wall_is_filled(
    diameter: float, wall: float, slice_mm: float
) -> None:
    block = Block(slice_mm).hollow(diameter, wall)
    hu = block.hu
    filled = sitk.GetArrayFromImage(fill_cavities(hu, block.lungs))
    assert filled[block.within(ball(diameter - 2 * wall))].min() > -400
    outside = ~block.within(ball(diameter + 1))
    assert (filled == sitk.GetArrayViewFromImage(hu))[outside].all()


@pytest.mark.parametrize("slice_mm", [0.7, 1.25, 2.5])
@pytest.mark.parametrize(
    ("diameter", "wall"), [(10, 1), (20, 1), (40, 1), (10, 1.5), (20, 1.5), (40, 1.5), (30, 2)]
)
def test_a_cyst_stays_a_cyst(diameter: float, wall: float, slice_mm: float) -> None:
    assert filled_ml(Block(slice_mm).hollow(diameter, wall)) == 0


@pytest.mark.parametrize("slice_mm", [0.7, 2.5])
def test_other_air_stays_as_it_is(slice_mm: float) -> None:
    def chest_wall(z: Any, y: Any, x: Any) -> Any:
        return y - 20 + 0 * (z + x)

    def fibrosis(z: Any, y: Any, x: Any) -> Any:
        return np.minimum(22 - np.maximum(abs(z), abs(x)), 11 - abs(y))

    honeycomb = Block(slice_mm).draw(fibrosis, TISSUE_HU)
    for z in (-11, 0, 11):
        for x in (-11, 0, 11):
            honeycomb.draw(ball(9, (z, 0, x)), AIR_HU)
    blocks = {
        "lung": Block(slice_mm),
        "bulla": Block(slice_mm).draw(chest_wall, TISSUE_HU).hollow(30, 1, (0, 6, 0)),
        "plugged bronchus": Block(slice_mm)
        .draw(tube(15, 50), TISSUE_HU)
        .draw(tube(10, 44), AIR_HU),
        "open bronchus": Block(slice_mm).draw(tube(15, 40), TISSUE_HU).draw(tube(10, 70), AIR_HU),
        "honeycomb": honeycomb,
        "enclosed lung": Block(slice_mm).draw(ball(50), TISSUE_HU).draw(ball(30), LUNG_HU),
    }
    assert {name: filled_ml(block) for name, block in blocks.items()} == dict.fromkeys(blocks, 0)


def test_air_outside_the_lungs_stays_as_it_is() -> None:
    block = Block().hollow(28, 5)
    lungs = sitk.GetArrayFromImage(block.lungs)
    lungs[block.within(ball(30))] = 0
    hu = block.hu
    assert fill_cavities(hu, image_like(lungs, hu)) is hu


def test_a_nodule_with_a_cavity_is_measured_along_its_outside() -> None:
    block = Block(2.5).hollow(28, 5)
    hu, lungs = block.hu, block.lungs
    outer, inner = block.within(ball(28)), block.within(ball(18))
    probability = image_like((outer & ~inner).astype(np.float32), hu)
    (nodule,) = find_nodules(probability, hu, lungs, NoduleRules(), hu).nodules
    assert nodule.outline is Outline.IMAGE
    assert nodule.kind is NoduleKind.SOLID
    assert nodule.mean_diameter_mm == pytest.approx(28, abs=0.8)
    assert nodule.volume_mm3 == pytest.approx(np.pi / 6 * 28**3, rel=0.05)
    assert nodule.cavity_mm3 == pytest.approx(np.pi / 6 * 18**3, rel=0.1)
    assert nodule.min_hu < -900  # attenuation is that of the scan
    assert [note.split(",")[0] for note in cavitated([nodule])] == ["Nodule 1 has a cavity"]

    labels = image_like(outer.astype(np.uint16), hu)
    (drawn,) = measure_labels(labels, hu, lungs, hu)
    assert drawn.kind is NoduleKind.SOLID
    assert drawn.cavity_mm3 == nodule.cavity_mm3
    assert drawn.volume_mm3 == pytest.approx(nodule.volume_mm3, rel=0.03)


def test_a_nodule_without_a_cavity_has_none() -> None:
    block = Block().draw(ball(14), TISSUE_HU)
    hu = block.hu
    labels = image_like(block.within(ball(14)).astype(np.uint16), hu)
    (nodule,) = measure_labels(labels, hu, block.lungs, hu)
    assert nodule.cavity_mm3 is None
    assert cavitated([nodule]) == ()


def test_a_mark_in_a_cavity_grows_to_the_whole_nodule() -> None:
    block = Block().hollow(24, 4)
    found = Detection.of([Mark(0.0, 0.0, 0.0, 0.9)], block.hu, block.lungs)
    assert found.notes == ()
    marked = sitk.GetArrayFromImage(found.probability) > 0
    truth = block.within(ball(24))
    assert 2 * (marked & truth).sum() / (marked.sum() + truth.sum()) > 0.95


def test_the_networks_see_a_nodule_with_a_cavity() -> None:
    block = Block(2.5).hollow(28, 5)
    probability = open_detector(DEFAULT_MODEL).detect(block.hu, block.lungs)
    assert isinstance(probability, sitk.Image)
    inside = sitk.GetArrayFromImage(probability)[block.within(ball(26))]
    assert np.mean(inside >= 0.6) > 0.8
