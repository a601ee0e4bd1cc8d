"""Trachea and main bronchi in a CT volume."""

import numpy as np
from scipy import ndimage

from LungNoduleSegLib.lungs.coarse_grid import IN_PLANE, CoarseGrid, Mask

LUMEN_HU = -700
"""Above this is the wall, which blocks of 2.5 mm show at less than its true density."""
GAS_HU = -900
AREA_MM2 = (40.0, 900.0)
SHORTEST_MM = 20
WALLED = 0.6
"""Share of a lumen's rim that is not air; lower where a bronchus runs within the lung."""
STRICTER_HU = (-700, -800, -860, -900, -940)


def find_airways(coarse: CoarseGrid, inside: Mask) -> Mask:
    """Find the lumen of the trachea and of the bronchi as far as their walls part it from lung.

    The trachea is the longest vertical chain of round gas-filled regions near the middle of the
    body's air; from its top, the lumen is followed downwards slice by slice.
    """
    lumen = inside & (coarse.hu < LUMEN_HU)
    regions, count = ndimage.label(lumen, IN_PLANE)
    airways = np.zeros_like(inside)
    if not count:
        return airways
    chain = _trachea(coarse, regions, count)
    if not chain:
        return airways
    pixel = coarse.spacing[1] * coarse.spacing[2]
    for k, label in chain:
        airways[k] = regions[k] == label
    area = float(np.median([np.count_nonzero(airways[k]) for k, _ in chain])) * pixel
    reach = max(1, round(max(4.0, coarse.spacing[0]) / coarse.spacing[1]))
    for k in range(chain[0][0] - 1, -1, -1):
        followed = _follow(coarse, lumen[k], k, airways[k + 1], area / pixel, reach) | airways[k]
        if not followed.any():
            break
        airways[k] = followed
    return airways


def _trachea(coarse: CoarseGrid, regions: np.ndarray, count: int) -> list[tuple[int, int]]:
    """The longest chain of overlapping tracheal regions, from the top: (slice, label) pairs."""
    index = np.arange(1, count + 1)
    pixel = coarse.spacing[1] * coarse.spacing[2]
    area = np.concatenate([[0], np.bincount(regions.ravel(), minlength=count + 1)[1:] * pixel])
    where = regions > 0
    total = np.bincount(regions[where], coarse.hu[where], minlength=count + 1)
    mean = total * pixel / np.maximum(area, pixel)
    boxes = ndimage.find_objects(regions)
    columns = np.flatnonzero((regions > 0).any((0, 1)))
    width = columns[-1] - columns[0]
    round_enough = np.zeros(count + 1, bool)
    for label, box in zip(index, boxes, strict=True):
        if not AREA_MM2[0] <= area[label] <= AREA_MM2[1]:
            continue
        height_mm = (box[1].stop - box[1].start) * coarse.spacing[1]
        width_mm = (box[2].stop - box[2].start) * coarse.spacing[2]
        middle = (box[2].start + box[2].stop) / 2
        round_enough[label] = (
            max(height_mm, width_mm) < 3 * min(height_mm, width_mm)
            and area[label] > 0.5 * height_mm * width_mm
            and columns[0] + 0.25 * width < middle < columns[-1] - 0.25 * width
            and mean[label] < GAS_HU + 50
        )
    length = np.zeros(count + 1, int)
    after = np.zeros(count + 1, int)
    best = 0
    for k in range(1, len(regions)):
        lower, upper = regions[k - 1], regions[k]
        both = round_enough[upper] & round_enough[lower]
        if not both.any():
            continue
        for above, below in np.unique(np.stack([upper[both], lower[both]]), axis=1).T:
            if 0.4 < area[above] / area[below] < 2.5 and length[below] + 1 > length[above]:
                length[above] = length[below] + 1
                after[above] = below
                if length[above] > length[best]:
                    best = above
    if length[best] * coarse.spacing[0] < SHORTEST_MM:
        return []
    chain = []
    while best:
        chain.append((boxes[best - 1][0].start, int(best)))
        best = after[best]
    return chain


def _follow(
    coarse: CoarseGrid, lumen: np.ndarray, k: int, above: np.ndarray, area: float, reach: int
) -> np.ndarray:
    """The regions of slice `k` that continue the lumen `above`, each not larger than a trachea."""
    near = ndimage.binary_dilation(above, iterations=reach)
    found = np.zeros_like(above)
    open_regions = lumen
    for hu in STRICTER_HU:
        labels, count = ndimage.label(open_regions & (coarse.hu[k] < hu))
        if not count:
            break
        size = np.bincount(labels.ravel(), minlength=count + 1)
        inside = np.bincount(labels[near], minlength=count + 1)
        overlap = np.bincount(labels[above], minlength=count + 1)
        good = (overlap > 0) & (size <= 1.6 * area) & (inside >= 0.5 * size)
        good[0] = False
        for label in np.flatnonzero(good):
            region = labels == label
            wall = ndimage.binary_dilation(region) & ~region
            good[label] = np.mean(coarse.hu[k][wall] > LUMEN_HU) > WALLED
        found |= good[labels]
        open_regions = ((overlap > 0) & ~good)[labels] & (labels > 0)
    return found
