"""Outlines that the image tells, on blocks of artificial lung whose lesion is known exactly."""

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from LungNoduleSegLib.nodules.measures import axial_diameters
from LungNoduleSegLib.nodules.outline import NoduleOutline, refine_outline
from LungNoduleSegLib.nodules.table import NoduleKind
from LungNoduleSegLib.phantom.chest import Place
from LungNoduleSegLib.phantom.crops import Crop, CropSpec, make_crop

crop = cache(make_crop)


def refined(made: Crop, mark: NDArray[np.bool_]) -> NoduleOutline:
    (box,) = ndimage.find_objects(mark.view(np.uint8), 1)
    outline = refine_outline(made.hu, made.lungs, made.spacing, box, mark[box])
    assert outline is not None
    return outline


def scaled(made: Crop, by_mm: float) -> NDArray[np.bool_]:
    """A mark that is larger or smaller than the lesion by a distance."""
    inward = ndimage.distance_transform_edt(made.mask, sampling=made.spacing)
    outward = ndimage.distance_transform_edt(~made.mask, sampling=made.spacing)
    return np.asarray(inward - outward > -by_mm)


@pytest.mark.parametrize(
    ("diameter", "kind", "place", "volume_off", "diameter_off"),
    [
        (6, NoduleKind.SOLID, Place.FREE, 0.08, 0.3),
        (12, NoduleKind.SOLID, Place.FREE, 0.08, 0.3),
        (9, NoduleKind.SOLID, Place.VESSEL, 0.15, 0.6),
        (9, NoduleKind.SOLID, Place.PLEURA, 0.15, 0.6),
        (14, NoduleKind.NON_SOLID, Place.FREE, 0.15, 1.0),
        (14, NoduleKind.PART_SOLID, Place.FREE, 0.15, 1.0),
    ],
)
def test_measures_are_those_of_the_lesion(
    diameter: float, kind: NoduleKind, place: Place, volume_off: float, diameter_off: float
) -> None:
    made = crop(CropSpec(diameter, kind, place, seed=5))
    image = refined(made, scaled(made, -1.0)).image
    assert image is not None
    box = (slice(0, 1),) * 3
    found = axial_diameters(image.field, box, made.spacing)
    mean = (found.longest_mm + found.across_mm) / 2
    assert image.volume_mm3 == pytest.approx(made.volume_mm3, rel=volume_off)
    assert mean == pytest.approx(made.mean_mm, abs=diameter_off)
    assert image.attached is (place is not Place.FREE)
    if made.solid_mm is None:
        assert image.solid is None
    else:
        assert image.solid is not None
        core = axial_diameters(image.solid, box, made.spacing)
        assert (core.longest_mm + core.across_mm) / 2 == pytest.approx(made.solid_mm, abs=1)


def test_a_mark_too_small_or_too_large_gives_the_same_outline() -> None:
    made = crop(CropSpec(10, seed=3))
    small, large = (refined(made, scaled(made, by)).image for by in (-2.0, 1.5))
    assert small is not None and large is not None
    assert small.volume_mm3 == pytest.approx(large.volume_mm3, rel=0.02)


def test_new_noise_gives_nearly_the_same_volume() -> None:
    volumes = []
    for noise in range(4):
        made = make_crop(CropSpec(8, seed=3, noise_hu=25, noise_seed=noise))
        image = refined(made, scaled(made, -0.5)).image
        assert image is not None
        volumes.append(image.volume_mm3)
    assert np.std(volumes) / np.mean(volumes) < 0.06


def test_mask_and_volume_agree_to_a_voxel_and_lie_in_the_box() -> None:
    made = crop(CropSpec(9, place=Place.VESSEL, seed=3))
    outline = refined(made, scaled(made, -1.0))
    assert outline.image is not None
    assert outline.mask.shape == tuple(part.stop - part.start for part in outline.box)
    voxels = outline.image.volume_mm3 / made.spacing.prod()
    assert outline.mask.sum() == pytest.approx(voxels, rel=0.05)


def test_a_neighbour_keeps_its_voxels() -> None:
    made = crop(CropSpec(10, seed=3))
    mark = scaled(made, -2.0)
    owner = np.zeros(mark.shape, np.uint16)
    half = mark.shape[-1] // 2
    owner[..., half:] = 2 * made.mask[..., half:]
    mark &= owner == 0
    (box,) = ndimage.find_objects(mark.view(np.uint8), 1)
    outline = refine_outline(made.hu, made.lungs, made.spacing, box, mark[box], owner, 1)
    assert outline is not None
    assert not (owner[outline.box][outline.mask] == 2).any()


def test_the_image_tells_nothing_without_contrast_or_without_lung() -> None:
    made = crop(CropSpec(10, seed=3))
    mark = scaled(made, 0.0)
    (box,) = ndimage.find_objects(mark.view(np.uint8), 1)
    for hu in (np.full_like(made.hu, -850), np.full_like(made.hu, 40)):
        assert refine_outline(hu, made.lungs, made.spacing, box, mark[box]) is None
