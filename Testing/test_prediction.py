"""Locations of a scan's slices and its landmarks: where they are, whatever form the scan has."""

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage
from typer.testing import CliRunner

from coded_scans import (
    HEIGHT,
    HIGHEST_LOCATION,
    coded_volume,
    location_at,
    upright,
    write_coded_series,
)
from CTLungScreeningLib.errors import Cancelled, InputError
from CTLungScreeningLib.model_card import ModelCard, file_sha256, load_model, save_model
from CTLungScreeningLib.reading.ct_reading import IndexedScan, index_scans, read_ct
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTSliceToolsLib.cli import app
from CTSliceToolsLib.dataset.annotation import read_heights, read_slice_files
from CTSliceToolsLib.landmarks import LANDMARKS
from CTSliceToolsLib.localizer import prediction
from CTSliceToolsLib.localizer.prediction import (
    DEFAULT_MODEL,
    ScanPrediction,
    predict_location,
    predict_locations,
    predict_scan,
)
from CTSliceToolsLib.localizer.results import (
    predict_all,
    read_alignment,
    read_prediction,
    result_name,
    write_prediction,
)
from dicom_files import AXIAL, positions, write_enhanced, write_series

IN_VIEW = [name for name, z in HEIGHT.items() if -340 <= z <= -10]


def command(*arguments: str | Path, status: int = 0) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments), "--progress", "none"])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.output


def scan_of(image: sitk.Image) -> CTScan:
    return CTScan(image, Path("scan.nrrd"))


def turned(code: str, angle: float, axis: tuple[float, float, float]) -> sitk.Image:
    """A grid around the middle of the chest, turned about its centre."""
    grid = sitk.Image([70, 60, 90], sitk.sitkInt16)
    grid.SetSpacing((5.0, 6.0, 4.0))
    rotation = sitk.VersorTransform(axis, angle)
    grid.SetDirection(rotation.GetMatrix())
    middle = (np.array(grid.GetSize()) - 1) / 2
    at = grid.TransformContinuousIndexToPhysicalPoint(middle.tolist())
    grid.SetOrigin((np.array([0, 0, -180]) - at).tolist())
    return sitk.DICOMOrient(grid, code)


@settings(max_examples=12)
@given(
    code=st.sampled_from(["LPS", "RAS", "RPI", "SAL", "PIR", "AIL"]),
    angle=st.floats(-0.4, 0.4),
    axis=st.sampled_from([(0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.36, 0.48, 0.8)]),
)
def test_landmarks_lie_where_they_are_in_flipped_oblique_and_anisotropic_volumes(
    reader: Path, code: str, angle: float, axis: tuple[float, float, float]
) -> None:
    grid = turned(code, angle, axis)
    found = predict_scan(scan_of(coded_volume(grid)), reader)
    for name in IN_VIEW[1:-1]:
        assert abs(found.landmarks[name].z_mm - HEIGHT[name]) < 5, name
    assert found.fit.residual_mm < 5
    assert all(warning.startswith("Uncertain by up to") for warning in found.fit.warnings)
    z_mm = np.array([one.z_mm for one in found.slices])
    assert [one.index for one in found.slices] == list(range(len(z_mm)))
    assert (np.diff(z_mm) > 0).all()
    middle = np.abs(z_mm + 180) < 120
    for value in ("location", "raw"):
        values = np.array([getattr(one, value) for one in found.slices])
        assert np.abs(values - location_at(z_mm))[middle].max() < 0.006


def test_slices_are_those_that_were_stored(reader: Path) -> None:
    grid = turned("LPS", 0.3, (1.0, 0, 0))
    found = predict_scan(scan_of(coded_volume(grid)), reader)
    assert len(found.slices) == 90
    for one in found.slices:
        centre = grid.TransformContinuousIndexToPhysicalPoint((34.5, 29.5, float(one.index)))
        assert one.z_mm == pytest.approx(centre[2], abs=1e-6)
    flipped = predict_scan(scan_of(coded_volume(sitk.DICOMOrient(grid, "LPI"))), reader)
    assert [one.z_mm for one in flipped.slices] == pytest.approx([o.z_mm for o in found.slices])


def test_each_slice_names_the_dicom_instance_that_lies_there(reader: Path, tmp_path: Path) -> None:
    files = write_coded_series(tmp_path, step=-3, low=-10, high=-340)
    found = predict_scan(read_ct(tmp_path), reader)
    assert len(found.slices) == len(files)
    for one in found.slices:
        assert one.source is not None
        header = pydicom.dcmread(one.source.file)
        assert header.ImagePositionPatient[2] == pytest.approx(one.z_mm)
        assert header.SOPInstanceUID == one.source.sop_instance_uid
        assert one.raw == pytest.approx(float(location_at(one.z_mm)), abs=0.002)
    arch = found.landmarks["Aortic arch"]
    assert arch.z_mm == pytest.approx(HEIGHT["Aortic arch"], abs=3)
    assert abs(arch.slice.z_mm - arch.z_mm) <= 1.5
    assert arch.slice.nearest == "Aortic arch"


@pytest.mark.parametrize("degrees", [-20, 20])
def test_slices_of_a_tilted_gantry_lie_where_annotate_says(
    reader: Path, tmp_path: Path, degrees: int
) -> None:
    tilt = np.radians(degrees)
    orientation = (1, 0, 0, 0, np.cos(tilt), np.sin(tilt))
    places = np.array([0, 0, -50.0]) + np.arange(60)[:, None] * [0, 0, 3.0]
    write_series(tmp_path, orientation, places, name="{k:03}.dcm")
    found = predict_scan(read_ct(tmp_path), reader)
    slices, _ = read_slice_files(tmp_path)
    for one in found.slices:
        assert one.source is not None
        assert one.z_mm == pytest.approx(slices[one.source.file.name].z_mm, abs=1e-3)


def test_landmarks_outside_the_field_of_view_are_not_listed(reader: Path) -> None:
    found = predict_scan(scan_of(coded_volume(upright(-260, -60))), reader)
    assert list(found.landmarks) == [name for name, z in HEIGHT.items() if -261 <= z <= -59]
    assert found.slice_at(-1000).index == 0
    words = {one.description for one in found.slices}
    assert "between Aortic arch and Bifurcation of trachea" in words


def test_a_scan_upside_down_or_without_anatomy_is_doubted(reader: Path) -> None:
    volume = coded_volume(upright())
    upside_down = sitk.Flip(volume, (False, False, True))
    upside_down.CopyInformation(volume)
    warnings = predict_scan(scan_of(upside_down), reader).fit.warnings
    assert any("head first or feet first" in warning for warning in warnings)
    noise = np.random.default_rng(0).uniform(-1000, 600, (133, 1, 1)) * np.ones((133, 10, 12))
    image = sitk.GetImageFromArray(noise.astype(np.int16))
    image.CopyInformation(upright())
    assert "not to be trusted" in predict_scan(scan_of(image), reader).fit.warnings[0]


def test_a_batch_gives_what_each_slice_gives_by_itself(reader: Path) -> None:
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (2 * prediction.BATCH + 3, 256, 256), np.uint8)
    calls: list[int] = []
    together = predict_locations(pictures, reader, lambda stage, done, total: calls.append(done))
    assert calls == [0, prediction.BATCH, 2 * prediction.BATCH, 2 * prediction.BATCH + 3]
    alone = [predict_location(one, reader) for one in pictures]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    middle = pictures[:, 126:130, 126:130].mean(axis=(1, 2))
    np.testing.assert_allclose(alone, middle * HIGHEST_LOCATION / 255, rtol=1e-5)
    assert predict_locations(pictures[:0], reader).shape == (0,)


def test_predict_location_takes_channels_and_a_loaded_network(reader: Path) -> None:
    network, used = prediction.open_model(reader)
    assert used.name == "reader"
    assert used.sha256 == file_sha256(reader.with_suffix(".onnx"))
    picture = np.full((256, 256), 85, np.uint8)
    expected = pytest.approx(HIGHEST_LOCATION / 3)
    assert predict_location(picture, network) == expected
    assert predict_location(picture[..., None], network) == expected
    assert predict_location(np.stack([picture] * 3, axis=-1), network) == expected
    with pytest.raises(InputError, match=r"shape \(512, 512\) are not a slice image"):
        predict_location(np.zeros((512, 512)), network)


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    from CTLungScreeningLib.keras_loader import keras

    inputs = keras.Input((256, 256, 1))
    other = keras.Model(inputs, keras.layers.Conv2D(1, 1)(inputs))
    file = tmp_path / "unet.keras"
    save_model(other, ModelCard("unet", "", "", {}), file)
    with pytest.raises(InputError, match="not a localizer"):
        prediction.open_model(file)
    with pytest.raises(InputError, match=r"nowhere\.keras is missing"):
        prediction.open_model(tmp_path / "nowhere.keras")


@pytest.fixture
def found(reader: Path, tmp_path: Path) -> ScanPrediction:
    write_coded_series(tmp_path / "dicom", name="sub-{k}.dcm")
    return predict_scan(read_ct(tmp_path / "dicom"), reader)


def test_files_say_the_same_and_are_read_back(found: ScanPrediction, tmp_path: Path) -> None:
    output = tmp_path / "out" / "scan.json"
    write_prediction(output, found)
    back = read_prediction(output)
    assert (back.slices, back.model, back.series) == (found.slices, found.model, found.series)
    np.testing.assert_array_equal(back.fit.landmark_z_mm, found.fit.landmark_z_mm)
    assert back.landmarks == found.landmarks

    record = json.loads(output.read_text(encoding="utf-8"))
    for name, place in found.landmarks.items():
        assert record["landmarks"][name]["z_mm"] == place.z_mm
        assert (tmp_path / "dicom" / record["landmarks"][name]["file"]).is_file()
    assert list(record["fit"]) == [landmark.name for landmark in LANDMARKS]
    assert record["model"]["sha256"] == found.model.sha256
    assert record["software"]["numpy"] == np.__version__

    with output.with_suffix(".csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(found.slices)
    assert float(rows[7]["z_mm"]) == found.slices[7].z_mm
    assert rows[7]["description"] == found.slices[7].description
    named = [name for row in rows for name in row["landmark"].split(", ") if name]
    assert sorted(named) == sorted(found.landmarks)
    with Image.open(output.with_suffix(".png")) as plot:
        assert plot.size[0] > 500
        assert len(np.unique(np.asarray(plot.convert("L")))) > 10


def test_one_plot_that_fails_does_not_stop_the_others(
    reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.nrrd", "b.nrrd"):
        sitk.WriteImage(coded_volume(upright()), tmp_path / name)

    def draw(path: Path, prediction: ScanPrediction) -> None:
        if prediction.source.name == "a.nrrd":
            raise ValueError("no such glyph")
        path.write_bytes(b"drawn")

    monkeypatch.setattr("CTSliceToolsLib.localizer.plots.plot_prediction", draw)
    failed, made = predict_all(tmp_path, tmp_path / "out", reader)
    assert str(failed.problem).startswith("Internal error: ValueError: no such glyph")
    assert made.new and not (tmp_path / "out" / "a.nrrd.json").exists()


@pytest.mark.parametrize("there", ["scan.json", "scan.csv", "scan.png"])
def test_nothing_is_overwritten_and_nothing_half_written(
    found: ScanPrediction, tmp_path: Path, there: str
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / there).write_text("mine")
    with pytest.raises(InputError, match="already holds"):
        write_prediction(folder / "scan.json", found)
    assert [file.name for file in folder.iterdir()] == [there]
    assert (folder / there).read_text() == "mine"
    with pytest.raises(InputError, match=r"does not end in \.json"):
        write_prediction(folder / "scan.txt", found)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: [],
        lambda record: record | {"format": "another"},
        lambda record: record | {"slices": record["slices"][::-1]},
        lambda record: record | {"slices": [{"z_mm": "high"}]},
        lambda record: {key: value for key, value in record.items() if key != "fit"},
        lambda record: record | {"fit": dict.fromkeys(record["fit"], 0.0)},
        lambda record: record | {"residual_mm": 10**400},
    ],
)
def test_other_json_is_no_prediction(found: ScanPrediction, tmp_path: Path, spoil: Any) -> None:
    write_prediction(tmp_path / "scan.json", found, plot=False)
    record = json.loads((tmp_path / "scan.json").read_text(encoding="utf-8"))
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(spoil(record)), encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.json"):
        read_prediction(bad)
    with pytest.raises(InputError, match=r"none\.json"):
        read_prediction(tmp_path / "none.json")


def test_numbers_too_large_are_no_places(tmp_path: Path) -> None:
    levels, heights = tmp_path / "levels.json", tmp_path / "heights.json"
    levels.write_text(json.dumps({"levels": [{"z_mm": 10**400, "like_z_mm": 1}]}))
    with pytest.raises(InputError, match=r"levels\.json is not an alignment"):
        read_alignment(levels)
    heights.write_text(json.dumps({"landmarks": {"C7": {"z_mm": 10**400}}}))
    with pytest.raises(InputError, match=r"heights\.json has no landmark"):
        read_heights(heights)


def dataset(folder: Path) -> Path:
    """Three series, two of them in one folder, a volume file, and what is none."""
    write_coded_series(folder / "a", series="one", name="{k}.dcm")
    write_coded_series(folder / "a", series="two", name="two{k}.dcm", low=-200)
    hostile = "../../escaped"

    def rename(image: pydicom.Dataset, k: int) -> None:
        image["SeriesInstanceUID"].value = hostile

    write_coded_series(folder / "b" / "c", series="three", name="{k}", edit=rename)
    sitk.WriteImage(coded_volume(upright()), folder / "b" / "volume.nrrd")
    (folder / "b" / "broken.nii.gz").write_bytes(b"no volume")
    (folder / "notes.txt").write_text("no scan")
    (folder / "a" / "damaged.dcm").write_bytes(b"\0" * 128 + b"DICM and then nothing")
    return folder


def test_all_scans_below_a_folder_are_found_and_read(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data")
    scans = index_scans(folder)
    assert len(scans) == 5
    by_uid = {scan.uid: scan for scan in scans}
    assert len(by_uid["../../escaped"].files) == 111
    (both,) = {len(scan.files) for scan in scans if len(scan.files) == 64}
    assert both == 64
    for scan in scans:
        if scan.uid:
            read = scan.read()
            assert read.series is not None
            assert read.series.series_instance_uid == scan.uid
            assert read.image.GetDepth() == len(scan.files)
    with pytest.raises(InputError, match="holds no CT"):
        (tmp_path / "empty").mkdir()
        index_scans(tmp_path / "empty")
    with pytest.raises(InputError, match="is not a folder"):
        index_scans(folder / "notes.txt")


def scout(folder: Path) -> Path:
    """Write a scout as a series of its own."""

    def edit(image: pydicom.Dataset, _: int) -> None:
        image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    (file,) = write_series(folder, places=positions(count=1), series="scout", edit=edit)
    return file


def dose_picture(folder: Path) -> None:
    """Write a dose report as scanners add it to a study: a picture of modality CT."""

    def edit(image: pydicom.Dataset, _: int) -> None:
        image.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
        image.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
        del image.ImagePositionPatient, image.ImageOrientationPatient, image.PixelSpacing

    write_series(folder, places=positions(count=1), series="Dose Report", edit=edit)


def test_series_of_scouts_and_pictures_are_no_scans(tmp_path: Path) -> None:
    file = scout(tmp_path / "scouts")
    (tmp_path / "scouts" / "cut.dcm").write_bytes(file.read_bytes()[:150])
    only = r"among its 2 files, only localizers \(scouts\) or pictures"
    with pytest.raises(InputError, match=only):
        index_scans(tmp_path)
    dose_picture(tmp_path / "dose")
    places = positions(count=9)
    write_series(tmp_path / "chest", places=places, series="chest")
    with_one = write_series(tmp_path / "with one", places=places, series="with one")
    image = pydicom.dcmread(with_one[0])
    image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    image.save_as(with_one[0])
    notes: list[str] = []
    assert [len(scan.files) for scan in index_scans(tmp_path, notes=notes)] == [9, 9]
    assert notes == ["Series of localizers (scouts) or pictures left out: 2."]


def test_a_secondary_capture_whose_frames_have_places_is_a_scan(tmp_path: Path) -> None:
    def captured(image: pydicom.Dataset) -> None:
        image.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID

    write_enhanced(tmp_path / "scan.dcm", AXIAL, positions(), captured)
    (scan,) = index_scans(tmp_path)
    assert scan.read().image.GetSize() == read_ct(tmp_path).image.GetSize()


def test_what_cannot_be_opened_is_left_out_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path / "chest")
    closed = [tmp_path / "closed", tmp_path / "notes.txt"]
    write_series(closed[0], series="closed")
    closed[1].write_text("no scan")
    searched, opened = os.scandir, Path.open

    def checked(path: Any) -> Any:
        if str(path) in map(str, closed):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return path

    monkeypatch.setattr(os, "scandir", lambda path: searched(checked(path)))
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: opened(checked(path), *a, **k))
    notes: list[str] = []
    assert [scan.files[0] for scan in index_scans(tmp_path, notes=notes)] == ["chest/000"]
    advice = "cannot be opened (Permission denied): make it readable or move it away."
    assert notes == [f"Left out: 2; for example, {closed[0]} {advice}"]
    shutil.rmtree(tmp_path / "chest")
    with pytest.raises(InputError, match="closed cannot be opened"):
        index_scans(tmp_path)


def test_predicting_all_goes_on_where_it_ended_and_names_what_failed(
    reader: Path, tmp_path: Path
) -> None:
    folder, output = dataset(tmp_path / "data"), tmp_path / "data" / "out"
    names = sorted(str(file) for file in tmp_path.rglob("*"))

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "Scans" and done == 2:
            assert [file.name for file in folder.glob(".*")] == []
            raise Cancelled

    with pytest.raises(Cancelled):
        predict_all(folder, output, reader, plot=False, progress=stop)
    first = {file: file.stat().st_mtime_ns for file in output.rglob("*.json")}
    assert len(first) == 2

    outcomes = predict_all(folder, output, reader, plot=False)
    assert {file: file.stat().st_mtime_ns for file in first} == first
    assert sorted(one.new for one in outcomes) == [False, False, False, True, True]
    (failed,) = [one for one in outcomes if one.problem]
    assert "broken.nii.gz" in str(failed.problem)
    made = sorted(str(file) for file in tmp_path.rglob("*") if file.is_file())
    assert all(str(output) in file for file in made if file not in names)
    for one in outcomes:
        if not one.problem:
            assert read_prediction(one.output).landmarks["Aortic arch"].z_mm == pytest.approx(
                HEIGHT["Aortic arch"], abs=8
            )
    assert (output / "b" / "volume.nrrd.json").is_file()


def test_results_of_another_model_or_scan_are_not_taken_for_these(
    reader: Path, tmp_path: Path
) -> None:
    from CTLungScreeningLib.keras_loader import keras

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        sitk.WriteImage(coded_volume(upright()), tmp_path / name / "volume.nrrd")
    write_coded_series(tmp_path / "one", series="s", name="{k}.dcm")
    output, other = tmp_path / "out", tmp_path / "other.keras"
    network, card = load_model(reader)
    halved = keras.layers.Rescaling(0.5)(network.outputs[0])
    save_model(keras.Model(network.inputs[0], halved), card, other)
    predict_all(tmp_path / "one", output, reader, plot=False)
    with pytest.raises(InputError, match=r"\.json was made with another model, .* choose another"):
        predict_all(tmp_path / "one", output, other, plot=False)
    with pytest.raises(InputError, match=r"volume\.nrrd\.json was made of .*one.volume\.nrrd"):
        predict_all(tmp_path / "two", output, reader, plot=False)
    for spelt in (tmp_path / "one", tmp_path / "two" / ".." / "one"):
        outcomes = predict_all(spelt, output, reader, plot=False)
        assert [(one.new, one.problem) for one in outcomes] == [(False, None)] * 2


def test_a_scan_that_changed_since_it_was_predicted_is_named(reader: Path, tmp_path: Path) -> None:
    folder, output, late = tmp_path / "scans", tmp_path / "out", tmp_path / "late"
    files = write_coded_series(folder, name="{k}.dcm")
    volume = folder / "volume.nrrd"
    sitk.WriteImage(coded_volume(upright()), volume)
    late.mkdir()
    for file in files[80:]:
        file.rename(late / file.name)
    predict_all(folder, output, reader, plot=False)
    for file in late.iterdir():
        file.rename(folder / file.name)
    series, other = predict_all(folder, output, reader, plot=False)
    assert not other.problem and not other.new
    assert "0.dcm is of a scan that changed after" in str(series.problem)
    sitk.WriteImage(coded_volume(upright()) + 1, volume)
    for file in output.glob(f"{series.output.stem}.*"):
        file.unlink()
    series, other = predict_all(folder, output, reader, plot=False)
    assert series.new and "volume.nrrd is of a scan that changed after" in str(other.problem)


def test_a_volume_that_kept_its_content_is_the_same_scan(reader: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "scans", tmp_path / "out"
    folder.mkdir()
    volume, result = folder / "volume.mhd", output / "volume.mhd.json"
    sitk.WriteImage(coded_volume(upright()), volume)
    predict_all(folder, output, reader, plot=False)

    def problem() -> str | None:
        later = result.stat().st_mtime + 5
        os.utime(volume.with_suffix(".raw"), (later, later))
        (outcome,) = predict_all(folder, output, reader, plot=False)
        assert not outcome.new
        return outcome.problem

    assert problem() is None
    record = json.loads(result.read_text())
    record["scan"]["sha256"] = "0"
    result.write_text(json.dumps(record))
    with pytest.raises(InputError, match="is of a scan that changed after"):
        problem()
    del record["scan"]["sha256"]  # as in results of earlier versions
    result.write_text(json.dumps(record))
    assert problem() is None


@pytest.mark.parametrize("uid", ["../x", "", " ", "1.2/3", "1.2\n", "con", "1..2"])
def test_no_identifier_becomes_a_path(uid: str) -> None:
    name = result_name(IndexedScan(Path(), uid or "?", ("a",)))
    assert Path(name).name == name
    assert name.startswith("series-")
    assert result_name(IndexedScan(Path(), "1.2.840.3", ("a",))) == "1.2.840.3.json"


def test_the_command_predicts_one_and_all(reader: Path, tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data")
    output = tmp_path / "one.json"
    volume = folder / "b" / "volume.nrrd"
    printed = command("predict", volume, "-o", output, "--model", reader, "--no-plot")
    assert "Aortic arch" in printed
    assert not output.with_suffix(".png").exists()
    z_mm = json.loads(output.read_text())["landmarks"]["Aortic arch"]["z_mm"]
    assert f"{z_mm:.1f}" in printed

    uid = next(scan.uid for scan in index_scans(folder) if len(scan.files) == 64)
    command(
        "predict", folder / "a", "-o", tmp_path / "two.json", "--series", uid, "--model", reader
    )
    assert len(read_prediction(tmp_path / "two.json").slices) == 64

    scout(folder / "scout")
    everything = ("predict", folder, "--all", "-o", tmp_path / "all", "--model", reader)
    printed = command(*everything, status=1)  # one of them is broken
    assert printed.count("residual") == 4
    assert "broken.nii.gz: not usable" in printed
    assert printed.count("not usable") == 1
    assert "Series of localizers (scouts) or pictures left out: 1." in printed
    assert "already exists" in command(*everything, status=1)
    with pytest.raises(InputError, match="either --series or --all"):
        command("predict", folder, "--all", "--series", uid, "-o", tmp_path / "x")
    with pytest.raises(InputError, match="already holds"):
        command("predict", volume, "-o", output, "--model", reader)


def test_the_command_speaks_to_a_parent_process(reader: Path, tmp_path: Path) -> None:
    sitk.WriteImage(coded_volume(upright()), tmp_path / "volume.nrrd")
    arguments = ["predict", tmp_path / "volume.nrrd", "-o", tmp_path / "out.json"]
    arguments += ["--model", reader, "--progress", "jsonl", "--no-plot"]
    line = [sys.executable, "-m", "CTSliceToolsLib", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    events = [json.loads(one) for one in done.stdout.splitlines()]
    assert {"Reading", "Locating"} <= {event.get("stage") for event in events}
    assert events[-1]["result"]["landmarks"]["T12"] == pytest.approx(HEIGHT["T12"], abs=5)
    again = subprocess.run(line, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "already holds" in json.loads(again.stdout.splitlines()[-1])["error"]


@pytest.mark.slow
def test_the_bundled_localizer_finds_the_landmarks_of_real_scans(
    shared_data: Path, tmp_path: Path
) -> None:
    """It was trained on these scans: a test of the way from file to result, not of the model."""
    if not DEFAULT_MODEL.exists():
        pytest.skip("there is no bundled localizer yet")
    truth = json.loads((shared_data / "landmarks.json").read_text(encoding="utf-8"))
    errors = []
    for scan in ("LIDC-IDRI-0001", "ACRIN-FLT-Breast_001_abdopelvis.nrrd"):
        output = tmp_path / f"{scan}.json"
        command("predict", shared_data / scan, "-o", output)
        found = json.loads(output.read_text(encoding="utf-8"))
        assert not found["warnings"]
        for name, place in truth[scan].items():
            if name in found["landmarks"]:
                errors.append(found["landmarks"][name]["z_mm"] - place["z_mm"])
    assert len(errors) >= 8
    assert np.mean(np.abs(errors)) < 15
