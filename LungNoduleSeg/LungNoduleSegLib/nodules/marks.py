"""How far the network's mark of a nodule reaches: down to half of its highest probability."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from CTLungScreeningLib.geometry import TOUCHING, Box, box_between, box_of

Indices = tuple[NDArray[np.intp], ...]

STEPS = 200
"""A probability that is kept, or ranked by, is rounded down to a step of 1/200. So at a threshold
that is a multiple of 0.005 the same voxels reach it as before."""

REACH_MM = 20.0
"""Maximum reach of a mark beyond the voxels that reach the threshold; none if it goes on there."""

MOST_MARKS = 500
"""A network that marks more places than this is not asked how far each of them reaches."""


def steps_of(probability: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Round probabilities from 0 to 1, of any shape, down to steps of 1 / `STEPS`."""
    exact = probability.astype(np.float64) * STEPS
    return np.floor(exact + 1e-9).astype(np.uint8)


def down_to_half(
    voxels: Indices,
    owner: NDArray[np.int64],
    steps: Callable[[Box], NDArray[np.uint8]],
    shape: tuple[int, ...],
    threshold: float,
    spacing: NDArray[np.float64],
) -> tuple[Indices, NDArray[np.int64]]:
    """Add to each component what is connected with it and has half of its highest probability.

    So a faint nodule is marked as far as a distinct one, and a threshold decides whether a nodule
    is shown, not how large its mark is. Components that join that way become one; what a weaker one
    could share with a stronger one is that of the nearer.

    Args:
        voxels: indices of the components along z, y and x, each (n,).
        owner: component of each voxel, 0 for the first.
        steps: gives the probability in steps of 1 / `STEPS` within a box of the grid.
        shape: of the grid.
        threshold: that the components were found at.
        spacing: mm along (z, y, x).

    Returns:
        The voxels of what the components become, and the number of each, from 0.
    """
    if not 0 < owner.max(initial=-1) + 1 <= MOST_MARKS:
        return voxels, owner
    order = np.argsort(owner, kind="stable")
    points = np.stack(voxels, axis=1)[order]
    parts = np.split(points, np.cumsum(np.bincount(owner))[:-1])
    numbers = np.zeros(shape, np.uint16)
    numbers[voxels] = owner + 1
    reach = np.ceil(REACH_MM / spacing).astype(int)
    low = np.array([np.maximum(part.min(axis=0) - reach, 0) for part in parts])
    high = np.array([np.minimum(part.max(axis=0) + reach + 1, shape) for part in parts])
    boxes = [box_between(a, b) for a, b in zip(low, high, strict=True)]
    places = [tuple((part - first).T) for part, first in zip(parts, low, strict=True)]
    within = [steps(box) for box in boxes]
    peaks = [int(part[place].max()) for part, place in zip(within, places, strict=True)]
    done = np.zeros(len(parts) + 1, bool)
    for number in np.argsort(np.negative(peaks), kind="stable") + 1:
        box, place, level = boxes[number - 1], places[number - 1], (peaks[number - 1] + 1) // 2
        taken = numbers[box]
        mine = taken == number
        if not mine[place].all():
            continue
        stronger = done[taken]
        done[number] = True
        if level >= threshold * STEPS:
            continue
        free = (within[number - 1] >= level) & ~stronger
        first = tuple(int(axis[0]) for axis in place)
        mark = connected(free, first)
        found = np.argwhere(mark & ~mine)
        if len(found) and stronger.any():
            away, beyond = (
                cKDTree(np.argwhere(mask) * spacing).query(found * spacing)[0]
                for mask in (mine, stronger)
            )
            free[tuple(found[away >= beyond].T)] = False
            mark = connected(free, first)
            found = np.argwhere(mark & ~mine)
        found += low[number - 1]
        ends = (found == low[number - 1]) & (found > 0)
        ends |= (found == high[number - 1] - 1) & (found < np.array(shape) - 1)
        if ends.any():
            continue
        for joined in np.setdiff1d(taken[mark], (0, number)):
            numbers[tuple(parts[joined - 1].T)] = number
        points = np.concatenate([points, np.argwhere(mark & (taken == 0)) + low[number - 1]])
        taken[mark] = number
    marked = tuple(points.T)
    return marked, np.unique(numbers[marked], return_inverse=True)[1]


def pieces_of(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Number the pieces of a mask (z, y, x) from 1, in the order of the grid, and count them.

    Voxels join as in `TOUCHING`. Where most slices are empty, it is faster than `ndimage.label`.
    """
    numbers, count = np.zeros(mask.shape, np.int32), 0
    held = np.pad(mask.any(axis=(1, 2)), 1)
    for low, high in np.flatnonzero(held[1:] != held[:-1]).reshape(-1, 2):
        box = box_of(mask[low:high])
        assert box is not None
        box = slice(low, high), *box[1:]
        pieces, more = ndimage.label(mask[box], TOUCHING)
        pieces[pieces > 0] += count
        numbers[box] = pieces
        count += more
    return numbers, count


def connected(mask: NDArray[np.bool_], voxel: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the piece of a mask (z, y, x) that holds a voxel; voxels join as in `TOUCHING`."""
    pieces, _ = ndimage.label(mask, TOUCHING)
    return np.asarray(pieces == pieces[voxel])
