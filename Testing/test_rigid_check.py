"""The level of a follow-up found on the voxels: moved, turned, noisy, on another grid."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from CTLungScreeningLib.geometry import ScanAlignment
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTSliceToolsLib.localizer import matching
from CTSliceToolsLib.localizer.matching import (
    SEARCH_MM,
    RigidMatch,
    check_alignment,
    check_level,
)


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


def smooth_patient() -> sitk.Image:
    """A tapered body around a spine and leaning tubes: each slice looks like its neighbours."""
    image = patient(0)
    z, y, x = np.meshgrid(
        np.arange(0, 240, 4.0), np.arange(-140, 140, 4.0), np.arange(-180, 180, 4.0), indexing="ij"
    )
    hu = np.where((x / 160) ** 2 + (y / 110) ** 2 < 1 - z / 2400, 40.0, -1000.0)
    hu[x**2 + (y - 60) ** 2 < 20**2] = 300
    for side in (-1, 1):
        hu[(x - side * (30 + z / 4)) ** 2 + (y + z / 4) ** 2 < 25**2] = -100
    smooth = sitk.GetImageFromArray(hu.astype(np.int16))
    smooth.CopyInformation(image)
    return smooth


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


@pytest.mark.parametrize("off_mm", [-30, -18, 0])
@pytest.mark.parametrize("beyond_mm", [0, 16])
def test_parts_of_one_patient_without_a_common_slice_do_not_match(
    beyond_mm: float, off_mm: float
) -> None:
    image = smooth_patient()
    low, up = image[:, :, :28], image[:, :, 32:]
    z_mm = up.GetOrigin()[2] + beyond_mm
    assert check_level(low, z_mm + off_mm, up, z_mm) is None
    z_mm = 27 * 4 - beyond_mm
    assert check_level(up, z_mm - off_mm, low, z_mm) is None


@pytest.mark.parametrize("off_mm", [-15, 15])
@pytest.mark.parametrize("beyond_mm", [0, 16])
def test_a_level_beyond_the_scan_is_found_by_what_both_show(
    beyond_mm: float, off_mm: float
) -> None:
    image = patient(0)
    low, up = image[:, :, :40], image[:, :, 20:]
    z_mm = 39 * 4 + beyond_mm
    match = check_level(low, z_mm + min(off_mm, 24 - beyond_mm), up, z_mm)
    assert match is not None
    assert match.same_patient
    assert match.z_mm == pytest.approx(z_mm, abs=1)


def test_parts_of_a_real_scan_without_a_common_slice_do_not_match(shared_data: Path) -> None:
    image = read_ct(shared_data / "ACRIN-FLT-Breast_001_abdopelvis.nrrd").image
    low, up = image[:, :, :50], image[:, :, 53:]
    z_mm = up.GetOrigin()[2]
    for off_mm in (-18, 0):
        assert check_level(low, z_mm + off_mm, up, z_mm) is None
    there = z_mm + np.arange(0, 150, 4.25)
    assert check_alignment(ScanAlignment(there - 18, there), low, up) is None


def test_one_level_does_not_make_two_scans_one_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    there = np.arange(0.0, 240, 3)

    def found_at(*levels: float) -> ScanAlignment | None:
        def check(_image: object, _z: float, _other: object, other_z: float) -> RigidMatch | None:
            near = any(abs(other_z - level) < 15 for level in levels)
            return RigidMatch(other_z, 0.95) if near else None

        monkeypatch.setattr(matching, "check_level", check)
        return check_alignment(ScanAlignment(there, there), patient(0), patient(0))

    assert found_at(120) is None
    assert found_at(120, 150) is not None
