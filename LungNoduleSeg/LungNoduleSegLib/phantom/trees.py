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


CURVE_PARTS = 3
CURVED_LEAVES = 8
"""Straight pieces of a branch, and the least number of ends it supplies to be bent at all."""


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

    Each branch leaves in the direction of its parent, bends towards the centre of its end points,
    stops `BRANCH_FRACTION` of the way there and divides them by a plane across the line to the
    farthest of them. Radii follow from the number of ends.
    """
    points: list[NDArray[np.float64]] = []
    leaves: list[int] = []
    pending = [(root, np.zeros(3), ends)]
    while pending:
        start, heading, supplied = pending.pop()
        centre = supplied.mean(0)
        last = len(supplied) == 1
        tip = centre if last else start + BRANCH_FRACTION * (centre - start)
        curve = _bend(start, heading, tip, CURVE_PARTS if len(supplied) >= CURVED_LEAVES else 1)
        points += [curve[i : i + 2] for i in range(len(curve) - 1)]
        leaves += [len(supplied)] * (len(curve) - 1)
        if last:
            continue
        spread = supplied - centre
        along = spread @ spread[np.argmax(np.einsum("ij,ij->i", spread, spread))]
        upper = np.zeros(len(supplied), bool)
        upper[np.argsort(along)[len(supplied) // 2 :]] = True
        heading = curve[-1] - curve[-2]
        pending += [(tip, heading, supplied[upper]), (tip, heading, supplied[~upper])]
    start_end = np.array(points)
    count = np.array(leaves)
    radius = end_radius * count ** (1 / DIAMETER_EXPONENT)
    return Tree(start_end[:, 0], start_end[:, 1], radius, count)


def _bend(
    start: NDArray[np.float64], heading: NDArray[np.float64], end: NDArray[np.float64], parts: int
) -> NDArray[np.float64]:
    """Return points (parts + 1, 3) on a parabola that leaves `start` along `heading`."""
    length = np.linalg.norm(end - start)
    bend = start + heading / max(float(np.linalg.norm(heading)), 1e-9) * length / 3
    if not heading.any():
        bend = (start + end) / 2
    t = np.linspace(0, 1, parts + 1)[:, None]
    return start * (1 - t) ** 2 + 2 * bend * t * (1 - t) + end * t**2


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
