"""DICOM values become HU: rescale, padding, bits, compression, encodings, multi-frame files."""

from pathlib import Path
from typing import Any

import gdcm
import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

import dicom_files as files
from ct_checks import PATIENT_ORIENTATIONS, assert_in_place, voxel_points
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.dicom_series import list_series


@pytest.mark.parametrize(("slope", "kind"), [(1.0, "int16"), (2.0, "int16"), (0.5, "float32")])
def test_each_slice_has_its_own_rescale(tmp_path: Path, slope: float, kind: str) -> None:
    def edit(image: Dataset, k: int) -> None:
        image.RescaleIntercept = -1024 - 10 * k
        hu = files.hu_of_slice(files.AXIAL, image.ImagePositionPatient)
        files.set_stored(image, np.rint((hu - image.RescaleIntercept) / slope))

    files.write_series(tmp_path, edit=edit, slope=slope)
    scan = read_ct(tmp_path)
    assert sitk.GetArrayViewFromImage(scan.image).dtype == kind
    assert_in_place(scan.image, 0.5 * slope + 0.01)


def test_values_beyond_16_bits_signed_become_float(tmp_path: Path) -> None:
    def edit(image: Dataset, k: int) -> None:
        image.PixelRepresentation = 0
        if k == 7:
            stored = np.frombuffer(image.PixelData, "<u2").copy()
            stored[5] = 60000
            files.set_stored(image, stored)

    files.write_series(tmp_path, edit=edit)
    hu = sitk.GetArrayFromImage(read_ct(tmp_path).image)
    assert hu.dtype == np.float32
    assert hu[7, 0, 5] == 60000 - 1024


@pytest.mark.parametrize(
    ("signed", "vr", "value", "stored"),
    [(1, "US", 63536, -2000), (1, "SS", -2000, -2000), (0, "US", 63536, 63536), (0, "US", 0, 0)],
)
def test_padding_becomes_air(tmp_path: Path, signed: int, vr: str, value: int, stored: int) -> None:
    def edit(image: Dataset, k: int) -> None:
        image.PixelRepresentation = signed
        image.add_new("PixelPaddingValue", vr, value)
        values = np.frombuffer(image.PixelData, "<i2").astype(int).reshape(files.SHAPE[1:])
        values[:2] = values[-1] = stored
        files.set_stored(image, values)

    files.write_series(tmp_path, edit=edit)
    image = read_ct(tmp_path).image
    hu = sitk.GetArrayViewFromImage(image)
    assert hu.dtype == np.int16
    assert (hu[:, :2] == AIR_HU).all()
    np.testing.assert_allclose(hu[:, 2:-1], files.hu_at(voxel_points(image))[:, 2:-1], atol=0.51)


def test_a_padding_range_becomes_air(tmp_path: Path) -> None:
    def edit(image: Dataset, k: int) -> None:
        image.PixelPaddingValue, image.PixelPaddingRangeLimit = 30000, 30010
        values = np.frombuffer(image.PixelData, "<i2").astype(int).reshape(files.SHAPE[1:])
        values[0], values[-1] = 30003, 30010
        files.set_stored(image, values)

    files.write_series(tmp_path, edit=edit)
    hu = sitk.GetArrayFromImage(read_ct(tmp_path).image)
    assert (hu[:, [0, -1]] == AIR_HU).all()
    assert hu.max() < 30000 - 1024


def test_padding_that_tissue_has_too_is_not_believed(tmp_path: Path) -> None:
    place = files.positions()[4]
    value = int(np.rint(files.hu_of_slice(files.AXIAL, place)[3, 5]) + 1024)
    files.write_series(tmp_path, edit=lambda d, k: setattr(d, "PixelPaddingValue", value))
    assert_in_place(read_ct(tmp_path).image)


def test_bits_that_are_not_stored_are_ignored(tmp_path: Path) -> None:
    def edit(image: Dataset, k: int) -> None:
        image.BitsStored, image.HighBit, image.PixelRepresentation = 12, 11, 0
        files.set_stored(image, np.frombuffer(image.PixelData, "<u2") | 0xF000)

    files.write_series(tmp_path, edit=edit)
    assert_in_place(read_ct(tmp_path).image)


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=lambda uid: uid.name)
def test_compressed_by_pydicom(tmp_path: Path, syntax: Any, signed: int) -> None:
    for file in files.write_series(
        tmp_path, edit=lambda d, k: setattr(d, "PixelRepresentation", signed)
    ):
        files.compress(file, syntax)
        assert pydicom.dcmread(file).file_meta.TransferSyntaxUID == syntax
    assert_in_place(read_ct(tmp_path).image)


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize(
    ("syntax", "uid"),
    [
        (gdcm.TransferSyntax.JPEGLosslessProcess14, "1.2.840.10008.1.2.4.57"),
        (gdcm.TransferSyntax.JPEGLosslessProcess14_1, "1.2.840.10008.1.2.4.70"),
        (gdcm.TransferSyntax.JPEGLSLossless, "1.2.840.10008.1.2.4.80"),
        (gdcm.TransferSyntax.JPEG2000Lossless, "1.2.840.10008.1.2.4.90"),
        (gdcm.TransferSyntax.RLELossless, "1.2.840.10008.1.2.5"),
    ],
)
def test_compressed_by_gdcm(tmp_path: Path, syntax: int, uid: str, signed: int) -> None:
    for file in files.write_series(
        tmp_path,
        intercept=-1024.0 if not signed else -512.0,
        edit=lambda d, k: setattr(d, "PixelRepresentation", signed),
    ):
        files.compress_with_gdcm(file, syntax)
        assert pydicom.dcmread(file).file_meta.TransferSyntaxUID == uid
    assert_in_place(read_ct(tmp_path).image)


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda uid: uid.name,
)
def test_other_encodings(tmp_path: Path, syntax: Any) -> None:
    def edit(image: Dataset, k: int) -> None:
        image.file_meta.TransferSyntaxUID = syntax
        image.PixelPaddingValue = -2000
        if syntax == ExplicitVRBigEndian:
            image.PixelData = np.frombuffer(image.PixelData, "<i2").astype(">i2").tobytes()
            image["PixelData"].VR = "OW"

    files.write_series(tmp_path, edit=edit)
    assert_in_place(read_ct(tmp_path).image)


@pytest.mark.parametrize("implicit", [False, True])
def test_files_without_a_preamble(tmp_path: Path, implicit: bool) -> None:
    for file in files.write_series(tmp_path):
        image = pydicom.dcmread(file)
        del image.file_meta
        image.preamble = None
        image.save_as(
            file,
            implicit_vr=implicit,
            little_endian=True,
            enforce_file_format=False,
            overwrite=True,
        )
        assert file.read_bytes()[:1] == b"\x08"
    assert_in_place(read_ct(tmp_path).image)


def test_text_in_an_odd_character_set_and_private_tags(tmp_path: Path) -> None:
    def edit(image: Dataset, k: int) -> None:
        image.SpecificCharacterSet = "ISO_IR 100"
        image.SeriesDescription = "Thörax größe"
        block = image.private_block(0x0009, "Maker", create=True)
        block.add_new(0x01, "UN", b"\1\2\3")
        block.add_new(0x02, "SQ", [Dataset()])

    written = files.write_series(tmp_path, edit=edit)
    assert list_series(tmp_path)[0].description == "Thörax größe"
    for file in written:
        file.write_bytes(file.read_bytes().replace(b"ISO_IR 100", b"ISO_XX 777"))
    assert_in_place(read_ct(tmp_path).image)


def test_several_values_read_as_one_text(tmp_path: Path) -> None:
    def edit(image: Dataset, k: int) -> None:
        image.SeriesDescription = ["THORAX", "1.0\x1b[31m"]

    files.write_series(tmp_path, edit=edit)
    assert list_series(tmp_path)[0].description == "THORAX\\1.0 [31m"


@pytest.mark.parametrize("name", PATIENT_ORIENTATIONS)
def test_enhanced_multi_frame(tmp_path: Path, name: str) -> None:
    orientation = PATIENT_ORIENTATIONS[name]
    order = np.random.default_rng(5).permutation(files.SHAPE[0])
    places = files.positions(orientation)[order]
    file = files.write_enhanced(tmp_path / "enhanced", orientation, places)
    for source in (file, tmp_path):
        scan = read_ct(source)
        assert_in_place(scan.image)
        for k, one in enumerate(scan.slices):
            assert one.frame is not None
            np.testing.assert_allclose(
                scan.image.TransformIndexToPhysicalPoint((0, 0, k)), places[one.frame], atol=1e-5
            )


def test_enhanced_multi_frame_compressed(tmp_path: Path) -> None:
    file = files.write_enhanced(tmp_path / "e.dcm", files.AXIAL, files.positions()[::-1])
    files.compress(file, RLELossless)
    assert_in_place(read_ct(file).image)


def test_of_two_temporal_positions_in_one_file_the_first_is_taken(tmp_path: Path) -> None:
    def edit(image: Dataset) -> None:
        for number, group in enumerate(image.PerFrameFunctionalGroupsSequence):
            later = number >= files.SHAPE[0]
            group.FrameContentSequence[0].TemporalPositionIndex = 1 + later
            group.PixelValueTransformationSequence[0].RescaleIntercept += 300 * later

    places = np.concatenate([files.positions(), files.positions()])
    file = files.write_enhanced(tmp_path / "e.dcm", files.AXIAL, places, edit)
    scan = read_ct(file)
    assert_in_place(scan.image)
    assert "TemporalPositionIndex 1" in scan.notes[0]
    assert [one.frame for one in scan.slices] == list(range(files.SHAPE[0]))


def test_localizer_frames_in_one_file_are_left_out(tmp_path: Path) -> None:
    def edit(image: Dataset) -> None:
        kind = image.PerFrameFunctionalGroupsSequence[0].CTImageFrameTypeSequence[0]
        kind.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]

    file = files.write_enhanced(tmp_path / "e.dcm", files.AXIAL, files.positions(), edit)
    scan = read_ct(file)
    assert_in_place(scan.image)
    assert [one.frame for one in scan.slices] == list(range(1, files.SHAPE[0]))


def test_legacy_converted_enhanced_ct(shared_data: Path, tmp_path: Path) -> None:
    originals = [
        pydicom.dcmread(shared_data / "LIDC-IDRI-0001" / f"{number:06}.dcm")
        for number in range(1, 134)
    ]
    originals = sorted(originals, key=lambda d: d.ImagePositionPatient[2])[40:48]
    for one in originals:
        one.StudyTime = one.ContentTime = "101112"
        one.SeriesTime, one.SeriesDate, one.AcquisitionTime = "101112", "20000101", "101112"
    whole = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        originals[::-1], generate_uid(), 1, generate_uid(), 1
    )
    whole.save_as(tmp_path / "legacy.dcm")
    scan = read_ct(tmp_path / "legacy.dcm")
    full = read_ct(shared_data / "LIDC-IDRI-0001")
    np.testing.assert_array_equal(
        sitk.GetArrayViewFromImage(scan.image), sitk.GetArrayViewFromImage(full.image)[40:48]
    )
    np.testing.assert_allclose(
        scan.image.GetOrigin(), full.image.TransformIndexToPhysicalPoint((0, 0, 40)), atol=1e-5
    )
