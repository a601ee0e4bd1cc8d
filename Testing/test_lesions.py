"""Artificial lesions keep their size, place and density on any grid."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from LungNoduleSegLib.lesions import (
    Lesion,
    NoduleKind,
    insert_lesion,
    lesion_density,
    random_lesion,
)

CENTRE = (12.3, -45.6, -78.9)


def grid(
    spacing: Sequence[float] = (0.7, 0.7, 2.5),
    direction: Sequence[float] = (1, 0, 0, 0, 1, 0, 0, 0, 1),
    extent_mm: float = 60,
) -> sitk.Image:
    """A grid whose middle lies at CENTRE."""
    image = sitk.Image([int(extent_mm / s) for s in spacing], sitk.sitkUInt8)
    image.SetSpacing(list(spacing))
    image.SetDirection(list(direction))
    middle = image.TransformContinuousIndexToPhysicalPoint([s / 2 for s in image.GetSize()])
    image.SetOrigin(np.subtract(CENTRE, middle).tolist())
    return image


def lung(geometry: sitk.Image, seed: int = 0) -> np.ndarray:
    """Air-filled tissue with noise on a grid."""
    noise = np.random.default_rng(seed).normal(-870, 20, geometry.GetSize()[::-1])
    return noise.astype(np.int16)


def turned(axis: Sequence[float], degrees: float) -> list[float]:
    """A direction matrix, without numbers near 1e-309: ITK's decomposition gives NaN for them."""
    matrix = sitk.VersorTransform(list(axis), np.radians(degrees)).GetMatrix()
    return [round(one, 12) for one in matrix]


def sphere_mm3(diameter: float) -> float:
    return np.pi * diameter**3 / 6


def centroid(share: np.ndarray, start: Sequence[int], geometry: sitk.Image) -> np.ndarray:
    index = [
        np.average(axis + s, weights=share)
        for axis, s in zip(np.indices(share.shape), start, strict=True)
    ]
    return np.array(geometry.TransformContinuousIndexToPhysicalPoint(index[::-1]))


lesions = st.builds(
    Lesion,
    centre=st.just(CENTRE),
    diameter_mm=st.floats(4, 26),
    kind=st.sampled_from(NoduleKind),
    lobulation=st.floats(0, 1),
    spiculation=st.floats(0, 1),
    elongation=st.floats(1, 1.7),
    seed=st.integers(0, 2**31 - 1),
)
grids = st.builds(
    grid,
    spacing=st.tuples(st.floats(0.5, 1), st.floats(0.5, 1), st.floats(0.6, 3)),
    direction=st.one_of(
        st.builds(
            turned,
            st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.1, 1)),
            st.integers(-60, 60),
        ),
        st.sampled_from([(1, 0, 0, 0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, -1, 0, 0, 0, 1)]),
    ),
)


@settings(max_examples=40)
@given(lesion=lesions, geometry=grids)
def test_volume_is_that_of_the_sphere_asked_for_on_any_grid(
    lesion: Lesion, geometry: sitk.Image
) -> None:
    density = lesion_density(lesion, geometry)
    voxel = float(np.prod(geometry.GetSpacing()))
    wanted = sphere_mm3(lesion.diameter_mm)
    assert density.coverage.sum() * voxel == pytest.approx(wanted, rel=0.06)
    if lesion.diameter_mm > 12:
        assert density.mask.sum() * voxel == pytest.approx(wanted, rel=0.15)


@settings(max_examples=30)
@given(lesion=lesions, geometry=grids)
def test_a_lesion_has_one_place_and_shape_in_the_world(
    lesion: Lesion, geometry: sitk.Image
) -> None:
    fine = grid((0.7, 0.7, 0.7))
    places = []
    for image in (fine, geometry):
        density = lesion_density(lesion, image)
        places.append(centroid(density.coverage, [s.start for s in density.box], image))
    np.testing.assert_allclose(places[0], places[1], atol=0.15)


def test_an_oblique_grid_sees_the_same_surface() -> None:
    lesion = Lesion(CENTRE, 20, lobulation=0.8, spiculation=0.7, elongation=1.4, seed=5)
    fine, oblique = grid((0.6, 0.6, 0.6)), grid((0.7, 0.8, 1.0), turned((1, 2, 3), 35))
    masks = []
    for image in (fine, oblique):
        density = lesion_density(lesion, image)
        full = np.zeros(image.GetSize()[::-1], np.float32)
        full[density.box] = density.coverage
        mask = sitk.GetImageFromArray(full)
        mask.CopyInformation(image)
        masks.append(mask)
    onto_fine = sitk.GetArrayFromImage(sitk.Resample(masks[1], fine)) >= 0.5
    truth = sitk.GetArrayFromImage(masks[0]) >= 0.5
    assert 2 * (onto_fine & truth).sum() / (onto_fine.sum() + truth.sum()) > 0.96


def test_reordered_axes_give_the_same_voxels() -> None:
    lesion = Lesion(CENTRE, 11, NoduleKind.PART_SOLID, spiculation=0.5, seed=3)
    axial = grid()
    results = []
    for code in ("LPS", "RAS", "SLP"):
        geometry = sitk.DICOMOrient(axial, code)
        hu = np.full(geometry.GetSize()[::-1], -870, np.float32)
        insert_lesion(hu, geometry, lesion)
        image = sitk.GetImageFromArray(hu)
        image.CopyInformation(geometry)
        results.append(sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS")))
    for other in results[1:]:
        assert np.mean(np.abs(other - results[0]) > 20) < 1e-4


def test_a_round_lesion_is_a_ball() -> None:
    lesion = Lesion(CENTRE, 10, lobulation=0, spiculation=0, elongation=1)
    geometry = grid((0.5, 0.5, 0.5))
    density = lesion_density(lesion, geometry)
    index = [
        axis + s.start
        for axis, s in zip(np.indices(density.coverage.shape), density.box, strict=True)
    ]
    world = np.array(geometry.GetOrigin()) + 0.5 * np.stack(index[::-1], -1)
    distance = np.linalg.norm(world - CENTRE, axis=-1)
    assert np.all(density.coverage[distance < 4.6] == 1)
    assert np.all(density.coverage[distance > 5.4] == 0)


def test_a_thick_slice_averages_what_thin_ones_show() -> None:
    lesion = Lesion(CENTRE, 9, spiculation=0.4, seed=8)
    thick, thin = grid((0.8, 0.8, 4.0)), grid((0.8, 0.8, 1.0))
    thin.SetOrigin(np.subtract(thick.GetOrigin(), (0, 0, 1.5)).tolist())
    stacks = []
    for image in (thick, thin):
        density = lesion_density(lesion, image)
        full = np.zeros(image.GetSize()[::-1], np.float32)
        full[density.box] = density.coverage
        stacks.append(full)
    averaged = stacks[1].reshape(-1, 4, *stacks[1].shape[1:]).mean(1)
    assert np.abs(averaged - stacks[0]).max() < 0.2
    assert np.abs(averaged - stacks[0]).sum() < 0.03 * stacks[0].sum()


@pytest.mark.parametrize(
    ("kind", "percent", "low", "high"),
    [
        (NoduleKind.SOLID, 50, -60, 120),
        (NoduleKind.NON_SOLID, 50, -750, -350),
        (NoduleKind.CALCIFIED, 85, 150, 650),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_density_follows_the_type(
    kind: NoduleKind, percent: int, low: float, high: float, seed: int
) -> None:
    geometry = grid()
    hu = lung(geometry)
    inserted = insert_lesion(hu, geometry, Lesion(CENTRE, 16, kind, seed=seed))
    assert low < np.percentile(hu[inserted.box][inserted.mask], percent) < high


@pytest.mark.parametrize("seed", range(4))
def test_a_part_solid_lesion_has_a_core_within_ground_glass(seed: int) -> None:
    geometry = grid()
    hu = lung(geometry)
    inserted = insert_lesion(hu, geometry, Lesion(CENTRE, 20, NoduleKind.PART_SOLID, seed=seed))
    values = hu[inserted.box][inserted.mask]
    assert 0.05 < np.mean(values > -200) < 0.45
    assert 0.4 < np.mean((values > -800) & (values < -300)) < 0.95


@settings(max_examples=25)
@given(lesion=lesions, geometry=grids)
def test_nothing_gets_darker_and_nothing_far_away_changes(
    lesion: Lesion, geometry: sitk.Image
) -> None:
    before = lung(geometry)
    after = before.copy()
    inserted = insert_lesion(after, geometry, lesion)
    assert np.all(after >= before)
    assert inserted.mask.shape == after[inserted.box].shape
    outside = after.copy()
    outside[inserted.box] = before[inserted.box]
    np.testing.assert_array_equal(outside, before)


def test_a_solid_lesion_keeps_the_noise_of_the_scan() -> None:
    geometry = grid()
    lesion = Lesion(CENTRE, 18, seed=2)
    spreads = []
    for noise in (0, 30):
        hu = np.random.default_rng(0).normal(-870, noise, geometry.GetSize()[::-1])
        hu = hu.astype(np.float32)
        inserted = insert_lesion(hu, geometry, lesion)
        core = ndimage.binary_erosion(inserted.mask, iterations=3)
        spreads.append(hu[inserted.box][core].std())
    assert 15 < np.sqrt(spreads[1] ** 2 - spreads[0] ** 2) < 45


def test_vessels_show_through_ground_glass() -> None:
    geometry = grid()
    hu = lung(geometry)
    z, y, _ = (n // 2 for n in hu.shape)
    hu[z, y - 1 : y + 2] = 40
    insert_lesion(hu, geometry, Lesion(CENTRE, 18, NoduleKind.NON_SOLID, seed=1))
    assert np.all(hu[z, y - 1 : y + 2] >= 40)
    assert np.all(hu[z, y] < 80)


def test_a_lesion_on_the_pleura_stops_there_and_merges_with_the_wall() -> None:
    geometry = grid()
    hu = np.full(geometry.GetSize()[::-1], -870, np.float32)
    middle = hu.shape[2] // 2
    hu[..., middle:] = 50
    inside = hu < -500
    inserted = insert_lesion(hu, geometry, Lesion(CENTRE, 16, seed=4), inside=inside)
    assert inserted.mask.any()
    assert not (inserted.mask & ~inside[inserted.box]).any()
    row = hu[hu.shape[0] // 2, hu.shape[1] // 2]
    assert row[middle - 5 : middle + 5].min() > -100
    assert np.all(hu[..., middle + 6 :] == 50)


def test_a_lesion_at_the_border_is_cut_and_one_beyond_it_is_refused() -> None:
    geometry = grid()
    hu = lung(geometry)
    corner = geometry.GetOrigin()
    inserted = insert_lesion(hu, geometry, Lesion(corner, 12))
    assert inserted.mask[0, 0, 0]
    with pytest.raises(ValueError, match="outside the image"):
        insert_lesion(hu, geometry, Lesion((corner[0] - 100, corner[1], corner[2]), 12))


def test_the_seed_decides_the_shape() -> None:
    lesion = Lesion(CENTRE, 14, lobulation=0.6, seed=1)
    geometry = grid((0.7, 0.7, 0.7))
    first, again, other = (
        lesion_density(which, geometry, margin_mm=10)
        for which in (lesion, replace(lesion), replace(lesion, seed=2))
    )
    np.testing.assert_array_equal(first.coverage, again.coverage)
    assert first.coverage.shape != other.coverage.shape or (
        np.abs(first.coverage - other.coverage).max() > 0.5
    )


def test_random_lesions_are_mostly_small_and_solid() -> None:
    rng = np.random.default_rng(0)
    drawn = [random_lesion(rng, CENTRE) for _ in range(2000)]
    diameters = np.array([lesion.diameter_mm for lesion in drawn])
    assert diameters.min() >= 4
    assert diameters.max() <= 30
    assert 6 < np.median(diameters) < 10
    assert 0.6 < np.mean([lesion.kind is NoduleKind.SOLID for lesion in drawn]) < 0.8
    assert {lesion.kind for lesion in drawn} == set(NoduleKind)
    assert len({lesion.seed for lesion in drawn}) == len(drawn)
