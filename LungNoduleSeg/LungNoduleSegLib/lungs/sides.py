"""Separate the right from the left lung."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from LungNoduleSegLib.lungs.coarse_grid import CoarseGrid, Mask
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG

MOST_WEAR_MM = 15
APART_MM = 50
"""The centres of two lungs are further apart than this from right to left."""
SMALLER_SHARE = 0.15
"""The smaller lung has at least this share of the larger one's volume."""


def by_midline(right_to_left_mm: NDArray[np.floating], midline_mm: float) -> NDArray[np.uint8]:
    """The label of the side on which each LPS x lies."""
    return np.where(right_to_left_mm < midline_mm, RIGHT_LUNG, LEFT_LUNG).astype(np.uint8)


def tell_apart(coarse: CoarseGrid, lungs: Mask) -> NDArray[np.uint8]:
    """Label the right and the left lung, apart also where they touch.

    The mask is worn away until it falls into two large parts beside each other; each voxel then
    belongs to the part nearest to it. Where only one lung is there, its components belong to the
    side of the body on which their centres lie.
    """
    box = coarse.box(lungs, 0)
    mask = lungs[box]
    x_mm = coarse.x_mm[box[2]]
    parts, _ = ndimage.label(mask)
    x, size = _centres(parts, x_mm)
    side = by_midline(x, coarse.midline_mm)[parts]
    middle = _between_lungs(x, size)
    if middle is not None:
        side = by_midline(x, middle)[parts]
    else:
        core = mask
        for worn in range(1, 1 + round(MOST_WEAR_MM / min(coarse.spacing))):
            core = ndimage.binary_erosion(core, border_value=1)
            cores, _ = ndimage.label(core)
            x, size = _centres(cores, x_mm)
            middle = _between_lungs(x, size)
            if middle is not None:
                core_side = by_midline(x, middle) * (size > 0.02 * size.max())
                side = _regrown(core_side[cores], mask, worn + 1)
                beyond = by_midline(x_mm, middle)
                side = np.where(side, side, beyond)
                break
    labels = np.zeros(lungs.shape, np.uint8)
    labels[box] = side * mask
    return labels


def _regrown(side: NDArray[np.uint8], mask: Mask, steps: int) -> NDArray[np.uint8]:
    """Let both sides grow within `mask` at the same pace."""
    right, left = side == RIGHT_LUNG, side == LEFT_LUNG
    for _ in range(steps):
        right = ndimage.binary_dilation(right, mask=mask & ~left)
        left = ndimage.binary_dilation(left, mask=mask & ~right)
    return (right * RIGHT_LUNG + left * LEFT_LUNG).astype(np.uint8)


def _centres(
    parts: NDArray[np.int32], x_mm: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Mean LPS x and number of blocks of each label; 0 counts as empty."""
    where = np.nonzero(parts)
    label = parts[where]
    size = np.bincount(label, minlength=1)
    x = np.bincount(label, x_mm[where[2]], minlength=1) / np.maximum(size, 1)
    return x, size


def _between_lungs(x: NDArray[np.floating], size: NDArray[np.int64]) -> float | None:
    """LPS x half-way between the two largest parts that can be the two lungs, if there are."""
    first = int(np.argmax(size))
    fits = (size > SMALLER_SHARE * size[first]) & (np.abs(x - x[first]) > APART_MM)
    if not fits.any():
        return None
    second = int(np.argmax(size * fits))
    return float(x[first] + x[second]) / 2
