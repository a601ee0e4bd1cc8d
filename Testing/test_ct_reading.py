"""A CT series is read where it lies, whatever its files are called and whatever lies beside it."""

import random
import tempfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import dicom_files as files
from ct_checks import PATIENT_ORIENTATIONS, assert_in_place, refusal, repairs, voxel_points
from CTLungScreeningLib.errors import Cancelled
from CTLungScreeningLib.geometry import AxialView
from CTLungScreeningLib.hu import AIR_HU, LOWEST_HU
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTLungScreeningLib.reading.dicom_series import format_series, list_series


def reorder(scan: CTScan) -> list[float]:
    """Position of each slice's own file along the slices, in array order."""
    normal = np.reshape(scan.image.GetDirection(), (3, 3))[:, 2]
    return [float(pydicom.dcmread(one.file).ImagePositionPatient @ normal) for one in scan.slices]


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
    assert repairs(scan) == ()
    assert scan.series is not None
    assert (scan.series.patient_id, scan.series.description) == ("P1", "chest")
    assert scan.series.study_date == "20200102"


@settings(max_examples=25)
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


@settings(max_examples=20)
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
    assert len(repairs(shuffled)) == 2
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
        read_ct(tmp_path, progress=report)
    assert ("Searching", 9, 9) in seen
    assert max(done for stage, done, _ in seen if stage == "Reading") == 2
