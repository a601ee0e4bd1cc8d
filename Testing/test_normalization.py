"""Normalized locations of a dataset: interpolated, extrapolated, and written without loss."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import dicom_files as files
from ct_checks import PATIENT_ORIENTATIONS
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTSliceToolsLib.cli import app
from CTSliceToolsLib.dataset.annotation import ANNOTATION, Annotation
from CTSliceToolsLib.dataset.normalization import (
    COMBINED_LOCATIONS,
    SERIES_LOCATIONS,
    normalize,
    normalize_series,
    normalized_locations,
)
from CTSliceToolsLib.landmarks import LANDMARKS

AXIAL = {name: values for name, values in PATIENT_ORIENTATIONS.items() if "first" in name}
HEIGHTS = [100, 90, 80, 60, 40, 20, 0]
ANNOTATED = {"C7": "1.dcm", "Aortic arch": "3.dcm", "Bifurcation of trachea": "4.dcm"}
EXPECTED = {
    "0.dcm": 0.15 - 10 * 0.05 / 30,
    "1.dcm": 0.15,
    "2.dcm": 0.15 + 10 * 0.05 / 30,
    "3.dcm": 0.2,
    "4.dcm": 0.225,
    "5.dcm": 0.25,
    "6.dcm": 0.275,
}
"""By hand: 90 mm is C7 (0.15), 60 mm the arch (0.2), 40 mm the bifurcation (0.225)."""


def series(
    folder: Path,
    annotation: object = ANNOTATED,
    orientation: tuple[float, ...] = files.AXIAL,
    uid: str = "chest",
) -> Path:
    places = [(-5.0, 4.0, float(z)) for z in HEIGHTS]
    files.write_series(folder, orientation, places, series=uid, name="{k}.dcm")
    (folder / ANNOTATION).write_text(json.dumps(annotation))
    return folder


def locations(file: Path) -> dict[str, float]:
    return dict(json.loads(file.read_text()))


def test_interpolated_and_extrapolated_by_hand(tmp_path: Path) -> None:
    folder = series(tmp_path / "P1" / "study" / "series")
    found = normalize(tmp_path)
    assert (found.series, found.refused, found.left_out) == (1, (), ())
    assert locations(folder / SERIES_LOCATIONS) == pytest.approx(EXPECTED, abs=1e-6)
    assert list(locations(folder / SERIES_LOCATIONS)) == [f"{k}.dcm" for k in range(7)]
    combined = locations(tmp_path / COMBINED_LOCATIONS)
    assert combined == found.locations
    assert combined == pytest.approx(
        {f"P1/study/series/{name}": value for name, value in EXPECTED.items()}, abs=1e-6
    )


@pytest.mark.parametrize("orientation", AXIAL.values(), ids=AXIAL)
def test_right_however_the_series_is_turned(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    found = normalize_series(series(tmp_path, orientation=orientation))
    assert found.locations == pytest.approx(EXPECTED, abs=1e-6)


@given(
    chosen=st.lists(st.sampled_from(LANDMARKS), min_size=2, unique=True),
    gaps=st.lists(st.floats(1, 200), min_size=12, max_size=12),
    top=st.floats(-2000, 2000),
    z_mm=st.lists(st.floats(-6000, 4000), min_size=1, max_size=20),
)
def test_piecewise_linear_with_the_slopes_of_the_ends(
    chosen: list, gaps: list[float], top: float, z_mm: list[float]
) -> None:
    names = [one.name for one in sorted(chosen, key=lambda one: one.location)]
    known = dict(zip(names, top - np.cumsum(gaps), strict=False))
    annotation = Annotation("scan", dict.fromkeys(names, "a"), known)
    found = normalized_locations(annotation, z_mm)
    points = [(known[one.name], one.location) for one in LANDMARKS if one.name in known]
    for z, location in zip(z_mm, found, strict=True):
        for (above, smaller), (below, larger) in pairwise(points):
            if z >= below or below == points[-1][0]:
                expected = smaller + (above - z) / (above - below) * (larger - smaller)
                break
        assert location == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"C7": "1.dcm"}, "has 1 landmark: annotate at least two"),
        ({}, "has no landmarks: annotate at least two"),
        ({"C7": "1.dcm", "T1": "1.dcm"}, "on the same level as"),
        ({"C7": "3.dcm", "T1": "1.dcm"}, "lies above"),
        ({"C7": "1.dcm", "T1": "gone.dcm"}, "gone.dcm, which is not in the scan"),
        ({"C7": "1.dcm", "T9": "3.dcm"}, "unknown landmark"),
        ({"C7": 1, "T1": 2}, "names for C7 the slice 1, which is not in the scan"),
    ],
)
def test_bad_series_is_named_and_the_others_go_on(
    tmp_path: Path, annotation: dict[str, str], words: str
) -> None:
    bad = series(tmp_path / "a", annotation, uid="bad")
    series(tmp_path / "b")
    found = normalize(tmp_path)
    assert (found.series, len(found.refused)) == (1, 1)
    assert words in found.refused[0]
    assert str(bad / ANNOTATION) in found.refused[0]
    assert {name.split("/")[0] for name in locations(tmp_path / COMBINED_LOCATIONS)} == {"b"}
    assert not (bad / SERIES_LOCATIONS).exists()
    with pytest.raises(InputError, match="a"):
        normalize(bad)


def test_an_annotation_half_saved_is_passed_over(tmp_path: Path) -> None:
    folder = series(tmp_path / "series")
    killed = folder / f".{ANNOTATION}.unfinished-x"
    killed.mkdir()
    (killed / ANNOTATION).write_text("{}")
    found = normalize(tmp_path)
    assert (found.series, found.refused) == (1, ())


def test_old_locations_are_named_where_no_series_can_be_used(tmp_path: Path) -> None:
    folder = series(tmp_path / "series")
    normalize(tmp_path)
    (folder / ANNOTATION).write_text("{}")
    with pytest.raises(InputError, match=rf"{COMBINED_LOCATIONS} is still that of an earlier run"):
        normalize(tmp_path)
    (tmp_path / COMBINED_LOCATIONS).unlink()
    with pytest.raises(InputError, match=r"annotate at least two\.$"):
        normalize(tmp_path)


def test_folder_without_annotation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="annotate at least one series"):
        normalize(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        normalize(tmp_path / "missing")


def test_what_is_no_slice_of_the_series_is_left_out(tmp_path: Path) -> None:
    series(tmp_path)
    files.write_series(tmp_path, places=[(0, 0, 55)], series="other", name="other.dcm")
    files.write_series(
        tmp_path,
        places=[(0, 0, 50)],
        name="scout.dcm",
        edit=lambda image, k: setattr(image, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    )
    files.write_series(
        tmp_path,
        places=[(0, 0, 50)],
        name="homeless.dcm",
        edit=lambda image, k: image.__delattr__("ImagePositionPatient"),
    )
    files.write_series(tmp_path, PATIENT_ORIENTATIONS["coronal"], [(0, 0, 50)], name="coronal.dcm")
    (tmp_path / "notes.txt").write_text("mine")
    found = normalize(tmp_path)
    assert set(found.locations) == set(EXPECTED)
    assert len(found.left_out) == 4
    for name in ("other", "scout", "homeless", "coronal"):
        assert sum(f"{name}.dcm" in sentence for sentence in found.left_out) == 1


def test_one_of_several_copies_of_a_slice_is_taken(tmp_path: Path) -> None:
    series(tmp_path)
    for name, copied in (("0copy.dcm", "1.dcm"), ("2copy.dcm", "2.dcm")):
        image = pydicom.dcmread(tmp_path / copied)
        image.file_meta.SourceApplicationEntityTitle = "ARCHIVE"
        files.save(image, tmp_path / name)
    found = normalize_series(tmp_path)
    assert found.locations == pytest.approx(EXPECTED, abs=1e-6)
    assert found.left_out == (
        f"{tmp_path / '0copy.dcm'} is a copy of 1.dcm.",
        f"{tmp_path / '2copy.dcm'} is a copy of 2.dcm.",
    )


def test_one_identifier_at_several_places_makes_no_copies(tmp_path: Path) -> None:
    series(tmp_path)
    for file in tmp_path.glob("*.dcm"):
        image = pydicom.dcmread(file)
        image.SOPInstanceUID = "1.2.3"
        files.save(image, file)
    assert normalize_series(tmp_path).locations == pytest.approx(EXPECTED, abs=1e-6)


def test_a_series_not_in_hu_is_refused_as_predict_refuses_it(tmp_path: Path) -> None:
    def unscaled(image: pydicom.Dataset, _: int) -> None:
        image.RescaleIntercept = 0

    bad = tmp_path / "bad"
    places = [(-5.0, 4.0, 100.0 - 10 * k) for k in range(7)]
    files.write_series(bad, places=places, name="{k}.dcm", edit=unscaled)
    with pytest.raises(InputError, match="not CT in HU") as refused:
        read_ct(bad)
    (bad / ANNOTATION).write_text(json.dumps(ANNOTATED))
    series(tmp_path / "good")
    found = normalize(tmp_path)
    assert (found.series, found.refused) == (1, (str(refused.value),))


def test_annotation_across_two_series_is_refused(tmp_path: Path) -> None:
    series(tmp_path, {"C7": "1.dcm", "T1": "other.dcm"})
    files.write_series(tmp_path, places=[(0, 0, 55)], series="other", name="other.dcm")
    with pytest.raises(InputError, match="several series"):
        normalize_series(tmp_path)


def test_run_again_after_a_correction(tmp_path: Path) -> None:
    folder = series(tmp_path / "a")
    normalize(tmp_path)
    (folder / ANNOTATION).write_text(json.dumps({**ANNOTATED, "C7": "0.dcm"}))
    normalize(tmp_path)
    assert locations(folder / SERIES_LOCATIONS)["0.dcm"] == 0.15
    assert locations(tmp_path / COMBINED_LOCATIONS)["a/0.dcm"] == 0.15


@pytest.mark.parametrize("content", ["my notes", '{"a": "b"}', "[]"])
def test_a_file_of_somebody_else_is_kept(tmp_path: Path, content: str) -> None:
    folder = series(tmp_path / "a")
    (tmp_path / COMBINED_LOCATIONS).write_text(content)
    with pytest.raises(InputError, match="nothing was overwritten"):
        normalize(tmp_path)
    assert (tmp_path / COMBINED_LOCATIONS).read_text() == content
    (tmp_path / COMBINED_LOCATIONS).unlink()
    (folder / SERIES_LOCATIONS).write_text(content)
    series(tmp_path / "b")
    assert str(folder / SERIES_LOCATIONS) in normalize(tmp_path).refused[0]
    assert (folder / SERIES_LOCATIONS).read_text() == content


def test_command_names_what_it_refuses(tmp_path: Path) -> None:
    series(tmp_path / "a")
    series(tmp_path / "b", {"C7": "1.dcm"})
    outcome = CliRunner().invoke(app, ["normalize", str(tmp_path), "--progress", "jsonl"])
    assert outcome.exit_code == 1, outcome.output
    events = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert any("has 1 landmark" in event.get("message", "") for event in events)
    assert events[-1]["result"]["slices"] == 7
    assert len(events[-1]["result"]["refused"]) == 1
