"""How far localizers are off, on scans whose truth is known to the slice."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from coded_scans import (
    HEIGHT,
    HIGHEST_LOCATION,
    coded_volume,
    hu_of,
    location_at,
    upright,
    write_coded_series,
)
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTSliceToolsLib.cli import app
from CTSliceToolsLib.dataset.annotation import ANNOTATION, read_slice_files
from CTSliceToolsLib.dataset.conversion import LabelledSlice
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME
from CTSliceToolsLib.localizer.anchors import Anatomy
from CTSliceToolsLib.localizer.body_grid import Anchor
from CTSliceToolsLib.localizer.evaluation import (
    Evaluation,
    LabelledScan,
    Way,
    evaluate,
    judge,
    labelled_scan,
    ranges,
    scan_sources,
)
from CTSliceToolsLib.localizer.evaluation_results import (
    TABLES,
    summary_rows,
    summary_text,
    write_results,
)
from CTSliceToolsLib.localizer.plots import EVALUATION_PLOTS
from CTSliceToolsLib.localizer.prediction import fit_slices, predict_scan
from CTSliceToolsLib.localizer.scan_fit import usual_heights
from CTSliceToolsLib.localizer.scan_pictures import ScanPictures
from CTSliceToolsLib.localizer.unlabelled import pack_scans
from CTSliceToolsLib.slice_image import SIZE
from dicom_files import set_stored, write_series

QUANTUM = HIGHEST_LOCATION / 255
"""Of locations read from 8-bit pictures."""

SPAN = {name: z for name, z in HEIGHT.items() if -340 <= z <= -10}


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def adult(count: int = 100) -> LabelledScan:
    """A scan from C7 to L1 whose pictures show nothing."""
    z_mm = np.linspace(-309, -24, count)
    return LabelledScan("adult", blank(count), z_mm, location_at(z_mm), SPAN)


def blank(count: int) -> NDArray[np.uint8]:
    return np.zeros((count, SIZE, SIZE), np.uint8)


def run(*arguments: str | Path, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--progress", "none"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.stdout


def test_a_perfect_network_is_not_off_at_all() -> None:
    raw, consistent = judge(adult(), adult().locations)
    assert (raw.way, consistent.way) == (Way.RAW, Way.CONSISTENT)
    np.testing.assert_allclose(raw.error_mm, 0, atol=1e-9)
    assert np.abs(consistent.error_mm).max() < 8, "the usual distances have a small say"
    assert raw.landmark_mm.keys() == consistent.landmark_mm.keys() == SPAN.keys()
    np.testing.assert_allclose(list(raw.landmark_mm.values()), 0, atol=0.5)  # between slices


@given(shift=st.floats(-40, 40), seed=st.integers(0, 1000))
@settings(max_examples=20)
def test_a_shift_in_mm_is_found_whatever_the_order_of_the_slices(shift: float, seed: int) -> None:
    scan = adult()
    order = np.random.default_rng(seed).permutation(len(scan.z_mm))
    mixed = LabelledScan(
        "mixed", scan.pictures, scan.z_mm[order], scan.locations[order], scan.landmark_z_mm
    )
    # A network that takes each slice for the one that lies `shift` higher.
    raw, consistent = judge(mixed, location_at(mixed.z_mm + shift))
    inside = (mixed.z_mm + shift > -309) & (mixed.z_mm + shift < -24)
    np.testing.assert_allclose(raw.error_mm[inside], shift, atol=1e-6)
    # So it puts each landmark that much too low, whichever way it is judged.
    assert raw.landmark_mm["Aortic arch"] == pytest.approx(-shift, abs=0.5)
    assert consistent.landmark_mm["Aortic arch"] == pytest.approx(-shift, abs=6)


def test_single_wrong_slices_count_in_raw_and_hardly_in_consistent_locations() -> None:
    scan = adult()
    predicted = scan.locations.copy()
    predicted[::10] = 0.5
    raw, consistent = judge(scan, predicted)
    assert np.abs(raw.predicted - raw.truth).mean() > 0.02
    assert np.abs(consistent.predicted - consistent.truth).mean() < 0.005


def test_slices_outside_the_body_and_landmarks_outside_the_view_are_left_out() -> None:
    z_mm = np.array([150.0, 200, 250, 300])
    locations = np.array([0.045, 0.02, -0.007, -0.034])
    head = {"Top of head": 236.0, "Center of orbit": 141.0}
    scan = LabelledScan("head", blank(4), z_mm, locations, head)
    raw, _ = judge(scan, np.zeros(4))
    assert raw.z_mm.tolist() == [150, 200]
    np.testing.assert_allclose(raw.error_mm, [86, 36], atol=0.5)
    assert set(raw.landmark_mm) == {"Top of head", "Center of orbit"}
    assert (
        "Center of orbit"
        not in judge(LabelledScan("cut", blank(3), z_mm[1:], locations[1:], head), np.zeros(3))[
            0
        ].landmark_mm
    )


ORIENTATIONS = {
    "feet first": np.diag([-1.0, 1, -1]),
    "sagittal": np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]),
    "oblique": np.array([[1.0, 0, 0], [0, 0.96, -0.28], [0, 0.28, 0.96]]),
}


@pytest.mark.parametrize("direction", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_truth_and_pictures_belong_together_in_any_orientation(
    direction: np.ndarray, reader: Path
) -> None:
    grid = sitk.Image([40, 40, 40], sitk.sitkInt16)
    grid.SetSpacing((5.0, 6.0, 4.0))
    grid.SetDirection(direction.ravel().tolist())
    centre = np.array([0.0, 0, -150])
    grid.SetOrigin((centre - direction @ (19.5 * np.array([5.0, 6, 4]))).tolist())
    scan = labelled_scan("coded", coded_volume(grid), SPAN)
    inside = (scan.z_mm > -190) & (scan.z_mm < -110)
    assert inside.sum() > 10
    np.testing.assert_allclose(scan.locations[inside], location_at(scan.z_mm[inside]), atol=1e-6)
    raw = evaluate([reader], [lambda: scan])[0].of(Way.RAW)[0]
    middle = (raw.z_mm > -190) & (raw.z_mm < -110)
    assert np.abs(raw.predicted - raw.truth)[middle].max() < 2 * QUANTUM


def test_errors_are_those_reckoned_by_hand(tmp_path: Path) -> None:
    z_mm = np.array([-95.0, -120, -195])
    truth = np.array([0.2, 0.225, 0.275])
    known = {name: HEIGHT[name] for name in ("Aortic arch", "Bifurcation of trachea")}
    scan = LabelledScan("three", blank(3), z_mm, truth, known)
    raw = judge(scan, truth + np.array([0.001, 0.0, -0.03]))[0]
    # Both landmarks are 25 mm and 0.025 apart: 1 mm for 0.001, also past them.
    np.testing.assert_allclose(raw.error_mm, [-1, 0, 195 - 170 + 30], atol=1e-9)
    evaluations = [Evaluation("by hand", (raw,))]
    write_results(tmp_path, evaluations)
    (row,) = summary_rows(evaluations)
    assert row["slices"] == 3
    assert row["mean_error"] == pytest.approx(0.031 / 3)
    assert row["mean_error_mm"] == pytest.approx(56 / 3)
    assert row["median_error_mm"] == pytest.approx(1)
    assert row["within_0.01"] == pytest.approx(2 / 3)
    assert row["within_30_mm"] == pytest.approx(2 / 3)
    assert row["landmark_mean_error_mm"] == pytest.approx(0.5)
    written = {float(row["from"]): row for row in table(tmp_path / "ranges.csv")}
    assert {low: int(row["slices"]) for low, row in written.items()} == {0.2: 2, 0.25: 1}
    assert float(written[0.25]["mean_error"]) == pytest.approx(0.03)
    by_scan = {row["landmark"]: row for row in table(tmp_path / "landmarks-by-scan.csv")}
    assert float(by_scan["Aortic arch"]["error_mm"]) == pytest.approx(1), "its slice 1 mm too low"
    by_name = {row["landmark"]: row for row in table(tmp_path / "landmarks.csv")}
    assert float(by_name["Aortic arch"]["largest_error_mm"]) == pytest.approx(1)
    assert by_name["Bifurcation of trachea"]["within_5_mm"] == "1"


def test_without_a_landmark_in_view_its_mean_error_is_left_empty(tmp_path: Path) -> None:
    truth = np.array([0.2, 0.225])
    known = {name: HEIGHT[name] for name in ("Aortic arch", "Bifurcation of trachea")}
    raw = judge(LabelledScan("two", blank(2), np.array([-95.0, -120]), truth, known), truth)[0]
    evaluations = [Evaluation("by hand", (replace(raw, landmark_mm={}),))]
    write_results(tmp_path, evaluations)
    assert not (tmp_path / "landmarks.csv").exists() and not (tmp_path / "landmarks.png").exists()
    assert table(tmp_path / "summary.csv")[0]["landmark_mean_error_mm"] == ""
    assert summary_rows(evaluations)[0]["landmark_mean_error_mm"] is None
    assert summary_text(evaluations).splitlines()[1].split()[-2:] == ["0", "–"]


def test_a_landmark_without_a_height_is_named() -> None:
    heights = {"C7": -24.0, "T1": np.nan}
    with pytest.raises(InputError, match=r"^scan has no height for T1: give its LPS z in mm\.$"):
        labelled_scan("scan", coded_volume(upright()), heights)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_every_location_is_in_one_range(locations: list[float]) -> None:
    truth = np.array(locations)
    counted = sum(((truth >= low) & (truth < high)).sum() for low, high in ranges(truth))
    assert counted == len(truth)


def test_annotated_series_on_the_command_line(tmp_path: Path, reader: Path) -> None:
    series = tmp_path / "data" / "P ${ID}_${DATE}" / "S1"
    names = write_coded_series(series, name="{k:03}.dcm")
    z_of = dict(zip([file.name for file in names], np.arange(-340, -9, 3), strict=True))
    chosen = ("T1", "Aortic arch", "Right dome of diaphragm", "L1")
    annotation = {
        landmark: min(z_of, key=lambda name: abs(z_of[name] - HEIGHT[landmark]))
        for landmark in chosen
    }
    (series / ANNOTATION).write_text(json.dumps(annotation))
    broken = tmp_path / "data" / "P2"
    broken.mkdir()
    (broken / ANNOTATION).write_text(json.dumps({"T1": "lost.dcm", "L1": "too.dcm"}))
    output = tmp_path / "out"
    printed = run(
        tmp_path / "data", "-o", output, "--model", reader, "--compare", reader, status=1
    )  # one series could not be used
    assert printed.count("reader (1)") == 2 and printed.count("reader (2)") == 2
    assert {file.name for file in output.iterdir()} == {*TABLES, *EVALUATION_PLOTS}
    rows = table(output / "summary.csv")
    assert [(row["model"], row["way"]) for row in rows] == [
        (model, way) for model in ("reader (1)", "reader (2)") for way in Way
    ]
    # C7 to T12 is not annotated, so the truth between is straight where the adult is not quite.
    assert all(float(row["mean_error_mm"]) < 8 and row["z"] == "measured" for row in rows)
    landmarks = table(output / "landmarks.csv")
    assert {row["landmark"] for row in landmarks} == set(chosen)
    assert all(float(row["mean_error_mm"]) < 8 for row in landmarks)
    for name in EVALUATION_PLOTS:
        assert len(np.unique(np.asarray(Image.open(output / name).convert("L")))) > 20
    with pytest.raises(InputError, match="nothing was overwritten"):
        run(tmp_path / "data", "-o", output, "--model", reader)


def test_testing_part_of_a_dataset(tmp_path: Path, reader: Path) -> None:
    folder = tmp_path / "testing"
    folder.mkdir()
    for uid, gray in (("1.2.1", range(20, 220, 10)), ("1.2.2", range(60, 200, 20))):
        for value in gray:
            pixels = np.full((256, 256, 3), value, np.uint8)
            location = value * QUANTUM + (0.02 if uid == "1.2.2" else 0)
            LabelledSlice(pixels, location, uid).write(folder / f"{uid}_{value}.npz")
    evaluation = evaluate([reader], scan_sources(tmp_path))[0]
    assert not evaluation.of(Way.CONSISTENT), "their z is not known"
    errors = {scan.scan: np.abs(scan.predicted - scan.truth) for scan in evaluation.of(Way.RAW)}
    assert {uid: len(error) for uid, error in errors.items()} == {"1.2.1": 20, "1.2.2": 7}
    np.testing.assert_allclose(errors["1.2.1"], 0, atol=1e-5)
    np.testing.assert_allclose(errors["1.2.2"], 0.02, atol=1e-5)
    run(tmp_path, "-o", tmp_path / "out", "--model", reader)
    assert table(tmp_path / "out" / "summary.csv")[0]["z"] == "of usual proportions"


@pytest.mark.parametrize("degrees", [-20, 20])
def test_slices_of_a_tilted_gantry_are_judged_as_they_were_stored(
    tmp_path: Path, reader: Path, degrees: int
) -> None:
    tilt = np.radians(degrees)
    orientation = (1, 0, 0, 0, np.cos(tilt), np.sin(tilt))
    places = np.arange(24)[:, None] * [0, 0, 5.0] + [-128, -128 * np.cos(tilt), -300]
    truth = np.where(np.arange(24) % 2, 0.2, 0.4)  # resampled slices would mix their neighbours

    def edit(image: pydicom.Dataset, k: int) -> None:
        hu = np.full((128, 128), hu_of(truth[k]))
        hu[0, 0] = AIR_HU
        image.Rows, image.Columns, image.PixelSpacing = 128, 128, [2.0, 2.0]
        set_stored(image, np.rint(hu + 1024))

    write_series(tmp_path / "scan", orientation, places, edit=edit)
    scan = read_ct(tmp_path / "scan")
    found = predict_scan(scan, reader)
    np.testing.assert_allclose([one.raw for one in found.slices], truth, atol=0.005)
    files, _ = read_slice_files(tmp_path / "scan")
    stored = sorted(files.values(), key=lambda one: one.z_mm)
    seen = ScanPictures.of(scan.image, scan.slices)
    np.testing.assert_allclose(seen.z_mm, [one.z_mm for one in stored], atol=1e-3)
    differences = seen.pictures.astype(int) - np.stack([one.picture() for one in stored])
    assert np.abs(differences).mean() < 1, "they are converted alike"
    assert 10 < seen.whole.sum() < 20, "others are cut by the ends of the scan"
    assert seen.axial[seen.whole][:, 128, [70, 186]].all()
    assert len(list(seen.anatomies())) == 2
    few = np.arange(len(seen.whole)) < 5
    assert len(list(replace(seen, whole=few).anatomies())) == 1, "too few to be judged alone"
    labelled = labelled_scan("tilted", scan.image, {"C7": -200, "T1": -290}, scan.slices)
    np.testing.assert_array_equal(labelled.pictures, seen.pictures)
    ((pack,), _) = pack_scans(tmp_path / "scan", tmp_path / "packs")
    np.testing.assert_array_equal(np.load(pack.file), seen.pictures)


def test_the_first_anatomy_that_can_be_trusted_counts() -> None:
    z_mm = np.linspace(-440, 0, 111)
    misleading = Anatomy(strange=("This is no adult.",))
    heights = dict(zip(LANDMARK_BY_NAME, usual_heights().tolist(), strict=True))
    aorta = Anatomy((Anchor("arch", "Aortic arch", heights["Aortic arch"], 5.0),))
    found, alone = (
        fit_slices(anatomies, z_mm, location_at(z_mm))
        for anatomies in ([misleading, aorta, misleading], [aorta])
    )
    np.testing.assert_array_equal(found.uncertainty_mm, alone.uncertainty_mm)
    untrusted = fit_slices([misleading, misleading], z_mm, location_at(z_mm))
    assert untrusted.uncertainty_mm.min() >= 1000
    assert untrusted.warnings[0] == "This is no adult."


@pytest.mark.parametrize("content", ["nothing", "empty testing", "damaged"])
def test_what_cannot_be_evaluated_is_named(content: str, tmp_path: Path, reader: Path) -> None:
    if content != "nothing":
        (tmp_path / "testing").mkdir()
    if content == "damaged":
        (tmp_path / "testing" / "a.npz").write_bytes(b"PK\3\4 no")
    with pytest.raises(InputError, match=str(tmp_path)):
        evaluate([reader], scan_sources(tmp_path))


def test_a_dataset_without_a_testing_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    with pytest.raises(InputError, match=r"testing has no \.npz files.* enough series"):
        scan_sources(tmp_path)


@pytest.mark.slow
def test_real_scan_and_its_landmarks(shared_data: Path, reader: Path) -> None:
    about = json.loads((shared_data / "landmarks.json").read_text())["LIDC-IDRI-0001"]
    heights = {name: facts["z_mm"] for name, facts in about.items()}
    scan = labelled_scan("LIDC", read_ct(shared_data / "LIDC-IDRI-0001").image, heights)
    assert len(scan.pictures) == 133
    for name, z in heights.items():
        assert scan.locations[np.abs(scan.z_mm - z).argmin()] == pytest.approx(
            LANDMARK_BY_NAME[name].location, abs=0.003
        )
    (only,) = evaluate([reader], [lambda: scan])
    assert len(only.scans) == 2
