"""What the network sees, and that predictions return to the voxels they came from."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from CTLungScreeningLib.geometry import AxialView
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.reading.ct_reading import read_ct
from LungNoduleSegLib.lungs.segmentation import segment_lungs
from LungNoduleSegLib.network.inference import (
    BACKGROUND_STD,
    WHOLE,
    Preparation,
    prepare,
    prepare_mask,
    with_context,
)


def scan(
    shape: tuple[int, int, int] = (12, 80, 96),
    spacing: tuple[float, float, float] = (0.9, 0.9, 2.5),
    corner: tuple[int, int, int] = (2, 10, 20),
) -> tuple[sitk.Image, sitk.Image]:
    rng = np.random.default_rng(0)
    lungs = np.zeros(shape, np.uint8)
    z, y, x = corner
    lungs[z : shape[0] - 2, y : y + 40, x : x + 60] = 1
    hu = np.where(lungs, rng.normal(-800, 100, shape), 40).astype(np.int16)
    images = []
    for array in (hu, lungs):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(spacing)
        image.SetOrigin((-31.0, 12.5, -250.0))
        images.append(image)
    return images[0], images[1]


def test_the_lungs_are_normalized_and_all_else_is_background() -> None:
    hu, lungs = scan()
    pixels = prepare(hu, lungs, Preparation(size=60)).pixels()  # as many as the lungs are wide
    assert pixels.shape == (8, 60, 60)
    lung_rows = pixels[:, 10:50]
    assert lung_rows.mean() == pytest.approx(0, abs=0.03)  # of some of the voxels
    assert lung_rows.std() == pytest.approx(1 / WHOLE, abs=0.03)
    np.testing.assert_allclose(pixels[:, :10], BACKGROUND_STD, atol=1e-5)


def test_wall_in_the_mask_does_not_change_what_is_seen_of_the_lungs() -> None:
    hu, lungs = scan()
    wide = sitk.BinaryDilate(lungs, (9, 9, 0))
    tight, loose = (prepare(hu, mask, Preparation(size=96)) for mask in (lungs, wide))
    seen = sitk.Resample(loose.blocks[0], tight.blocks[0], sitk.Transform(), sitk.sitkLinear)
    inner = np.s_[:, 30:60, 10:80]
    np.testing.assert_allclose(
        sitk.GetArrayViewFromImage(seen)[inner].mean(), tight.pixels()[inner].mean(), atol=0.02
    )


def test_real_lungs_have_the_mean_0_and_the_standard_deviation_1(shared_data: Path) -> None:
    """As a whole, although both come from their aerated part: networks are used to it."""
    scan = read_ct(shared_data / "LIDC-IDRI-0012.nii.gz")
    hu = AxialView.of(scan.image, AIR_HU).image
    pixels = prepare(hu, segment_lungs(hu), Preparation(size=512)).pixels()
    lung = pixels[pixels != np.float32(BACKGROUND_STD)]
    assert lung.mean() == pytest.approx(0, abs=0.1)
    assert lung.std() == pytest.approx(1, abs=0.1)


def test_lungs_without_air_are_normalized_too() -> None:
    hu, lungs = scan()
    soft = sitk.Cast(hu * 0 + 40, sitk.sitkInt16)
    assert np.isfinite(prepare(soft, lungs, Preparation(size=64)).pixels()).all()


def test_the_tutorials_slices_have_each_their_own_square_and_contrast() -> None:
    hu, lungs = scan()
    labels = sitk.GetArrayFromImage(lungs)
    labels[5, :, 40:] = 0
    narrow = sitk.GetImageFromArray(labels)
    narrow.CopyInformation(lungs)
    prepared = prepare(hu, narrow, Preparation(size=64, per_slice=True))
    assert len(prepared.blocks) == 8
    sides = [block.GetSpacing()[0] * 64 for block in prepared.blocks]
    assert sides[3] == pytest.approx(40 * 0.9)
    assert sides[4] == pytest.approx(60 * 0.9)


@settings(max_examples=40)
@given(
    size=st.sampled_from([64, 96, 128]),
    spacing=st.tuples(st.floats(0.5, 1.2), st.floats(0.5, 1.2), st.floats(0.5, 6)),
    slab=st.sampled_from([0.0, 2.5]),
    per_slice=st.booleans(),
    z=st.integers(1, 5),
    y=st.integers(12, 40),
    x=st.integers(24, 70),
)
def test_a_prediction_returns_to_the_voxel_it_came_from(
    size: int,
    spacing: tuple[float, float, float],
    slab: float,
    per_slice: bool,
    z: int,
    y: int,
    x: int,
) -> None:
    hu, lungs = scan(spacing=spacing)
    spot = np.zeros(hu.GetSize()[::-1], np.float32)
    spot[z : z + 4, y : y + 5, x : x + 5] = 1
    mask = sitk.GetImageFromArray(spot)
    mask.CopyInformation(hu)
    prepared = prepare(hu, lungs, Preparation(size=size, slab_mm=slab, per_slice=per_slice))
    back = prepared.restore(prepare_mask(mask, prepared))
    assert back.GetOrigin() == hu.GetOrigin()
    restored = sitk.GetArrayFromImage(back)
    inside = spot * (sitk.GetArrayViewFromImage(lungs) > 0)
    assert restored[sitk.GetArrayViewFromImage(lungs) == 0].max() == 0
    if inside.any():
        expected = np.argwhere(inside).mean(axis=0)
        weights = restored / restored.sum()
        found = [(weights * axis).sum() for axis in np.indices(restored.shape)]
        step = prepared.blocks[0].GetSpacing()
        tolerance = [max(1.0, s / g) for s, g in zip(step[::-1], spacing[::-1], strict=True)]
        assert np.all(np.abs(np.array(found) - expected) <= tolerance)


def test_thin_slices_are_averaged_and_the_result_covers_every_one() -> None:
    hu, lungs = scan(shape=(45, 80, 96), spacing=(0.9, 0.9, 1.0))
    prepared = prepare(hu, lungs, Preparation(size=64, slab_mm=2.5))
    assert prepared.blocks[0].GetDepth() == 21  # 41 slices, two by two
    assert prepared.blocks[0].GetSpacing()[2] == pytest.approx(2.0)
    ones = sitk.GetArrayFromImage(prepared.restore(np.ones((21, 64, 64), np.float32)))
    np.testing.assert_allclose(ones, sitk.GetArrayViewFromImage(lungs), atol=1e-5)


def test_channels_are_neighbours_in_order_and_repeat_at_the_ends() -> None:
    stack = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)
    channels = with_context(stack, 2)
    assert channels.shape == (5, 2, 2, 5)
    assert channels[0, 0, 0].tolist() == [0, 0, 0, 1, 2]
    assert channels[2, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert channels[4, 0, 0].tolist() == [2, 3, 4, 4, 4]


def test_lungs_of_one_voxel_are_normalized_too() -> None:
    hu, lungs = scan()
    small = lungs * 0
    small[32, 20, 5] = 1  # between the voxels that mean and standard deviation come from
    assert np.isfinite(prepare(hu, small, Preparation(size=64)).pixels()).all()
