"""The commands `features`, `train-risk` and `risk`, as typed."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.cli import app
from LungNoduleSegLib.nodules.table import NoduleKind
from LungNoduleSegLib.phantom.chest import LesionRequest, PhantomSpec, make_phantom, write_phantom
from LungNoduleSegLib.results.reading import NODULES, TABLE
from LungNoduleSegLib.risk.assessment import (
    ScanRisk,
    assess_examination,
    parse_scan_risk,
    scan_text,
)
from LungNoduleSegLib.risk.facts import NoduleFacts, PatientFacts
from LungNoduleSegLib.risk.features import SCAN_FEATURES
from risk_tables import cohort, image, two_squares, write, write_run


def command(*arguments: str | Path, status: int = 0) -> str:
    """What a command prints; an `InputError` is raised."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--progress", "none"])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.stdout


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("risk")
    features, labels = cohort()
    write(folder / "features.csv", features)
    write(folder / "labels.csv", labels)
    printed = command(
        "train-risk", folder / "features.csv", folder / "labels.csv", "-o", folder / "models"
    )
    assert (folder / "models" / "report.txt").read_text() in printed
    return folder / "models"


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    write_run(tmp_path / "chest")
    return tmp_path / "chest"


def test_each_help_has_an_example() -> None:
    for name in ("features", "train-risk", "risk"):
        result = CliRunner().invoke(app, [name, "--help"])
        assert f"Example: lung-nodule-seg {name} " in " ".join(result.output.split())


def test_features_of_a_folder_say_what_was_added_and_what_failed(
    run_folder: Path, tmp_path: Path
) -> None:
    sitk.WriteImage(image(two_squares()), tmp_path / "mask.nii.gz")
    (tmp_path / "broken.nrrd").write_text("NRRD0004\n")
    printed = command("features", tmp_path, "-o", tmp_path / "out" / "features.csv", status=1)
    assert "2 scans added, 0 kept, 1 failed" in printed
    assert "Failed: broken.nrrd: " in printed


def test_risk_of_a_run_gives_probability_contributions_and_warnings(
    models: Path, run_folder: Path
) -> None:
    printed = command("risk", run_folder, "--model", models / "xgboost.ubj")
    assert "% probability of cancer (XGBoost, xgboost.ubj)" in printed
    assert "log odds" in printed
    assert "Warning: nodule_count is 2, outside the " in printed
    assert "PanCan" not in printed
    forest = command("risk", run_folder, "--model", models / "random-forest.skops")
    assert "A random forest does not explain" in forest


def test_risk_with_facts_of_the_patient_gives_the_published_models_too(
    models: Path, run_folder: Path
) -> None:
    facts = ("--age", "62", "--sex", "female", "--no-emphysema", "--no-family-history")
    of_nodule = ("--upper-lobe", "--spiculation")
    printed = command("risk", run_folder, "--model", models / "xgboost.ubj", *facts, *of_nodule)
    assert "XGBoost" in printed and "PanCan" in printed
    assert "missing" not in printed[printed.index("PanCan 2b") :].split("\n\n")[0]


def test_risk_without_a_model_says_what_the_published_ones_miss(run_folder: Path) -> None:
    printed = command("risk", run_folder)
    assert "missing: age" in printed
    assert re.search(
        r"Examination, Lung-RADS v2022: \S+ if this is the first CT; "
        "missing: change since the previous CT",
        printed,
    )
    facts = run_folder.parent / "facts.json"
    facts.write_text('{"nodules": {"all": {"status": "baseline", "infection": true}}}')
    classed = command("risk", run_folder, "--facts", facts)
    assert "Examination, Lung-RADS v2022: 0\n" in classed
    old = command("risk", run_folder, "--prior-cancer", "extrathoracic-old", "--nodule", "2")
    assert "suspicion of malignancy as four radiologists rate it, not cancer" in old
    assert "\nNodule 2\n" in old and "prior cancer: extrathoracic" in old


def test_published_models_need_no_packages_of_trained_ones(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "LungNoduleSegLib.risk.risk_models", raising=False)
    printed = command("risk", run_folder, "--age", "62")
    assert "needs the packages of the set `risk`" in printed
    assert "PanCan" in printed and "Lung-RADS" in printed


def test_json_lines_hold_the_numbers(models: Path, run_folder: Path) -> None:
    for name in ("xgboost.ubj", "random-forest.skops"):
        arguments = ["risk", str(run_folder), "--model", str(models / name), "--age", "62"]
        result = CliRunner().invoke(app, [*arguments, "--progress", "jsonl"])
        last = json.loads(result.stdout.splitlines()[-1], parse_constant=pytest.fail)["result"]
        assert 0 < last["prediction"]["probability"] < 1
        assert last["assessment"]["patient"]["age"] == 62


def test_an_empty_segmentation_has_a_defined_risk(models: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "empty", nodules=0)
    printed = command("risk", tmp_path / "empty", "--model", models / "xgboost.ubj", "--age", "62")
    assert "No nodule was found in this scan." in printed
    assert "no published model applies" in printed


def test_a_mask_has_a_risk_by_model_only(models: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.nrrd"
    sitk.WriteImage(image(two_squares()), mask)
    printed = command("risk", mask, "--model", models / "xgboost.ubj")
    assert "Unknown from a segmentation alone: largest_mean_hu" in printed
    with pytest.raises(InputError, match="is a mask without its CT"):
        command("risk", mask)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("risk", "nowhere"), "nowhere does not exist"),
        (("risk", ".", "--model", "none.ubj"), "none.ubj is missing"),
        (("risk", ".", "--age", "300"), "An age of 300"),
        (("features", "nowhere", "-o", "f.csv"), "nowhere does not exist"),
        (("train-risk", "f.csv", "l.csv", "-o", "out"), "f.csv cannot be read as CSV"),
        (("train-risk", "f", "l", "-o", "o", "--feature-set", "x"), "no feature set 'x'"),
    ],
)
def test_bad_arguments_have_their_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence):
        command(*arguments)
    assert not list(tmp_path.iterdir())


def test_a_nodule_that_is_not_there_is_named(run_folder: Path) -> None:
    with pytest.raises(InputError, match=r"nodules\.csv holds no nodule 9"):
        command("risk", run_folder, "--nodule", "9")


def test_bad_input_ends_with_status_2_and_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "LungNoduleSegLib", "risk", tmp_path / "nowhere"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_ct_is_segmented_for_its_features_and_only_once(tmp_path: Path) -> None:
    spec = PhantomSpec(size=(180, 140, 110), spacing=(2, 2, 2.5), lesions=(LesionRequest(22),))
    write_phantom(make_phantom(spec), tmp_path)
    table = tmp_path / "out" / "features.csv"
    command("features", tmp_path / "dicom", "-o", table)
    (run,) = (tmp_path / "out" / "features-runs").iterdir()
    assert (run / TABLE).is_file() and (run / NODULES).is_file()
    with table.open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["source"] == "ct" and row["series_instance_uid"].count(".") > 3
    values = np.array([float(row[name]) for name in SCAN_FEATURES])
    assert np.isfinite(values).all()
    made = run.stat().st_mtime_ns
    table.unlink()
    command("features", tmp_path / "dicom", "-o", table)
    assert run.stat().st_mtime_ns == made
    assert len(list(run.parent.iterdir())) == 1


@pytest.mark.parametrize("words", ["train-risk a.csv b.csv -o c", "phantom -o c", "train a -o c"])
@pytest.mark.parametrize("seed", ["-1", "99999999999"])
def test_a_seed_that_the_libraries_do_not_take_is_refused(words: str, seed: str) -> None:
    result = CliRunner().invoke(app, [*words.split(), "--seed", seed])
    assert result.exit_code == 2
    assert "Invalid value for '--seed'" in " ".join(result.output.split())


PREDICTION = {
    "model": "m.ubj",
    "algorithm": "XGBoost",
    "scan": "chest",
    "probability": 0.4,
    "constant": 0.1,
    "contributions": [{"feature": "of_another_version", "value": 1.5, "log_odds": 0.3}],
    "warnings": [],
    "target": "probability of cancer",
    "nodules": {"1": 0.4},
}


def recorded(**changes: object) -> ScanRisk:
    record = {"patient": {}, "nodules": [], "notes": [], "prediction": PREDICTION | changes}
    return parse_scan_risk(record, "run.json")


@pytest.mark.parametrize("compared", [False, True])
def test_a_recorded_risk_knows_that_the_scan_was_compared(compared: bool) -> None:
    nodule = NoduleFacts(kind=NoduleKind.SOLID, longest_mm=9.0, perpendicular_mm=9.0, id=1)
    patient = PatientFacts()
    before = ScanRisk(patient, assess_examination([nodule], patient, compared), compared=compared)
    after = parse_scan_risk(json.loads(json.dumps(before.to_dict())), "run.json")
    assert after == before
    assert ("first CT" in scan_text(after)) == (not compared)


def test_a_recorded_prediction_is_read_whatever_its_features() -> None:
    assert "+0.300 of_another_version = 1.5\n" in scan_text(recorded())


@pytest.mark.parametrize(
    "changes",
    [
        {"probability": None},
        {"probability": "0.4"},
        {"probability": 1.4},
        {"probability": float("nan")},
        {"probability": 10**400},
        {"constant": None},
        {"contributions": [{"feature": "max_area", "value": "1", "log_odds": 0.3}]},
        {"warnings": [3]},
        {"model": None},
        {"nodules": {"1": True}},
    ],
)
def test_a_recorded_prediction_of_other_values_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"is no |without a constant"):
        recorded(**changes)
