"""The annotation file of a series: what is read, what is refused, and that saving loses nothing."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import dicom_files as files
from ct_checks import PATIENT_ORIENTATIONS, refusal
from CTLungScreeningLib.errors import InputError
from CTSliceToolsLib.cli import app
from CTSliceToolsLib.dataset.annotation import (
    ANNOTATION,
    Annotation,
    annotate_series,
    annotation_from_z,
    read_annotation,
    read_slice_file,
    read_slice_names,
    write_annotation,
)
from CTSliceToolsLib.landmarks import LANDMARKS

AXIAL = {name: values for name, values in PATIENT_ORIENTATIONS.items() if "first" in name}
NAMES = [landmark.name for landmark in LANDMARKS]


def series(folder: Path, z_mm: list[float], orientation: tuple[float, ...] = files.AXIAL) -> Path:
    """Write slices named 0.dcm, 1.dcm … at these z."""
    places = [(-5.0, 4.0, z) for z in z_mm]
    files.write_series(folder, orientation, places, name="{k}.dcm")
    return folder


def annotate(folder: Path, content: object) -> Path:
    file = folder / ANNOTATION
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_seed_annotation_is_read_with_the_height_of_each_slice(tmp_path: Path) -> None:
    series(tmp_path, [300, 250, 200, 100, 90])
    file = annotate(
        tmp_path,
        {"C7": "3.dcm", "C1": "2.dcm", "T1": "4.dcm", "Center of orbit": "1.dcm"},
    )
    found = read_annotation(file)
    assert list(found.slices.items()) == [
        ("Center of orbit", "1.dcm"),
        ("C1", "2.dcm"),
        ("C7", "3.dcm"),
        ("T1", "4.dcm"),
    ]
    assert found.z_mm == {"Center of orbit": 250, "C1": 200, "C7": 100, "T1": 90}


@pytest.mark.parametrize("orientation", AXIAL.values(), ids=AXIAL)
def test_order_is_that_of_true_z_however_the_series_is_turned_and_named(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    series(tmp_path, [0, 30, 60], orientation)
    right = annotate(tmp_path, {"C7": "2.dcm", "T1": "1.dcm", "Aortic arch": "0.dcm"})
    assert read_annotation(right).z_mm == {"C7": 60, "T1": 30, "Aortic arch": 0}
    wrong = annotate(tmp_path, {"C7": "1.dcm", "T1": "2.dcm", "Aortic arch": "0.dcm"})
    sentence = refusal(wrong, read_annotation)
    assert "T1 (slice 2.dcm, z = 60.0 mm) lies above C7 (slice 1.dcm, z = 30.0 mm)" in sentence


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"C8": "0.dcm"}, "unknown landmark, “C8”"),
        ({"C7": "9.dcm"}, "the file 9.dcm, which is not in"),
        ({"C7": "0.dcm", "T1": "0.dcm"}, "T1 (slice 0.dcm, z = 30.0 mm) lies on the same level as"),
        ({"C7": "1.dcm", "T1": "0.dcm"}, "lies above"),
        ({"C7": "0.dcm", "T1": 1}, "mixes file names and slice numbers"),
        ({"C7": 3}, "slice numbers, not file names"),
        ({"C7": "../0.dcm"}, "neither the name of a file"),
        ({"C7": "a\\0.dcm"}, "neither the name of a file"),
        ({"C7": -1}, "neither the name of a file"),
        ({"C7": True}, "neither the name of a file"),
        ({"C7": None}, "neither the name of a file"),
        ('{"C7": "0.dcm", "C7": "1.dcm"}', "names “C7” twice"),
        ('{"C7": "0.dcm"', "is not a JSON file"),
        ('["C7"]', "holds no JSON object"),
        ("\0\1", "is not a JSON file"),
    ],
)
def test_what_is_no_annotation_is_refused(tmp_path: Path, content: object, words: str) -> None:
    series(tmp_path, [30, 0])
    assert words in refusal(annotate(tmp_path, content), read_annotation)


def test_missing_annotation_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / ANNOTATION, read_annotation)


def test_files_of_two_series_are_refused(tmp_path: Path) -> None:
    series(tmp_path, [30, 0])
    files.write_series(tmp_path, places=[(0, 0, -20)], series="other", name="other.dcm")
    sentence = refusal(annotate(tmp_path, {"C7": "0.dcm", "T1": "other.dcm"}), read_annotation)
    assert "several series" in sentence


def test_a_scout_is_no_slice(tmp_path: Path) -> None:
    series(tmp_path, [30, 0])
    scout = pydicom.dcmread(tmp_path / "0.dcm")
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    files.save(scout, tmp_path / "0.dcm")
    file = annotate(tmp_path, {"C7": "0.dcm"})
    with pytest.raises(InputError, match=r"0\.dcm is a localizer"):
        read_annotation(file)


@pytest.mark.parametrize("orientation", AXIAL.values(), ids=AXIAL)
def test_height_of_a_tilted_slice_is_that_of_its_centre(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    tilt = np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]])
    row, column = np.reshape(orientation, (2, 3)) @ tilt.T
    (file,) = files.write_series(tmp_path, (*row, *column), [(3.0, 5.0, 70.0)], name="{k}.dcm")
    rows, columns = files.SHAPE[1:]
    centre = (
        np.array([3.0, 5.0, 70.0])
        + (columns - 1) / 2 * files.SPACING[2] * row
        + (rows - 1) / 2 * files.SPACING[1] * column
    )
    assert read_slice_file(file).z_mm == pytest.approx(centre[2], abs=1e-4)


def test_saved_annotation_is_read_back_and_replaces_the_one_before(tmp_path: Path) -> None:
    series(tmp_path, [30, 20, 0])
    file = tmp_path / ANNOTATION
    first = Annotation("scan", {"C7": "0.dcm"}, {"C7": 30})
    write_annotation(first, file)
    assert json.loads(file.read_text()) == {"C7": "0.dcm"}
    second = Annotation("scan", {"T1": "2.dcm", "C7": "1.dcm"}, {"T1": 0, "C7": 20})
    write_annotation(second, file)
    assert list(json.loads(file.read_text())) == ["C7", "T1"]
    assert read_annotation(file).slices == {"C7": "1.dcm", "T1": "2.dcm"}
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        *("0.dcm", "1.dcm", "2.dcm"),
        ANNOTATION,
    ]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_failed_save_keeps_the_old_annotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    file = annotate(tmp_path, {"C7": "0.dcm"})

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(InputError, match="No space left on device"):
        write_annotation(Annotation("scan", {"T1": "1.dcm"}, {"T1": 0}), file)
    assert json.loads(file.read_text()) == {"C7": "0.dcm"}
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("content", ['{"patient": "P1"}', "notes of mine", "[1]", ""])
def test_a_file_that_is_no_annotation_is_not_replaced(tmp_path: Path, content: str) -> None:
    file = annotate(tmp_path, content)
    with pytest.raises(InputError, match="nothing was overwritten"):
        write_annotation(Annotation("scan", {"T1": "1.dcm"}, {"T1": 0}), file)
    assert file.read_text() == content


@given(
    chosen=st.sets(st.sampled_from(NAMES), min_size=1),
    spacing=st.floats(0.5, 10),
    lowest=st.floats(-2000, 2000),
    upward=st.booleans(),
    shift=st.floats(-0.49, 0.49),
)
def test_heights_become_the_nearest_slices(
    chosen: set[str], spacing: float, lowest: float, upward: bool, shift: float
) -> None:
    count = 60
    heights = lowest + spacing * np.arange(count)
    slices: dict[str | int, float] = {
        f"{k if upward else count - k}.dcm": float(z) for k, z in enumerate(heights)
    }
    names = [name for name in NAMES if name in chosen]
    wanted = {name: float(heights[50 - 4 * at]) for at, name in enumerate(names)}
    found = annotation_from_z(
        "prediction", {name: z + shift * spacing for name, z in wanted.items()}, slices
    )
    assert found.z_mm == wanted
    assert {name: slices[one] for name, one in found.slices.items()} == wanted


def test_heights_outside_the_scan_or_out_of_order_are_refused() -> None:
    slices: dict[str | int, float] = {"a.dcm": 0.0, "b.dcm": 5.0, "c.dcm": 10.0}
    assert annotation_from_z("p", {"C7": 12.4}, slices).slices == {"C7": "c.dcm"}
    with pytest.raises(InputError, match="outside the scan"):
        annotation_from_z("p", {"C7": 12.6}, slices)
    with pytest.raises(InputError, match=r"T1 .* lies above C7"):
        annotation_from_z("p", {"C7": 0, "T1": 9}, slices)
    with pytest.raises(InputError, match="same level"):
        annotation_from_z("p", {"C7": 9, "T1": 8}, slices)


def test_command_annotates_a_series_once(tmp_path: Path) -> None:
    folder = series(tmp_path / "series", [30, 20, 10, 0])
    heights = tmp_path / "prediction.json"
    heights.write_text(json.dumps({"landmarks": {"C7": {"z_mm": 21}, "T1": {"z_mm": 8.5}}}))
    outcome = CliRunner().invoke(app, ["annotate", str(folder), str(heights)])
    assert outcome.exit_code == 0, outcome.output
    assert "1.dcm" in outcome.output
    assert read_slice_names(folder / ANNOTATION) == {"C7": "1.dcm", "T1": "2.dcm"}
    with pytest.raises(InputError, match="is already annotated"):
        annotate_series(folder, heights)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["CT:{k}", "CT\\{k}"])
def test_slices_that_no_annotation_can_name_are_refused(tmp_path: Path, name: str) -> None:
    files.write_series(tmp_path / "series", places=[(-5, 4, z) for z in (30, 20, 10)], name=name)
    heights = tmp_path / "prediction.json"
    heights.write_text(json.dumps({"landmarks": {"C7": {"z_mm": 21}, "T1": {"z_mm": 8.5}}}))
    with pytest.raises(InputError, match=r"has a slice named “CT.1”, .*: run organize"):
        annotate_series(tmp_path / "series", heights)
    assert not (tmp_path / "series" / ANNOTATION).exists()


def test_heights_of_another_scan_are_refused(tmp_path: Path) -> None:
    folder = series(tmp_path / "series", [30, 20, 10, 0])
    own = asdict(read_slice_file(folder / "0.dcm").series)
    heights = tmp_path / "prediction.json"

    def outcome(**changes: str) -> str:
        scan = {"source": "ct", "series": own | changes}
        content = {"scan": scan, "landmarks": {"C7": {"z_mm": 21}, "T1": {"z_mm": 8.5}}}
        heights.write_text(json.dumps(content))
        (folder / ANNOTATION).unlink(missing_ok=True)
        try:
            annotate_series(folder, heights)
        except InputError as refused:
            assert not (folder / ANNOTATION).exists()
            return str(refused)
        return ""

    assert not outcome()
    assert not outcome(series_instance_uid="1.2.3")  # another reconstruction
    assert not outcome(series_instance_uid="1.2.3", frame_of_reference_uid="")
    for changes in (
        {"frame_of_reference_uid": "1.2.9"},
        {"frame_of_reference_uid": "", "study_instance_uid": "1.2.8"},
        {"frame_of_reference_uid": "", "study_instance_uid": "", "series_instance_uid": "1.2.3"},
    ):
        refused = outcome(**{"series_instance_uid": "1.2.3"} | changes)
        assert "predicted for series 1.2.3, whose z is not" in refused
        assert own["series_instance_uid"] in refused


@pytest.mark.parametrize("content", ["{}", '{"landmarks": []}', '{"landmarks": {"C7": 3}}'])
def test_a_file_without_heights_is_refused(tmp_path: Path, content: str) -> None:
    folder = series(tmp_path / "series", [30, 20])
    heights = tmp_path / "prediction.json"
    heights.write_text(content)
    with pytest.raises(InputError, match="has no landmark with z_mm"):
        annotate_series(folder, heights)
    assert not (folder / ANNOTATION).exists()


def test_real_series_with_files_named_at_random(shared_data: Path, tmp_path: Path) -> None:
    scan = shared_data / "LIDC-IDRI-0001"
    truth = json.loads((shared_data / "landmarks.json").read_text())[scan.name]
    copy = tmp_path / "series"
    copy.mkdir()
    for file in scan.iterdir():
        (copy / file.name).symlink_to(file)
    heights = tmp_path / "heights.json"
    heights.write_text(json.dumps({"landmarks": truth}))
    annotate_series(copy, heights)
    found = read_annotation(copy / ANNOTATION)
    assert set(found.slices) == set(truth)
    for name, about in truth.items():
        position = pydicom.dcmread(copy / str(found.slices[name]), stop_before_pixels=True)
        assert abs(float(position.ImagePositionPatient[2]) - about["z_mm"]) <= 1.25
