"""How sure a measure is: 95 % intervals, by a model fitted on artificial lung."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from LungNoduleSegLib.nodules.table import NoduleKind

MODEL = Path(__file__).parents[1] / "Resources" / "measurement-interval.json"
"""Written by `Scripts/fit_measurement_interval.py`, which made the lesions and fitted the model."""

MEASURES = ("longest", "across", "mean", "volume", "solid")

WIDEST = {"longest": 0.5, "across": 0.5, "mean": 0.5, "volume": 1.0, "solid": 0.5}
"""Half widths at most, relative to the mean diameter or the volume of the nodule: a diameter of
which nothing more can be said is given as plus or minus half."""


@dataclass(frozen=True)
class MeasurementInterval:
    """Half the 95 % interval of each measure of one nodule: the truth lies within ±.

    Attributes:
        longest_mm: of the longest axial diameter.
        across_mm: of the diameter across it.
        mean_mm: of the mean of both.
        volume_mm3: of the volume.
        solid_mm: of the mean diameter of the solid part; None unless part-solid.
    """

    longest_mm: float
    across_mm: float
    mean_mm: float
    volume_mm3: float
    solid_mm: float | None


def measurement_interval(
    diameter_mm: float,
    volume_mm3: float,
    spacing: Sequence[float],
    kind: NoduleKind,
    attached: bool,
    contact: float,
    noise_hu: float,
) -> MeasurementInterval:
    """Return the 95 % interval of a measure on an outline from the image.

    The half width relative to the measure is a product of powers of size, slice distance and
    noise, and of factors for type and attachment: a linear model of its logarithm. Beyond what
    the model was fitted on, the nearest of that counts; no interval is wider than `WIDEST`.

    Args:
        diameter_mm: measured, the mean of both axial ones.
        volume_mm3: measured.
        spacing: mm along (z, y, x).
        kind: type of the nodule.
        attached: whether a vessel or the wall of the lung had to be cut off.
        contact: share of the surface that borders on them.
        noise_hu: standard deviation of the aerated lung around.
    """
    terms = interval_terms(volume_mm3, spacing, kind, attached, contact, noise_hu)
    share = {
        name: min(math.exp(sum(a * b for a, b in zip(weights, terms, strict=True))), WIDEST[name])
        for name, weights in _model().items()
    }
    return MeasurementInterval(
        share["longest"] * diameter_mm,
        share["across"] * diameter_mm,
        share["mean"] * diameter_mm,
        share["volume"] * volume_mm3,
        share["solid"] * diameter_mm if kind is NoduleKind.PART_SOLID else None,
    )


def interval_terms(
    volume_mm3: float,
    spacing: Sequence[float],
    kind: NoduleKind,
    attached: bool,
    contact: float,
    noise_hu: float,
) -> tuple[float, ...]:
    """Return the terms of the linear model, see `measurement_interval`."""
    size = min(max(math.cbrt(6 * volume_mm3 / math.pi), 4.0), 30.0)
    return (
        1.0,
        math.log(size / 10),
        math.log(min(max(spacing[0], 0.6), 5.0)),
        math.log(min(max(noise_hu, 8.0), 55.0) / 20),
        float(kind is NoduleKind.PART_SOLID),
        float(kind is NoduleKind.NON_SOLID),
        float(attached),
        min(contact, 0.4),
    )


@lru_cache(maxsize=1)
def _model() -> dict[str, list[float]]:
    weights = json.loads(MODEL.read_text(encoding="utf-8"))["weights"]
    return {name: weights[name] for name in MEASURES}
