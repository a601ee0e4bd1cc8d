"""Train the tutorial's two classifiers with cross-validation by patient."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold
from xgboost import XGBClassifier

from CTLungScreeningLib import csv_files, software_versions
from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.files import new_file, refuse_existing
from CTLungScreeningLib.options import choice_of
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.staging import whole_output
from LungNoduleSegLib.options import RiskTrainingPlan, Weighting
from LungNoduleSegLib.risk.features import FEATURES_VERSION
from LungNoduleSegLib.risk.risk_models import (
    VERSIONS,
    Algorithm,
    RiskCard,
    RiskModel,
    save_risk_model,
)
from LungNoduleSegLib.risk.scores import (
    Importance,
    Scores,
    baselines,
    correlated_groups,
    increases,
    plot_curves,
    plot_importance,
    score_report,
)
from LungNoduleSegLib.risk.training_data import FeatureSet, TrainingData, read_training_data

TUTORIAL = RiskTrainingPlan()
"""The tutorial's settings."""

TREES = 100
"""Trees of the random forest, as in the tutorial."""

POSITIVE_WEIGHT = 3.0
"""Weight of a scan with cancer in XGBoost, as in the tutorial."""

REPORT, PREDICTIONS, CURVES, IMPORTANCE = (
    "report.txt",
    "out-of-fold.csv",
    "curves.png",
    "importance.png",
)

RESULT_NAMES = (
    REPORT,
    PREDICTIONS,
    CURVES,
    IMPORTANCE,
    *(a.file_name for a in Algorithm),
    *(Path(a.file_name).with_suffix(".json").name for a in Algorithm),
)
"""Files that `train_risk` writes."""


@dataclass(frozen=True)
class CrossValidation:
    """Out-of-fold predictions of a classifier.

    Attributes:
        probability: of cancer (n,).
        importance: of groups of features, the largest first.
    """

    probability: NDArray[np.float64]
    importance: tuple[Importance, ...]


@dataclass(frozen=True)
class TrainingResult:
    """The report, and the cross-validation and model of each algorithm."""

    report: str
    validations: Mapping[Algorithm, CrossValidation]
    models: Mapping[Algorithm, RiskModel]


def train_risk(
    features: Path,
    labels: Path,
    output: Path,
    plan: RiskTrainingPlan = TUTORIAL,
    chosen: FeatureSet = FeatureSet.ALL,
    progress: ProgressCallback = silent,
) -> TrainingResult:
    """Train both classifiers and write models, cards, report, predictions and plots.

    Args:
        features: the table of `write_feature_table`.
        labels: see `read_training_data`.
        output: folder for the results; no file is overwritten.
        plan: settings.
        chosen: the features to use.
        progress: callback, see `CTLungScreeningLib.progress`.

    Raises:
        InputError: if a table cannot be used, the folder already has results, there is no such
            choice of features, or XGBoost's parameters give a model that cannot be read back.
    """
    chosen = choice_of(FeatureSet, chosen, "chosen")
    refuse_existing(output, RESULT_NAMES)
    with whole_output(output) as folder:
        data = read_training_data(features, labels, chosen)
        result = train(data, plan, progress)
        with new_file(folder / REPORT) as temporary:
            temporary.write_text(result.report, encoding="utf-8")
        _write_predictions(folder / PREDICTIONS, data, result)
        probabilities = {a.label: v.probability for a, v in result.validations.items()}
        with new_file(folder / CURVES) as temporary:
            plot_curves(temporary, data.y, probabilities)
        with new_file(folder / IMPORTANCE) as temporary:
            plot_importance(
                temporary, {a.label: v.importance for a, v in result.validations.items()}
            )
        for algorithm, model in result.models.items():
            save_risk_model(model, folder / algorithm.file_name)
    return result


def train(
    data: TrainingData,
    plan: RiskTrainingPlan = TUTORIAL,
    progress: ProgressCallback = silent,
) -> TrainingResult:
    """Cross-validate both classifiers, then train them on all scans, without writing files.

    Raises:
        InputError: if there are too few patients for the folds.
    """
    splits = _splits(data, plan)
    groups = correlated_groups(data.x)
    validations, models = {}, {}
    for number, algorithm in enumerate(Algorithm):
        progress("Training", number, len(Algorithm))
        validation = _cross_validate(data, plan, algorithm, splits, groups)
        validations[algorithm] = validation
        fitted = classifier(algorithm, plan, data.y).fit(data.x, data.y)
        model = fitted.get_booster() if algorithm is Algorithm.XGBOOST else fitted
        models[algorithm] = RiskModel(_card(data, plan, algorithm, validation), model)
    progress("Training", len(Algorithm), len(Algorithm))
    return TrainingResult(_report(data, plan, validations), validations, models)


def classifier(algorithm: Algorithm, plan: RiskTrainingPlan, y: NDArray[np.int64]) -> Any:
    """Make an untrained classifier; single-threaded to be reproducible."""
    if algorithm is Algorithm.RANDOM_FOREST:
        return RandomForestClassifier(n_estimators=TREES, random_state=plan.seed, n_jobs=1)
    return XGBClassifier(
        objective="binary:logistic",
        scale_pos_weight=_positive_weight(plan, y),
        random_state=plan.seed,
        n_jobs=1,
        **plan.xgboost,
    )


def _positive_weight(plan: RiskTrainingPlan, y: NDArray[np.int64]) -> float:
    if plan.weighting is Weighting.TUTORIAL:
        return POSITIVE_WEIGHT
    if plan.weighting is Weighting.NONE:
        return 1.0
    return float(np.count_nonzero(y == 0) / np.count_nonzero(y == 1))


def _splits(
    data: TrainingData, plan: RiskTrainingPlan
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Indices of training and test scans, grouped by patient and stratified by label."""
    patients = np.array(data.groups)
    fewest = min(len(set(patients[data.y == label])) for label in (0, 1))
    if plan.folds < 2 or fewest < plan.folds:
        raise InputError(
            f"--folds must be at least 2 and at most the number of patients of either label, which "
            f"is {fewest} here, not {plan.folds}: add patients or change --folds."
        )
    folds = StratifiedGroupKFold(plan.folds, shuffle=True, random_state=plan.seed)
    splits = list(folds.split(data.x, data.y, patients))
    if any(len(set(data.y[part])) < 2 for split in splits for part in split):
        raise InputError(
            f"The patients cannot be divided into {plan.folds} folds with both labels each: choose "
            "fewer folds or another seed."
        )
    return splits


def _cross_validate(
    data: TrainingData,
    plan: RiskTrainingPlan,
    algorithm: Algorithm,
    splits: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    groups: list[list[int]],
) -> CrossValidation:
    probability = np.empty(len(data.y))
    rng = np.random.default_rng(plan.seed)
    worse = []
    for train_on, test_on in splits:
        y = data.y[train_on]
        fitted = classifier(algorithm, plan, y).fit(data.x[train_on], y)

        def predict(x: NDArray[np.float64], fitted: Any = fitted) -> NDArray[np.float64]:
            return np.asarray(fitted.predict_proba(x)[:, 1], np.float64)

        probability[test_on] = predict(data.x[test_on])
        worse.append(increases(predict, data.x[test_on], data.y[test_on], groups, rng))
    shuffles = np.concatenate(worse, axis=1)
    importance = [
        Importance(
            tuple(data.features[i] for i in group),
            round(float(values.mean()), 6),
            round(float(values.std()), 6),
        )
        for group, values in zip(groups, shuffles, strict=True)
    ]
    importance.sort(key=lambda entry: -entry.increase)
    return CrossValidation(probability, tuple(importance))


def _card(
    data: TrainingData, plan: RiskTrainingPlan, algorithm: Algorithm, validation: CrossValidation
) -> RiskCard:
    low, high = np.nanmin(data.x, axis=0), np.nanmax(data.x, axis=0)
    parameters: dict[str, Any] = (
        {"trees": TREES}
        if algorithm is Algorithm.RANDOM_FOREST
        else {
            "scale_pos_weight": _positive_weight(plan, data.y),
            "objective": "binary:logistic",
            **plan.xgboost,
        }
    )
    return RiskCard(
        algorithm=algorithm,
        features_version=FEATURES_VERSION,
        features=list(data.features),
        ranges={
            name: [float(a), float(b)] for name, a, b in zip(data.features, low, high, strict=True)
        },
        software=software_versions(()) | VERSIONS,
        training={
            "sha256": data.sha256,
            "scans": len(data.y),
            "patients": len(set(data.groups)),
            "scans_of_unknown_patients": data.patients.count(""),
            "with_cancer": int(data.y.sum()),
            "seed": plan.seed,
            "folds": plan.folds,
            "parameters": parameters,
        },
        scores=Scores.of(data.y, validation.probability).to_dict(),
        importance=[[list(i.features), i.increase] for i in validation.importance],
    )


def _report(
    data: TrainingData, plan: RiskTrainingPlan, validations: Mapping[Algorithm, CrossValidation]
) -> str:
    unknown = data.patients.count("")
    lines = [
        f"{len(data.y)} {plan.unit}s of {'up to ' if unknown else ''}{len(set(data.groups))} "
        f"patients, {data.y.sum()} with {plan.classes[1].lower()}",
        f"{len(data.features)} features, {plan.folds} folds by patient, seed {plan.seed}, "
        f"weight of {plan.classes[1].lower()} in XGBoost {_positive_weight(plan, data.y):.3g}",
        *(f"{name}: SHA-256 {digest}" for name, digest in data.sha256.items()),
    ]
    if data.empty:
        lines.append(f"Left out, because no {plan.unit} has a value: {', '.join(data.empty)}")
    lines.append(
        f"{counted(unknown, plan.unit)} of unknown patients: the scores are too high if some are "
        "of one patient. Add the columns scan and patient_id to the labels."
        if unknown
        else f"Every {plan.unit} was predicted by a model trained without its patient."
    )
    blocks = ["\n".join(lines)]
    for algorithm, validation in validations.items():
        blocks.append(score_report(algorithm.label, data.y, validation.probability, plan.classes))
    for name, probability in baselines(data.y).items():
        blocks.append(score_report(name, data.y, probability, plan.classes))
    for algorithm, validation in validations.items():
        entries = [
            f"  {i.increase:+.4f} ± {i.deviation:.4f}  {', '.join(i.features)}"
            for i in validation.importance
        ]
        title = f"{algorithm.label}: increase of the held-out Brier score when shuffled"
        blocks.append("\n".join([title, *entries]))
    return "\n\n".join(blocks) + "\n"


def _write_predictions(path: Path, data: TrainingData, result: TrainingResult) -> None:
    columns = [v.probability for v in result.validations.values()]
    rows = (
        (scan, data.patients[i], data.y[i], *(f"{column[i]:.6f}" for column in columns))
        for i, scan in enumerate(data.scans)
    )
    csv_files.write_table(path, ("scan", "patient", "label", *result.validations), rows)
