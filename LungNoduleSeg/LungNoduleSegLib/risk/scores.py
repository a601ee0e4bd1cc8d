"""Scores of predicted probabilities, and the printed report."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    classification_report,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

Probabilities = NDArray[np.float64]
Labels = NDArray[np.int64]

SURE = 1e-15
"""Probabilities are kept this far from 0 and 1 for the log loss, as in the tutorial's figures."""

CLASSES = ("No Cancer", "Cancer")


@dataclass(frozen=True)
class Scores:
    """Scores of the class cancer, at a threshold of 0.5 where one is needed.

    Attributes:
        precision, recall, f1: of the class cancer.
        log_loss: mean, natural logarithm.
        roc_auc: area under the ROC curve; 0.5 is chance.
        average_precision: area under the precision-recall curve; chance is the share of cancer.
        brier: mean squared error of the probability.
    """

    precision: float
    recall: float
    f1: float
    log_loss: float
    roc_auc: float
    average_precision: float
    brier: float

    @classmethod
    def of(cls, y: Labels, probability: Probabilities) -> "Scores":
        """Score probabilities (n,) against labels (n,)."""
        called = probability > 0.5
        values = (
            precision_score(y, called, zero_division=0),
            recall_score(y, called, zero_division=0),
            f1_score(y, called, zero_division=0),
            safe_log_loss(y, probability),
            roc_auc_score(y, probability),
            average_precision_score(y, probability),
            brier_score_loss(y, probability),
        )
        return cls(*(round(float(value), 6) for value in values))

    def to_dict(self) -> dict[str, float]:
        """By name, for a model's card."""
        return asdict(self)


def safe_log_loss(y: Labels, probability: Probabilities) -> float:
    """Log loss with probabilities kept `SURE` from 0 and 1."""
    return float(log_loss(y, np.clip(probability, SURE, 1 - SURE), labels=[0, 1]))


def baselines(y: Labels) -> dict[str, Probabilities]:
    """What it means to call every scan cancer, or none."""
    return {
        "Predicting all positive": np.ones(len(y)),
        "Predicting all negative": np.zeros(len(y)),
    }


def score_report(
    name: str, y: Labels, probability: Probabilities, classes: tuple[str, str] = CLASSES
) -> str:
    """Write one block of the report: per class precision, recall, F1 and support; scores."""
    scores = Scores.of(y, probability)
    table = classification_report(
        y, probability > 0.5, labels=[0, 1], target_names=classes, zero_division=0
    )
    lines = [name, table.rstrip(), f"log loss {scores.log_loss:.4f}"]
    if np.ptp(probability) > 0:
        lines.append(
            f"ROC AUC {scores.roc_auc:.3f}, average precision {scores.average_precision:.3f}, "
            f"Brier score {scores.brier:.3f}"
        )
    return "\n".join(lines)
