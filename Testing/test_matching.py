"""The same level found again: in files, in a scan, in a follow-up, between its slices."""

import json
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from coded_scans import (
    HEIGHT,
    coded_volume,
    hu_of,
    location_at,
    save_reader,
    upright,
    write_coded_series,
)
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTSliceToolsLib.cli import app
from CTSliceToolsLib.dataset.annotation import read_slice_file
from CTSliceToolsLib.dataset.conversion import LabelledSlice
from CTSliceToolsLib.landmarks import LANDMARKS
from CTSliceToolsLib.localizer.matching import (
    find_level,
    find_same_level,
    location_of,
    match_files,
    match_slices,
)
from CTSliceToolsLib.localizer.prediction import (
    ModelUsed,
    ScanPrediction,
    SliceLocation,
    predict_scan,
)
from CTSliceToolsLib.localizer.results import write_prediction
from CTSliceToolsLib.localizer.scan_fit import fit_scan
from dicom_files import set_stored, write_series
from test_rigid_check import patient


def predicted(reader: Path, grid: sitk.Image, shift_mm: float = 0) -> ScanPrediction:
    return predict_scan(CTScan(coded_volume(grid, shift_mm), Path("scan.nrrd")), reader)


def command(*arguments: str | Path | float) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments), "--progress", "none"])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_files_within_the_tolerance_match_in_order(reader: Path, tmp_path: Path) -> None:
    files = write_coded_series(tmp_path, name="{k}.dcm", step=10)
    locations = location_at(np.arange(-340, -9, 10))
    order = np.random.default_rng(0).permutation(len(files))
    shuffled = [files[k] for k in order]
    calls: list[tuple[int, int]] = []
    found = match_files(
        shuffled, 0.225, 0.012, reader, progress=lambda _, done, total: calls.append((done, total))
    )
    near = np.abs(locations - 0.225) <= 0.012
    assert 3 <= near.sum() < len(files) / 2
    assert [match.path for match in found] == [files[k] for k in order if near[k]]
    assert calls[-1] == (len(files), len(files))
    for path, pixels, location in found:
        assert location == pytest.approx(locations[files.index(path)], abs=0.002)
        np.testing.assert_array_equal(pixels, read_slice_file(path).picture())
    by_name = match_files(shuffled, "bifurcation of Trachea", 0.012, reader)
    assert [match.path for match in by_name] == [match.path for match in found]


def test_converted_files_match_as_dicom_does(reader: Path, tmp_path: Path) -> None:
    (file,) = write_coded_series(tmp_path / "dicom", low=-95, high=-95)
    picture = read_slice_file(file).picture()
    for name, pixels in (("one", picture), ("three", np.stack([picture] * 3, axis=-1))):
        LabelledSlice(pixels, 0.2, "1.2").write(tmp_path / f"{name}.npz")
    paths = [tmp_path / "one.npz", tmp_path / "three.npz", file]
    found = match_files(paths, "Aortic arch", model=reader)
    assert [match.path for match in found] == paths
    assert len({match.location for match in found}) == 1
    for match in found:
        np.testing.assert_array_equal(match.pixels, picture)
    assert match_files(paths, 0.3, model=reader) == []
    assert match_files([], 0.3, model=reader) == []
    (tmp_path / "picture.png").write_bytes(b"no CT")
    with pytest.raises(InputError, match=r"picture\.png"):
        match_files([tmp_path / "picture.png"], 0.3, model=reader)


def test_landmarks_stand_for_their_locations() -> None:
    for landmark in LANDMARKS:
        assert location_of(landmark.name) == location_of(f" {landmark.name.upper()} ")
        assert location_of(landmark.name) == location_of(landmark.location) == landmark.location
    with pytest.raises(InputError, match=r"no landmark “Appendix”: use one of Top of head, .*"):
        location_of("Appendix")


def test_a_level_lies_between_slices_and_outside_is_said_to_be(reader: Path) -> None:
    found = predicted(reader, upright(-340, -10, 5))
    arch = find_level(found, "Aortic arch")
    assert arch.z_mm == pytest.approx(HEIGHT["Aortic arch"], abs=4)
    assert arch.position == pytest.approx((arch.z_mm + 340) / 5)
    assert arch.in_view
    for name, beyond in (("Head of femur", -1), ("Top of head", 67)):
        level = find_level(found, name)
        assert not level.in_view
        assert (level.position < beyond) == (beyond < 0)

    matches = match_slices(found, arch, 0.02)
    offsets = [abs(match.offset_mm) for match in matches]
    assert offsets == sorted(offsets)
    assert offsets[0] <= 2.5
    assert {match.slice.index for match in matches} == {
        one.index for one in found.slices if abs(one.location - 0.2) <= 0.02
    }
    assert match_slices(found, arch, 0) == []


@settings(max_examples=10)
@given(
    shift=st.floats(-300, 300),
    step=st.floats(1, 6),
    low=st.floats(-380, -330),
    high=st.floats(-20, 30),
    z=st.floats(-300, -40),
    code=st.sampled_from(["LPS", "RPI", "RAS"]),
)
def test_a_follow_up_slice_is_found_to_the_millimetre(
    reader: Path, shift: float, step: float, low: float, high: float, z: float, code: str
) -> None:
    before = predicted(reader, upright())
    grid = sitk.DICOMOrient(upright(low + shift, high + shift, step), code)
    level = find_same_level(predicted(reader, grid, shift), before, z)
    assert abs(level.z_mm - (z + shift)) < 2
    back = find_same_level(before, predicted(reader, grid, shift), level.z_mm)
    assert abs(back.z_mm - z) < 2


@pytest.mark.parametrize(("low", "high", "off"), [(-300, 20, 0.0), (-250, -60, 12.0)])
def test_what_the_network_errs_alike_in_two_scans_does_not_matter(
    low: float, high: float, off: float
) -> None:
    """The fits err differently, as the scans reach differently far and their noise differs."""
    rng = np.random.default_rng(4)
    error = np.interp(np.arange(-400, 60), np.arange(-400, 60, 23), rng.normal(0, 0.02, 20))

    def judged(z_mm: np.ndarray, at_mm: float) -> ScanPrediction:
        raw = location_at(z_mm, at_mm) + np.interp(z_mm - at_mm, np.arange(-400, 60), error)
        raw += rng.normal(0, 0.002, len(raw))
        fit = fit_scan(z_mm, raw + off / 2000)
        slices = [
            SliceLocation(k, z, r, float(fit.location_at(z)))
            for k, (z, r) in enumerate(zip(z_mm.tolist(), raw.tolist(), strict=True))
        ]
        return ScanPrediction(Path("scan"), None, tuple(slices), fit, ModelUsed("made up"))

    before = judged(np.arange(-340, -9, 2.5), 0)
    after = judged(np.arange(low + 100, high + 100, 3.0), 100)
    errors = [
        find_same_level(after, before, z).z_mm - (z + 100)
        for z in np.arange(max(low, -340) + 15, min(high, -10) - 15, 9.0)
    ]
    assert np.mean(np.abs(errors)) < 1
    assert np.max(np.abs(errors)) < 3


def test_scans_without_a_common_part_are_matched_by_their_fits(reader: Path) -> None:
    head = predicted(reader, upright(60, 240))
    chest = predicted(reader, upright(-340, -60))
    level = find_same_level(chest, head, 141)
    assert not level.in_view
    by_fits = float(chest.fit.z_at(head.fit.location_at(141)))
    assert level.z_mm == pytest.approx(by_fits, abs=0.1)


def test_the_command_takes_scans_and_predictions(reader: Path, tmp_path: Path) -> None:
    sitk.WriteImage(coded_volume(upright()), tmp_path / "before.nrrd")
    sitk.WriteImage(coded_volume(upright(-100, 230), 240), tmp_path / "after.nrrd")
    write_prediction(tmp_path / "before.json", predicted(reader, upright()), plot=False)
    model = ("--model", reader)

    printed = command("match", tmp_path / "before.json", "--landmark", "T12")
    (z_mm,) = re.findall(r"^Location 0\.3250, at T12: z = (\S+) (?:± \d+ )?mm, slice", printed)
    assert float(z_mm) == pytest.approx(HEIGHT["T12"], abs=4)

    for before, which in (("before.nrrd", ("--slice", 57)), ("before.json", ("--z", -197.5))):
        output = tmp_path / f"{before}-match.json"
        printed = command(
            "match",
            tmp_path / "after.nrrd",
            *("--like", tmp_path / before, *which, "-o", output),
            *model,
        )
        record = json.loads(output.read_text(encoding="utf-8"))
        assert record["z_mm"] == pytest.approx(-197.5 + 240, abs=1)
        assert record["like"]["z_mm"] == -197.5
        nearest = record["matches"][0]
        assert abs(nearest["offset_mm"]) <= 1.25
        assert f"{nearest['z_mm']:.1f}" in printed
        assert "predicted by" not in printed

    printed = command("match", tmp_path / "before.json", "--location", 0.5)
    assert "outside the scan" in printed
    assert "No slice lies within the tolerance" in printed


def test_where_a_scan_cannot_be_located_no_level_is_told(reader: Path, tmp_path: Path) -> None:
    upside_down = sitk.Flip(coded_volume(upright()), (False, False, True))
    upside_down.CopyInformation(upright())
    scan = predict_scan(CTScan(upside_down, tmp_path / "flipped.nrrd"), reader)
    assert not scan.located and predicted(reader, upright()).located
    write_prediction(tmp_path / "flipped.json", scan, plot=False)
    write_prediction(tmp_path / "good.json", predicted(reader, upright()), plot=False)
    nothing = dict.fromkeys(("z_mm", "position", "in_view", "uncertainty_mm"))
    for wanted, names in (
        ({"location": 0.2}, ("flipped.json", "--landmark", "Aortic arch")),
        ({"location": None}, ("flipped.json", "--like", tmp_path / "good.json", "--z", -115)),
        ({"location": None}, ("good.json", "--like", tmp_path / "flipped.json", "--z", -115)),
    ):
        output = tmp_path / "match.json"
        printed = command("match", tmp_path / names[0], *names[1:], "-o", output)
        assert printed.startswith("Unknown: the level cannot be located in ")
        assert "head first or feet first" in printed
        assert "1000" not in printed and "off by" not in printed
        record = json.loads(output.read_text(encoding="utf-8"))
        assert record.items() >= (nothing | wanted).items()
        assert record["matches"] == []
        assert any("head first or feet first" in warning for warning in record["warnings"])
        output.unlink()


def test_predictions_of_different_models_are_noted(reader: Path, tmp_path: Path) -> None:
    other = save_reader(tmp_path / "other.keras", "other")
    for name, model in (("a", reader), ("b", other)):
        write_prediction(tmp_path / f"{name}.json", predicted(model, upright()), plot=False)
    printed = command("match", tmp_path / "a.json", "--like", tmp_path / "b.json", "--slice", 3)
    assert "predicted by reader and other" in printed


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "Use exactly one of --location"),
        (["--location", "0.2", "--landmark", "T1"], "Use exactly one of --location"),
        (["--like", "scan.json"], "together with one of --slice and --z"),
        (["--like", "scan.json", "--slice", "3", "--z", "4"], "one of --slice and --z"),
        (["--location", "0.2", "--z", "4"], "together with one of --slice and --z"),
        (["--like", "scan.json", "--slice", "999"], "slices 0 to 132"),
        (["--like", "scan.json", "--z", "999"], "extends from z = -341.2 to -8.8 mm"),
        (["--landmark", "Appendix"], "no landmark “Appendix”"),
        (["--landmark", "T1", "-o", "scan.json"], "already holds scan.json"),
        (["--landmark", "T1", "--series", "1.2"], "scan.json is a prediction, on which --series"),
        (["--landmark", "T1", "--model", "m.json"], "on which --model has no effect"),
        (["--landmark", "T1", "--like-series", "1.2"], "--like-series together with --like"),
        (["--like", "b.json", "--z", "4", "--like-series", "1"], "b.json is .* --like-series has"),
        (["--like", "b.json", "--z", "4", "--model", "m.json"], "on which --model has no effect"),
    ],
)
def test_questions_that_make_no_sense_are_refused(
    reader: Path, tmp_path: Path, options: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_prediction(Path("scan.json"), predicted(reader, upright()), plot=False)
    with pytest.raises(InputError, match=sentence):
        command("match", "scan.json", *options)


def test_align_refuses_a_model_for_predictions(tmp_path: Path) -> None:
    output = tmp_path / "levels.json"
    with pytest.raises(InputError, match="on which --model has no effect"):
        command("align", "a.json", "b.json", "-o", output, "--model", "m.json")


def write_patient(folder: Path, seed: int) -> None:
    """Write `patient` as a series, with a pillar in the middle that `reader` reads."""
    image = patient(seed)
    stored = sitk.GetArrayFromImage(image)[:30] + 1024
    places = np.arange(len(stored))[:, None] * [0, 0, 4.0] + [-180, -140, -300]

    def edit(header: pydicom.Dataset, k: int) -> None:
        rows, columns = stored[k].shape
        middle = (slice(rows // 2 - 3, rows // 2 + 3), slice(columns // 2 - 3, columns // 2 + 3))
        stored[k][middle] = np.rint(hu_of(location_at(places[k, 2])) + 1024)
        header.Rows, header.Columns, header.PixelSpacing = rows, columns, [4.0, 4.0]
        header.PatientID = f"P{seed}"
        set_stored(header, stored[k])

    write_series(folder, places=places, series=f"patient {seed}", edit=edit)


def test_align_reads_the_series_of_each_prediction(reader: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        write_patient(tmp_path / "data" / f"P{seed}", seed)
    command("predict", tmp_path / "data", "--all", "-o", tmp_path / "all", "--model", reader)
    one, other = sorted((tmp_path / "all").glob("*.json"))
    pictures = [file.with_suffix(".png").read_bytes() for file in (one, other)]
    assert pictures[0] != pictures[1]
    printed = command("align", one, other, "-o", tmp_path / "levels.json")
    assert "do not look like those of one patient" in printed
    assert json.loads((tmp_path / "levels.json").read_text())["levels"] == []


def test_align_says_which_scan_cannot_be_located(reader: Path, tmp_path: Path) -> None:
    image = coded_volume(upright())
    sitk.WriteImage(image, tmp_path / "good.nrrd")
    upside_down = sitk.Flip(image, (False, False, True))
    upside_down.CopyInformation(image)
    sitk.WriteImage(upside_down, tmp_path / "flipped.nrrd")
    scans = [tmp_path / "good.nrrd", tmp_path / "flipped.nrrd"]
    printed = command("align", *scans, "-o", tmp_path / "levels.json", "--model", reader)
    assert f"Unknown: no level can be located in {scans[1]}." in printed
    record = json.loads((tmp_path / "levels.json").read_text(encoding="utf-8"))
    assert record["levels"] == []
    assert any("head first or feet first" in warning for warning in record["warnings"])
