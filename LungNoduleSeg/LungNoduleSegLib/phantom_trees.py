"""Bronchial and vascular trees that fill a lung."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BRANCH_FRACTION = 0.4
"""A branch covers this share of the way to the centre of what it supplies (Tawhai et al., Annals of
Biomedical Engineering 28:793, 2000)."""

DIAMETER_EXPONENT = 2.8
"""Murray's law has 3; measured pulmonary arteries lie a little below (Huang et al., Journal of
Applied Physiology 81:2123, 1996)."""


@dataclass(frozen=True)
class Tree:
    """Straight segments, parents before children.

    Attributes:
        start, end: (n, 3) LPS mm.
        radius: (n,) mm.
        leaves: (n,) how many end branches each segment supplies.
    """

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    radius: NDArray[np.float64]
    leaves: NDArray[np.int64]


def grow_tree(root: NDArray[np.float64], ends: NDArray[np.float64], end_radius: float) -> Tree:
    """Grow a tree from `root` (3,) to every one of `ends` (n, 3), LPS mm.

    Each branch heads for the centre of its end points, stops `BRANCH_FRACTION` of the way there and
    divides them by the plane across their longest axis. Radii follow from the number of ends.
    """
    segments: list[tuple[NDArray[np.float64], NDArray[np.float64], int]] = []
    pending = [(root, ends)]
    while pending:
        start, supplied = pending.pop()
        if len(supplied) == 1:
            segments.append((start, supplied[0], 1))
            continue
        centre = supplied.mean(0)
        tip = start + BRANCH_FRACTION * (centre - start)
        segments.append((start, tip, len(supplied)))
        spread = supplied - centre
        along = spread @ np.linalg.eigh(spread.T @ spread)[1][:, -1]
        upper = along > np.median(along)
        if not upper.any():
            upper = np.arange(len(supplied)) % 2 == 0
        pending += [(tip, supplied[upper]), (tip, supplied[~upper])]
    start, end = (np.array([s[i] for s in segments]) for i in (0, 1))
    leaves = np.array([s[2] for s in segments])
    return Tree(start, end, end_radius * leaves ** (1 / DIAMETER_EXPONENT), leaves)


def bronchi_along(arteries: Tree, least_leaves: int) -> Tree:
    """Return the bronchi that run behind the arteries that supply at least so many ends."""
    kept = arteries.leaves >= least_leaves
    radius = 0.85 * arteries.radius[kept]
    shift = (arteries.radius[kept] + radius + 1.2)[:, None] * [0.0, 1.0, 0.0]
    parent_shift = np.zeros_like(shift)
    ends = {tuple(e): s for e, s in zip(arteries.end[kept], shift, strict=True)}
    for i, point in enumerate(arteries.start[kept]):
        parent_shift[i] = ends.get(tuple(point), shift[i])
    return Tree(
        arteries.start[kept] + parent_shift,
        arteries.end[kept] + shift,
        radius,
        arteries.leaves[kept],
    )
