"""Discrimination of published models between malignant and benign nodules of known outcome.

    python docs/models_on_outcomes.py uk_nodules.csv docs/images

The table has the columns sex, age, location, spiculate, smoke.status, diameter (mm) and malignant,
as in the R package OncoDataSets. Each model is evaluated by the product's own code on the nodules
for which the table has what it asks for. Prints a Markdown table and draws one figure.
"""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

from LungNoduleSegLib.risk.facts import NoduleFacts, PatientFacts, PriorCancer, Sex
from LungNoduleSegLib.risk.published_models import MAYO, PANCAN_1A, PANCAN_1B, VA, evaluate
from LungNoduleSegLib.risk.scores import calibration_points

MODELS = (PANCAN_1A, PANCAN_1B, MAYO, VA)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#888888")
SMOKED = {"never": False, "exsmoke": True, "current": True}
YEARS_SINCE_QUITTING = {"never": 0.0, "current": 0.0}
REPEATS = 2000


@dataclass(frozen=True)
class Predicted:
    """Predictions (n,) for the nodules with all data, and their outcomes."""

    name: str
    probability: NDArray[np.float64]
    diameter: NDArray[np.float64]
    malignant: NDArray[np.int64]


def facts(row: dict[str, str]) -> tuple[NoduleFacts, PatientFacts]:
    """Read a row; the table does not state prior cancer, so none is assumed."""
    smoking = row["smoke.status"]
    nodule = NoduleFacts(
        longest_mm=float(row["diameter"]),
        upper_lobe="Upper" in row["location"],
        spiculation=row["spiculate"] == "Yes",
    )
    patient = PatientFacts(
        age=float(row["age"]),
        sex=Sex.FEMALE if row["sex"] == "F" else Sex.MALE,
        ever_smoked=SMOKED.get(smoking),
        years_since_quitting=YEARS_SINCE_QUITTING.get(smoking),
        prior_cancer=PriorCancer.NONE,
    )
    return nodule, patient


def predictions(rows: list[dict[str, str]]) -> list[Predicted]:
    """Evaluate every model; last comes the diameter alone, which is no probability."""
    malignant = np.array([int(float(row["malignant"])) for row in rows])
    diameter = np.array([float(row["diameter"]) for row in rows])
    found = []
    for model in MODELS:
        results = [evaluate(model, *facts(row)).probability for row in rows]
        known = np.array([p is not None for p in results])
        probability = np.array([p for p in results if p is not None])
        found.append(Predicted(model.name, probability, diameter[known], malignant[known]))
    return [*found, Predicted("diameter alone", diameter, diameter, malignant)]


def interval(one: Predicted) -> tuple[float, float]:
    """95 % interval of the AUC, from nodules drawn with replacement."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(REPEATS):
        drawn = rng.integers(len(one.malignant), size=len(one.malignant))
        found.append(roc_auc_score(one.malignant[drawn], one.probability[drawn]))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def table_row(one: Predicted) -> str:
    """Write a line: AUC, and for a probability how well it is calibrated."""
    auc = roc_auc_score(one.malignant, one.probability)
    low, high = interval(one)
    cells = [one.name, f"{len(one.malignant)}", f"{one.malignant.sum()}"]
    cells.append(f"{auc:.4f} ({low:.3f} to {high:.3f})")
    cells.append(f"{roc_auc_score(one.malignant, one.diameter):.4f}")
    if one.probability.max() <= 1:
        log_odds = np.log(one.probability / (1 - one.probability))[:, None]
        slope = LogisticRegression(C=np.inf).fit(log_odds, one.malignant).coef_[0, 0]
        cells += [
            f"{brier_score_loss(one.malignant, one.probability):.3f}",
            f"{100 * one.probability.mean():.1f} %",
            f"{100 * one.malignant.mean():.1f} %",
            f"{slope:.2f}",
        ]
    else:
        cells += ["", "", f"{100 * one.malignant.mean():.1f} %", ""]
    return f"| {' | '.join(cells)} |"


def draw(path: Path, predicted: list[Predicted]) -> None:
    """Draw ROC and calibration curves."""
    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    roc, calibration = figure.subplots(1, 2)
    for one, colour in zip(predicted, COLOURS, strict=True):
        false_positive, true_positive, _ = roc_curve(one.malignant, one.probability)
        roc.plot(false_positive, true_positive, color=colour, label=one.name.split(" (")[0])
        if one.probability.max() <= 1:
            said, seen = calibration_points(one.malignant, one.probability)
            calibration.plot(said, seen, "o-", color=colour, label=one.name.split(" (")[0])
    for axes in (roc, calibration):
        axes.plot([0, 1], [0, 1], ":", color="grey")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.set_aspect("equal", adjustable="box")
    roc.set(title="ROC", xlabel="False positive rate", ylabel="True positive rate")
    calibration.set(
        title="Calibration", xlabel="Predicted probability", ylabel="Share that was malignant"
    )
    roc.legend(frameon=False, fontsize="small", loc="lower right")
    figure.savefig(path, dpi=100)


def main() -> None:
    """Print the table and draw the figure."""
    with Path(sys.argv[1]).open(encoding="utf-8", newline="") as stream:
        predicted = predictions(list(csv.DictReader(stream)))
    print(
        "| model | nodules | malignant | AUC (95 %) | diameter, same nodules "
        "| Brier | predicted | found | slope |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for one in predicted:
        print(table_row(one))
    draw(Path(sys.argv[2]) / "models-on-outcomes.png", predicted)


if __name__ == "__main__":
    main()
