"""Performance by size, texture and place of the nodules, and calibration of the probability."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import counted
from CTLungScreeningLib.hu import DENSE_HU
from LungNoduleSegLib.network.transplants import shell_around
from LungNoduleSegLib.nodules.table import NoduleKind, Place

SIZES_MM = ((4, 6), (6, 8), (8, 12), (12, 20), (20, 30))
"""Ranges of diameters, each up to but without its end."""

SMALLER, LARGER = f"under {SIZES_MM[0][0]} mm", f"from {SIZES_MM[-1][1]} mm"

Size = tuple[int, int] | str
"""One of `SIZES_MM`, `SMALLER` or `LARGER`."""

BINS = 10
"""Of probability, of equal width."""

_ON_VESSEL = 0.05
"""Share of dense voxels around a nodule from which on it lies on a vessel."""

_BESIDE_PLEURA_MM = 0.5


@dataclass(frozen=True)
class TrueNodule:
    """A nodule of the reference, and what a detector made of it.

    Attributes:
        diameter_mm: of the sphere of the same volume, or as annotated.
        texture: None if unknown.
        place: likewise.
        probability: of its detection, minus infinity if it has no mark.
        dice: of its mask with the detected ones, None where there are no masks.
    """

    diameter_mm: float
    texture: NoduleKind | None
    place: Place | None
    probability: float
    dice: float | None = None


@dataclass(frozen=True)
class Subgroup:
    """The nodules of one size, texture or place.

    Attributes:
        by: "all", "size", "texture" or "place".
        name: of the subgroup.
        nodules: how many there are; a subgroup without any is not listed.
        found: how many were found.
        lower, upper: 95 % limits of the sensitivity (Wilson).
        dice: mean of those found, None if none was or there are no masks.
        least_dice: the smallest of these.
    """

    by: str
    name: str
    nodules: int
    found: int
    lower: float
    upper: float
    dice: float | None
    least_dice: float | None

    @property
    def sensitivity(self) -> float:
        """Found of all."""
        return self.found / self.nodules


@dataclass(frozen=True)
class Bin:
    """Findings of similar probability.

    Attributes:
        number: of the bin, from 0; it begins at a probability of `number` / `BINS`.
        probability: their mean.
        findings: how many there are.
        nodules: how many of them are nodules.
    """

    number: int
    probability: float
    findings: int
    nodules: int


@dataclass(frozen=True)
class Calibration:
    """Probability of findings against the share of them that are nodules.

    Attributes:
        bins: of equal width, without empty ones.
        error: expected calibration error: the mean distance of the two, weighted by the number of
            findings (Guo et al., On calibration of modern neural networks, ICML 2017).
    """

    bins: tuple[Bin, ...]
    error: float

    @property
    def findings(self) -> int:
        """In all bins."""
        return sum(one.findings for one in self.bins)


def subgroups(nodules: Sequence[TrueNodule], threshold: float) -> list[Subgroup]:
    """Count the nodules found at a threshold, of all and by size, texture and place.

    Args:
        nodules: of the reference.
        threshold: lowest probability of a finding.
    """
    result = _grouped("all", nodules, threshold, lambda _: "all")
    result += _grouped("size", nodules, threshold, lambda one: size_of(one.diameter_mm))
    result += _grouped("texture", nodules, threshold, lambda one: one.texture)
    return result + _grouped("place", nodules, threshold, lambda one: one.place)


def size_of(diameter_mm: float) -> Size:
    """Return the range that holds a diameter: of `SIZES_MM`, `SMALLER` or `LARGER`."""
    if diameter_mm < SIZES_MM[0][0]:
        return SMALLER
    return next((size for size in SIZES_MM if diameter_mm < size[1]), LARGER)


def calibration(probability: NDArray[np.float64], found: NDArray[np.bool_]) -> Calibration | None:
    """Compare the probability of findings with the share of them that are nodules.

    Args:
        probability: (n,) of each finding.
        found: (n,) whether it is a nodule.

    Returns:
        None without findings, or where a number is not a probability from 0 to 1.
    """
    if not len(probability) or probability.min() < 0 or probability.max() > 1:
        return None
    number = np.minimum((probability * BINS).astype(int), BINS - 1)
    bins = tuple(
        Bin(n, float(probability[here].mean()), int(here.sum()), int(found[here].sum()))
        for n, here in ((n, number == n) for n in np.unique(number).tolist())
    )
    apart = [one.findings * abs(one.probability - one.nodules / one.findings) for one in bins]
    return Calibration(bins, sum(apart) / len(probability))


def place_of(
    hu: NDArray[np.int16],
    inside: NDArray[np.bool_],
    spacing: Sequence[float],
    mask: NDArray[np.bool_],
) -> Place:
    """Tell whether a nodule touches the pleura or a vessel.

    Args:
        hu: (z, y, x) HU around the nodule, with a margin of 4 voxels or more.
        inside: the lungs, of the same shape; the nodule counts as lung.
        spacing: mm along z, y, x.
        mask: the nodule, of the same shape.
    """
    outside = ~(inside | mask)
    if outside.any():
        gap = ndimage.distance_transform_edt(~outside, spacing)[mask].min() - max(spacing[1:])
        if gap <= _BESIDE_PLEURA_MM:
            return Place.PLEURA
    shell = shell_around(mask) & inside
    dense = np.count_nonzero(shell & (hu > DENSE_HU))
    return Place.VESSEL if dense > _ON_VESSEL * np.count_nonzero(shell) else Place.FREE


def limits(count: int, of: int) -> tuple[float, float]:
    """95 % limits of a share (Wilson, Journal of the American Statistical Association 1927)."""
    low, high = stats.binomtest(count, of).proportion_ci(method="wilson")
    return float(low), float(high)


def to_dict(
    groups: Sequence[Subgroup], reliability: Calibration | None, threshold: float
) -> dict[str, Any]:
    """Both tables for a JSON file; what is unknown is None."""
    return {
        "subgroups": {
            "threshold": threshold if np.isfinite(threshold) else None,
            "rows": [asdict(one) | {"sensitivity": one.sensitivity} for one in groups],
        },
        "calibration": None
        if reliability is None
        else {
            "expected_calibration_error": reliability.error,
            "findings": reliability.findings,
            "bins": [asdict(one) for one in reliability.bins],
        },
    }


def to_text(groups: Sequence[Subgroup], reliability: Calibration | None) -> str:
    """Format both tables as text."""
    with_dice = any(one.dice is not None for one in groups)
    lines = ["                      found       95 % limits" + "   Dice, lowest" * with_dice]
    for one in groups:
        dice = "" if one.dice is None else f"   {one.dice:.2f}, {one.least_dice:.2f}"
        lines.append(
            f"{one.by if one.by != 'all' else '':8}{one.name:12}"
            f"{one.found:4d} of {one.nodules:<4d}  {one.lower:.2f} to {one.upper:.2f}{dice}"
        )
    if reliability is not None:
        lines.append(
            f"Expected calibration error {reliability.error:.3f} of "
            f"{counted(reliability.findings, 'finding')}"
        )
    return "\n".join(lines)


def write_csv(path: Path, groups: Sequence[Subgroup]) -> None:
    """Write one row per subgroup; Dice is empty where it is not known.

    Raises:
        InputError: if `path` exists.
    """
    names = [name for name in Subgroup.__dataclass_fields__ if name not in ("by", "name")]
    columns = ("by", "name", *names, "sensitivity")
    rows = ([getattr(one, name) for name in columns] for one in groups)
    csv_files.write_table(path, columns, rows)


def _grouped(
    by: str,
    nodules: Sequence[TrueNodule],
    threshold: float,
    group: Callable[[TrueNodule], Hashable],
) -> list[Subgroup]:
    """Make the subgroups by one property, of the nodules of which it is known."""
    order: list[Hashable] = ["all", SMALLER, *SIZES_MM, LARGER, *NoduleKind, *Place]
    members = {key: [one for one in nodules if group(one) == key] for key in order}
    return [_subgroup(by, key, own, threshold) for key, own in members.items() if own]


def _subgroup(by: str, key: Hashable, nodules: Sequence[TrueNodule], threshold: float) -> Subgroup:
    found = [one for one in nodules if one.probability >= threshold]
    dice = [one.dice for one in found if one.dice is not None]
    return Subgroup(
        by,
        f"{key[0]}-{key[1]} mm" if isinstance(key, tuple) else str(key),
        len(nodules),
        len(found),
        *limits(len(found), len(nodules)),
        float(np.mean(dice)) if dice else None,
        min(dice, default=None),
    )
