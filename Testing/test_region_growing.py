"""Nodules grown from a click: lesions whose exact masks are known, in lungs with noise."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.lesions import InsertedLesion, Lesion, insert_lesion
from LungNoduleSegLib.nodules.region_growing import GrownNodule, grow_nodule
from LungNoduleSegLib.nodules.table import NoduleKind

SIZE_MM = np.array([80.0, 90.0, 110.0])
ORIGIN = np.array([-110.0, -20.0, -300.0])
CENTRE = (-50.0, 25.0, -260.0)
"""LPS mm, in the middle of the lung, which reaches from x = −100 to −10 mm."""


class Chest:
    """One lung with noise in soft tissue; the mask leaves out all that is dense."""

    def __init__(self, spacing: tuple[float, float, float] = (1.25, 0.9, 0.9)) -> None:
        shape = (SIZE_MM / spacing).astype(int)
        rng = np.random.default_rng(1)
        self.points = [
            start + np.arange(n) * step
            for start, n, step in zip(ORIGIN[::-1], shape, spacing, strict=True)
        ]
        z, y, x = np.meshgrid(*self.points, indexing="ij", sparse=True)
        rounded = ((x + 55) / 45) ** 2 + ((y - 25) / 40) ** 2 + ((z + 260) / 36) ** 2
        self.cavity = rounded < 1
        self.z, self.y, self.x = z, y, x
        hu = np.where(self.cavity, -860, 40) + rng.normal(0, 20, shape)
        self.hu = hu.astype(np.float32)
        self.spacing = spacing

    def insert(self, lesion: Lesion) -> InsertedLesion:
        return insert_lesion(self.hu, self.image(self.hu), lesion, inside=self.cavity)

    def image(self, array: NDArray[Any]) -> sitk.Image:
        image = sitk.GetImageFromArray(array.astype(np.float32))
        image.SetSpacing(self.spacing[::-1])
        image.SetOrigin(ORIGIN.tolist())
        return image

    def grow(
        self, point: tuple[float, float, float], mask: NDArray[np.bool_] | None = None
    ) -> NDArray[np.bool_]:
        lungs = self.cavity & (self.hu < -500) if mask is None else mask
        grown = grow_nodule(self.image(self.hu), self.image(lungs), point)
        return painted(grown, self.hu.shape)


def painted(grown: GrownNodule | InsertedLesion, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    whole = np.zeros(shape, bool)
    whole[grown.box][grown.mask] = True
    return whole


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return 2 * np.count_nonzero(one & other) / (one.sum() + other.sum())


@pytest.mark.parametrize("kind", list(NoduleKind))
@pytest.mark.parametrize("diameter", [6, 12, 26])
def test_a_lesion_of_any_kind_is_grown_to_its_edge(kind: NoduleKind, diameter: float) -> None:
    if (kind, diameter) == (NoduleKind.PART_SOLID, 6):
        pytest.skip("its ground glass is thinner than the scanner's blur")
    chest = Chest()
    inserted = chest.insert(Lesion(CENTRE, diameter, kind, seed=4))
    truth = painted(inserted, chest.hu.shape)
    assert dice(chest.grow(CENTRE), truth) > 0.8


@pytest.mark.parametrize("spacing", [(3.0, 0.7, 0.7), (0.6, 0.5, 0.9), (2.0, 1.5, 1.5)])
def test_the_grid_does_not_matter(spacing: tuple[float, float, float]) -> None:
    chest = Chest(spacing)
    truth = painted(chest.insert(Lesion(CENTRE, 14, seed=2)), chest.hu.shape)
    assert dice(chest.grow(CENTRE), truth) > 0.8


@cache
def pleural() -> tuple[Chest, NDArray[np.bool_]]:
    chest = Chest()
    return chest, painted(chest.insert(Lesion((-96, 25, -260), 16, seed=7)), chest.hu.shape)


@pytest.mark.parametrize("place", [(-96.0, 25.0, -260.0), (-93.0, 27.0, -258.0)])
def test_a_lesion_on_the_pleura_that_the_mask_leaves_out_is_found_without_the_wall(
    place: tuple[float, float, float],
) -> None:
    chest, truth = pleural()
    grown = chest.grow(place)
    assert not (chest.cavity & (chest.hu < -500) & truth).sum() > 0.2 * truth.sum()
    assert dice(grown, truth) > 0.75
    assert np.count_nonzero(grown & ~chest.cavity) < 0.15 * grown.sum()


def test_a_mask_that_holds_the_lesion_on_the_pleura_gives_the_same() -> None:
    chest, truth = pleural()
    assert dice(chest.grow((-96, 25, -260), chest.cavity), truth) > 0.8


def test_where_in_the_nodule_the_click_falls_hardly_matters() -> None:
    chest = Chest()
    chest.insert(Lesion(CENTRE, 14, seed=5, lobulation=0, elongation=1))
    masks = [
        chest.grow((CENTRE[0] + dx, CENTRE[1] + dy, CENTRE[2] + dz))
        for dx, dy, dz in [(0, 0, 0), (5, 0, 0), (0, -5, 2), (-3, 3, -4)]
    ]
    assert min(dice(masks[0], other) for other in masks[1:]) > 0.97


@pytest.mark.parametrize("click", [(0.0, 0.0, 0.0), (5.5, 0.0, 0.0)])
def test_a_vessel_that_it_hangs_on_is_cut_off(click: tuple[float, float, float]) -> None:
    chest = Chest()
    inserted = chest.insert(Lesion(CENTRE, 14, seed=5, lobulation=0, elongation=1))
    truth = painted(inserted, chest.hu.shape)
    vessel = np.hypot(chest.y - 25, chest.z + 260) < 2
    vessel = vessel & (chest.x > -50) & chest.cavity
    chest.hu[vessel] = 40
    grown = chest.grow((CENTRE[0] + click[0], CENTRE[1] + click[1], CENTRE[2] + click[2]))
    assert dice(grown, truth) > 0.85
    assert np.count_nonzero(grown & vessel & ~truth) < 0.2 * np.count_nonzero(vessel & ~truth)


def test_two_nodules_near_each_other_stay_two() -> None:
    chest = Chest()
    left = chest.insert(Lesion((-58, 25, -260), 12, seed=1, lobulation=0))
    right = chest.insert(Lesion((-44, 25, -260), 12, seed=2, lobulation=0))
    for x, own, other in ((-58.0, left, right), (-44.0, right, left)):
        grown = chest.grow((x, 25, -260))
        assert dice(grown, painted(own, chest.hu.shape)) > 0.8
        assert np.count_nonzero(grown & painted(other, chest.hu.shape)) < 0.1 * grown.sum()


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ((-50.0, 25.0, -260.0), "Nothing at the point is denser than lung"),
        ((-105.0, 25.0, -260.0), "There is no lung at the point"),
        ((900.0, 25.0, -260.0), "outside"),
    ],
)
def test_points_at_which_there_is_no_nodule_are_refused(
    point: tuple[float, float, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Chest().grow(point)


def test_a_broad_base_on_wall_that_the_lungs_hold_is_cut() -> None:
    chest = Chest()
    ball = (chest.x + 50) ** 2 + (chest.y - 25) ** 2 + (chest.z + 264) ** 2 < 10**2
    wall = chest.cavity & (chest.z < -272) & (chest.z > -284)
    chest.hu[ball | wall] = 40
    above = ball & (chest.z > -272)
    assert dice(chest.grow((-50, 25, -263), chest.cavity), above) > 0.8


def test_what_has_no_end_is_refused() -> None:
    chest = Chest()
    chest.hu[chest.cavity & (chest.z < -255)] = 30
    with pytest.raises(InputError, match="wider than 40 mm"):
        chest.grow((-50, 25, -262), chest.cavity)


def test_a_speck_is_refused() -> None:
    chest = Chest()
    chest.hu[32, 50, 66] = 60
    with pytest.raises(InputError, match="smaller than 2 mm"):
        chest.grow(
            (float(chest.points[2][66]), float(chest.points[1][50]), float(chest.points[0][32]))
        )


def test_the_result_keeps_its_place_at_the_edge_of_the_grid() -> None:
    chest = Chest()
    chest.hu[:8] = np.where(chest.cavity, -860, 40)[8]
    chest.cavity[:8] = chest.cavity[8]
    lesion = Lesion((-50, 25, float(ORIGIN[2]) + 2), 10, seed=3)
    truth = painted(chest.insert(lesion), chest.hu.shape)
    assert dice(chest.grow(lesion.centre), truth) > 0.75


def test_only_the_inner_part_of_a_small_region_is_sure() -> None:
    shares = []
    for diameter in (8, 16):
        chest = Chest()
        chest.insert(Lesion(CENTRE, diameter, seed=5, lobulation=0, elongation=1))
        lungs = chest.image(chest.cavity & (chest.hu < -500))
        grown = grow_nodule(chest.image(chest.hu), lungs, CENTRE)
        assert not (grown.sure & ~grown.mask).any()
        shares.append(grown.sure.sum() / grown.mask.sum())
    assert 0.1 < shares[0] < 0.6
    assert shares[1] == 1
