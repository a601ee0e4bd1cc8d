"""Plots of a localizer's training and accuracy."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from CTLungScreeningLib.colours import BLUE, COLOURS, VERMILION
from CTLungScreeningLib.files import new_file
from CTLungScreeningLib.plots import plain_text
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME
from CTSliceToolsLib.localizer.evaluation import (
    RANGE,
    Evaluation,
    ScanErrors,
    Way,
    landmark_errors,
    pooled,
    ranges,
)
from CTSliceToolsLib.localizer.prediction import ScanPrediction

RANGES, SCATTER, LANDMARKS, TOLERANCES = "ranges.png", "scatter.png", "landmarks.png", "within.png"
EVALUATION_PLOTS = (RANGES, SCATTER, LANDMARKS, TOLERANCES)
_PANELS = 12
"""Scans shown in the scatter plot."""

_FAR_MM = 60.0
"""End of the axis of tolerances."""


def plot_curves(path: Path, epochs: Sequence[Mapping[str, float]]) -> None:
    """Draw loss and mean error of each epoch into a new PNG file.

    Args:
        path: the file.
        epochs: with `epoch`, `stage`, `loss`, `error`, `val_loss` and `val_error`.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    numbers = [epoch["epoch"] for epoch in epochs]
    best = min(epochs, key=lambda epoch: epoch["val_loss"])
    shown = (("loss", "Mean squared error"), ("error", "Mean error of the location"))
    for axes, (quantity, title) in zip(figure.subplots(1, 2), shown, strict=True):
        for name, label, colour in (
            (quantity, "training", COLOURS[0]),
            (f"val_{quantity}", "validation", COLOURS[1]),
        ):
            values = [epoch[name] for epoch in epochs]
            axes.plot(numbers, values, ".-", color=colour, label=label)
        axes.plot(best["epoch"], best[f"val_{quantity}"], "o", color="black", mfc="none", ms=9)
        tuned = [epoch["epoch"] for epoch in epochs if epoch["stage"] == 2]
        if tuned:
            axes.axvline(tuned[0] - 0.5, ls=":", color="grey")
            axes.annotate(
                "fine-tuning",
                (tuned[0] - 0.4, 0.97),
                xycoords=("data", "axes fraction"),
                va="top",
                color="grey",
                fontsize="small",
            )
        axes.set(title=title, xlabel="Epoch", yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="minor", labelsize="small")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
    _save(figure, path)


@plain_text()
def plot_evaluation(folder: Path, evaluations: Sequence[Evaluation]) -> None:
    """Draw the plots of an evaluation into new PNG files in a folder.

    `RANGES`: mean error in ranges of the true location; `SCATTER`: predicted and true location
    against z, scan by scan; `LANDMARKS`: mean error of each, if the slices show any; `TOLERANCES`:
    share of slices within.
    """
    series = list(_series(evaluations))
    plots = [(RANGES, (9, 4), _draw_ranges), (TOLERANCES, (6, 4.5), _draw_tolerances)]
    if any(scan.landmark_mm for scans, _ in series for scan in scans):
        plots.append((LANDMARKS, (9, 4.5), _draw_landmarks))
    for name, size, draw in plots:
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        draw(axes, series)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small")
        _save(figure, folder / name)
    _plot_scatter(folder / SCATTER, evaluations)


_Series = tuple[list[ScanErrors], dict[str, Any]]
"""One model with one method, and its style."""


def _series(evaluations: Sequence[Evaluation]) -> Iterator[_Series]:
    """Assign a colour to each model, paler for single slices if both ways are shown."""
    for n, evaluation in enumerate(evaluations):
        both = all(evaluation.of(way) for way in Way)
        for way in Way:
            if scans := evaluation.of(way):
                alpha = 0.45 if both and way is Way.RAW else 1.0
                look = {"color": COLOURS[n % len(COLOURS)], "alpha": alpha}
                yield scans, look | {"label": f"{_shortened(evaluation.model)}, {way}"}


def _draw_ranges(axes: Axes, series: Sequence[_Series]) -> None:
    for n, (scans, look) in enumerate(series):
        slices = pooled(scans)
        shown = ranges(slices.truth)
        members = [(slices.truth >= low) & (slices.truth < high) for low, high in shown]
        means = [slices.error[inside].mean() if inside.any() else np.nan for inside in members]
        left = [low + RANGE * (0.1 + 0.8 * n / len(series)) for low, _ in shown]
        axes.bar(left, means, RANGE * 0.8 / len(series), align="edge", **look)
    axes.set(
        xlabel="True normalized location (0: top of head, 0.5: head of femur)",
        ylabel="Mean error of the location",
        title="Error in ranges of the body",
    )
    axes.set_xticks([low for low, _ in shown] + [shown[-1][1]])


def _draw_landmarks(axes: Axes, series: Sequence[_Series]) -> None:
    found = [landmark_errors(scans) for scans, _ in series]
    names = list(landmark_errors([scan for scans, _ in series for scan in scans]))
    for n, (errors, (_, look)) in enumerate(zip(found, series, strict=True)):
        left = np.arange(len(names)) - 0.4 + 0.8 * n / len(series)
        means = [errors[name].mean() if name in errors else np.nan for name in names]
        axes.bar(left, means, 0.8 / len(series), align="edge", **look)
    counts = [max(len(errors.get(name, ())) for errors in found) for name in names]
    axes.set_xticks(
        range(len(names)),
        [f"{name} ({count})" for name, count in zip(names, counts, strict=True)],
        rotation=35,
        ha="right",
        rotation_mode="anchor",
    )
    axes.set(ylabel="Mean error (mm)", title="Error of landmarks (number of scans)")


def _draw_tolerances(axes: Axes, series: Sequence[_Series]) -> None:
    for scans, look in series:
        errors = np.sort(pooled(scans).error_mm)
        share = np.arange(1, len(errors) + 1) / len(errors)
        tolerance, within = np.r_[0, errors, max(_FAR_MM, errors[-1])], np.r_[0, share, 1]
        axes.plot(tolerance, within, drawstyle="steps-post", **look)
    axes.set(
        xlim=(0, _FAR_MM),
        ylim=(0, 1.01),
        xlabel="Tolerance (mm)",
        ylabel="Share of the slices within",
        title="Slices within a tolerance",
    )
    axes.grid(alpha=0.3)


def _plot_scatter(path: Path, evaluations: Sequence[Evaluation]) -> None:
    first = evaluations[0].of(Way.RAW)
    shown = [scan.scan for scan in first][:_PANELS]
    columns = min(len(shown), 3)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(max(6, 4 * columns), 3.4 * rows + 1), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, name, truth in zip(panels, shown, first, strict=False):
        line = np.argsort(truth.z_mm)
        axes.plot(
            truth.z_mm[line], truth.truth[line], "--", color="black", lw=1, zorder=3, label="truth"
        )
        for scans, look in _series(evaluations):
            for scan in scans:
                if scan.scan == name:
                    order = np.argsort(scan.z_mm)
                    style = "." if scan.way is Way.RAW else "-"
                    axes.plot(scan.z_mm[order], scan.predicted[order], style, ms=4, **look)
        axes.set_title(_shortened(name), fontsize="small")
        axes.set_xlabel(
            "z (mm, LPS)" if truth.measured else "z in a body of usual proportions (mm)"
        )
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    panels[0].invert_yaxis()
    for axes in panels[::columns]:
        axes.set_ylabel("Location")
    more = f" ({len(shown)} of {len(first)} scans)" if len(first) > len(shown) else ""
    figure.suptitle(f"Predicted and true location against z{more}")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize="small")
    _save(figure, path)


def _shortened(name: str) -> str:
    return name if len(name) <= 40 else f"…{name[-39:]}"


def _save(figure: Figure, path: Path) -> None:
    with new_file(path) as temporary:
        figure.savefig(temporary, dpi=120)


RAW, FIT, LANDMARK = "#8c8c8c", BLUE, VERMILION


@plain_text()
def plot_prediction(path: Path, prediction: ScanPrediction) -> None:
    """Draw raw and scan-consistent locations, and the landmarks, into a PNG file.

    The head is above, as z is vertical; the location runs from the head, at 0, to the right.
    """
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    slices = prediction.slices
    axes.plot(
        [one.raw for one in slices],
        [one.z_mm for one in slices],
        ".",
        color=RAW,
        ms=4,
        label="each slice by itself",
    )
    z_mm = np.linspace(*prediction.field_of_view, 500)
    axes.plot(prediction.fit.location_at(z_mm), z_mm, color=FIT, label="all slices together")
    name = _shortened(prediction.source.name)
    residual_mm = prediction.fit.residual_mm
    figure.suptitle(f"{name}: median residual {residual_mm:.0f} mm", fontsize="medium")
    if prediction.series_uid:
        axes.set_title(f"Series {prediction.series_uid}", fontsize="small")
    found = prediction.landmarks
    heights = [place.z_mm for place in found.values()]
    locations = [LANDMARK_BY_NAME[name].location for name in found]
    axes.plot(locations, heights, "o", color=LANDMARK)
    axes.set(xlabel="Normalized location", ylabel="z (mm, LPS)")
    right = axes.secondary_yaxis("right")
    right.set_yticks(heights, [f"{name}, {place.z_mm:.0f} mm" for name, place in found.items()])
    right.tick_params(labelsize="small", colors=LANDMARK)
    for height in heights:
        axes.axhline(height, color=LANDMARK, lw=0.5, alpha=0.4)
    if prediction.fit.warnings:
        figure.supxlabel("\n".join(prediction.fit.warnings), fontsize="small", wrap=True)
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(path, dpi=100)
