"""Plots of a risk model's accuracy and feature importance."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from LungNoduleSegLib.risk.importance import Importance

COLOURS = ("#0072b2", "#d55e00")
BINS = 6
"""Of the calibration plot, each with as many scans."""

SHOWN = 12
"""Groups of features in the plot of importance."""


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
        said, seen = calibration_points(y, probability)
        calibration.plot(said, seen, "o-", color=colour, label=name)
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
    """Mean probability and share of cancer in `BINS` bins of about as many scans each."""
    bins = np.array_split(np.argsort(probability, kind="stable"), min(BINS, len(y)))
    said = np.array([probability[members].mean() for members in bins])
    return said, np.array([y[members].mean() for members in bins])


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
