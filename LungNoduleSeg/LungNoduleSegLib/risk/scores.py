"""Scores of predicted probabilities, importance of features, and plots of both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    classification_report,
    f1_score,
    log_loss,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from CTLungScreeningLib.colours import COLOURS
from CTLungScreeningLib.plots import plain_text
from LungNoduleSegLib.options import CLASSES

Probabilities = NDArray[np.float64]
Labels = NDArray[np.int64]

CLIP = 1e-15
"""Probabilities are clipped this far from 0 and 1 for the log loss, as in the tutorial."""


@dataclass(frozen=True)
class Scores:
    """Scores of the class cancer, at a threshold of 0.5 where one is needed.

    Attributes:
        precision: of the class cancer.
        recall: of the class cancer.
        f1: of the class cancer.
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
        """Scores by name, for a model's card."""
        return asdict(self)


def safe_log_loss(y: Labels, probability: Probabilities) -> float:
    """Log loss with probabilities clipped to `CLIP` from 0 and 1."""
    return float(log_loss(y, np.clip(probability, CLIP, 1 - CLIP), labels=[0, 1]))


def baselines(y: Labels) -> dict[str, Probabilities]:
    """Predictions that call every scan cancer, or none."""
    return {
        "Predicting all positive": np.ones(len(y)),
        "Predicting all negative": np.zeros(len(y)),
    }


def score_report(
    name: str, y: Labels, probability: Probabilities, classes: tuple[str, str] = CLASSES
) -> str:
    """Format a block of the report: precision, recall, F1 and support per class, and scores."""
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


CORRELATED = 0.8
"""Average rank correlation above which features are shuffled together."""

REPEATS = 10
"""Shuffles of each group on each fold."""


@dataclass(frozen=True)
class Importance:
    """Permutation importance of a group of features.

    Attributes:
        features: of the group; the first is the most representative.
        increase: of the Brier score on held-out scans, mean over folds and shuffles.
        deviation: its standard deviation over folds and shuffles.
    """

    features: tuple[str, ...]
    increase: float
    deviation: float

    @property
    def name(self) -> str:
        """The first feature and the number of others."""
        others = len(self.features) - 1
        return f"{self.features[0]} (+{others})" if others else self.features[0]


def correlated_groups(x: NDArray[np.float64]) -> list[list[int]]:
    """Group columns of (n, features) by average linkage of Spearman's rank correlation.

    Shuffling only one of two redundant features would change nothing, so they are shuffled
    together. The column that correlates best with its group comes first.
    """
    filled = np.where(np.isnan(x), np.nanmean(x, axis=0), x)
    ranks = rankdata(filled, axis=0)
    spread = ranks.std(axis=0)
    scaled = (ranks - ranks.mean(axis=0)) / np.where(spread > 0, spread, 1)
    alike = np.abs(scaled.T @ scaled / len(x))
    if len(alike) == 1:
        return [[0]]
    apart = np.clip(1 - (alike + alike.T) / 2, 0, None)
    np.fill_diagonal(apart, 0)
    numbers = fcluster(linkage(squareform(apart), "average"), 1 - CORRELATED, "distance")
    groups = []
    for number in dict.fromkeys(numbers.tolist()):
        members = np.flatnonzero(numbers == number)
        best_first = np.argsort(-alike[np.ix_(members, members)].sum(axis=0), kind="stable")
        groups.append(members[best_first].tolist())
    return groups


def increases(
    predict: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    x: NDArray[np.float64],
    y: NDArray[np.int64],
    groups: Sequence[Sequence[int]],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return the increase of the Brier score for each group and shuffle, (groups, `REPEATS`).

    Not of the log loss, because a forest predicts 0 or 1 for some scans, and a single error among
    these would outweigh all others.

    Args:
        predict: maps (n, features) to the probability of cancer (n,).
        x: features of held-out scans.
        y: their labels.
        groups: columns to shuffle together.
        rng: random numbers for the shuffles.
    """
    before = np.mean((predict(x) - y) ** 2)
    result = np.empty((len(groups), REPEATS))
    for g, group in enumerate(groups):
        shuffled = np.tile(x, (REPEATS, 1, 1))
        for copy in shuffled:
            copy[:, group] = x[rng.permutation(len(x))][:, group]
        chances = predict(shuffled.reshape(-1, x.shape[1])).reshape(REPEATS, -1)
        result[g] = np.mean((chances - y) ** 2, axis=1) - before
    return result


BINS = 6
"""Bins of the calibration plot, with equal numbers of scans."""

SHOWN = 12
"""Groups of features in the importance plot."""


def plot_curves(
    path: Path, y: NDArray[np.int64], probabilities: Mapping[str, NDArray[np.float64]]
) -> None:
    """Draw ROC, precision-recall and calibration curves of several models into a PNG file."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    roc, recall, calibration = figure.subplots(1, 3)
    for (name, probability), colour in zip(probabilities.items(), COLOURS, strict=False):
        false_positive, true_positive, _ = roc_curve(y, probability)
        roc.plot(false_positive, true_positive, color=colour, label=name)
        precision, found, _ = precision_recall_curve(y, probability)
        recall.plot(found, precision, color=colour, drawstyle="steps-post", label=name)
        predicted, observed = calibration_points(y, probability)
        calibration.plot(predicted, observed, "o-", color=colour, label=name)
    roc.plot([0, 1], [0, 1], ":", color="grey", label="chance")
    recall.axhline(y.mean(), ls=":", color="grey", label="chance")
    calibration.plot([0, 1], [0, 1], ":", color="grey", label="perfect")
    for axes, title, x_label, y_label in (
        (roc, "ROC", "False positive rate", "True positive rate"),
        (recall, "Precision and recall", "Recall", "Precision"),
        (calibration, "Calibration", "Predicted probability", "Observed share"),
    ):
        axes.set(title=title, xlabel=x_label, ylabel=y_label, xlim=(0, 1), ylim=(0, 1.02))
        axes.set_aspect("equal", adjustable="box")
        axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=100)


def calibration_points(
    y: NDArray[np.int64], probability: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean probability and share of cancer in up to `BINS` bins of about equal numbers of scans.

    Scans of the same probability share a bin.
    """
    order = np.argsort(probability, kind="stable")
    last = [members[-1] for members in np.array_split(order, min(BINS, len(y)))]
    ends = np.searchsorted(probability[order], probability[last], side="right")
    bins = np.split(order, np.unique(ends)[:-1])
    predicted = np.array([probability[members].mean() for members in bins])
    return predicted, np.array([y[members].mean() for members in bins])


@plain_text()
def plot_importance(path: Path, importance: Mapping[str, Sequence[Importance]]) -> None:
    """Draw the importance of the `SHOWN` most important groups of each model into a PNG file."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    panels = figure.subplots(1, len(importance), squeeze=False)[0]
    for axes, (name, entries), colour in zip(panels, importance.items(), COLOURS, strict=False):
        top = list(entries)[:SHOWN][::-1]
        axes.barh(
            [entry.name for entry in top],
            [entry.increase for entry in top],
            xerr=[entry.deviation for entry in top],
            color=colour,
            ecolor="grey",
        )
        axes.set(title=name, xlabel="Increase of the held-out Brier score when shuffled")
    figure.savefig(path, dpi=100)
