"""The locations of a scan against z, as the network gave them and as they fit together."""

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
    figure = Figure(figsize=(7, 7), layout="constrained")
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
    for name, place in prediction.landmarks.items():
        location = LANDMARK_BY_NAME[name].location
        axes.plot(location, place.z_mm, "o", color=LANDMARK)
        axes.annotate(
            f"{name}, {place.z_mm:.0f} mm",
            (location, place.z_mm),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    axes.set(
        xlabel="Normalized location",
        ylabel="z (mm, LPS)",
        title=f"{prediction.source.name}: median residual {prediction.fit.residual_mm:.0f} mm",
    )
    axes.margins(x=0.15)
    if prediction.fit.warnings:
        figure.supxlabel("\n".join(prediction.fit.warnings), fontsize="small", wrap=True)
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(path, dpi=100)
