"""Lungs given as a label image, on any grid, instead of found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.lungs.segmentation import read_lungs

SHAPE = (40, 80, 120)
SPACING = (2.5, 2.5, 3.0)


def image(array: NDArray[Any]) -> sitk.Image:
    made = sitk.GetImageFromArray(array)
    made.SetSpacing(SPACING)
    made.SetOrigin((-150, -90, -300))
    return made


def lungs() -> NDArray[np.uint8]:
    """Right and left lung, which touch."""
    z, y, x = np.ogrid[:40, :80, :120]
    labels = np.zeros(SHAPE, np.uint8)
    for label, middle in ((1, 36), (2, 83)):
        inside = ((x - middle) / 24) ** 2 + ((y - 40) / 30) ** 2 + ((z - 20) / 17) ** 2 < 1
        labels[inside] = label
    return labels


@pytest.fixture
def scan() -> sitk.Image:
    body = np.full(SHAPE, 40, np.int16)
    body[:, :4] = body[:, -4:] = -1000
    body[lungs() > 0] = -850
    return image(body)


def write(folder: Path, mask: sitk.Image) -> Path:
    file = folder / "lungs.nii.gz"
    sitk.WriteImage(mask, file)
    return file


@pytest.mark.parametrize("code", ["LPS", "RAI", "PIR", "SAL"])
def test_both_labels_come_through_from_any_order_of_axes(
    scan: sitk.Image, tmp_path: Path, code: str
) -> None:
    file = write(tmp_path, sitk.DICOMOrient(image(lungs()), code))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_lungs(file, scan)), lungs())


def test_another_grid_is_taken_to_that_of_the_scan(scan: sitk.Image, tmp_path: Path) -> None:
    finer = sitk.Image((260, 180, 100), sitk.sitkUInt8)
    finer.SetSpacing((1.2, 1.3, 1.4))
    finer.SetOrigin((-155, -95, -305))
    fine = sitk.Resample(image(lungs()), finer, sitk.Transform(), sitk.sitkNearestNeighbor)
    found = sitk.GetArrayFromImage(read_lungs(write(tmp_path, fine), scan))
    assert np.mean(found == lungs()) > 0.99


@pytest.mark.parametrize("value", [1, 7, 255, 0.5, 1e-3, 300.25])
def test_one_value_for_both_lungs_is_divided(
    scan: sitk.Image, tmp_path: Path, value: float
) -> None:
    kind = np.uint8 if value in (1, 7, 255) else np.float32
    file = write(tmp_path, image(((lungs() > 0) * value).astype(kind)))
    found = sitk.GetArrayFromImage(read_lungs(file, scan))
    np.testing.assert_array_equal(found > 0, lungs() > 0)
    assert np.mean(found == lungs()) > 0.99


def test_labels_of_lobes_are_lung(scan: sitk.Image, tmp_path: Path) -> None:
    mask = lungs()
    lobes = mask + 9
    lobes[: len(mask) // 2] += 2
    file = write(tmp_path, image(np.where(mask > 0, lobes, 0).astype(np.uint8)))
    found = sitk.GetArrayFromImage(read_lungs(file, scan))
    np.testing.assert_array_equal(found > 0, mask > 0)
    assert np.mean(found == mask) > 0.99


def nan_somewhere(mask: Any) -> Any:
    values = mask.astype(np.float32)
    values[0, 0, 0] = np.nan
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nan_somewhere, "not numbers"),
        (lambda mask: mask.astype(np.float64) * np.inf, "not numbers"),
        (lambda mask: mask * np.linspace(0.1, 1, mask.shape[2]), "as probabilities"),
        (lambda mask: mask * 300.0 - 1000, "below 0"),
        (lambda mask: np.arange(mask.size).reshape(mask.shape) % 200, "different values"),
    ],
)
def test_what_is_no_label_image_is_refused(
    scan: sitk.Image, tmp_path: Path, change: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_lungs(write(tmp_path, image(change(lungs()))), scan)


def test_the_left_lung_alone_stays_the_left(scan: sitk.Image, tmp_path: Path) -> None:
    only = np.where(lungs() == 2, lungs(), 0).astype(np.uint8)
    found = sitk.GetArrayFromImage(read_lungs(write(tmp_path, image(only)), scan))
    np.testing.assert_array_equal(found, only)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mask: mask * 0, "marks no lung within the scan"),
        (lambda mask: np.where(mask > 0, 3 - mask, 0), "wrong sides"),
        (lambda mask: np.where(mask > 0, 0, 1), "is not lung"),
    ],
)
def test_what_is_no_lung_of_this_scan_is_refused(
    scan: sitk.Image, tmp_path: Path, change: Any, message: str
) -> None:
    file = write(tmp_path, image(change(lungs()).astype(np.uint8)))
    with pytest.raises(InputError, match=message) as refused:
        read_lungs(file, scan)
    assert str(file) in str(refused.value)


def test_what_is_no_volume_is_refused(scan: sitk.Image, tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_text("NRRD?")
    with pytest.raises(InputError, match="neither MetaImage"):
        read_lungs(tmp_path / "a.nrrd", scan)
    sitk.WriteImage(sitk.Image((8, 8), sitk.sitkUInt8), tmp_path / "flat.mha")
    with pytest.raises(InputError, match="2 dimensions"):
        read_lungs(tmp_path / "flat.mha", scan)
