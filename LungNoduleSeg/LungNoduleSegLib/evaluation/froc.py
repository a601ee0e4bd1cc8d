"""The free-response ROC curve, its seven operating points and their confidence limits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OPERATING_POINTS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per scan at which LUNA16 evaluates the sensitivity."""

GRID = np.linspace(OPERATING_POINTS[0], OPERATING_POINTS[-1], 10_000)
"""False positives per scan at which curves are averaged, as in the challenge's script."""

CONFIDENCE = 0.95

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Marks:
    """The input of a FROC curve.

    Attributes:
        probability: (n,) of each mark.
        found: (n,) whether it detects a nodule; otherwise it is a false positive.
        scan: (n,) number of its scan, from 0.
        nodules: (scans,) number of nodules of each scan, found or missed.
    """

    probability: Array
    found: NDArray[np.bool_]
    scan: NDArray[np.intp]
    nodules: NDArray[np.intp]


@dataclass(frozen=True)
class FrocCurve:
    """One point for each probability, the highest first, after a point (0, 0).

    Attributes:
        false_positives: per scan, increasing.
        sensitivity: found nodules over all nodules, increasing.
        threshold: minimum probability of a mark; the first is infinite.
    """

    false_positives: Array
    sensitivity: Array
    threshold: Array

    def sensitivity_at(self, false_positives: Array | tuple[float, ...]) -> Array:
        """Interpolate linearly; constant beyond the last point."""
        return np.interp(false_positives, self.false_positives, self.sensitivity)

    def threshold_at(self, false_positives: Array | tuple[float, ...]) -> Array:
        """The lowest threshold with at most so many false positives per scan."""
        kept = np.searchsorted(self.false_positives, false_positives, side="right") - 1
        return self.threshold[kept]


@dataclass(frozen=True)
class Spread:
    """Mean and confidence limits of one or more values."""

    mean: list[float]
    lower: list[float]
    upper: list[float]

    @classmethod
    def of(cls, resampled: NDArray[np.float32]) -> "Spread":
        """Describe the columns of (resamples, values)."""
        tail = (1 - CONFIDENCE) / 2
        low, high = (int(share * len(resampled)) for share in (tail, 1 - tail))
        ordered = np.partition(resampled, (low, high), axis=0)
        return cls(
            resampled.mean(axis=0, dtype=float).tolist(),
            ordered[low].tolist(),
            ordered[high].tolist(),
        )


@dataclass(frozen=True)
class Band:
    """The variation of the sensitivity over resamples of the scans.

    Attributes:
        curve: along `GRID`.
        points: at `OPERATING_POINTS`.
        cpm: of the mean over these, one value.
    """

    curve: Spread
    points: Spread
    cpm: Spread


def froc_curve(marks: Marks) -> FrocCurve:
    """Make the curve of all scans.

    Bunch et al., A free-response approach to the measurement and characterization of radiographic-
    observer performance, 1978, as scored by Setio et al., Validation, comparison, and combination
    of algorithms for automatic detection of pulmonary nodules in computed tomography images: the
    LUNA16 challenge, Medical Image Analysis 2017;42:1.
    """
    ranked = _Ranked.of(marks)
    once = np.ones(len(marks.nodules))
    threshold = np.concatenate([[np.inf], ranked.probability[ranked.last_of_tie]])
    return FrocCurve(*ranked.curve(once), threshold)


def bootstrap_band(marks: Marks, resamples: int, seed: int) -> Band | None:
    """Bootstrap the sensitivity over scans; without resamples with nodules there is no band."""
    ranked = _Ranked.of(marks)
    scans = len(marks.nodules)
    drawn = np.random.default_rng(seed).integers(scans, size=(resamples, scans))
    curves = np.empty((resamples, len(GRID)), np.float32)
    points = np.empty((resamples, len(OPERATING_POINTS)), np.float32)
    used = 0
    for chosen in drawn:
        times = np.bincount(chosen, minlength=scans).astype(float)
        if times @ marks.nodules:
            curve = ranked.curve(times)
            curves[used], points[used] = (np.interp(at, *curve) for at in (GRID, OPERATING_POINTS))
            used += 1
    if not used:
        return None
    curves, points = curves[:used], points[:used]
    return Band(*(Spread.of(each) for each in (curves, points, points.mean(axis=1)[:, None])))


@dataclass(frozen=True)
class _Ranked:
    """Marks by decreasing probability, so that each curve takes two sums."""

    probability: Array
    found: Array
    scan: NDArray[np.intp]
    nodules: NDArray[np.intp]
    last_of_tie: NDArray[np.intp]

    @classmethod
    def of(cls, marks: Marks) -> "_Ranked":
        order = np.argsort(-marks.probability, kind="stable")
        probability = marks.probability[order]
        last_of_tie = np.flatnonzero(np.diff(probability, append=-np.inf))
        found = marks.found[order].astype(float)
        return cls(probability, found, marks.scan[order], marks.nodules, last_of_tie)

    def curve(self, times: Array) -> tuple[Array, Array]:
        """False positives per scan and sensitivity, with each scan counted `times`.

        Ratios are computed first and scaled afterwards, as in the challenge's script with
        scikit-learn's `roc_curve`: where the curve is steep, rounding affects the result.
        """
        weight = times[self.scan]
        found = np.cumsum(weight * self.found)[self.last_of_tie]
        false = np.cumsum(weight * (1 - self.found))[self.last_of_tie]
        return (
            _from_zero(_share(false) * false[-1:].sum() / times.sum()),
            _from_zero(_share(found) * found[-1:].sum() / (times @ self.nodules)),
        )


def _share(counts: Array) -> Array:
    """Counts divided by the last one; all zero if that is zero."""
    return counts / counts[-1] if len(counts) and counts[-1] else np.zeros(len(counts))


def _from_zero(values: Array) -> Array:
    return np.concatenate([[0.0], values])
