"""MetaImage, NRRD and NIfTI are read on their own grid; what is no CT in HU is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

import dicom_files as files
from ct_checks import PATIENT_ORIENTATIONS, assert_in_place, refusal, repairs, voxel_points
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.reading.ct_reading import read_ct

SUFFIXES = (".mhd", ".mha", ".nrrd", ".nhdr", ".nii", ".nii.gz")


def ct_image(kind: Any = np.int16) -> sitk.Image:
    image = sitk.Image(14, 12, 10, sitk.sitkInt16)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-20.5, -20.0, 30.25))
    image.SetDirection(Rotation.from_rotvec((0.2, -0.1, 0.3)).as_matrix().ravel().tolist())
    hu = files.hu_at(voxel_points(image))
    result = sitk.GetImageFromArray(np.rint(hu).astype(kind))
    result.CopyInformation(image)
    return result


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", [np.int16, np.int32, np.float32, np.float64])
def test_volume_files_keep_their_grid(tmp_path: Path, suffix: str, kind: Any) -> None:
    image = ct_image(kind)
    sitk.WriteImage(image, tmp_path / f"ct{suffix}")
    scan = read_ct(tmp_path / f"ct{suffix}")
    assert scan.image.GetPixelID() == sitk.sitkInt16
    np.testing.assert_array_equal(
        sitk.GetArrayViewFromImage(scan.image), sitk.GetArrayViewFromImage(image)
    )
    np.testing.assert_allclose(voxel_points(scan.image), voxel_points(image), atol=1e-4)
    assert (scan.series, scan.slices) == (None, ())
    assert repairs(scan) == ()
    assert "a series can be named for a folder only" in refusal(
        tmp_path / f"ct{suffix}", series="1.2"
    )


def test_fractions_stay_and_nan_and_padding_become_air(tmp_path: Path) -> None:
    hu = sitk.GetArrayFromImage(ct_image(np.float32)) + np.float32(0.25)
    hu[0, 0, :3] = np.nan, -3024, -np.inf
    image = sitk.GetImageFromArray(hu)
    sitk.WriteImage(image, tmp_path / "ct.mha")
    read = sitk.GetArrayFromImage(read_ct(tmp_path / "ct.mha").image)
    assert read.dtype == np.float32
    assert (read[0, 0, :3] == AIR_HU).all()
    np.testing.assert_array_equal(read[1:], hu[1:])


def test_one_time_point_is_read_and_several_are_refused(tmp_path: Path) -> None:
    image = ct_image()
    sitk.WriteImage(sitk.JoinSeries([image]), tmp_path / "one.nii.gz")
    assert read_ct(tmp_path / "one.nii.gz").image.GetSize() == (14, 12, 10)
    sitk.WriteImage(sitk.JoinSeries([image, image]), tmp_path / "two.nii.gz")
    assert "2 volumes over time" in refusal(tmp_path / "two.nii.gz")


def test_an_unknown_orientation_is_noted(tmp_path: Path) -> None:
    sitk.WriteImage(ct_image(), tmp_path / "ct.nrrd")
    header, _, data = (tmp_path / "ct.nrrd").read_bytes().partition(b"\n\n")
    lines = [line for line in header.split(b"\n") if not line.startswith(b"space")]
    (tmp_path / "bare.nrrd").write_bytes(b"\n".join([*lines, b"spacings: 1 1 2"]) + b"\n\n" + data)
    assert "how the patient lies" in read_ct(tmp_path / "bare.nrrd").notes[0]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("compressed", [False, True])
def test_volume_files_cut_short_are_refused(tmp_path: Path, suffix: str, compressed: bool) -> None:
    sitk.WriteImage(ct_image(), tmp_path / f"ct{suffix}", useCompression=compressed)
    largest = max(tmp_path.iterdir(), key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-300])
    refusal(tmp_path / f"ct{suffix}")
    if len(list(tmp_path.iterdir())) > 1:
        largest.unlink()
        refusal(tmp_path / f"ct{suffix}")


def test_volumes_that_are_no_ct_are_refused(tmp_path: Path) -> None:
    def refused(image: sitk.Image, name: str = "x.nrrd") -> str:
        sitk.WriteImage(image, tmp_path / name)
        return refusal(tmp_path / name)

    image = ct_image()
    assert "label map" in refused(sitk.Cast(image > 0, sitk.sitkUInt8))
    assert "not CT in HU" in refused(sitk.Cast(image > 0, sitk.sitkInt16))
    assert "not CT in HU" in refused(image + 1024)
    assert "not CT in HU" in refused(image * 0 - 1000)
    assert "voxels" in refused(image[:, :, :3])
    assert "2 dimensions" in refused(image[:, :, 3])
    assert "values per voxel" in refused(sitk.Compose(image, image))
    sitk.WriteImage(image, tmp_path / "sheared.nrrd")
    sheared = (tmp_path / "sheared.nrrd").read_bytes()
    start = sheared.index(b"space directions: ")
    end = sheared.index(b"\n", start)
    (tmp_path / "sheared.nrrd").write_bytes(
        sheared[:start] + b"space directions: (1,0,0) (0,1,0) (0,1,2)" + sheared[end:]
    )
    assert "not perpendicular" in refusal(tmp_path / "sheared.nrrd")
    (tmp_path / "junk.nii.gz").write_bytes(b"no NIfTI")
    refusal(tmp_path / "junk.nii.gz")
    (tmp_path / "junk.nrrd").write_bytes(b"")
    refusal(tmp_path / "junk.nrrd")


def test_dicom_and_volume_files_of_one_scan_agree(tmp_path: Path) -> None:
    orientation = PATIENT_ORIENTATIONS["feet first supine"]
    places = files.positions(orientation, origin=(-5, -15, 65))
    files.write_series(tmp_path / "dicom", orientation, places)
    image = read_ct(tmp_path / "dicom").image
    for suffix in SUFFIXES:
        sitk.WriteImage(image, tmp_path / f"ct{suffix}")
        assert_in_place(read_ct(tmp_path / f"ct{suffix}").image)
