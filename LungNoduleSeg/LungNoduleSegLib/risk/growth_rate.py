"""The growth rate of a nodule and its significance.

Growth is modelled as exponential (Schwartz, Cancer 1961;14:1272-1294): the logarithm of the volume
is linear in time. The line is fitted by least squares, weighted by the uncertainty of each volume,
and its slope has a 95 % interval. If that interval contains zero, there is no measurable change.
A nodule that was stable and then grew is on no such line: only its latest dates are fitted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from LungNoduleSegLib.nodules.table import sphere_diameter

DAYS_PER_MONTH = 365.25 / 12

Z95 = 1.959964
"""The central 95 % of a normal distribution, in standard deviations to either side."""

SECOND_LOOK = 97.5
"""Per cent of the interval of a line that is one of two that a change is looked for on."""

BY_CHANCE = 0.05
"""Volumes whose scatter about a line is less probable than this do not lie on it."""

REPEATABILITY = math.log(1.25) / Z95 / math.sqrt(2)
"""Standard deviation of ln(volume) in one thin-slice scan. Two scans of an unchanged nodule differ
by less than 25 % in 95 of 100: van Klaveren et al., N Engl J Med 2009;361:2221-2229 (NELSON);
Callister et al., Thorax 2015;70 Suppl 2 (BTS guideline)."""

TWICE = math.log(2) / Z95
"""Standard deviation of ln(volume) at least, of a nodule outlined by the image on slices so thick
that it covers less than two: it may come out twice as large. Of 60 unchanged phantoms each of 7 and
8 mm on slices of 1.25 and then 5 mm, 9 in all were called grown without it, none with it."""


class Change(StrEnum):
    """Change of a nodule."""

    GROWN = "grown"
    SHRUNK = "shrunk"
    UNCHANGED = "no measurable change"
    NOT_COMPARABLE = "measured in another way"
    NEW = "new"
    VANISHED = "not found again"
    MERGED = "merged"
    SPLIT = "split off"
    NOT_SHOWN_BEFORE = "outside the prior scan"
    NOT_SHOWN_NOW = "outside the current scan"


@dataclass(frozen=True)
class GrowthRate:
    """Slope of ln(volume) per day (per scan without dates), with its interval.

    Attributes:
        per_day: the slope; negative for shrinkage.
        low: lower end of the interval.
        high: upper end.
        middle: weighted mean day, the pivot of the line.
        level: ln(volume) of the line on that day.
        by_chance: probability that volumes of such a line scatter as much as these.
        percent: of the interval.
    """

    per_day: float
    low: float
    high: float
    middle: float = 0.0
    level: float = 0.0
    by_chance: float = 1.0
    percent: float = 95.0

    def volume(self, day: float) -> float:
        """Volume (mm³) of the fitted line on a day."""
        return math.exp(self.level + self.per_day * (day - self.middle))

    @property
    def change(self) -> Change:
        """Grown or shrunk only if the interval excludes zero."""
        if self.low > 0:
            return Change.GROWN
        return Change.SHRUNK if self.high < 0 else Change.UNCHANGED

    @property
    def doubling_days(self) -> float:
        """Volume doubling time in days; negative for shrinkage, infinite for no change."""
        return math.log(2) / self.per_day if self.per_day else math.inf

    @property
    def doubling_interval(self) -> tuple[float, float]:
        """Shortest and longest doubling time in days; infinite where there may be no growth."""
        low = math.log(2) / self.high if self.high > 0 else math.inf
        return low, (math.log(2) / self.low if self.low > 0 else math.inf)


def growth_rate(
    days: Sequence[float],
    volumes_mm3: Sequence[float],
    deviations: Sequence[float],
    percent: float = 95.0,
) -> GrowthRate:
    """Fit exponential growth to two or more volumes of one nodule.

    If the volumes scatter about the line by more than their uncertainty, the interval is widened
    accordingly.

    Args:
        days: of each scan, in any order, not all the same.
        volumes_mm3: above 0.
        deviations: standard deviation of ln(volume) of each, above 0, see `volume_deviation`.
        percent: of the interval.
    """
    # Not at the top: it is slow to import, and panels are opened with this.
    from scipy.special import chdtrc, ndtri  # noqa: PLC0415

    t, y = np.asarray(days, float), np.log(volumes_mm3)
    weight = 1 / np.square(deviations)
    middle = float(np.average(t, weights=weight))
    spread = float(np.sum(weight * (t - middle) ** 2))
    level = float(np.average(y, weights=weight))
    slope = float(np.sum(weight * (t - middle) * y) / spread)
    residual = y - level - slope * (t - middle)
    scatter, free = float(np.sum(weight * residual**2)), len(t) - 2
    z = float(ndtri(0.5 + percent / 200))
    half = z * math.sqrt(max(scatter / max(free, 1), 1.0) / spread)
    by_chance = float(chdtrc(free, scatter)) if free else 1.0
    return GrowthRate(slope, slope - half, slope + half, middle, level, by_chance, percent)


def latest_growth(
    days: Sequence[float], volumes_mm3: Sequence[float], deviations: Sequence[float]
) -> tuple[GrowthRate, int]:
    """Fit exponential growth to the latest dates that lie on one line, two or more.

    The earliest dates are left out as long as the others scatter beyond chance (95 %), or as their
    line denies a change that the last two dates alone show. Lines that leave out dates have an
    interval of 97.5 %, as a change is looked for a second time with them.

    Args:
        days: as for `growth_rate`, in ascending order.
        volumes_mm3: likewise.
        deviations: likewise.

    Returns:
        The rate, and the number of the first date that it was fitted to.
    """
    rates = [
        growth_rate(
            days[first:], volumes_mm3[first:], deviations[first:], SECOND_LOOK if first else 95.0
        )
        for first in range(len(days) - 1)
    ]
    last = rates[-1].change
    return next(
        (rate, first)
        for first, rate in enumerate(rates)
        if rate.by_chance > BY_CHANCE and last in (Change.UNCHANGED, rate.change)
    )


def volume_interval(volume_mm3: float, deviation: float) -> tuple[float, float]:
    """95 % interval of a volume (mm³) from the standard deviation of its logarithm."""
    factor = math.exp(Z95 * deviation)
    return volume_mm3 / factor, volume_mm3 * factor


def volume_deviation(volume_mm3: float, spacing_mm: Sequence[float]) -> float:
    """Standard deviation of ln(volume) of a nodule in one scan.

    `REPEATABILITY` for thin slices; above `THIN_MM` it grows with the ratio of slice thickness to
    diameter, as the nodule's ends may lie anywhere in a slice (our own model, tested on phantoms
    by `docs/growth_realizations.py`).

    Args:
        volume_mm3: of the nodule.
        spacing_mm: of the scan's grid; the largest counts.
    """
    thick = max(max(spacing_mm) - THIN_MM, 0.0)
    return math.hypot(REPEATABILITY, ENDS * thick / sphere_diameter(volume_mm3))


THIN_MM = 1.25
"""Thickness up to which slices count as thin (our own choice)."""

ENDS = 0.3
"""Standard deviation of ln(volume) where the thickness above `THIN_MM` equals the diameter."""
