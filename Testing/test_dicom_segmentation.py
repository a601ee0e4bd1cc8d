"""DICOM segmentations: the voxels they mark in the source's own files, and what they say."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from scipy.spatial.transform import Rotation

import dicom_files as files
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import LPS_TO_RAS
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.ct_scan import CTScan
from dicom_results import (
    RECORD,
    check_modules,
    dcmqi,
    results_on,
    segments,
    validated,
    written,
)
from LungNoduleSegLib.results.dicom_source import read_dicom_source
from LungNoduleSegLib.results.reading import (
    DICOM_KEY_IMAGES,
    DICOM_NAMES,
    DICOM_REPORT,
    DICOM_SEGMENTATION,
)
from LungNoduleSegLib.results.segments import LUNG_STYLES, nodule_style
from LungNoduleSegLib.results.writing import write_dicom
from mrml_grids import voxels_of, voxels_on

ORIENTATIONS = {
    "axial": files.AXIAL,
    "prone": (-1, 0, 0, 0, -1, 0),
    "mirrored": (1, 0, 0, 0, -1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
}


def segments_by_frame(file: Path) -> dict[int, NDArray[np.float64]]:
    """Each segment's voxels (n, 3) in LPS mm, from where each frame says it lies."""
    read = pydicom.dcmread(file)
    shared = read.SharedFunctionalGroupsSequence[0]
    axes = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3))
    row_mm, column_mm = shared.PixelMeasuresSequence[0].PixelSpacing
    found: dict[int, list[NDArray[np.float64]]] = {}
    for frame, mask in zip(read.PerFrameFunctionalGroupsSequence, read.pixel_array, strict=True):
        y, x = np.nonzero(mask)
        corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        points = corner + np.outer(x * column_mm, axes[0]) + np.outer(y * row_mm, axes[1])
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found.setdefault(number, []).append(points)
    return {number: np.vstack(points) for number, points in found.items()}


def farthest(points: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """How far the points are at most from the nearest of the others."""
    return float(np.linalg.norm(points[:, None] - others, axis=2).min(axis=1).max())


def rounded(points: NDArray[np.float64]) -> set[tuple[int, ...]]:
    return {tuple(point) for point in np.rint(points * 100).astype(int).tolist()}


def points_of(labels: sitk.Image, label: int) -> NDArray[np.float64]:
    return np.array(
        [labels.TransformIndexToPhysicalPoint(index) for index in sorted(voxels_of(labels, label))]
    )


def assert_same_voxels(file: Path, lungs: sitk.Image, labels: sitk.Image) -> None:
    found = segments(file)
    expected = [("Right lung", lungs, 1), ("Left lung", lungs, 2)]
    expected += [("Nodule 1", labels, 1), ("Nodule 3", labels, 3)]
    assert [name for name, _ in found] == [name for name, _, _ in expected]
    for (_, points), (_, image, label) in zip(found, expected, strict=True):
        assert rounded(points) == rounded(points_of(image, label))


def marked_hu(file: Path, sources: Path) -> dict[int, list[float]]:
    """HU of the source's own pixels under each segment, by the references of its frames."""
    images = {image.SOPInstanceUID: image for image in map(pydicom.dcmread, sources.iterdir())}
    read = pydicom.dcmread(file)
    marked: dict[int, list[float]] = {}
    for frame, mask in zip(read.PerFrameFunctionalGroupsSequence, read.pixel_array, strict=True):
        assert mask.any()
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        (origin,) = frame.DerivationImageSequence[0].SourceImageSequence
        image = images[origin.ReferencedSOPInstanceUID]
        if "NumberOfFrames" in image:
            index = int(origin.ReferencedFrameNumber) - 1
            groups = image.PerFrameFunctionalGroupsSequence[index]
            scale = groups.PixelValueTransformationSequence[0]
            place = groups.PlanePositionSequence[0].ImagePositionPatient
            stored = image.pixel_array[index]
        else:
            scale, place, stored = image, image.ImagePositionPatient, image.pixel_array
        assert frame.PlanePositionSequence[0].ImagePositionPatient == place
        hu = stored[mask > 0] * float(scale.RescaleSlope) + float(scale.RescaleIntercept)
        marked.setdefault(number, []).extend(hu.tolist())
    return {number: sorted(hu) for number, hu in marked.items()}


def hu_under(scan: CTScan, labels: sitk.Image, label: int) -> list[float]:
    where = sitk.GetArrayViewFromImage(labels) == label
    return sorted(sitk.GetArrayViewFromImage(scan.image)[where].tolist())


def scan_of(folder: Path, orientation: Sequence[float], **options: Any) -> CTScan:
    """Write and read the test object, its slices in no order."""
    order = np.random.default_rng(4).permutation(files.positions(orientation))
    files.write_series(folder, orientation, options.pop("places", order), **options)
    return read_ct(folder)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_same_voxels_of_the_same_files_are_marked(name: str, tmp_path: Path) -> None:
    scan = scan_of(tmp_path / "ct", ORIENTATIONS[name])
    before = {file: file.read_bytes() for file in (tmp_path / "ct").iterdir()}
    file = written(tmp_path / "out", scan) / DICOM_SEGMENTATION
    lungs, labels, _ = results_on(scan)
    assert_same_voxels(file, lungs, labels)
    marked = marked_hu(file, tmp_path / "ct")
    for number, (image, label) in enumerate(((lungs, 1), (lungs, 2), (labels, 1), (labels, 3)), 1):
        assert marked[number] == hu_under(scan, image, label)
    assert before == {file: file.read_bytes() for file in (tmp_path / "ct").iterdir()}


@settings(max_examples=5)
@given(
    turn=st.tuples(*[st.floats(-3, 3)] * 3),
    origin=st.tuples(*[st.floats(-20, 20)] * 3),  # further off, the test object is below air
)
def test_the_same_voxels_are_marked_in_oblique_series(
    turn: tuple[float, ...], origin: tuple[float, ...]
) -> None:
    matrix = Rotation.from_rotvec(turn).as_matrix().round(7)
    orientation = matrix[:, :2].T.ravel().tolist()
    with TemporaryDirectory() as folder:
        places = files.positions(orientation, origin)
        scan = scan_of(Path(folder, "ct"), orientation, places=places)
        file = written(Path(folder, "out"), scan) / DICOM_SEGMENTATION
        lungs, labels, _ = results_on(scan)
        marked = marked_hu(file, Path(folder, "ct"))
        found = segments_by_frame(file)
    for number, (image, label) in enumerate(((lungs, 1), (lungs, 2), (labels, 1), (labels, 3)), 1):
        assert marked[number] == hu_under(scan, image, label)
        truth = points_of(image, label)
        assert len(found[number]) == len(truth)
        assert farthest(found[number], truth) < 0.01


@pytest.mark.parametrize("tilt", [-20, 12])
def test_slices_of_a_tilted_gantry_get_the_nearest_pixels(tilt: float, tmp_path: Path) -> None:
    matrix = Rotation.from_rotvec([np.radians(tilt), 0, 0]).as_matrix()
    orientation = matrix[:, :2].T.ravel().tolist()
    places = files.positions(orientation, step=(0, 0, 3.0))
    scan = scan_of(tmp_path / "ct", orientation, places=places)
    assert any("tilted" in note for note in scan.notes)
    file = written(tmp_path / "out", scan) / DICOM_SEGMENTATION
    lungs, labels, _ = results_on(scan)
    marked = marked_hu(file, tmp_path / "ct")
    row_mm, found = files.SPACING[1], segments_by_frame(file)
    for number, (image, label) in enumerate(((lungs, 1), (lungs, 2), (labels, 1), (labels, 3)), 1):
        points = points_of(image, label)
        assert farthest(found[number], points) <= row_mm / 2 + 0.01
        steps = np.abs(files.GRADIENT @ matrix[:, 1]) * row_mm / 2 + 1
        hu = files.hu_at(points)
        assert hu.min() - steps <= marked[number][0]
        assert marked[number][-1] <= hu.max() + steps


def marked_enhanced(
    folder: Path, places: ArrayLike, edit: Callable[[Dataset], None] | None = None
) -> Path:
    """Write and mark an Enhanced CT file, and check that the marks are on the right frames."""
    (folder / "ct").mkdir()
    files.write_enhanced(folder / "ct" / "e.dcm", files.AXIAL, places, edit)
    scan = read_ct(folder / "ct")
    file = written(folder / "out", scan) / DICOM_SEGMENTATION
    lungs, labels, _ = results_on(scan)
    assert_same_voxels(file, lungs, labels)
    marked = marked_hu(file, folder / "ct")
    for number, (image, label) in enumerate(((lungs, 1), (lungs, 2), (labels, 1), (labels, 3)), 1):
        assert marked[number] == hu_under(scan, image, label)
    return file


def test_frames_of_an_enhanced_file_are_marked(tmp_path: Path) -> None:
    places = np.random.default_rng(1).permutation(files.positions())
    assert validated(marked_enhanced(tmp_path, places)) == []


def measures_in_each_frame(image: Dataset) -> None:
    (shared,) = image.SharedFunctionalGroupsSequence
    for frame in image.PerFrameFunctionalGroupsSequence:
        frame.update(shared)
    del image.SharedFunctionalGroupsSequence


def modality_and_thickness_missing(image: Dataset) -> None:
    del image.Modality
    image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness = None


def first_frame_a_localizer(image: Dataset) -> None:
    (kind,) = image.PerFrameFunctionalGroupsSequence[0].CTImageFrameTypeSequence
    kind.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]


def first_half_the_second_phase(image: Dataset) -> None:
    for frame in image.PerFrameFunctionalGroupsSequence:
        frame.FrameContentSequence[0].TemporalPositionIndex = 1
    for frame in image.PerFrameFunctionalGroupsSequence[: files.SHAPE[0]]:
        frame.FrameContentSequence[0].TemporalPositionIndex = 2
        frame.PixelValueTransformationSequence[0].RescaleIntercept += 300


@pytest.mark.parametrize(
    ("edit", "phases"),
    [
        (measures_in_each_frame, 1),
        (modality_and_thickness_missing, 1),
        (first_frame_a_localizer, 1),
        (first_half_the_second_phase, 2),
    ],
)
def test_any_enhanced_file_that_can_be_read_can_be_referred_to(
    tmp_path: Path, edit: Callable[[Dataset], None], phases: int
) -> None:
    marked_enhanced(tmp_path, np.tile(files.positions(), (phases, 1)), edit)


def one_frame(image: Dataset, _: int) -> None:
    image.NumberOfFrames = 1


def modality_missing_in_some(image: Dataset, k: int) -> None:
    if k % 2:
        del image.Modality


def class_missing_in_some(image: Dataset, k: int) -> None:
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    if k % 2:
        del image.SOPClassUID


def endless_thickness(image: Dataset, _: int) -> None:
    image.SliceThickness = "inf"


@pytest.mark.parametrize(
    "edit", [one_frame, modality_missing_in_some, class_missing_in_some, endless_thickness]
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
def test_any_series_that_can_be_read_can_be_referred_to(tmp_path: Path, edit: files.Edit) -> None:
    scan = scan_of(tmp_path / "ct", files.AXIAL, edit=edit)
    folder = written(tmp_path / "out", scan)
    lungs, labels, rows = results_on(scan)
    assert_same_voxels(folder / DICOM_SEGMENTATION, lungs, labels)
    (series,) = pydicom.dcmread(folder / DICOM_SEGMENTATION).ReferencedSeriesSequence
    classes = {item.ReferencedSOPClassUID for item in series.ReferencedInstanceSequence}
    assert classes == {CTImageStorage}
    selected = pydicom.dcmread(folder / DICOM_KEY_IMAGES).ContentSequence
    assert {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in selected
        if item.ValueType == "IMAGE"
    } == {scan.slices[row.slice].sop_instance_uid for row in rows}


def test_what_a_segmentation_says(tmp_path: Path) -> None:
    def name(image: Dataset, _: int) -> None:
        image.SpecificCharacterSet = "ISO_IR 100"
        image.PatientName, image.PatientSex, image.StudyID = "Müller^Änne", "F", "S7"

    scan = scan_of(tmp_path / "ct", files.AXIAL, edit=name)
    file = written(tmp_path / "out", scan) / DICOM_SEGMENTATION
    read, source = hd.seg.segread(file), pydicom.dcmread(scan.slices[0].file)
    check_modules(read)
    for keyword in (
        "PatientID",
        "PatientName",
        "PatientSex",
        "StudyInstanceUID",
        "StudyDate",
        "StudyID",
        "FrameOfReferenceUID",
    ):
        assert read[keyword].value == source[keyword].value, keyword
    assert read.SeriesInstanceUID != source.SeriesInstanceUID
    assert (read.Rows, read.Columns) == (source.Rows, source.Columns)
    measures = read.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.PixelSpacing == source.PixelSpacing
    assert measures.SpacingBetweenSlices == pytest.approx(files.SPACING[0])
    right, left, one, three = map(read.get_segment_description, read.segment_numbers)
    for found, style in (
        (right, LUNG_STYLES[1]),
        (left, LUNG_STYLES[2]),
        (one, nodule_style(1, 1)),
        (three, nodule_style(3, 2)),
    ):
        assert found.segment_label == style.name
        for code, meant in (
            (found.segmented_property_category, style.terminology.category),
            (found.segmented_property_type, style.terminology.type),
        ):
            assert [code.scheme_designator, code.value, code.meaning] == meant.triplet
        lab = hd.color.CIELabColor.from_dicom_value(found.RecommendedDisplayCIELabValue)
        np.testing.assert_allclose(np.array(lab.to_rgb(clip=True)) / 255, style.color, atol=0.006)
    for lung, code in ((right, "24028007"), (left, "7771000")):
        kind = lung.SegmentedPropertyTypeCodeSequence[0]
        assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == code
        assert lung.algorithm_identification.name == "CTLungScreening lungs, volume"
    for nodule, code in ((one, "24028007"), (three, "7771000")):
        region = nodule.AnatomicRegionSequence[0]
        assert region.CodeValue == "39607008"
        assert region.AnatomicRegionModifierSequence[0].CodeValue == code
    assert one.tracking_id == "Nodule 1"
    assert one.tracking_uid != three.tracking_uid
    assert one.algorithm_type.value == "AUTOMATIC"
    assert one.algorithm_identification.version == "1.2.3"
    assert one.algorithm_identification.parameters["sha256"] == RECORD["model"]["sha256"]
    assert three.algorithm_type.value == "MANUAL"
    assert three.algorithm_identification is None


def test_another_validator_finds_no_fault(tmp_path: Path) -> None:
    folder = written(tmp_path / "out", scan_of(tmp_path / "ct", files.AXIAL))
    assert validated(folder / DICOM_SEGMENTATION) == []
    assert validated(folder / DICOM_REPORT) == []


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_dcmqi_reads_the_same_voxels(name: str, tmp_path: Path) -> None:
    scan = scan_of(tmp_path / "ct", ORIENTATIONS[name])
    file = written(tmp_path / "out", scan) / DICOM_SEGMENTATION
    (tmp_path / "read").mkdir()
    dcmqi(
        "segimage2itkimage",
        *("--inputDICOM", file, "--outputDirectory", tmp_path / "read", "-t", "nrrd"),
    )
    lungs, labels, _ = results_on(scan)
    for number, (image, label) in enumerate(((lungs, 1), (lungs, 2), (labels, 1), (labels, 3)), 1):
        read = sitk.ReadImage(tmp_path / "read" / f"{number}.nrrd")
        assert rounded(points_of(read, number)) == rounded(points_of(image, label))


def test_what_de_identified_files_lack_is_left_empty(tmp_path: Path) -> None:
    def strip(image: Dataset, _: int) -> None:
        for keyword in ("PatientName", "PatientBirthDate", "StudyTime", "StudyID", "PatientID"):
            del image[keyword]
        image.SliceThickness = None

    scan = scan_of(tmp_path / "ct", files.AXIAL, edit=strip)
    folder = written(tmp_path / "out", scan)
    lungs, labels, _ = results_on(scan)
    assert_same_voxels(folder / DICOM_SEGMENTATION, lungs, labels)
    read = pydicom.dcmread(folder / DICOM_SEGMENTATION)
    assert (read.PatientName, read.StudyID) == ("", "")


def test_an_empty_lung_and_no_nodules(tmp_path: Path) -> None:
    scan = scan_of(tmp_path / "ct", files.AXIAL)
    lungs, labels, _ = results_on(scan, ids=())
    lungs = sitk.Cast(lungs == 2, sitk.sitkUInt8) * 2
    source = read_dicom_source(scan)
    write_dicom(tmp_path / "out", source, lungs, labels, [], RECORD)
    ((name, points),) = segments(tmp_path / "out" / DICOM_SEGMENTATION)
    assert name == "Left lung"
    assert rounded(points) == rounded(points_of(lungs, 2))
    assert validated(tmp_path / "out" / DICOM_SEGMENTATION) == []
    with pytest.raises(InputError, match="neither a lung nor a nodule"):
        write_dicom(tmp_path / "no", source, lungs * 0, labels, [], RECORD)


def test_what_cannot_be_referred_to_is_refused_in_one_sentence(tmp_path: Path) -> None:
    def without(keyword: str) -> Any:
        return lambda image, _: delattr(image, keyword)

    scan = scan_of(tmp_path / "ct", files.AXIAL)
    sitk.WriteImage(scan.image - 800, tmp_path / "scan.nrrd")
    with pytest.raises(InputError, match=r"scan\.nrrd is not a DICOM series.*leave out --dicom"):
        read_dicom_source(read_ct(tmp_path / "scan.nrrd"))
    other = scan_of(tmp_path / "b", files.AXIAL, edit=without("FrameOfReferenceUID"))
    with pytest.raises(InputError, match="has no FrameOfReferenceUID"):
        read_dicom_source(other)
    twice = scan_of(
        tmp_path / "c", files.AXIAL, edit=lambda i, _: setattr(i, "SOPInstanceUID", "1")
    )
    with pytest.raises(InputError, match="share a SOP Instance UID"):
        read_dicom_source(twice)
    private = scan_of(tmp_path / "d", files.AXIAL, edit=lambda i, _: setattr(i, "SOPClassUID", "1"))
    with pytest.raises(InputError, match=r"d/0.. is of the class 1, .* CT Image Storage"):
        read_dicom_source(private)
    (tmp_path / "e").mkdir()
    files.write_enhanced(
        tmp_path / "e" / "e.dcm",
        files.AXIAL,
        files.positions(),
        lambda image: setattr(image, "SOPClassUID", CTImageStorage),
    )
    with pytest.raises(InputError, match=r"is of the class CT Image Storage, .* Enhanced CT"):
        read_dicom_source(read_ct(tmp_path / "e"))
    lungs, labels, rows = results_on(scan)
    source = read_dicom_source(scan)
    with pytest.raises(InputError, match="Nodule 3 is in the table but has no voxels"):
        write_dicom(tmp_path / "out", source, lungs, results_on(scan, (1,))[1], rows, RECORD)
    with pytest.raises(InputError, match="record of the run is incomplete"):
        write_dicom(tmp_path / "out", source, lungs, labels, rows, {"model": {}})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientSex", "Male"),
        ("PatientBirthDate", "1981/03/02"),
        ("PatientBirthDate", "19810231"),
        ("PatientName", "A^B^C^D^E^F"),
        ("PatientID", "x" * 70),
        ("PatientID", "A\\B"),
        ("AccessionNumber", "1" * 20),
        ("StudyDate", "ANONYMIZED"),
        ("StudyTime", "12:30:11"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_values_that_break_the_standard_are_left_empty_with_a_note(
    tmp_path: Path, keyword: str, value: str
) -> None:
    def edit(image: Dataset, _: int) -> None:
        setattr(image, keyword, value)
        image.InstitutionName, image.ReferringPhysicianName = "Clinic", "Doe^Jane"

    scan = scan_of(tmp_path / "ct", files.AXIAL, edit=edit)
    [note] = read_dicom_source(scan).notes
    assert dictionary_description(keyword) in note and value not in note
    written(tmp_path / "out", scan)
    for name in DICOM_NAMES:
        made = pydicom.dcmread(tmp_path / "out" / name)
        assert not made.get(keyword)
        assert "InstitutionName" not in made and not made.ReferringPhysicianName
        assert b"Clinic" not in (tmp_path / "out" / name).read_bytes()


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyInstanceUID", "ANON-17"),
        ("SeriesInstanceUID", "1.2.0123.4"),
        ("FrameOfReferenceUID", "1." * 36 + "22"),
        ("SOPInstanceUID", "IMG{k:03}"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_uids_that_break_the_standard_are_kept_with_a_note(
    tmp_path: Path, keyword: str, value: str
) -> None:
    scan = scan_of(
        tmp_path / "ct", files.AXIAL, edit=lambda i, k: setattr(i, keyword, value.format(k=k))
    )
    [note] = read_dicom_source(scan).notes
    assert dictionary_description(keyword) in note and "archive" in note
    written(tmp_path / "out", scan)
    for name in DICOM_NAMES:
        assert value.removesuffix("{k:03}").encode() in (tmp_path / "out" / name).read_bytes()


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", "Yamada^Tarou=山田\u3000太郎"),
        ("PatientName", "Van\u00a0den Berg^An"),
        ("PatientName", "Nima\u200cReza^Amir"),
        ("PatientID", "12\u00a034\u3000"),
    ],
)
def test_names_and_numbers_keep_the_spaces_of_any_script(
    tmp_path: Path, keyword: str, value: str
) -> None:
    def edit(image: Dataset, _: int) -> None:
        image.SpecificCharacterSet = "ISO_IR 192"
        setattr(image, keyword, value)

    scan = scan_of(tmp_path / "ct", files.AXIAL, edit=edit)
    assert read_dicom_source(scan).notes == ()
    written(tmp_path / "out", scan)
    for name in DICOM_NAMES:
        assert str(pydicom.dcmread(tmp_path / "out" / name).get(keyword)) == value
    if keyword == "PatientID":
        assert scan.series and scan.series.patient_id == value


def test_no_library_prints_the_name_of_a_patient(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    scan = scan_of(
        tmp_path / "ct", files.AXIAL, edit=lambda image, _: setattr(image, "PatientName", "Doe")
    )
    recwarn.clear()
    written(tmp_path / "out", scan)
    assert not recwarn.list


def test_external_lungs_name_no_file(tmp_path: Path) -> None:
    scan = scan_of(tmp_path / "ct", files.AXIAL)
    given = RECORD | {"parameters": RECORD["parameters"] | {"lung_method": "/home/jane/l.nrrd"}}
    write_dicom(tmp_path / "out", read_dicom_source(scan), *results_on(scan), given)
    lung = hd.seg.segread(tmp_path / "out" / DICOM_SEGMENTATION).get_segment_description(1)
    assert lung.algorithm_type.value == "MANUAL"
    for name in DICOM_NAMES:
        assert b"jane" not in (tmp_path / "out" / name).read_bytes()


@pytest.mark.parametrize("name", DICOM_NAMES)
def test_nothing_is_overwritten(name: str, tmp_path: Path) -> None:
    scan = scan_of(tmp_path / "ct", files.AXIAL)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(InputError, match=f"already holds {name}"):
        written(tmp_path / "out", scan)
    assert [file.read_text() for file in (tmp_path / "out").iterdir()] == ["mine"]


def test_slicer_shows_the_same_voxels(tmp_path: Path) -> None:
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
    from CTLungScreeningSlicer.scene import mrml_host

    mrml_host.start()
    scan = scan_of(tmp_path / "ct", ORIENTATIONS["prone"])
    read = hd.seg.segread(written(tmp_path / "out", scan) / DICOM_SEGMENTATION)
    lungs, labels, _ = results_on(scan)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    for number, (image, label) in enumerate(((lungs, 1), (lungs, 2), (labels, 1), (labels, 3)), 1):
        volume = read.get_volume(segment_numbers=[number])
        labelmap = slicer.util.addVolumeFromArray(
            volume.array[..., 0].astype(np.uint8).T,
            slicer.util.vtkMatrixFromArray(LPS_TO_RAS @ volume.affine),
            nodeClassName="vtkMRMLLabelMapVolumeNode",
        )
        slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labelmap, node)
        segment_id = node.GetSegmentation().GetNthSegmentID(number - 1)
        assert voxels_on(image, node.GetSegmentation(), segment_id) == voxels_of(image, label)
    slicer.mrmlScene.Clear()
