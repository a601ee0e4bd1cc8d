"""Predictions of a trained model for a scan or its nodules, with explanations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from CTLungScreeningLib.errors import counted
from CTLungScreeningLib.json_files import is_number
from LungNoduleSegLib.risk.features import SCAN_FEATURES, ScanFeatures

if TYPE_CHECKING:
    from LungNoduleSegLib.risk.risk_models import RiskModel

CANCER = "probability of cancer"
"""Default meaning of a model's probability."""

OF_LARGEST = "largest_"
"""Prefix of features of the largest nodule; a model with only these is applied to every nodule."""

SHOWN = 8
"""Number of features that `to_text` prints, those with the largest contributions."""


UNEXPLAINED = (
    "A random forest does not explain single predictions; its feature importance over all scans is "
    "in its card and in report.txt."
)
"""Shown with a prediction without contributions."""


@dataclass(frozen=True)
class Contribution:
    """The SHAP value of a feature, in log odds; `value` is None if unknown."""

    feature: str
    value: float | None
    log_odds: float


@dataclass(frozen=True)
class RiskPrediction:
    """A model's prediction for a scan.

    Attributes:
        model: file of the model.
        algorithm: its label.
        scan: name of the scan.
        probability: of `target`; XGBoost's is increased by the weight of cancer in training. None
            if the model applies to single nodules and the scan shows none.
        constant: log odds before any feature, None for a forest or without a probability.
        contributions: of the features, the strongest first; empty for a forest. With the constant
            they add up to the log odds of the probability.
        warnings: one sentence for each feature outside the training data, of every nodule if the
            model applies to single nodules, and others.
        target: meaning of the probability, from the card.
        nodules: probability of each nodule by number, if the model applies to single nodules.
    """

    model: str
    algorithm: str
    scan: str
    probability: float | None
    constant: float | None
    contributions: tuple[Contribution, ...]
    warnings: tuple[str, ...]
    target: str = CANCER
    nodules: Mapping[str, float] = field(default_factory=dict)


def predict_risk(scan: ScanFeatures, model_file: Path) -> RiskPrediction:
    """Predict the probability of cancer for a scan, with the contributions of the features.

    Contributions are XGBoost's SHAP values (Lundberg et al., Nat Mach Intell 2020;2:56-67).

    Raises:
        InputError: if the model cannot be used, see `load_risk_model`.
    """
    return predict_scans([scan], model_file)[0]


def predict_scans(scans: Sequence[ScanFeatures], model_file: Path) -> list[RiskPrediction]:
    """`predict_risk` for several scans at once."""
    # Not at the top: the panel shows predictions of a saved scene before packages are installed.
    from LungNoduleSegLib.risk.risk_models import load_risk_model  # noqa: PLC0415

    if not scans:
        return []
    model = load_risk_model(model_file)
    names = model.card.features
    x = np.array([[scan.features[name] for name in names] for scan in scans])
    shap = model.contributions(x)
    found = []
    for row, (scan, chance) in enumerate(zip(scans, model.probability(x), strict=True)):
        contributions: tuple[Contribution, ...] = ()
        constant = None
        probability = float(chance) if scan.nodules or not _single(model) else None
        if shap is not None and probability is not None:
            *added, constant = shap[row].tolist()
            known = [None if math.isnan(value) else value for value in x[row].tolist()]
            listed = [Contribution(n, v, a) for n, v, a in zip(names, known, added, strict=True)]
            contributions = tuple(sorted(listed, key=lambda c: -abs(c.log_odds)))
        found.append(
            RiskPrediction(
                model_file.name,
                model.card.algorithm.label,
                scan.scan,
                probability,
                constant,
                contributions,
                tuple(_warnings(scan, model)),
                model.card.target,
                _of_nodules(scan, model),
            )
        )
    return found


def _single(model: "RiskModel") -> bool:
    """Whether a model applies to single nodules: all its features are of the largest."""
    return all(name.startswith(OF_LARGEST) for name in model.card.features)


def _of_nodules(scan: ScanFeatures, model: "RiskModel") -> dict[str, float]:
    """Apply a model of single nodules to each."""
    if not scan.nodules or not _single(model):
        return {}
    names = [name.removeprefix(OF_LARGEST) for name in model.card.features]
    x = np.array([[features[name] for name in names] for features in scan.nodules.values()])
    chances = model.probability(x).tolist()
    return {str(number): chance for number, chance in zip(scan.nodules, chances, strict=True)}


def read_prediction(record: Mapping[str, Any]) -> RiskPrediction:
    """Rebuild a prediction from its `dataclasses.asdict`, read from JSON.

    Raises:
        Exception: one of `DAMAGE`, if it is none.
    """
    explained = record["constant"] is not None
    rated = explained or record["probability"] is not None
    if record["contributions"] and not explained:
        raise ValueError("contributions without a constant")
    return RiskPrediction(
        model=_text(record["model"]),
        algorithm=_text(record["algorithm"]),
        scan=_text(record["scan"]),
        probability=_chance(record["probability"]) if rated else None,
        constant=_number(record["constant"]) if explained else None,
        contributions=tuple(
            Contribution(
                _text(one["feature"]),
                None if one["value"] is None else _number(one["value"]),
                _number(one["log_odds"]),
            )
            for one in record["contributions"]
        ),
        warnings=tuple(map(_text, record["warnings"])),
        target=_text(record.get("target", CANCER)),
        nodules={number: _chance(chance) for number, chance in record.get("nodules", {}).items()},
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _number(value: Any) -> float:
    if not is_number(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _chance(value: Any) -> float:
    if not 0 <= _number(value) <= 1:
        raise ValueError(f"{value!r} is no probability")
    return float(value)


def to_text(prediction: RiskPrediction) -> str:
    """Format a prediction as text."""
    if prediction.probability is None:
        return f"{prediction.scan}: {' '.join(prediction.warnings)}"
    lines = [
        f"{prediction.scan}: {100 * prediction.probability:.1f} % {prediction.target} "
        f"({prediction.algorithm}, {prediction.model})"
    ]
    lines += [f"  nodule {n}: {100 * p:.1f} %" for n, p in prediction.nodules.items()]
    if prediction.contributions:
        lines.append(f"  log odds: {prediction.constant:+.3f} before any feature")
        lines += [f"    {line}" for line in strongest(prediction)]
        rest = prediction.contributions[SHOWN:]
        if rest:
            lines.append(
                f"    {sum(c.log_odds for c in rest):+.3f} "
                f"the other {counted(len(rest), 'feature')}"
            )
    else:
        lines.append(f"  {UNEXPLAINED}")
    return "\n".join([*lines, *(f"  Warning: {text}" for text in prediction.warnings)])


def strongest(prediction: RiskPrediction) -> list[str]:
    """List the `SHOWN` largest contributions with their log odds."""
    return [f"{c.log_odds:+.3f} {_value(c)}" for c in prediction.contributions[:SHOWN]]


def feature_text(value: float) -> str:
    """Write the value of a feature to four digits, or as a whole number."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _value(contribution: Contribution) -> str:
    if contribution.value is None:
        return f"{contribution.feature} unknown"
    about = SCAN_FEATURES.get(contribution.feature)  # a record may be of another version
    value = f"{feature_text(contribution.value)} {about.unit if about else ''}"
    return f"{contribution.feature} = {value.strip()}"


def _warnings(scan: ScanFeatures, model: "RiskModel") -> list[str]:
    result = []
    unknown = {}
    single = _single(model)
    of_nodules = {f"Nodule {number}: ": one for number, one in scan.nodules.items()}
    for whose, features in (of_nodules if single else {"": scan.features}).items():
        for feature in model.card.features:
            name = feature.removeprefix(OF_LARGEST) if single else feature
            value, (low, high) = features[name], model.card.ranges[feature]
            slack = 1e-5 * max(abs(low), abs(high))  # tables hold six digits
            if math.isnan(value):
                unknown[name] = True
            elif not low - slack <= value <= high + slack:
                result.append(
                    f"{whose}{name} is {feature_text(value)}, outside the {feature_text(low)} to "
                    f"{feature_text(high)} of the training data."
                )
    if unknown:
        result.append(f"Unknown from a {scan.source} alone: {', '.join(unknown)}.")
    if scan.features["nodule_count"] == 0:
        result.append("No nodule was found in this scan.")
    return result
