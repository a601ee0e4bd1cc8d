"""The level of a follow-up found on the voxels: moved, turned, noisy, on another grid."""

import numpy as np
import pytest
import SimpleITK as sitk

from CTLungScreeningLib.geometry import ScanAlignment
from CTSliceToolsLib.localizer.matching import SEARCH_MM, check_alignment, check_level


def patient(seed: int) -> sitk.Image:
    """An ellipse of tissue with a hundred balls of fat, bone and air at random places."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(
        np.arange(0, 240, 4.0), np.arange(-140, 140, 4.0), np.arange(-180, 180, 4.0), indexing="ij"
    )
    hu = np.where((x / 160) ** 2 + (y / 110) ** 2 < 1, 40.0, -1000.0)
    for _ in range(100):
        at = rng.uniform((0, -80, -120), (240, 80, 120))
        ball = (z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2 < rng.uniform(8, 24) ** 2
        hu[ball] = rng.choice([-100, -850, 300, 700])
    image = sitk.GetImageFromArray(hu.astype(np.int16))
    image.SetSpacing((4, 4, 4))
    image.SetOrigin((-180, -140, 0))
    return image


def follow_up(image: sitk.Image) -> sitk.Image:
    """Turn by 4°, move by (12, −9, 37) mm, resample to slices of 3 mm, add noise."""
    move = sitk.Euler3DTransform()
    move.SetCenter((0, 0, 120))
    move.SetRotation(0, 0, np.deg2rad(4))
    move.SetTranslation((12, -9, 37))
    grid = sitk.Image((80, 70, 80), sitk.sitkFloat32)
    grid.SetSpacing((4.5, 4.5, 3))
    grid.SetOrigin((-180, -150, -37))
    moved = sitk.Resample(image, grid, move, sitk.sitkLinear, -1000, sitk.sitkFloat32)
    return sitk.AdditiveGaussianNoise(moved, 20, 0, 1)


@pytest.mark.parametrize("off_mm", [-15, 10])
def test_the_level_of_a_follow_up_is_found_to_a_millimetre_or_two(off_mm: float) -> None:
    image = patient(0)
    match = check_level(image, 117 + off_mm, follow_up(image), 80)
    assert match is not None
    assert match.same_patient
    assert match.z_mm == pytest.approx(117, abs=2)


def test_another_patient_is_known_as_such() -> None:
    match = check_level(patient(1), 117, follow_up(patient(0)), 80)
    assert match is None or not match.same_patient


def test_scans_that_do_not_overlap_are_not_compared() -> None:
    image = patient(0)
    assert check_level(image, 117 + 1000, follow_up(image), 80) is None
    assert check_level(image, 240 + SEARCH_MM, follow_up(image), 1000) is None


def test_all_levels_of_a_follow_up_are_corrected_and_none_of_another_patient() -> None:
    there = np.arange(-37.0, 203, 3)
    rough = ScanAlignment(there + 37 + np.linspace(-12, 12, len(there)), there)
    counts: list[int] = []
    found = check_alignment(
        rough, patient(0), follow_up(patient(0)), lambda stage, done, total: counts.append(done)
    )
    assert found is not None
    assert counts == sorted(counts)
    assert len(counts) > 5
    for z in (0.0, 50.0, 80.0, 150.0):
        assert found.z_at(z) == pytest.approx(z + 37, abs=2.5)
    assert check_alignment(rough, patient(1), follow_up(patient(0))) is None
