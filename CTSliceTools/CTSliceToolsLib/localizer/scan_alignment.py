"""Align two scans level by level, more finely than their separate predictions allow.

The network errs alike where two scans show alike anatomy, above all in a follow-up. So the raw
locations of both, as curves over z, are laid over each other: first the one shift that suits all
slices best, then small shifts of each part. How well the curves agree decides how much they count
against the levels that the two fits give.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from CTLungScreeningLib.geometry.scan_alignment import ScanAlignment

if TYPE_CHECKING:
    from CTSliceToolsLib.localizer.prediction import ScanPrediction

Floats = NDArray[np.float64]

_FIT_SD_MM = 15.0
"""How far the fits of two scans may be off against each other.

Fits that anchors make more certain are more so than the curves, and are taken as they are.
"""

_TWO_SIDED_95 = 1.96

_PART_MM = 40.0
_PART_SD_MM = 6.0
"""Parts of this length may be shifted by so much against their neighbours: breath, posture."""

_CORRELATION_MM = 20.0
"""Slices closer than this err alike, and count together as one."""

_LEAST_RAW_SD = 0.002
"""Curves of locations agree no better than this, in units of the location."""

_LEAST_OVERLAP_MM = 60.0
"""With less in common, the curves say nothing that the fits do not."""


def align_scans(scan: "ScanPrediction", other: "ScanPrediction") -> ScanAlignment:
    """Align two scans by the locations of their slices."""
    # Not at the top: it takes half a second, and panels are opened with this.
    from scipy.optimize import least_squares  # noqa: PLC0415

    z, raw = _curve(scan)
    other_z, other_raw = _curve(other)
    by_fits = scan.fit.z_at(other.fit.location_at(other_z))
    rigid = other_z + np.median(by_fits - other_z)
    spacing = float(np.mean(np.diff(other_z)))
    uncertain = scan.fit.uncertainty_at(by_fits), other.fit.uncertainty_at(other_z)
    if 0 < np.median(np.hypot(*uncertain)) / _TWO_SIDED_95 < _FIT_SD_MM:
        return ScanAlignment(by_fits, other_z)
    shifts = np.arange(-3 * _FIT_SD_MM, 3 * _FIT_SD_MM + 1)

    def differences(there: Floats) -> Floats:
        """Of the locations, 0 where only one of the scans reaches."""
        inside = (there >= z[0]) & (there <= z[-1])
        return np.where(inside, np.interp(there, z, raw) - other_raw, 0)

    def cost_and_deviation(guess: Floats, shift: float) -> tuple[float, float]:
        there = guess + shift
        overlap = float(np.sum((there >= z[0]) & (there <= z[-1])) * spacing)
        if overlap < _LEAST_OVERLAP_MM:
            return np.inf, np.inf
        square = float(np.sum(differences(there) ** 2)) * spacing / overlap + _LEAST_RAW_SD**2
        agreement = overlap / _CORRELATION_MM * np.log(square)
        return agreement + (shift / _FIT_SD_MM) ** 2, np.sqrt(square)

    tried = [
        (*cost_and_deviation(guess, shift), guess + shift)
        for guess in (by_fits, rigid)
        for shift in shifts
    ]
    cost, deviation, start = min(tried, key=lambda one: one[0])
    if not np.isfinite(cost):
        return ScanAlignment(by_fits, other_z)
    weight = np.sqrt(min(spacing / _CORRELATION_MM, 1)) / deviation
    parts = np.linspace(
        other_z[0], other_z[-1], max(2, round(float(np.ptp(other_z)) / _PART_MM) + 1)
    )

    def residuals(moves: Floats) -> Floats:
        there = start + np.interp(other_z, parts, moves)
        prior = (moves / _FIT_SD_MM, np.diff(moves) / _PART_SD_MM)
        return np.concatenate([weight * differences(there), *prior])

    moves = least_squares(residuals, np.zeros(len(parts)), loss="soft_l1").x
    found = start + np.interp(other_z, parts, moves)
    return ScanAlignment(_increasing(found, spacing), other_z)


def _curve(scan: "ScanPrediction") -> tuple[Floats, Floats]:
    return (
        np.array([one.z_mm for one in scan.slices]),
        np.array([one.raw for one in scan.slices]),
    )


def _increasing(z_mm: Floats, spacing: float) -> Floats:
    """Let no level come below the one before it."""
    ramp = np.arange(len(z_mm)) * spacing * 0.1
    return np.maximum.accumulate(z_mm - ramp) + ramp
