"""Make the locations of a scan's slices consistent: monotone, with plausible body proportions.

A network judges each slice by itself. Here the twelve landmarks get the heights that agree best
with all slices at once and with the distances that are usual between them; every slice is then
located between its landmarks. A few wrong slices have little say: the residuals enter through a
soft absolute value (Huber-like), as in robust regression.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME, LANDMARKS, LOCATIONS
from CTSliceToolsLib.localizer.body_grid import Anchor

Floats = NDArray[np.float64]


class _Span(NamedTuple):
    """A distance along z in adults."""

    above: str
    below: str
    mean_mm: float
    sd_mm: float


_SPANS = (
    _Span("Top of head", "Center of orbit", 95, 30),
    _Span("Center of orbit", "C1", 55, 30),
    _Span("Top of head", "C1", 148, 12),
    _Span("C1", "C7", 112, 12),
    _Span("C7", "T1", 16, 3),
    _Span("T1", "Aortic arch", 55, 10),
    _Span("Aortic arch", "Bifurcation of trachea", 25, 8),
    _Span("Bifurcation of trachea", "Right dome of diaphragm", 75, 18),
    _Span("Right dome of diaphragm", "T12", 85, 22),
    _Span("Bifurcation of trachea", "T12", 150, 18),
    _Span("T12", "L1", 29, 4),
    _Span("L1", "Tip of iliac crest", 118, 14),
    _Span("Tip of iliac crest", "Head of femur", 143, 12),
)
"""Usual distances between landmarks.

Set by us: means rounded from the annotated scans the bundled localizer was trained on, deviations
wide enough for small and tall adults, head tilt and depth of breath.
"""

_OUTSIDE_MM = 1750.0
"""mm for one unit of location above the head and below the hips, where no landmarks are."""

_FAR = 100
"""Units of location; no body is as long."""

_RAW_SD = 0.025
"""Location error of a single slice within which all slices count fully."""

_CORRELATION_MM = 40.0
"""Slices closer than this err alike, and count together as one."""

_BIAS_MM = 100.0
_BIAS_SD = 0.02
_BIAS_CHANGE_SD = 0.01
"""Standard deviations of a network's offset at one end of the scan, and of its change over
`_BIAS_MM`."""

_HARDLY = 1e-3

ANYWHERE_MM = 1000.0
"""A body lies no further from where the network has it. As an uncertainty: nothing is known."""

_WIDTHS = (16.0, 8.0, 4.0, *(3.0,) * 4)
"""Scale of the loss of anchors, in their standard deviations; far outliers are ignored.
Weights are found anew at each."""

TWO_SIDED_95 = 1.96
"""Standard deviations on either side that hold 95 % of a normal distribution."""

_LEAST_TRUST = 0.25
"""An anchor that is weighed less than this is named as contradicting the rest."""

_FEW_ANCHORS, _ENOUGH_ANCHORS = 2, 3
"""With fewer agreeing anchors than the first, a network that disagrees makes the fit unusable;
with fewer than the second it is a reason to look."""

UNTRUSTED_MM = 40.0
"""With a median residual above this, a scan is unlike the training data."""

UPSIDE_DOWN = (
    "The anatomy runs against the direction of z: the patient position in the header, head first "
    "or feet first, is wrong."
)

_ABOVE, _BELOW = (
    np.array([LANDMARKS.index(LANDMARK_BY_NAME[name]) for name in names])
    for names in zip(*((span.above, span.below) for span in _SPANS), strict=True)
)
_MEAN = np.array([span.mean_mm for span in _SPANS])
_SD = np.array([span.sd_mm for span in _SPANS])


@dataclass(frozen=True)
class ScanFit:
    """Heights of the landmarks of a scan, in or outside its field of view.

    Attributes:
        landmark_z_mm: LPS z of each of `LANDMARKS` in mm, decreasing, (12,).
        residual_mm: median distance of the slices from where the network by itself would put them;
            the smaller, the more can the fit be trusted.
        warnings: one sentence for each reason not to trust it.
        uncertainty_mm: half the width of the interval in which each landmark lies with 95 %
            probability, in mm, (12,); zeros where they are known.
    """

    landmark_z_mm: Floats
    residual_mm: float
    warnings: tuple[str, ...] = ()
    uncertainty_mm: Floats = field(default_factory=lambda: np.zeros(len(LANDMARKS)))

    def location_at(self, z_mm: ArrayLike) -> Floats:
        """Return the normalized location at LPS z in mm, any shape; outside a body beyond 0…1."""
        return _location_at(self.landmark_z_mm, np.asarray(z_mm, float))

    def z_at(self, location: ArrayLike) -> Floats:
        """Return the LPS z in mm of a normalized location, of any shape; undoes `location_at`."""
        z, locations = _knots(self.landmark_z_mm)
        return np.interp(np.asarray(location, float), locations, z)

    def uncertainty_at(self, z_mm: ArrayLike) -> Floats:
        """Return half the 95 % interval, in mm, of the level at LPS z in mm, of any shape."""
        heights = self.landmark_z_mm[::-1]
        return np.interp(np.asarray(z_mm, float), heights, self.uncertainty_mm[::-1])


def fit_scan(z_mm: Floats, raw: Floats, anchors: Sequence[Anchor] = ()) -> ScanFit:
    """Fit the landmarks of a scan to what a network says of its slices and to anchors.

    Args:
        z_mm: LPS z of the slices in mm, in any order, (n,).
        raw: their normalized locations from the network, 0…1, (n,).
        anchors: what was found in the scan; those that contradict the rest have no say.

    Raises:
        ValueError: if there is no slice or the shapes differ.
    """
    z, raw = np.asarray(z_mm, float), np.asarray(raw, float)
    if z.shape != raw.shape or not z.size:
        raise ValueError("as many locations as slices are needed, and at least one")
    solution = _solve(z, raw, anchors)
    heights = solution.heights
    error = np.abs(_location_at(heights, z).clip(0, 1) - raw) * _mm_per_location(heights, z)
    residual = float(np.median(error))
    trusted = int(np.count_nonzero(solution.trust > _LEAST_TRUST))
    strange = tuple(_strange(z, raw, residual, trusted))
    warnings = tuple(_warnings(z, anchors, solution, residual, trusted))
    uncertainty = np.full_like(heights, ANYWHERE_MM) if strange else TWO_SIDED_95 * solution.sd_mm
    return ScanFit(heights, residual, strange or warnings, uncertainty)


def landmark_fit(landmark_z_mm: Mapping[str, float]) -> ScanFit:
    """Return the fit that passes through known landmarks.

    A landmark between two known ones is put in proportion to its location, one beyond the first or
    the last at the usual distances; where the labels of training slices are to be right beyond the
    annotated ones, this is better than to go on with the slope of the last two.

    Args:
        landmark_z_mm: LPS z in mm by name, at least one, decreasing from head to feet.

    Raises:
        ValueError: if there is none, a name is unknown or the order contradicts anatomy.
    """
    known = [n for n, landmark in enumerate(LANDMARKS) if landmark.name in landmark_z_mm]
    z = np.array([landmark_z_mm[LANDMARKS[n].name] for n in known])
    if len(known) < max(len(landmark_z_mm), 1) or (np.diff(z) >= 0).any():
        raise ValueError("known landmarks from head to feet, with decreasing z, are needed")
    usual = usual_heights()
    heights = np.interp(LOCATIONS, LOCATIONS[known], z)
    for end, beyond in ((known[0], slice(known[0])), (known[-1], slice(known[-1], None))):
        heights[beyond] = heights[end] + usual[beyond] - usual[end]
    return ScanFit(heights, residual_mm=0)


@dataclass(frozen=True)
class _Solution:
    heights: Floats
    sd_mm: Floats
    cost: float
    trust: Floats
    """Weight of each anchor, 0…1."""


def _solve(z: Floats, raw: Floats, anchors: Sequence[Anchor] = ()) -> _Solution:
    """Find the heights that suit network, anchors and usual distances best.

    The unknowns are the top of the head, the eleven distances below it, and the network's offset
    at places `_BIAS_MM` apart. Anchors are weighed as in robust regression with the loss of Geman
    and McClure, whose width is narrowed step by step.
    """
    # Not at the top: it takes half a second, and panels are opened with this.
    from scipy.optimize import least_squares  # noqa: PLC0415

    usual = usual_heights()
    weight = np.sqrt(np.clip(_thickness(z) / _CORRELATION_MM, 0, 1))
    places = np.linspace(z.min(), z.max(), max(2, round(float(np.ptp(z)) / _BIAS_MM) + 1))
    which = [LANDMARKS.index(LANDMARK_BY_NAME[anchor.landmark]) for anchor in anchors]
    anchor_z = np.array([anchor.z_mm for anchor in anchors])
    anchor_sd = np.array([anchor.sd_mm for anchor in anchors])
    count = len(LANDMARKS)
    # Without anchors the offset of the network is unknown, and assumed to be zero.
    free = 1.0 if anchors else _HARDLY

    tops = [float(np.median(z - np.interp(raw, LOCATIONS, usual)))]
    tops += [float(at - usual[k]) for k, at in zip(which, anchor_z, strict=True)]

    def misfit(heights: Floats) -> Floats:
        return (heights[which] - anchor_z) / anchor_sd

    def residuals(parameters: Floats, trust: Floats) -> Floats:
        heights, bias = _heights(parameters[:count]), parameters[count:]
        seen = _location_at(heights, z) + np.interp(z, places, bias)
        return np.concatenate(
            [
                weight * _soft((seen.clip(0, 1) - raw) / _RAW_SD),
                (heights[_ABOVE] - heights[_BELOW] - _MEAN) / _SD,
                np.sqrt(trust) * misfit(heights),
                (heights[:1] - tops[0]) / ANYWHERE_MM,
                np.r_[bias[:1] / _BIAS_SD, np.diff(bias) / _BIAS_CHANGE_SD] / free,
            ]
        )

    lowest = np.full(count + len(places), -np.inf)
    lowest[1:count] = 1.0
    scale = np.r_[np.full(count, 10.0), np.full(len(places), 0.01)]

    def fit(start: Floats, trust: Floats) -> Any:
        return least_squares(
            residuals, start, bounds=(lowest, np.inf), x_scale=scale, ftol=1e-8, args=(trust,)
        )

    def narrowed(top: float) -> tuple[float, Any, Floats]:
        start = np.r_[top, -np.diff(usual), np.zeros(len(places))]
        trust = np.full(len(anchors), 0.01)
        result = fit(start, trust)
        for width in _WIDTHS if anchors else ():
            off = misfit(_heights(result.x[:count])) ** 2
            trust = (width**2 / (width**2 + off)) ** 2
            result = fit(result.x, trust)
        off = misfit(_heights(result.x[:count])) ** 2
        wide = _WIDTHS[-1] ** 2
        others = 2 * result.cost - float(np.sum(trust * off))
        return others + float(np.sum(wide * off / (wide + off))), result, trust

    cost, best, trust = min(map(narrowed, _apart(tops)), key=lambda one: one[0])
    heights = _heights(best.x[:count])
    jacobian = best.jac.copy()
    jacobian[-len(places) :] *= free
    spread = np.linalg.inv(jacobian.T @ jacobian)[:count, :count]
    to_heights = -np.tri(count)
    to_heights[:, 0] = 1
    variance = np.einsum("ij,jk,ik->i", to_heights, spread, to_heights)
    return _Solution(heights, np.sqrt(variance), cost, trust)


def _apart(places: Sequence[float]) -> list[float]:
    """Leave out places within 60 mm of one before."""
    kept: list[float] = []
    for place in places:
        if all(abs(place - other) > 60 for other in kept):
            kept.append(place)
    return kept


def _soft(residual: Floats) -> Floats:
    """Roots of the pseudo-Huber loss, with sign: linear in small residuals, a root in large."""
    return np.sign(residual) * np.sqrt(2 * (np.sqrt(1 + residual**2) - 1))


def usual_heights() -> Floats:
    """Return usual heights of `LANDMARKS` in mm, 0 at the top of the head, decreasing, (12,).

    They suit all usual distances, weighted by their deviations.
    """
    matrix = np.zeros((len(_SPANS), len(LANDMARKS)))
    rows = np.arange(len(_SPANS))
    matrix[rows, _ABOVE], matrix[rows, _BELOW] = 1, -1
    solved, *_ = np.linalg.lstsq(matrix[:, 1:] / _SD[:, None], _MEAN / _SD, rcond=None)
    return np.concatenate([[0.0], solved])


def _heights(parameters: Floats) -> Floats:
    return parameters[0] - np.concatenate([[0.0], np.cumsum(parameters[1:])])


def _knots(heights: Floats) -> tuple[Floats, Floats]:
    """The landmarks and a place far above and far below them: heights and locations."""
    far = _FAR * _OUTSIDE_MM
    z = np.concatenate([[heights[0] + far], heights, [heights[-1] - far]])
    return z, np.concatenate([[LOCATIONS[0] - _FAR], LOCATIONS, [LOCATIONS[-1] + _FAR]])


def _location_at(heights: Floats, z: Floats) -> Floats:
    knots, locations = _knots(heights)
    return np.interp(z, knots[::-1], locations[::-1])


def _mm_per_location(heights: Floats, z: Floats) -> Floats:
    knots, locations = _knots(heights)
    slope = -np.diff(knots) / np.diff(locations)
    return slope[np.clip(np.searchsorted(-knots, -z) - 1, 0, len(slope) - 1)]


def _thickness(z: Floats) -> Floats:
    """mm of the body that each slice stands for."""
    if len(z) == 1:
        return np.array([_CORRELATION_MM])
    order = np.argsort(z)
    thickness = np.empty_like(z)
    thickness[order] = np.gradient(z[order])
    return thickness


def is_upside_down(z_mm: Floats, raw: Floats) -> bool:
    """Whether what a network says of slices, see `fit_scan`, suits a body with its head below."""
    if np.ptp(z_mm) <= 60 or np.ptp(raw) <= 0.03 or _rank_correlation(z_mm, raw) <= 0.3:
        return False
    return _solve(-z_mm, raw).cost < _solve(z_mm, raw).cost


def _strange(z: Floats, raw: Floats, residual: float, trusted: int) -> Iterator[str]:
    """Return the reasons why a scan cannot be located."""
    if is_upside_down(z, raw):
        yield UPSIDE_DOWN
    if residual > UNTRUSTED_MM and trusted < _FEW_ANCHORS:
        yield (
            f"The slices do not follow each other as in a body (median residual {residual:.0f} "
            "mm): this is not an axial scan of an adult between head and hips, and the locations "
            "are not to be trusted."
        )


def _rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's; `scipy.stats` would take half a second to import."""
    ranks = np.argsort(np.argsort([a, b], axis=1, kind="stable"), axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    return float(ranks[0] @ ranks[1] / (ranks[0] @ ranks[0]))


def _warnings(
    z: Floats, anchors: Sequence[Anchor], found: _Solution, residual: float, trusted: int
) -> Iterator[str]:
    if residual > UNTRUSTED_MM and _FEW_ANCHORS <= trusted < _ENOUGH_ANCHORS:
        yield (
            f"The network puts the slices {residual:.0f} mm away from where the anatomy that was "
            "found does: check the landmarks."
        )
    if found.heights[-1] > np.quantile(z, 0.5):
        yield "Most slices lie below the head of femur, where the model was not trained."
    for anchor, trust in zip(anchors, found.trust, strict=True):
        off = anchor.z_mm - found.heights[LANDMARKS.index(LANDMARK_BY_NAME[anchor.landmark])]
        if trust < _LEAST_TRUST:
            yield (
                f"{anchor.name}: the structure found puts {anchor.landmark} {abs(off):.0f} mm "
                f"{'above' if off > 0 else 'below'} where the rest of the scan has it, and was "
                "left out."
            )
