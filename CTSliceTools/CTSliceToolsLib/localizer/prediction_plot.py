"""Plot the raw and fitted locations of a scan against z."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME
from CTSliceToolsLib.localizer.prediction import ScanPrediction

RAW, FIT, LANDMARK = "#8c8c8c", "#0072b2", "#d55e00"


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
    found = prediction.landmarks
    heights = [place.z_mm for place in found.values()]
    locations = [LANDMARK_BY_NAME[name].location for name in found]
    axes.plot(locations, heights, "o", color=LANDMARK)
    axes.set(
        xlabel="Normalized location",
        ylabel="z (mm, LPS)",
        title=f"{prediction.source.name}: median residual {prediction.fit.residual_mm:.0f} mm",
    )
    right = axes.secondary_yaxis("right")
    right.set_yticks(heights, [f"{name}, {place.z_mm:.0f} mm" for name, place in found.items()])
    right.tick_params(labelsize="small", colors=LANDMARK)
    for height in heights:
        axes.axhline(height, color=LANDMARK, lw=0.5, alpha=0.4)
    if prediction.fit.warnings:
        figure.supxlabel("\n".join(prediction.fit.warnings), fontsize="small", wrap=True)
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(path, dpi=100)
