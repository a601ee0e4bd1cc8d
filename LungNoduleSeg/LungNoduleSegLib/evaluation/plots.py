"""Pictures of how good a detector is."""

from pathlib import Path

from matplotlib.figure import Figure

from CTSliceToolsLib.files import new_file
from LungNoduleSegLib.evaluation.detection import DetectionScore
from LungNoduleSegLib.evaluation.froc import CONFIDENCE, GRID, OPERATING_POINTS

COLOUR = "#0072b2"


def plot_froc(path: Path, score: DetectionScore) -> None:
    """Draw the FROC curve with its operating points and confidence band into a PNG file.

    Raises:
        InputError: if `path` exists.
    """
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplots()
    if score.band is not None:
        limits = score.band.curve
        axes.fill_between(
            GRID,
            limits.lower,
            limits.upper,
            color=COLOUR,
            alpha=0.15,
            lw=0,
            label=f"{CONFIDENCE:.0%} of resamples of the scans",
        )
    axes.plot(GRID, score.curve.sensitivity_at(GRID), color=COLOUR, label="all scans")
    axes.plot(OPERATING_POINTS, score.sensitivity, "o", color=COLOUR, ms=5, clip_on=False)
    axes.set_xscale("log", base=2)
    axes.set_xticks(OPERATING_POINTS, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.set(
        title=f"FROC: CPM {score.cpm:.4f}, {int(score.matching.marks.nodules.sum())} nodules in "
        f"{len(score.matching.marks.nodules)} scans",
        xlabel="False positives a scan",
        ylabel="Sensitivity",
        xlim=(OPERATING_POINTS[0], OPERATING_POINTS[-1]),
        ylim=(0, 1),
    )
    axes.grid(color="0.9")
    axes.legend(frameon=False, loc="lower right")
    with new_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
