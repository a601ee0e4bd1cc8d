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
    volume_mm3: float,
    spacing: Sequence[float],
    kind: NoduleKind,
    attached: bool,
    noise_hu: float,
) -> MeasurementInterval:
    """Give the 95 % interval of what was measured on an outline that the image told.

    The half width of each measure is a product of powers of size, slice distance, pixel size and
    noise, and of factors for type and attachment: a linear model of its logarithm.

    Args:
        volume_mm3: measured.
        spacing: mm along (z, y, x).
        kind: type of the nodule.
        attached: whether a vessel or the wall of the lung had to be cut off.
        noise_hu: standard deviation of the aerated lung around.
    """
    terms = interval_terms(volume_mm3, spacing, kind, attached, noise_hu)
    half = {
        name: math.exp(sum(a * b for a, b in zip(weights, terms, strict=True)))
        for name, weights in _model().items()
    }
    return MeasurementInterval(
        half["longest"],
        half["across"],
        half["mean"],
        half["volume"] * volume_mm3,
        half["solid"] if kind is NoduleKind.PART_SOLID else None,
    )


def interval_terms(
    volume_mm3: float,
    spacing: Sequence[float],
    kind: NoduleKind,
    attached: bool,
    noise_hu: float,
) -> tuple[float, ...]:
    """Give the terms of the linear model, see `measurement_interval`."""
    size = math.log(math.cbrt(6 * volume_mm3 / math.pi) / 10)
    return (
        1.0,
        size,
        size * size,
        math.log(spacing[0]),
        math.log(spacing[-1] / 0.7),
        math.log(max(noise_hu, 5.0) / 20),
        float(kind is NoduleKind.PART_SOLID),
        float(kind is NoduleKind.NON_SOLID),
        float(attached),
    )


@lru_cache(maxsize=1)
def _model() -> dict[str, list[float]]:
    weights = json.loads(MODEL.read_text(encoding="utf-8"))["weights"]
    return {name: weights[name] for name in MEASURES}
