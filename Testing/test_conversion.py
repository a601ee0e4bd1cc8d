"""DICOM slices as `.npz` files: the picture that predict sees, resumable, whatever is broken."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import RLELossless
from typer.testing import CliRunner

import dicom_files as files
from ct_checks import PATIENT_ORIENTATIONS
from CTLungScreeningLib.errors import Cancelled, InputError
from CTLungScreeningLib.hu import SLICE_WINDOW
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTSliceToolsLib.cli import app
from CTSliceToolsLib.dataset.annotation import ANNOTATION, read_slice_file
from CTSliceToolsLib.dataset.conversion import (
    LabelledSlice,
    Part,
    convert,
    partition,
    partition_files,
    read_labelled_slice,
)
from CTSliceToolsLib.dataset.normalization import COMBINED_LOCATIONS, normalize
from CTSliceToolsLib.slice_image import slice_images

AXIAL = {name: values for name, values in PATIENT_ORIENTATIONS.items() if "first" in name}


INSIDE = (-30.0, -10.0, 20.0)
"""Where the test object's HU lie within the window."""


def dataset(root: Path, count: int = 3) -> Path:
    """Write a series of `count` slices with locations 0.2, 0.21 …, in P1/study."""
    names = files.write_series(
        root / "P1" / "study", places=files.positions(count=count), name="{k}.dcm"
    )
    write_locations(
        root, {path.relative_to(root).as_posix(): 0.2 + 0.01 * k for k, path in enumerate(names)}
    )
    return root


def write_locations(root: Path, locations: object) -> None:
    (root / COMBINED_LOCATIONS).write_text(json.dumps(locations))


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.npz")}


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_disk_that_gets_full_ends_the_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    root = dataset(tmp_path / "data")
    monkeypatch.setattr(np, "savez", Mock(side_effect=[full]))
    with pytest.raises(OSError, match="No space left on device") as raised:
        convert(root, tmp_path / "npz")
    assert "npz/P1/study" in str(raised.value.filename)


@pytest.mark.parametrize("orientation", AXIAL.values(), ids=AXIAL)
def test_picture_is_that_of_the_whole_scan(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    names = files.write_series(tmp_path, orientation, files.positions(orientation, INSIDE))
    pictures, z_mm = slice_images(read_ct(tmp_path).image)
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    for file in names:
        one = read_slice_file(file)
        np.testing.assert_array_equal(one.picture(), pictures[np.abs(z_mm - one.z_mm).argmin()])


def test_anterior_and_the_right_come_first_and_window_is_stated(tmp_path: Path) -> None:
    (file,) = files.write_series(tmp_path, AXIAL["feet first supine"], [INSIDE])
    image = read_slice_file(file)
    picture = image.picture()
    rows, columns = np.nonzero(picture)
    inside = picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(int)
    assert (np.diff(inside, axis=0) > 0).all()  # HU grow towards posterior
    assert (np.diff(inside, axis=1) > 0).all()  # and towards the left
    middle = files.hu_at([-30 - 0.75 * 5.5, -10 + 1.5 * 3.5, 20])
    expected = (middle - SLICE_WINDOW.low) / SLICE_WINDOW.width * 255
    assert picture[127:129, 127:129].mean() == pytest.approx(expected, abs=2)


def test_slice_turned_in_its_plane_is_turned_back(tmp_path: Path) -> None:
    turn = np.radians(20)
    orientation = (np.cos(turn), np.sin(turn), 0, -np.sin(turn), np.cos(turn), 0)
    names = files.write_series(tmp_path, orientation, files.positions(orientation, INSIDE))
    pictures, z_mm = slice_images(read_ct(tmp_path).image)
    one = read_slice_file(names[4])
    whole = pictures[np.abs(z_mm - one.z_mm).argmin()].astype(int)
    assert np.abs(one.picture().astype(int) - whole).max() <= 1


def test_npz_holds_the_three_keys_without_pickle(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    found = convert(root, tmp_path / "npz")
    assert (found.made, found.kept, found.failed) == (3, 0, ())
    names = sorted(path.relative_to(tmp_path / "npz") for path in (tmp_path / "npz").rglob("*"))
    assert [path.as_posix() for path in names] == [
        *("P1", "P1/study", "P1/study/0.npz", "P1/study/1.npz", "P1/study/2.npz")
    ]
    source = root / "P1" / "study" / "1.dcm"
    with np.load(tmp_path / "npz" / "P1" / "study" / "1.npz", allow_pickle=False) as content:
        assert set(content) == {"pixels", "norm_loc", "series_instance_UID"}
        assert content["pixels"].dtype == np.uint8
        np.testing.assert_array_equal(content["pixels"], read_slice_file(source).picture())
        assert content["norm_loc"] == pytest.approx(0.21)
        assert str(content["series_instance_UID"]) == pydicom.dcmread(source).SeriesInstanceUID


def test_three_channels_when_asked_for(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data", 1)
    convert(root, tmp_path / "npz", three_channels=True)
    pixels = read_labelled_slice(tmp_path / "npz" / "P1" / "study" / "0.npz").pixels
    assert pixels.shape == (256, 256, 3)
    picture = read_slice_file(root / "P1" / "study" / "0.dcm").picture()
    np.testing.assert_array_equal(pixels, np.stack([picture] * 3, axis=-1))
    with pytest.raises(InputError, match="another number of channels"):
        convert(root, tmp_path / "npz")


def test_broken_files_are_named_and_stop_no_other(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data", 6)
    study = root / "P1" / "study"
    (study / "0.dcm").unlink()
    (study / "1.dcm").write_bytes(b"nonsense")
    (study / "2.dcm").write_bytes((study / "2.dcm").read_bytes()[:-40])
    image = pydicom.dcmread(study / "3.dcm")
    image.compress(RLELossless, generate_instance_uid=False)
    files.save(image, study / "3.dcm")
    image = pydicom.dcmread(study / "4.dcm")
    del image.PixelData
    files.save(image, study / "4.dcm")
    found = convert(root, tmp_path / "npz")
    assert (found.made, found.kept) == (2, 0)
    assert sorted(path.name for path in (tmp_path / "npz").rglob("*.npz")) == ["3.npz", "5.npz"]
    for name in ("0", "1", "2", "4"):
        assert sum(f"{study / name}.dcm" in sentence for sentence in found.failed) == 1


@pytest.mark.parametrize("mm", [703.125, 0.000703])
def test_a_slice_of_a_spacing_that_no_ct_has_is_named_and_stops_no_other(
    mm: float, tmp_path: Path
) -> None:
    root = dataset(tmp_path / "data")
    wrong = root / "P1" / "study" / "1.dcm"
    image = pydicom.dcmread(wrong)
    image.PixelSpacing = [mm, mm]
    files.save(image, wrong)
    found = convert(root, tmp_path / "npz")
    assert found.made == 2
    assert [sentence.partition(" has voxels of ")[0] for sentence in found.failed] == [str(wrong)]


def test_nothing_convertible_is_refused(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data", 1)
    (root / "P1" / "study" / "0.dcm").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="is not a DICOM file"):
        convert(root, tmp_path / "npz")


def test_goes_on_where_it_was_cut_short(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data", 5)

    def cancel(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        convert(root, tmp_path / "npz", progress=cancel)
    before = times(tmp_path / "npz")
    assert 2 <= len(before) < 5
    found = convert(root, tmp_path / "npz")
    assert (found.made, found.kept) == (5 - len(before), len(before))
    assert before.items() <= times(tmp_path / "npz").items()


def test_nothing_is_written_beside_the_output(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    (tmp_path / "npz").mkdir()
    beside: set[str] = set()
    convert(root, tmp_path / "npz", progress=lambda *_: beside.update(names(tmp_path)))
    assert beside == {"data", "npz"}
    assert names(tmp_path / "npz") == {"P1"}


def test_companion_files_of_macos_and_leftovers_are_passed_over(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    made = tmp_path / "npz" / "P1" / "study"
    convert(root, tmp_path / "npz")
    (made / "._0.npz").write_bytes(b"Mac OS X")
    killed = made / ".0.npz.unfinished-x"
    killed.mkdir()
    shutil.copy(made / "0.npz", killed)
    assert convert(root, tmp_path / "npz").kept == 3
    partition(tmp_path / "npz", tmp_path / "parts")
    (part,) = (file.parent for file in (tmp_path / "parts").rglob("*_0.npz"))
    (part / "._0.npz").write_bytes(b"Mac OS X")
    assert partition(tmp_path / "npz", tmp_path / "parts").kept == 3
    assert len(partition_files(tmp_path / "parts", Part(part.name))) == 3


@pytest.mark.parametrize(
    ("converted", "changes", "words"),
    [
        (4, {1: None, 3: None}, "that .*data does not have"),
        (3, {1: 0.5, 2: 0.6}, "that have another location in .*data now"),
    ],
)
def test_slices_withdrawn_or_annotated_anew_are_refused_before_any_is_converted(
    tmp_path: Path, converted: int, changes: dict[int, float | None], words: str
) -> None:
    root = dataset(tmp_path / "data", 4)
    locations = json.loads((root / COMBINED_LOCATIONS).read_text())
    write_locations(root, dict(list(locations.items())[:converted]))
    convert(root, tmp_path / "npz")
    locations |= {f"P1/study/{k}.dcm": at for k, at in changes.items()}
    write_locations(root, {name: at for name, at in locations.items() if at is not None})
    before = times(tmp_path / "npz")
    with pytest.raises(InputError, match=rf"2 files of slices {words}, such as P1/study/1\.npz"):
        convert(root, tmp_path / "npz")
    assert times(tmp_path / "npz") == before


def test_an_annotation_changed_after_normalize_is_named(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    file = root / "P1" / "study" / ANNOTATION
    file.write_text(json.dumps({"T1": "0.dcm", "C7": "2.dcm"}))
    normalize(root)
    assert convert(root, tmp_path / "npz").notes == ()
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)  # which keeps times of modification
    assert convert(copy, tmp_path / "copied").notes == ()
    file.write_text(json.dumps({"Aortic arch": "0.dcm", "C7": "2.dcm"}))
    (note,) = convert(root, tmp_path / "npz").notes
    assert str(root) in note and "run normalize again" in note
    call = ["convert", str(root), "-o", str(tmp_path / "npz"), "--progress", "none"]
    assert f"Note: {note}" in CliRunner().invoke(app, call).stdout.splitlines()
    normalize(root)
    assert convert(root, tmp_path / "new").notes == ()


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data", 4)
    convert(root, tmp_path / "npz")
    made = tmp_path / "npz" / "P1" / "study"
    (made / "0.npz").write_bytes(b"mine")
    (made / "1.npz").write_bytes((made / "1.npz").read_bytes()[:-3000])
    picture = np.zeros((256, 256, 3), np.uint8)
    (made / "2.npz").unlink()
    LabelledSlice(picture, 0.22, "1.2").write(made / "2.npz")
    before = {path: path.read_bytes() for path in made.iterdir()}
    found = convert(root, tmp_path / "npz")
    assert (found.made, found.kept, len(found.failed)) == (0, 1, 3)
    assert "choose another output folder" in found.failed[2]
    assert {path: path.read_bytes() for path in made.iterdir()} == before


@pytest.mark.parametrize(
    ("locations", "words"),
    [
        ({"../0.dcm": 0.1}, "not a path below"),
        ({"/etc/0.dcm": 0.1}, "not a path below"),
        ({"a\\..\\..\\0.dcm": 0.1}, "not a path below"),
        ({"C:\\0.dcm": 0.1}, "not a path below"),
        ({"\\0.dcm": 0.1}, "not a path below"),
        ({"": 0.1}, "not a path below"),
        ({"0.dcm": 10**400}, "no number for 0"),
        ({"0.dcm": "0.1"}, "has no number"),
        ({"0.dcm": float("nan")}, "has no number"),
        ({}, "names no slices"),
    ],
)
def test_bad_locations_are_refused(tmp_path: Path, locations: object, words: str) -> None:
    write_locations(tmp_path, locations)
    with pytest.raises(InputError, match=words):
        convert(tmp_path, tmp_path / "npz")
    assert not (tmp_path / "npz").exists()


def test_dataset_without_locations_names_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run normalize"):
        convert(tmp_path, tmp_path / "npz")


def test_files_named_without_suffix_stay_apart(tmp_path: Path) -> None:
    files.write_series(tmp_path / "data", places=[(0, 0, 0), (0, 0, 9)], name="1.2.{k}")
    write_locations(tmp_path / "data", {"1.2.0": 0.1, "1.2.1": 0.2})
    convert(tmp_path / "data", tmp_path / "npz")
    names = {path.name for path in (tmp_path / "npz").iterdir()}
    assert names == {"1.2.0.npz", "1.2.1.npz"}


def test_names_that_differ_in_the_suffix_alone_stay_apart(tmp_path: Path) -> None:
    names = ["7", "7.dcm", "7.dcm.dcm", "8.dcm", "8.DCM", "9.dcm"]
    places = [(0.0, 0.0, 9.0 * k) for k in range(len(names))]
    written = files.write_series(tmp_path / "data", places=places, name="{k}")
    for file, name in zip(reversed(written), reversed(names), strict=True):
        file.rename(file.with_name(name))
    write_locations(tmp_path / "data", {name: k / 10 for k, name in enumerate(names)})
    for made, kept in ((len(names), 0), (0, len(names))):
        found = convert(tmp_path / "data", tmp_path / "npz")
        assert (found.made, found.kept, found.failed) == (made, kept, ())
    there = {
        file.name: read_labelled_slice(file).location for file in (tmp_path / "npz").glob("*.npz")
    }
    full = {f"{name}.npz": k / 10 for k, name in enumerate(names[:-1])}
    assert there == full | {"9.npz": 0.5}


SCRIPT = """
import os, sys
from pathlib import Path
from CTSliceToolsLib.dataset import conversion
os.cpu_count = lambda: 2
conversion._WORTH_A_PROCESS = 4
print("this script runs")
print(conversion.convert(Path(sys.argv[1]), Path(sys.argv[2])).made)
"""


def test_a_plain_script_uses_several_processes_and_gets_the_same_files(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data", 12)
    (root / "P1" / "study" / "7.dcm").write_bytes(b"nonsense")
    convert(root, tmp_path / "one")
    (tmp_path / "script.py").write_text(SCRIPT)
    script = [sys.executable, *map(str, (tmp_path / "script.py", root, tmp_path / "two"))]
    printed = subprocess.run(script, capture_output=True, check=True, text=True).stdout
    assert printed.splitlines() == ["this script runs", "11"]
    for file in (tmp_path / "one").rglob("*.npz"):
        one, two = (
            read_labelled_slice(path)
            for path in (file, tmp_path / "two" / file.relative_to(tmp_path / "one"))
        )
        np.testing.assert_array_equal(one.pixels, two.pixels)
        assert (one.location, one.series_instance_uid) == (two.location, two.series_instance_uid)


def test_command_prints_what_it_made(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    (root / "P1" / "study" / "2.dcm").write_bytes(b"nonsense")
    outcome = CliRunner().invoke(
        app, ["convert", str(root), "-o", str(tmp_path / "npz"), "--progress", "jsonl"]
    )
    assert outcome.exit_code == 1, outcome.output
    events = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert any("2.dcm is not a DICOM file" in event.get("message", "") for event in events)
    assert (events[-1]["result"]["made"], events[-1]["result"]["kept"]) == (2, 0)


def test_real_slices_are_those_that_predict_sees(shared_data: Path) -> None:
    scan = read_ct(shared_data / "LIDC-IDRI-0001")
    some = scan.image[:, :, 60:63]
    pictures, z_mm = slice_images(some)
    for k in range(3):
        one = read_slice_file(scan.slices[60 + k].file)
        assert one.z_mm == pytest.approx(z_mm[k], abs=1e-3)
        np.testing.assert_array_equal(one.picture(), pictures[k])
    assert sitk.GetArrayViewFromImage(some).shape[0] == 3
