"""Training the classifiers: the tutorial's report, what is found, saved and refused."""

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skops.io
import xgboost
from numpy.typing import NDArray
from PIL import Image

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.model_card import file_sha256
from LungNoduleSegLib.options import RiskTrainingPlan, Weighting
from LungNoduleSegLib.risk.features import SCAN_FEATURES, SLICE_FEATURES, ScanFeatures, Source
from LungNoduleSegLib.risk.prediction import predict_risk, to_text
from LungNoduleSegLib.risk.risk_models import Algorithm, load_risk_model
from LungNoduleSegLib.risk.scores import (
    Importance,
    Scores,
    baselines,
    calibration_points,
    correlated_groups,
    plot_importance,
    score_report,
)
from LungNoduleSegLib.risk.training import (
    RESULT_NAMES,
    TrainingResult,
    train,
    train_risk,
)
from LungNoduleSegLib.risk.training_data import FeatureSet, read_training_data
from risk_tables import INFORMATIVE, cohort, write


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tables")
    features, labels = cohort()
    return write(folder / "features.csv", features), write(folder / "labels.csv", labels)


@pytest.fixture(scope="module")
def trained(
    tables: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainingResult]:
    output = tmp_path_factory.mktemp("trained") / "models"
    return output, train_risk(*tables, output)


def scan(**changes: float) -> ScanFeatures:
    features = dict.fromkeys(SCAN_FEATURES, 10.0) | changes
    return ScanFeatures("chest", "p", "", Source.RUN, features, {1: {}})


def test_the_baselines_give_the_figures_that_the_tutorial_prints() -> None:
    y = np.array([0] * 463 + [1] * 107)
    positive, negative = (
        score_report(name, y, probability) for name, probability in baselines(y).items()
    )
    assert "No Cancer       0.00      0.00      0.00       463" in positive
    assert "Cancer       0.19      1.00      0.32       107" in positive
    assert "log loss 28.0558" in positive
    assert "No Cancer       0.81      1.00      0.90       463" in negative
    assert "Cancer       0.00      0.00      0.00       107" in negative
    assert "log loss 6.4836" in negative


def test_scans_of_equal_probability_share_a_bin_of_the_calibration() -> None:
    y = np.repeat([0, 1], 30)
    assert [one.tolist() for one in calibration_points(y, np.full(60, 0.5))] == [[0.5], [0.5]]
    probability = np.repeat([0.1, 0.2, 0.9], [25, 5, 30])
    shuffled = np.random.default_rng(0).permutation(60)
    for rows in (np.arange(60), shuffled):
        predicted, observed = calibration_points(y[rows], probability[rows])
        assert predicted == pytest.approx([0.1, 0.2, 0.9])
        assert observed == pytest.approx([0, 0, 1])
    apart, _ = calibration_points(y, np.arange(60) / 60)
    assert apart == pytest.approx([(4.5 + 10 * n) / 60 for n in range(6)])


def test_scores_equal_those_worked_out_by_hand() -> None:
    scores = Scores.of(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9]))
    assert (scores.precision, scores.recall, scores.f1) == (0.5, 0.5, 0.5)
    assert scores.roc_auc == 0.75
    assert scores.brier == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert scores.log_loss == pytest.approx(-np.log([0.9, 0.4, 0.4, 0.9]).mean(), abs=1e-6)


def test_both_classifiers_beat_both_baselines_and_name_the_feature(
    tables: tuple[Path, Path], trained: tuple[Path, TrainingResult]
) -> None:
    _, result = trained
    y = read_training_data(*tables).y
    baseline = [Scores.of(y, p) for p in baselines(y).values()]
    for validation in result.validations.values():
        scores = Scores.of(y, validation.probability)
        assert scores.log_loss < min(b.log_loss for b in baseline)
        assert scores.f1 > max(b.f1 for b in baseline)
        assert scores.roc_auc > 0.8
        assert INFORMATIVE in validation.importance[0].features
        assert validation.importance[0].increase > 4 * validation.importance[1].increase


def test_the_same_tables_give_the_same_report_and_every_file_is_there(
    tables: tuple[Path, Path], trained: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    output, _ = trained
    assert sorted(p.name for p in output.iterdir()) == sorted(RESULT_NAMES)
    train_risk(*tables, tmp_path / "again")
    for name in ("report.txt", "out-of-fold.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (output / name).read_bytes()
    text = (output / "report.txt").read_text()
    for block in ("Random Forest", "XGBoost", "Predicting all positive", "Predicting all negative"):
        assert text.count(f"\n{block}\n") == 1
    for name in ("curves.png", "importance.png"):
        with Image.open(output / name) as picture:
            assert min(picture.size) > 300
    with pytest.raises(InputError, match="already holds"):
        train_risk(*tables, output)


def test_features_are_named_in_the_plot_as_they_are(tmp_path: Path) -> None:
    plot_importance(tmp_path / "i.png", {"Forest": [Importance(("a ${ID}_${DATE}",), 0.1, 0.01)]})
    assert (tmp_path / "i.png").exists()


def test_no_patient_is_predicted_by_a_model_that_knew_them(tmp_path: Path) -> None:
    """Labels by chance and features that only tell the patient: leaking would give AUC near 1."""
    rng = np.random.default_rng(1)
    features, labels = cohort()
    mark = {row["patient_id"]: rng.normal(0, 100, len(SCAN_FEATURES)) for row in labels}
    copies = []
    for i, row in enumerate(features * 2):
        values = mark[row["patient_id"]]
        cells = {n: f"{v:.6g}" for n, v in zip(SCAN_FEATURES, values, strict=True)}
        copies.append(row | cells | {"scan": f"s{i}"})
    for row in labels:
        row["label"] = str(rng.integers(2))
    data = read_training_data(write(tmp_path / "f.csv", copies), write(tmp_path / "l.csv", labels))
    for validation in train(data).validations.values():
        assert Scores.of(data.y, validation.probability).roc_auc < 0.75


def test_patients_of_volume_files_come_from_the_labels_or_are_called_unknown(
    tmp_path: Path,
) -> None:
    features, labels = cohort()
    label = {row["patient_id"]: row["label"] for row in labels}
    told = [
        {"scan": row["scan"], "patient_id": row["patient_id"], "label": label[row["patient_id"]]}
        for row in features
    ]
    nameless = write(tmp_path / "features.csv", [row | {"patient_id": ""} for row in features])
    known = read_training_data(nameless, write(tmp_path / "both.csv", told), FeatureSet.TUTORIAL)
    assert known.patients == tuple(row["patient_id"] for row in told)
    report = train(known).report
    assert "90 scans of 60 patients" in report
    assert "trained without its patient" in report
    half = [row | ({} if n % 2 else {"patient_id": ""}) for n, row in enumerate(told)]
    some = read_training_data(nameless, write(tmp_path / "half.csv", half), FeatureSet.TUTORIAL)
    result = train(some)
    assert "45 scans of unknown patients" in result.report
    same = write(tmp_path / "same.csv", [row | {"patient_id": "anonymous"} for row in features])
    anonymous = read_training_data(same, tmp_path / "half.csv", FeatureSet.TUTORIAL)
    assert anonymous.patients == tuple(row["patient_id"] for row in half)
    assert "trained without its patient" not in result.report
    for model in result.models.values():
        assert model.card.training["scans_of_unknown_patients"] == 45
    scans = [{name: row[name] for name in ("scan", "label")} for row in told]
    none = read_training_data(nameless, write(tmp_path / "scans.csv", scans), FeatureSet.TUTORIAL)
    assert "90 scans of up to 90 patients" in train(none).report


@pytest.mark.parametrize(
    ("scans", "expected"),
    [
        # patient in the labels, in the features, series
        (["P1 M1 -", "- M1 -", "P1 - -", "P2 M2 -"], [0, 0, 0, 3]),
        (["- M1 -", "P1 - -", "P1 M1 -"], [0, 0, 0]),
        (["- - 1.2", "- - 1.2", "- - 1.3"], [0, 0, 2]),
        (["P1 - 1.2", "- - 1.2", "P1 - -"], [0, 0, 0]),
        (["P1 anonymous -", "P2 anonymous -"], [0, 1]),
        (["P1 anonymous -", "- anonymous -", "P2 anonymous -"], [0, 1, 2]),
        (["P1 anonymous 1.2", "- anonymous 1.2", "P2 anonymous -"], [0, 0, 2]),
        (["- M1 -", "- M1 -", "- - -", "- - -"], [0, 0, 2, 3]),
    ],
)
def test_scans_that_may_be_of_one_patient_stay_together(
    tmp_path: Path, scans: list[str], expected: list[int]
) -> None:
    features, labels = [], []
    for number, scan in enumerate(scans):
        told, own, series = ("" if one == "-" else one for one in scan.split())
        ids = {"scan": f"s{number}", "patient_id": own, "series_instance_uid": series}
        features.append(dict.fromkeys(SLICE_FEATURES, f"{number}") | ids)
        labels.append({"scan": f"s{number}", "patient_id": told, "label": f"{number % 2}"})
    tables = write(tmp_path / "f.csv", features), write(tmp_path / "l.csv", labels)
    groups = read_training_data(*tables, FeatureSet.TUTORIAL).groups
    assert [groups.index(one) for one in groups] == expected


def test_the_weight_of_cancer_is_three_the_balance_or_one(tables: tuple[Path, Path]) -> None:
    data = read_training_data(*tables, FeatureSet.TUTORIAL)
    assert data.features == tuple(SLICE_FEATURES)
    weights = [
        train(data, RiskTrainingPlan(weighting=w))
        .models[Algorithm.XGBOOST]
        .card.training["parameters"]
        for w in Weighting
    ]
    assert [w["scale_pos_weight"] for w in weights] == [3.0, 2.0, 1.0]


def test_features_that_say_the_same_form_one_group() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 200))
    x = np.stack([one, other, np.exp(one), -one, np.full(200, 3.0)], axis=1)
    x[5, 1] = np.nan
    assert sorted(sorted(group) for group in correlated_groups(x)) == [[0, 2, 3], [1], [4]]


def test_saved_models_say_the_same_and_shap_values_add_up(
    trained: tuple[Path, TrainingResult],
) -> None:
    output, result = trained
    x = np.random.default_rng(0).normal(10, 3, (20, len(SCAN_FEATURES)))
    x[3, 2] = np.nan
    for algorithm, model in result.models.items():
        again = load_risk_model(output / algorithm.file_name)
        np.testing.assert_array_equal(again.probability(x), model.probability(x))
    prediction = predict_risk(scan(**{INFORMATIVE: 17.0}), output / "xgboost.ubj")
    assert prediction.constant is not None
    odds = prediction.constant + sum(c.log_odds for c in prediction.contributions)
    assert 1 / (1 + np.exp(-odds)) == pytest.approx(prediction.probability, abs=1e-5)
    assert prediction.contributions[0].feature == INFORMATIVE
    assert prediction.probability is not None and prediction.probability > 0.5
    assert INFORMATIVE in to_text(prediction)


def test_a_feature_outside_the_training_data_is_warned_of(
    trained: tuple[Path, TrainingResult],
) -> None:
    output, _ = trained
    for algorithm in Algorithm:
        file = output / algorithm.file_name
        assert predict_risk(scan(), file).warnings == ()
        changed = predict_risk(scan(max_area=900.0, average_area=float("nan")), file)
        assert changed.warnings[0].startswith("max_area is 900, outside the ")
        assert changed.warnings[1] == "Unknown from a run alone: average_area."
        assert "Warning: max_area" in to_text(changed)


Rows = list[dict[str, str]]


def _relabel(labels: Rows, value: str) -> Rows:
    return [row | {"label": value} for row in labels]


def _first(labels: Rows, value: str) -> Rows:
    return [labels[0] | {"label": value}, *labels[1:]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f, t: (f, _first(t, "nan")), "line 2: 'nan' is not a label; write 1 for cancer"),
        (lambda f, t: (f, _first(t, "")), "line 2: '' is not a label"),
        (lambda f, t: (f, _first(t, "2")), "line 2: '2' is not a label"),
        (lambda f, t: (f, t[2:]), "no label for patient_id p0 and 1 more: add it"),
        (lambda f, t: (f, [*t, t[7]]), "the patient_id p7 more than once: keep one line"),
        (lambda f, t: ([*f, f[3]], t), "the scan s3 more than once: keep one line"),
        (lambda f, t: (f, _relabel(t, "1")), "labels every scan 1: training needs"),
        (lambda f, t: (f, [{"name": "a", "label": "1"}]), "is not a label table: it needs"),
        (
            lambda f, t: ([{k: v for k, v in r.items() if k != "max_area"} for r in f], t),
            "has no column max_area: make it with `lung-nodule-seg features`",
        ),
        (
            lambda f, t: ([r | dict.fromkeys(SCAN_FEATURES, "0") for r in f], t),
            "the same values for every scan, so nothing can be learned",
        ),
        (
            lambda f, t: ([f[0] | {"max_area": "big"}, *f[1:]], t),
            "'big' is not a number for",
        ),
        (
            lambda f, t: ([f[0] | {"max_area": "inf"}, *f[1:]], t),
            "'inf' is not a number for",
        ),
        (
            lambda f, t: ([f[0] | {"max_area": "1e300"}, *f[1:]], t),
            "'1e300' is not a number for",
        ),
        (lambda f, t: ([r for r in f if r["patient_id"] in ("p0", "p1")], t), "here, not 3"),
        (lambda f, t: ([f[0] | {"patient_id": ""}, *f[1:]], t), "line 2 has no patient_id"),
    ],
)
def test_tables_that_cannot_be_learnt_from_are_refused_with_a_sentence(
    tmp_path: Path, change: Callable[[Rows, Rows], tuple[Rows, Rows]], sentence: str
) -> None:
    features, labels = change(*cohort())
    with pytest.raises(InputError) as caught:
        train_risk(
            write(tmp_path / "features.csv", features),
            write(tmp_path / "labels.csv", labels),
            tmp_path / "out",
        )
    assert sentence in str(caught.value)
    assert ".csv" in str(caught.value) or "folds" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"scan;patient_id;max_area\na;b;1\n", "separates its columns by semicolons: save it with"),
        (b"scan\tpatient_id\na\tb\n", "separates its columns by tabs: save it with commas"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe", "cannot be read as CSV"),
        (b"", "has no column scan"),
        (b"scan,scan,patient_id\n", "two columns scan"),
    ],
)
def test_files_that_are_no_csv_are_refused(
    tables: tuple[Path, Path], tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "features.csv").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_training_data(tmp_path / "features.csv", tables[1])


def test_a_line_of_other_length_is_refused(tables: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "features.csv"
    copy.write_text(tables[0].read_text() + "s1000,p1\n")
    with pytest.raises(InputError, match=r"line 92 has \d+ values for \d+ columns"):
        read_training_data(copy, tables[1])


class Evil:
    """A pickle that would leave a mark, were it ever loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


def forge(output: Path, folder: Path, name: str, **changes: object) -> Path:
    """Copy a model with a card that is changed but vouches for the file as it is."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    if not file.exists():
        shutil.copy(output / name, file)
    card = json.loads((output / name).with_suffix(".json").read_text())
    card |= {"sha256": file_sha256(file)} | changes
    file.with_suffix(".json").write_text(json.dumps(card))
    return file


@pytest.mark.parametrize("name", ["random-forest.skops", "xgboost.ubj"])
def test_a_renamed_pickle_is_refused_and_never_loaded(
    trained: tuple[Path, TrainingResult], tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
    with pytest.raises(InputError, match=r"renamed pickle|not an XGBoost model"):
        load_risk_model(forge(trained[0], tmp_path, name))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"features_version": 99}, "was trained on version 99 of the features"),
        ({"software": {"scikit-learn": "0.1.0", "xgboost": "0.1.0"}}, "0.1.0 and .* is installed"),
        ({"features": ["texture"], "ranges": {"texture": [0, 1]}}, "uses texture"),
        (
            {"features": ["max_area"], "ranges": {"max_area": [0, 1]}},
            "not an? (valid forest|XGBoost model) of 1 feature:",
        ),
        ({"ranges": {}}, "is not the card of a risk model"),
        ({"algorithm": "svm"}, "is not the card of a risk model"),
        ({"sha256": "0"}, "is not the file that its card describes"),
    ],
)
@pytest.mark.parametrize("name", ["random-forest.skops", "xgboost.ubj"])
def test_models_of_another_version_or_for_other_features_are_refused(
    trained: tuple[Path, TrainingResult],
    tmp_path: Path,
    name: str,
    changes: dict[str, object],
    sentence: str,
) -> None:
    file = forge(trained[0], tmp_path, name, **changes)
    with pytest.raises(InputError, match=sentence):
        load_risk_model(file)


def test_other_files_and_missing_cards_are_refused(
    trained: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    lone = tmp_path / "xgboost.ubj"
    shutil.copy(trained[0] / "xgboost.ubj", lone)
    with pytest.raises(InputError, match=r"xgboost\.json is missing"):
        load_risk_model(lone)
    with pytest.raises(InputError, match="is not a risk model"):
        load_risk_model(trained[0] / "report.txt")


def test_a_skops_file_with_another_type_is_not_opened(
    trained: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    skops.io.dump({"call": shutil.rmtree}, tmp_path / "random-forest.skops")
    with pytest.raises(InputError, match="and was not opened"):
        load_risk_model(forge(trained[0], tmp_path, "random-forest.skops"))


def test_a_forest_that_cannot_run_is_refused(
    trained: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    forest = skops.io.load(trained[0] / "random-forest.skops", trusted=["sklearn.tree._tree.Tree"])
    forest.n_classes_ = 7
    skops.io.dump(forest, tmp_path / "random-forest.skops")
    with pytest.raises(InputError, match="is not a valid forest"):
        load_risk_model(forge(trained[0], tmp_path, "random-forest.skops"))


def test_a_packed_forest_is_not_opened(
    trained: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    with (
        zipfile.ZipFile(trained[0] / "random-forest.skops") as old,
        zipfile.ZipFile(tmp_path / "random-forest.skops", "w", zipfile.ZIP_BZIP2) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(InputError, match="and was not opened"):
        load_risk_model(forge(trained[0], tmp_path, "random-forest.skops"))


@pytest.mark.parametrize(
    ("array", "value"), [("feature", 10_000), ("left_child", 10_000), ("left_child", 0)]
)
def test_a_forest_whose_trees_lead_astray_is_refused(
    trained: tuple[Path, TrainingResult], tmp_path: Path, array: str, value: int
) -> None:
    """skops warns that such a file can crash the process, so it is checked before use."""
    forest = skops.io.load(trained[0] / "random-forest.skops", trusted=["sklearn.tree._tree.Tree"])
    tree = forest.estimators_[7].tree_
    state = tree.__getstate__()
    nodes: NDArray[np.void] = state["nodes"].copy()
    nodes[array][0] = value
    tree.__setstate__(state | {"nodes": nodes})
    skops.io.dump(forest, tmp_path / "random-forest.skops")
    with pytest.raises(InputError, match="is not a valid forest"):
        load_risk_model(forge(trained[0], tmp_path, "random-forest.skops"))


def change_tree(name: str, values: dict[int, int]) -> Callable[[bytes], bytes]:
    """Change integers of the first tree's array in a UBJ file."""

    def changed(content: bytes) -> bytes:
        found = bytearray(content)
        start = content.index(b"[$l#L", content.index(name.encode())) + 13
        for place, value in values.items():
            found[start + 4 * place : start + 4 * place + 4] = value.to_bytes(4, signed=True)
        return bytes(found)

    return changed


@pytest.mark.parametrize(
    "change",
    [
        change_tree("left_children", {0: 1 << 28}),
        change_tree("left_children", {0: 0}),
        change_tree("left_children", {0: 2}),
        change_tree("right_children", {0: -1}),
        change_tree("parents", {1: 5}),
        change_tree("split_indices", {0: 1 << 28}),
        change_tree("split_indices", {0: -1}),
        lambda content: content.replace(b"gbtree", b"gblins"),
        lambda content: content.replace(b"logistic", b"logitraw"),
        lambda content: content[: len(content) // 2],
        lambda content: b"[" * len(content),
        lambda content: content[:1] + b"L\x7f" + content[3:],
    ],
)
def test_an_xgboost_model_that_leads_astray_is_refused(
    trained: tuple[Path, TrainingResult], tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    """XGBoost follows the numbers in its file unchecked, which ends the process."""
    content = (trained[0] / "xgboost.ubj").read_bytes()
    assert change(content) != content
    (tmp_path / "xgboost.ubj").write_bytes(change(content))
    with pytest.raises(InputError, match="is not an XGBoost model"):
        load_risk_model(forge(trained[0], tmp_path, "xgboost.ubj"))


def test_an_xgboost_model_of_a_tree_too_deep_is_refused(
    trained: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    model = json.loads(xgboost.Booster(model_file=trained[0] / "xgboost.ubj").save_raw("json"))
    tree = model["learner"]["gradient_booster"]["model"]["trees"][0]
    count = 2 * 99 + 1
    for name in set(tree) - {"id", "tree_param"}:
        tree[name] = [type(one)() for one in tree[name][:1]] * count
    tree["left_children"] = [*(n + 1 if n % 2 == 0 else -1 for n in range(count - 1)), -1]
    tree["right_children"] = [*(n + 2 if n % 2 == 0 else -1 for n in range(count - 1)), -1]
    tree["parents"] = [2**31 - 1, *(n // 2 * 2 for n in range(count - 1))]
    tree["tree_param"]["num_nodes"] = str(count)
    deep = xgboost.Booster()
    deep.load_model(bytearray(json.dumps(model).encode()))
    deep.save_model(tmp_path / "xgboost.ubj")
    with pytest.raises(InputError, match="is not an XGBoost model"):
        load_risk_model(forge(trained[0], tmp_path, "xgboost.ubj"))


@pytest.mark.parametrize(
    "parameters",
    [
        {"num_parallel_tree": 3, "n_estimators": 2},
        {"booster": "dart"},
        {"tree_method": "exact", "gamma": 1.0},
    ],
)
def test_parameters_of_a_model_that_cannot_be_read_are_refused_at_training(
    tables: tuple[Path, Path], tmp_path: Path, parameters: dict[str, object]
) -> None:
    name, value = next(iter(parameters.items()))
    with pytest.raises(InputError, match=rf"parameters .*{name}={value}.*: leave out"):
        train_risk(*tables, tmp_path / "models", RiskTrainingPlan(xgboost=parameters))
    assert not list(tmp_path.iterdir())


def test_xgboost_reads_its_own_file(trained: tuple[Path, TrainingResult]) -> None:
    booster = xgboost.Booster(model_file=trained[0] / "xgboost.ubj")
    assert booster.num_features() == len(SCAN_FEATURES)


def test_the_physical_features_are_not_the_tutorials() -> None:
    assert not set(FeatureSet.PHYSICAL.names) & set(FeatureSet.TUTORIAL.names)
