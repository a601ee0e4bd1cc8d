"""A CT is read where it lies, whatever its files are called; what cannot be read is refused."""

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import gdcm
import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from scipy.spatial.transform import Rotation

import dicom_files as files
from CTSliceToolsLib.axial import AxialView
from CTSliceToolsLib.ct_reading import read_ct
from CTSliceToolsLib.ct_scan import CTScan
from CTSliceToolsLib.dicom_series import format_series, list_series
from CTSliceToolsLib.errors import Cancelled, InputError
from CTSliceToolsLib.hu import AIR_HU, LOWEST_HU

PATIENT_ORIENTATIONS = {
    "head first supine": (1, 0, 0, 0, 1, 0),
    "head first prone": (-1, 0, 0, 0, -1, 0),
    "feet first supine": (-1, 0, 0, 0, 1, 0),
    "feet first prone": (1, 0, 0, 0, -1, 0),
    "head first, right side down": (0, -1, 0, 1, 0, 0),
    "head first, left side down": (0, 1, 0, -1, 0, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
}


def voxel_points(image: sitk.Image) -> np.ndarray:
    """World position of each voxel, (z, y, x, 3), by SimpleITK's geometry."""
    size = image.GetSize()
    index = np.moveaxis(np.indices(size[::-1])[::-1], 0, -1)
    direction = np.reshape(image.GetDirection(), (3, 3))
    return np.array(image.GetOrigin()) + (index * image.GetSpacing()) @ direction.T


def assert_in_place(image: sitk.Image, tolerance: float = 0.51) -> None:
    """Every voxel holds the HU that the test object has where the voxel lies."""
    truth = files.hu_at(voxel_points(image))
    np.testing.assert_allclose(sitk.GetArrayViewFromImage(image), truth, atol=tolerance)


def refusal(source: Path, **kwargs: Any) -> str:
    with pytest.raises(InputError) as error:
        read_ct(source, **kwargs)
    sentence = str(error.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert str(source) in sentence
    return sentence


def reorder(scan: CTScan) -> list[float]:
    """Position of each slice's own file along the slices, in array order."""
    normal = np.reshape(scan.image.GetDirection(), (3, 3))[:, 2]
    return [float(pydicom.dcmread(one.file).ImagePositionPatient @ normal) for one in scan.slices]


# Geometry


@pytest.mark.parametrize("name", PATIENT_ORIENTATIONS)
@pytest.mark.parametrize("backwards", [False, True])
def test_every_patient_position_is_read_in_place(
    tmp_path: Path, name: str, backwards: bool
) -> None:
    orientation = PATIENT_ORIENTATIONS[name]
    places = files.positions(orientation)[:: -1 if backwards else 1]
    written = files.write_series(tmp_path, orientation, places)
    scan = read_ct(tmp_path)
    assert scan.image.GetSize() == files.SHAPE[::-1]
    assert scan.image.GetPixelID() == sitk.sitkInt16
    np.testing.assert_allclose(scan.image.GetSpacing(), files.SPACING[::-1])
    assert_in_place(scan.image)
    assert_in_place(AxialView.of(scan.image, AIR_HU).image)

    direction = np.reshape(scan.image.GetDirection(), (3, 3))
    np.testing.assert_allclose(direction[:, :2].T.ravel(), orientation, atol=1e-9)
    if name in ("coronal", "sagittal"):
        assert np.linalg.det(direction) == pytest.approx(1)
    else:
        np.testing.assert_allclose(direction[:, 2], [0, 0, 1], atol=1e-9)
    assert {one.file for one in scan.slices} == set(written)
    for k, one in enumerate(scan.slices):
        header = pydicom.dcmread(one.file)
        assert header.SOPInstanceUID == one.sop_instance_uid
        assert one.frame is None
        np.testing.assert_allclose(
            scan.image.TransformIndexToPhysicalPoint((0, 0, k)), header.ImagePositionPatient
        )
    assert scan.notes == ()
    assert scan.series is not None
    assert (scan.series.patient_id, scan.series.description) == ("P1", "chest")
    assert scan.series.study_date == "20200102"


@settings(deadline=None, max_examples=25)
@given(
    turn=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    origin=st.tuples(*[st.floats(-10, 10)] * 3),
    seed=st.randoms(use_true_random=False),
    jitter=st.floats(0, 0.08),
)
def test_any_orientation_in_any_order_is_read_in_place(
    turn: tuple[float, float, float],
    origin: tuple[float, float, float],
    seed: random.Random,
    jitter: float,
) -> None:
    matrix = Rotation.from_rotvec(turn).as_matrix()
    orientation = [round(float(v), 7) for v in matrix[:, :2].T.ravel()]
    places = files.positions(orientation, origin)
    places[4] += jitter * files.SPACING[0] * matrix[:, 2]
    order = list(places)
    seed.shuffle(order)
    with tempfile.TemporaryDirectory() as folder:
        files.write_series(Path(folder), orientation, np.array(order))
        scan = read_ct(Path(folder))
    assert_in_place(
        scan.image, 0.52 + jitter * files.SPACING[0] * float(np.linalg.norm(files.GRADIENT))
    )
    normal = np.reshape(scan.image.GetDirection(), (3, 3))[:, 2]
    if abs(normal[2]) > 0.83:
        assert normal[2] > 0


@settings(deadline=None, max_examples=20)
@given(
    tilt=st.floats(3, 30),
    axis=st.sampled_from([(1, 0, 0), (0, 1, 0), (0.8, 0.6, 0)]),
    sign=st.sampled_from([-1, 1]),
    flipped=st.booleans(),
)
def test_a_tilted_gantry_is_set_right(
    tilt: float, axis: tuple[float, float, float], sign: int, flipped: bool
) -> None:
    matrix = Rotation.from_rotvec(np.radians(sign * tilt) * np.array(axis)).as_matrix()
    orientation = [*matrix[:, 0].tolist(), *(matrix[:, 1] * (-1 if flipped else 1)).tolist()]
    places = files.positions(orientation, step=(0, 0, 3.0))
    with tempfile.TemporaryDirectory() as folder:
        files.write_series(Path(folder), orientation, places)
        scan = read_ct(Path(folder))
    assert any(f"tilted by {tilt:.1f}°" in note for note in scan.notes)
    hu = sitk.GetArrayFromImage(scan.image)
    truth = files.hu_at(voxel_points(scan.image))
    inside = hu != AIR_HU
    assert inside.sum() >= 0.75 * np.prod(files.SHAPE)
    np.testing.assert_allclose(hu[inside], truth[inside], atol=1.3)
    for k, place in enumerate(places):
        corner = place + matrix[:, 0] * files.SPACING[2] * 5.5
        index = scan.image.TransformPhysicalPointToContinuousIndex(corner.tolist())
        assert index[2] == pytest.approx(k, abs=1e-4)
        assert np.all(np.array(index) > -0.51)
        assert np.all(np.array(index) < np.array(scan.image.GetSize()) - 0.49)


# Series among other files


def test_real_files_under_any_name_and_among_others_give_the_same(
    shared_data: Path, tmp_path: Path
) -> None:
    originals = sorted((shared_data / "LIDC-IDRI-0001").glob("*.dcm"))
    scan = read_ct(shared_data / "LIDC-IDRI-0001")
    assert scan.image.GetSize() == (512, 512, 133)
    np.testing.assert_allclose(scan.image.GetSpacing(), (0.703125, 0.703125, 2.5), atol=1e-6)
    assert reorder(scan) == sorted(reorder(scan))
    hu = sitk.GetArrayViewFromImage(scan.image)
    assert hu.min() >= LOWEST_HU
    assert (hu[:, 0, 0] == AIR_HU).all()

    chooser = random.Random(3)
    for number, file in enumerate(chooser.sample(originals, len(originals))):
        name = f"{chooser.choice('abc')}/{chooser.randrange(9)}/{chooser.randbytes(6).hex()}"
        copy = tmp_path / f"{name}{['', '.dcm', '.IMA'][number % 3]}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(file.resolve())
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"junk")
    (tmp_path / "a" / "notes.txt").write_text("II*\0 no DICOM" * 50)
    (tmp_path / "b" / "empty").touch()
    (tmp_path / "random").write_bytes(chooser.randbytes(4000))
    files.write_series(tmp_path / "a", series="small CT", name="s{k}")
    files.write_series(
        tmp_path / "b", series="PET", name="p{k}", edit=lambda d, k: setattr(d, "Modality", "PT")
    )
    shuffled = read_ct(tmp_path)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(shuffled.image), hu)
    assert shuffled.image.GetOrigin() == scan.image.GetOrigin()
    assert [s.sop_instance_uid for s in shuffled.slices] == [
        s.sop_instance_uid for s in scan.slices
    ]
    assert len(shuffled.notes) == 1
    assert "chosen of 2 CT series" in shuffled.notes[0]


def test_the_largest_axial_series_is_taken_and_any_other_by_name(tmp_path: Path) -> None:
    files.write_series(tmp_path, series="thick", name="t{k}")
    files.write_series(tmp_path, series="thin", name="n{k}", places=files.positions(count=14))
    coronal = PATIENT_ORIENTATIONS["coronal"]
    files.write_series(
        tmp_path, coronal, files.positions(coronal, count=20), series="coronal", name="c{k}"
    )
    found = list_series(tmp_path)
    assert [one.description for one in found] == ["thin", "thick", "coronal"]
    assert [one.axial for one in found] == [True, True, False]
    assert [one.slices for one in found] == [14, 9, 20]
    assert (found[0].rows, found[0].columns) == (8, 12)
    assert found[0].spacing == pytest.approx((0.75, 1.5, 3.0))
    text = format_series(found)
    assert all(one.uid in text for one in found)
    assert "12 × 8 × 14 voxels of 0.75 × 1.5 × 3 mm, axial" in text

    scan = read_ct(tmp_path)
    assert scan.series is not None
    assert scan.series.description == "thin"
    assert "3 CT series" in scan.notes[0]
    assert read_ct(tmp_path, series=found[2].uid).image.GetSize()[2] == 20
    sentence = refusal(tmp_path, series="1.2.3")
    assert all(one.uid in sentence for one in found)


def test_a_larger_series_that_is_broken_is_passed_over_with_a_note(tmp_path: Path) -> None:
    files.write_series(tmp_path, series="whole", name="w{k}")
    places = np.delete(files.positions(count=15), 6, axis=0)
    files.write_series(tmp_path, series="holes", name="h{k}", places=places)
    scan = read_ct(tmp_path)
    assert scan.series is not None
    assert scan.series.description == "whole"
    assert any("lacks 1 slice between" in note for note in scan.notes)
    assert "not usable" in format_series(list_series(tmp_path))


def test_one_file_stands_for_its_series(tmp_path: Path) -> None:
    written = files.write_series(tmp_path)
    files.write_series(tmp_path, series="more", name="m{k}", places=files.positions(count=14))
    scan = read_ct(written[3])
    assert scan.image.GetSize()[2] == 9
    assert_in_place(scan.image)
    assert "give its folder" in refusal(written[3], series="1.2.3")


def test_cancelling_stops_the_reading(tmp_path: Path) -> None:
    files.write_series(tmp_path)
    seen = []

    def report(stage: str, done: int, total: int) -> None:
        seen.append((stage, done, total))
        if (stage, done) == ("Reading", 2):
            raise Cancelled

    with pytest.raises(Cancelled):
        read_ct(tmp_path, report=report)
    assert ("Searching", 9, 9) in seen
    assert max(done for stage, done, _ in seen if stage == "Reading") == 2


# Values


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


# Encodings


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
        intercept=-1024.0 if not signed else 0.0,
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


# Series that are not quite right


def test_scouts_in_the_series_are_left_out(tmp_path: Path) -> None:
    files.write_series(tmp_path)
    coronal = PATIENT_ORIENTATIONS["coronal"]
    files.write_series(
        tmp_path,
        coronal,
        files.positions(coronal, count=1),
        name="scout",
        edit=lambda d, k: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    )
    files.write_series(tmp_path, coronal, files.positions(coronal, count=2), name="odd{k}")
    scan = read_ct(tmp_path)
    assert_in_place(scan.image)
    assert "1 localizers" in scan.notes[0]
    assert "2 of 11 images lie in another orientation" in scan.notes[1]


def test_a_picture_in_the_series_is_left_out(tmp_path: Path) -> None:
    written = files.write_series(tmp_path)
    picture = pydicom.dcmread(written[0])
    picture.SOPClassUID, picture.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope"):
        del picture[keyword]
    files.save(picture, tmp_path / "picture")
    scan = read_ct(tmp_path)
    assert_in_place(scan.image)
    assert len(scan.notes) == 1


def test_copies_are_left_out(tmp_path: Path) -> None:
    written = files.write_series(tmp_path)
    (tmp_path / "again").mkdir()
    shutil.copy(written[2], tmp_path / "again" / "x")
    renamed = pydicom.dcmread(written[5])
    renamed.SOPInstanceUID = generate_uid()
    files.save(renamed, tmp_path / "again" / "y")
    scan = read_ct(tmp_path)
    assert_in_place(scan.image)
    assert scan.notes == ("2 of 11 images are copies of others and were left out.",)


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("AcquisitionNumber", (2, 10)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("ConvolutionKernel", ("B30f", "B70f")),
        ("ContentTime", ("101112", "101312")),
    ],
)
@pytest.mark.parametrize("offset", [0.0, 1.1])
def test_of_two_acquisitions_the_first_is_taken(
    tmp_path: Path, tag: str, values: tuple[Any, Any], offset: float
) -> None:
    for number in (1, 0):

        def edit(image: Dataset, k: int, number: int = number) -> None:
            setattr(image, tag, values[number])
            if number:
                files.set_stored(image, np.frombuffer(image.PixelData, "<i2") + 300)

        places = files.positions(origin=(-5, 4, 10 + number * offset))
        files.write_series(tmp_path, places=places, edit=edit, name=f"{number}-{{k}}")
    scan = read_ct(tmp_path)
    assert_in_place(scan.image)
    assert f"{tag} {values[0]}" in scan.notes[0]


def test_differing_images_at_one_place_are_refused(tmp_path: Path) -> None:
    written = files.write_series(tmp_path)
    other = pydicom.dcmread(written[4])
    other.SOPInstanceUID = generate_uid()
    files.set_stored(other, np.frombuffer(other.PixelData, "<i2") + 1)
    files.save(other, tmp_path / "other")
    sentence = refusal(tmp_path)
    assert str(written[4]) in sentence
    assert str(tmp_path / "other") in sentence
    assert "z = 22.00 mm" in sentence


def test_missing_slices_are_refused_with_their_place(tmp_path: Path) -> None:
    places = np.delete(files.positions(count=14), [5, 6], axis=0)
    files.write_series(tmp_path, places=places)
    assert "lacks 2 slices between z = 22.00 mm and 31.00 mm" in refusal(tmp_path)


def test_uneven_spacing_is_refused(tmp_path: Path) -> None:
    places = files.positions()
    places[3, 2] += 1.2
    files.write_series(tmp_path, places=places)
    assert "not evenly spaced" in refusal(tmp_path)


def test_slices_shifted_in_their_plane_are_refused(tmp_path: Path) -> None:
    places = files.positions()
    places[3, 0] += 1.2
    files.write_series(tmp_path, places=places)
    assert "shifted against each other" in refusal(tmp_path)


def test_mixed_grids_are_refused(tmp_path: Path) -> None:
    def spacing(image: Dataset, k: int) -> None:
        if k == 3:
            image.PixelSpacing = [1.5, 0.8]

    def size(image: Dataset, k: int) -> None:
        if k == 3:
            image.Rows, image.Columns = image.Columns, image.Rows

    files.write_series(tmp_path / "spacing", edit=spacing)
    files.write_series(tmp_path / "size", edit=size)
    assert "mixes pixel spacings" in refusal(tmp_path / "spacing")
    assert "mixes image sizes" in refusal(tmp_path / "size")
    assert str(tmp_path / "size" / "003") in refusal(tmp_path / "size")


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_slices_are_refused(tmp_path: Path, count: int) -> None:
    files.write_series(tmp_path, places=files.positions(count=count))
    assert f"only {count} slice" in refusal(tmp_path)


def test_only_a_scout_is_refused(tmp_path: Path) -> None:
    files.write_series(
        tmp_path,
        places=files.positions(count=2),
        edit=lambda d, k: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    )
    assert "only localizers" in refusal(tmp_path)


def test_no_ct_is_refused(tmp_path: Path) -> None:
    files.write_series(tmp_path, edit=lambda d, k: setattr(d, "Modality", "MR"))
    assert "1 × MR" in refusal(tmp_path)
    uid = list_series(tmp_path)[0].uid
    assert "not CT but MR" in refusal(tmp_path, series=uid)


@pytest.mark.parametrize(
    ("keyword", "words"),
    [
        ("ImagePositionPatient", "no Image Position (Patient)"),
        ("ImageOrientationPatient", "no Image Orientation (Patient)"),
        ("PixelSpacing", "no Pixel Spacing"),
        ("RescaleSlope", "no Rescale Slope"),
        ("RescaleIntercept", "no Rescale Intercept"),
        ("Rows", "no Rows"),
        ("PixelData", "no pixel data"),
        ("BitsAllocated", "pixel data that cannot be read"),
    ],
)
def test_a_missing_tag_is_named_with_its_file(tmp_path: Path, keyword: str, words: str) -> None:
    def edit(image: Dataset, k: int) -> None:
        if k == 6:
            del image[keyword]

    written = files.write_series(tmp_path, edit=edit)
    sentence = refusal(tmp_path)
    assert words in sentence
    assert str(written[6]) in sentence


def test_values_that_are_not_hu_are_refused(tmp_path: Path) -> None:
    files.write_series(tmp_path, edit=lambda d, k: setattr(d, "RescaleType", "MGML"))
    assert "MGML" in refusal(tmp_path)


@pytest.mark.parametrize("part", [0.9, 0.5, 0.2])
def test_a_file_cut_short_is_named(tmp_path: Path, part: float) -> None:
    written = files.write_series(tmp_path)
    whole = written[6].read_bytes()
    header = len(whole) - int(np.prod(files.SHAPE[1:])) * 2
    written[6].write_bytes(whole[: header + int(part * (len(whole) - header))])
    sentence = refusal(tmp_path)
    assert str(written[6]) in sentence
    written[6].write_bytes(whole[: header // 3])
    assert "lacks 1 slice" in refusal(tmp_path) or str(written[6]) in refusal(tmp_path)


def test_a_missing_decoder_is_named(tmp_path: Path) -> None:
    for file in files.write_series(tmp_path):
        image = pydicom.dcmread(file)
        image.file_meta.TransferSyntaxUID = HTJ2KLossless
        image.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" * 8])
        image["PixelData"].is_undefined_length = True
        files.save(image, file)
    sentence = refusal(tmp_path)
    assert "High-Throughput JPEG 2000" in sentence
    assert "pylibjpeg-openjpeg" in sentence


def test_what_is_no_scan_at_all_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "holds no DICOM" in refusal(tmp_path / "empty")
    (tmp_path / "empty" / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    assert "broken.dcm" in refusal(tmp_path / "empty")
    (tmp_path / "files").mkdir()
    sitk.WriteImage(ct_image(), tmp_path / "files" / "ct.nrrd")
    assert "give ct.nrrd itself" in refusal(tmp_path / "files")
    (tmp_path / "scan.txt").write_text("a scan")
    assert ".nii.gz" in refusal(tmp_path / "scan.txt")
    with pytest.raises(InputError, match="not a folder"):
        list_series(tmp_path / "scan.txt")


# Volume files

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
    assert (scan.series, scan.slices, scan.notes) == (None, (), ())
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
    assert "values a voxel" in refused(sitk.Compose(image, image))
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
