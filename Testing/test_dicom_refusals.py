"""A DICOM series that is not quite right is repaired with a note or refused with a sentence."""

import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    HTJ2KLossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

import dicom_files as files
from ct_checks import PATIENT_ORIENTATIONS, assert_in_place, refusal, repairs
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.dicom_headers import glimpse, read_instance
from CTLungScreeningLib.reading.dicom_series import list_series
from CTSliceToolsLib.organizing.identifiers import Kind, LeftOut, identify
from hostile_makers import deflate_bomb
from LungNoduleSegLib.batch.cases import find_cases


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
    assert "left out: 1 of 12 images" in scan.notes[0]
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
    assert len(repairs(scan)) == 1


def test_copies_are_left_out(tmp_path: Path) -> None:
    written = files.write_series(tmp_path)
    (tmp_path / "again").mkdir()
    shutil.copy(written[2], tmp_path / "again" / "x")
    renamed = pydicom.dcmread(written[5])
    renamed.SOPInstanceUID = generate_uid()
    files.save(renamed, tmp_path / "again" / "y")
    scan = read_ct(tmp_path)
    assert_in_place(scan.image)
    assert repairs(scan) == ("2 of 11 images are copies of others and were left out.",)


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("AcquisitionNumber", (2, 10)),
        ("AcquisitionNumber", (0, 1)),
        ("NominalPercentageOfCardiacPhase", (0.0, 10.0)),
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


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("AcquisitionNumber", (1, 2, 3)),
        ("TemporalPositionIdentifier", (1, 2, 3)),
        ("NominalPercentageOfCardiacPhase", (0.0, 40.0, 80.0)),
        ("TriggerTime", (0.0, 300.0, 600.0)),
        ("ConvolutionKernel", ("B30f", "B50f", "B70f")),
    ],
)
@pytest.mark.parametrize("count", [2, 3])
def test_of_interleaved_acquisitions_the_first_is_taken(
    tmp_path: Path, tag: str, values: tuple[Any, ...], count: int
) -> None:
    for number in range(count):

        def edit(image: Dataset, k: int, number: int = number) -> None:
            setattr(image, tag, values[number])
            files.set_stored(image, np.frombuffer(image.PixelData, "<i2") + 300 * number)

        places = files.positions(origin=(-5, 4, 10 + number * files.SPACING[0] / count))
        files.write_series(tmp_path, places=places, edit=edit, name=f"{number}-{{k}}")
    scan = read_ct(tmp_path)
    assert_in_place(scan.image)
    assert scan.image.GetSpacing()[2] == pytest.approx(files.SPACING[0])
    assert f"{count} acquisitions of the same range" in scan.notes[0]
    assert f"with {tag} {values[0]} was taken" in scan.notes[0]


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("AcquisitionNumber", lambda k: 1 + k // 9),  # one range after the other
        ("AcquisitionNumber", lambda k: 1 + k // 17),  # the last slice alone
        ("AcquisitionNumber", lambda k: 1 - (k == 0)),
        ("AcquisitionNumber", lambda k: 1 + k // 2),  # step and shoot
        ("AcquisitionNumber", lambda k: 1 + k // 4),
        ("AcquisitionNumber", lambda k: 1 + k % 9),  # each number twice
        ("AcquisitionNumber", lambda k: k),
        ("TriggerTime", lambda k: 100 * k),
        ("AcquisitionTime", lambda k: f"10111{k % 2}"),
        ("ContentTime", lambda k: f"10111{k % 3}"),
        ("SliceThickness", lambda k: ("0.66", "0.67", "0.67")[k % 3]),
        ("SliceThickness", lambda k: ("2.5", "2.499999")[k % 2]),
        ("KVP", lambda k: ("120", "120.0")[k % 2]),
        ("ImageType", lambda k: ["ORIGINAL", "PRIMARY", "AXIAL", *["M"] * (k % 2)]),
    ],
)
def test_one_acquisition_stays_whole(tmp_path: Path, tag: str, value: Any) -> None:
    def edit(image: Dataset, k: int) -> None:
        setattr(image, tag, value(k))

    files.write_series(tmp_path, places=files.positions(count=18), edit=edit)
    scan = read_ct(tmp_path)
    assert_in_place(scan.image)
    assert scan.image.GetSize()[2] == 18
    assert repairs(scan) == ()


@pytest.mark.parametrize(("of_frame", "count"), [(lambda k: k // 9, 18), (lambda k: k % 2, 9)])
def test_frames_of_one_file_are_acquisitions_likewise(
    tmp_path: Path, of_frame: Any, count: int
) -> None:
    def edit(image: Dataset) -> None:
        for k, group in enumerate(image.PerFrameFunctionalGroupsSequence):
            group.FrameContentSequence[0].FrameAcquisitionNumber = of_frame(k)

    places = files.positions(step=(0, 0, 1.5), count=18)
    files.write_enhanced(tmp_path / "frames", files.AXIAL, places, edit)
    scan = read_ct(tmp_path)
    assert_in_place(scan.image)
    assert scan.image.GetSize()[2] == count


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
        ("BitsAllocated", "no Bits Allocated"),
        ("PixelRepresentation", "no Pixel Representation"),
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


@pytest.mark.parametrize(
    ("written", "damaged"),
    [
        (b"-5.0\\4.0\\22.0", b"-5.0\\abc\\2.0"),
        (b"-5.0\\4.0\\22.0", b"-5.0\\4.0\\ nan"),
        (b"1.5\\0.75", b"1.5\\0,75"),
        (b"1.5\\0.75", b"1.5\\0.00"),
        (b"1.0\\0.0\\0.0\\0.0\\1.0", b"1.0\\0.0\\0.0\\1.0\\0.0"),
    ],
)
def test_a_senseless_value_is_named_with_its_file(
    tmp_path: Path, written: bytes, damaged: bytes
) -> None:
    file = files.write_series(tmp_path, [float(v) for v in files.AXIAL])[4]
    assert written in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(written, damaged))
    assert str(file) in refusal(tmp_path)


def test_a_damaged_file_at_the_end_is_noted(tmp_path: Path) -> None:
    last = files.write_series(tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:400])
    scan = read_ct(tmp_path)
    assert_in_place(scan.image)
    assert f"1 of 9, such as {last}" in scan.notes[0]


@pytest.mark.parametrize("unit", ["MGML", "mg/ml", "mg/cm3", "Z_EFF"])
def test_values_that_are_not_hu_are_refused(tmp_path: Path, unit: str) -> None:
    files.write_series(tmp_path, edit=lambda d, k: setattr(d, "RescaleType", unit))
    assert f"is not in HU but in {unit.upper()}" in refusal(tmp_path)


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
    (tmp_path / "files" / "ct.nrrd").touch()
    assert "give ct.nrrd itself" in refusal(tmp_path / "files")
    (tmp_path / "scan.txt").write_text("a scan")
    assert ".nii.gz" in refusal(tmp_path / "scan.txt")
    with pytest.raises(InputError, match="not a folder"):
        list_series(tmp_path / "scan.txt")


def test_a_damaged_file_meta_is_a_damaged_file(tmp_path: Path) -> None:
    """Found by fuzzing: pydicom parses an element when it is asked for, also in the file meta."""
    written = files.write_series(tmp_path)
    content = written[0].read_bytes()
    place = content.index(b"\x02\0\x02\0UI")
    written[0].write_bytes(content[: place + 4] + b"RI" + content[place + 6 :])
    with pytest.raises(InputError, match="is a damaged DICOM file"):
        read_instance(written[0])


@pytest.mark.parametrize("hidden", [False, True])
def test_a_deflated_file_does_not_fill_the_memory(tmp_path: Path, hidden: bool) -> None:
    """The transfer syntax may come late, after other parts, and their length may be wrong."""
    shutil.copy(files.write_series(tmp_path)[0], tmp_path / "003.dcm")
    bomb = deflate_bomb(tmp_path) / "bomb.dcm"
    if hidden:
        content = bomb.read_bytes()
        private = b"\2\0\2\1OB\0\0" + (4000).to_bytes(4, "little") + bytes(4000)
        bomb.write_bytes(content[:144] + private + content[144:])
    tracemalloc.start()
    try:
        assert glimpse(bomb) is None
        with pytest.raises(InputError, match=r"bomb\.dcm unpacks to more than any CT"):
            read_instance(bomb)
        assert identify(bomb) == LeftOut(Kind.BROKEN, "unpacks to more than any CT image has")
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


def test_a_length_that_no_file_has_fills_no_memory(tmp_path: Path) -> None:
    file = files.write_series(tmp_path)[0]
    content = file.read_bytes()
    place = content.index(b"\x10\0\x20\0LO")
    file.write_bytes(content[: place + 4] + b"UN\0\0\xf0\xff\xff\xff" + content[place + 8 :])
    tracemalloc.start()
    try:
        ends = "has a damaged header: it ends within (0010,0020)"
        assert identify(file) == LeftOut(Kind.BROKEN, ends)
        assert tracemalloc.get_traced_memory()[1] < 2**22
        glimpse(file)
        with pytest.raises(InputError, match="names no DICOM series: copy it again"):
            read_instance(file)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


def test_a_damaged_copy_of_a_series_is_a_case_of_its_own(tmp_path: Path) -> None:
    written = files.write_series(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    damaged = tmp_path / "b" / written[0].name
    content = damaged.read_bytes()
    tag = b"\x08\0\x18\0UI"
    damaged.write_bytes(content.replace(tag, tag[:4] + b"ZZ"))
    assert len(list(find_cases(tmp_path))) == 2
