"""The small inputs in ../shared/inputs come out as their README says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.dicom_series import list_series

INPUTS = Path(__file__).parents[2] / "shared" / "inputs"

pytestmark = pytest.mark.skipif(not INPUTS.is_dir(), reason=f"there are no inputs at {INPUTS}")

WHOLE = (64, 64, 24)


def refusal(name: str) -> str:
    with pytest.raises(InputError) as error:
        read_ct(INPUTS / name)
    sentence = str(error.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def volume(folder: str) -> Path:
    [file] = [one for one in (INPUTS / folder).iterdir() if one.name != "README.md"]
    return file


def same_as_baseline(folder: str) -> list[str]:
    """Read a series that is the baseline but for its headers; gives its notes."""
    scan = read_ct(INPUTS / folder)
    baseline = read_ct(INPUTS / "baseline")
    assert scan.image.GetSize() == WHOLE
    np.testing.assert_array_equal(
        sitk.GetArrayViewFromImage(scan.image), sitk.GetArrayViewFromImage(baseline.image)
    )
    return [note for note in scan.notes if note not in baseline.notes]


@pytest.mark.parametrize(
    "folder",
    [
        "baseline",
        "rescale-type-hounsfield",
        "rescale-type-hounsfield-unit",
        "rescale-type-lower",
        "rescale-type-misspelt",
        "rescale-type-normalized",
        "rescale-type-unspecified",
        "modality-missing",
        "modality-small-letters",
        "appledouble-companions",
    ],
)
def test_headers_that_are_only_spelt_otherwise_do_no_harm(folder: str) -> None:
    assert same_as_baseline(folder) == []


@pytest.mark.parametrize(
    "folder",
    [
        "dose-sr-in-series-sorts-first",
        "rtstruct-in-series-sorts-last",
        "raw-data-object-in-series",
        "screen-save-in-series",
        "scout-without-orientation-in-series",
        "colour-dose-picture-in-series",
    ],
)
def test_a_stranger_in_a_series_is_left_out_with_a_note(folder: str) -> None:
    [note] = same_as_baseline(folder)
    assert "left out" in note
    [summary] = list_series(INPUTS / folder)
    assert (summary.columns, summary.rows, summary.slices) == WHOLE


def test_bits_at_the_upper_end_of_their_words_are_moved_down() -> None:
    scan, baseline = read_ct(INPUTS / "twelve-bits-left-aligned"), read_ct(INPUTS / "baseline")
    values, truth = (sitk.GetArrayViewFromImage(one.image) for one in (scan, baseline))
    inside = truth > -1000  # the padding of the baseline does not fit into 12 bits
    np.testing.assert_array_equal(values[inside], truth[inside])
    assert (values[~inside] <= -1000).all()


def test_repeated_identifiers_are_a_note() -> None:
    [note] = same_as_baseline("same-sop-uid-in-all")
    assert "SOP Instance UID" in note


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("slice-distance-changes", ["changes its slice distance from 2.5 to 5 mm"]),
        ("two-patients-one-series-uid", ["mixes two patients", "/A/", "/B/"]),
        ("damaged-slice-header-cut", ["lacks 1 slice", "000012.dcm is damaged"]),
        ("damaged-slice-empty-file", ["lacks 1 slice", "000012.dcm is damaged"]),
    ],
)
def test_a_series_that_is_not_whole_is_refused_for_its_true_reason(
    folder: str, words: list[str]
) -> None:
    sentence = refusal(folder)
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    "folder", ["nifti-good", "nifti-gz-called-plain", "meta-upper-case", "nrrd-one-time-point"]
)
def test_a_volume_file_is_read_whatever_its_name(folder: str) -> None:
    scan, good = read_ct(volume(folder)), read_ct(volume("nifti-good"))
    assert scan.image.GetSize() == (64, 64, 60)
    np.testing.assert_array_equal(
        sitk.GetArrayViewFromImage(scan.image), sitk.GetArrayViewFromImage(good.image)
    )
    np.testing.assert_allclose(scan.image.GetSpacing(), (5.6, 5.6, 2.5), rtol=1e-5)


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("nifti-sheared-by-gantry", "axes that are not perpendicular: resample it first"),
        ("nifti-metres-unit-unknown", "0.0056 × 0.0056 × 0.0025 mm"),
        ("nifti-microns-unit-unknown", "5600 × 5600 × 2500 mm"),
        ("nifti-slice-distance-zero", "5.6 × 5.6 × 0 mm"),
        ("nrrd-without-spacing", "does not say how large its voxels are"),
    ],
)
def test_a_volume_file_without_true_millimetres_is_refused(folder: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        read_ct(volume(folder))
    assert words in str(error.value)


def run_dicom(folder: str, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "LungNoduleSegLib", "run", str(INPUTS / folder), "--dicom"]
    return subprocess.run(
        [*command, "-o", str(output)], capture_output=True, text=True, check=False
    )


def test_results_cannot_refer_to_identifiers_that_repeat(tmp_path: Path) -> None:
    done = run_dicom("same-sop-uid-in-all", tmp_path / "out")
    assert done.returncode == 2 and "SOP Instance UID" in done.stderr
    assert "Lungs" not in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "empty"),
    [
        ("charset-japanese", None),
        ("charset-misspelt", None),
        ("charset-mixed", None),
        ("birth-date-slashes", "PatientBirthDate"),
        ("study-date-words", "StudyDate"),
        ("study-time-colons", "StudyTime"),
        ("patient-sex-word", "PatientSex"),
    ],
)
def test_headers_that_break_the_standard_do_not_cost_the_results(
    folder: str, empty: str | None, tmp_path: Path
) -> None:
    done = run_dicom(folder, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    source = pydicom.dcmread(next(iter((INPUTS / folder).iterdir())), stop_before_pixels=True)
    for name in ("segmentation.dcm", "measurements.dcm"):
        made = pydicom.dcmread(tmp_path / "out" / name)
        if empty:
            assert not made.get(empty)
        else:
            assert str(made.PatientName) == str(source.PatientName)
    if empty:
        assert any(
            empty in note.replace("'s", "").replace(" ", "") for note in record["input"]["notes"]
        )
