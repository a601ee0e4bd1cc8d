"""The pleura as maps of height, on which a mass that grows on it is a dent to be bridged.

Ribs, mediastinum, diaphragm and apex each see the lung from a side of their own. Seen from there
the lung's surface is a height above each point of a map, and runs on smoothly beneath a mass.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.geometry import grown
from LungNoduleSegLib.lungs.air import CoarseGrid, Mask

Heights = NDArray[np.float32]

DEEPEST_MM = 70
"""A dent deeper than this is more than a mass: a lobe that is missing, or the heart."""
SHALLOWEST_MM = 4
"""A dent less deep is a rib's, or a step of the grid."""
FLATTEST = 0.3
"""Depth over width of the flattest dent; domes and the heart's border are flatter."""
RIMMED, RIM_FALL_MM = 0.9, 10
"""Share of a dent's rim where the surface falls by less than this."""
RIM_MM = 5
"""The rim of a dent, which a mass lifts a little, does not count for the surface around it."""
HIGHEST_ARCH_MM = 8
"""A bridge arches over a dent's rim by less than this."""
SOFT_HU = (-30, 130)
"""A mass lies between fat and bone, and below vessels with contrast agent."""
NOWHERE = -1e4
"""Height where there is no lung."""

COSTAL_MM, OTHER_MM = 65, 50
"""Widest dents that are bridged, in both directions: at the ribs, and elsewhere."""
STANDING_OUT = 0.6
"""Share of a mass that borders on lung, at least; of hilar vessels less does."""
LONGEST_MASS_MM = 45
SPINE_MM = 25
"""Half the width of what the ribs' side leaves to the spine and the sternum."""
ANGLES = 360


def bridged(heights: Heights, steps_mm: tuple[float, float], widest_mm: float) -> Heights:
    """Bridge dents that are bounded in both directions of a map.

    Args:
        heights: mm, `NOWHERE` where there is no surface.
        steps_mm: distance of neighbours along each axis.
        widest_mm: dents wider than this along either axis stay.

    Returns:
        The heights, larger in dents.
    """
    closed = np.full_like(heights, np.inf)
    for axis, step in enumerate(steps_mm):
        size = 2 * round(widest_mm / step / 2) + 1
        widest = ndimage.maximum_filter1d(heights, size, axis, mode="nearest")
        closed = np.minimum(closed, ndimage.minimum_filter1d(widest, size, axis, mode="nearest"))
    depth = closed - heights
    dents = _rimmed(depth > SHALLOWEST_MM, heights, closed, steps_mm)
    if not dents.any():
        return heights
    rim = np.ones([2 * round(RIM_MM / step) + 1 for step in steps_mm])
    wide = dents | (ndimage.binary_dilation(dents, rim) & (heights > NOWHERE))
    arched = np.maximum(_across(heights, wide), _across(heights.T, wide.T).T)
    arched = np.clip(arched, closed, closed + HIGHEST_ARCH_MM)
    return np.where(wide, np.maximum(heights, arched), heights)


def _rimmed(dents: Mask, heights: Heights, closed: Heights, steps_mm: tuple[float, float]) -> Mask:
    """Choose the dents that a mass can make: deep for their width, with a rim all around.

    Beside the dome of the diaphragm and the heart the surface falls off instead, and what is
    deeper than `DEEPEST_MM` is not a mass.
    """
    labels, count = ndimage.label(dents, np.ones((3, 3)))
    over = np.where(dents, closed, NOWHERE)
    rim = ndimage.maximum_filter(over, 3)
    owner = ndimage.maximum_filter(labels, 3) * ~dents
    on_rim = owner > 0
    high = heights > rim - RIM_FALL_MM
    total = np.bincount(owner[on_rim], minlength=count + 1)
    share = np.bincount(owner[on_rim & high], minlength=count + 1) / np.maximum(total, 1)
    deep = np.zeros(count + 1)
    for label, part in enumerate(ndimage.find_objects(labels), 1):
        depth = (closed - heights)[part][labels[part] == label]
        deep[label] = np.percentile(depth, 90)  # a few rays may look past a mass
    width = np.sqrt(np.bincount(labels.ravel()) * np.prod(steps_mm))
    kept = (share >= RIMMED) & (deep < DEEPEST_MM) & (deep > FLATTEST * width)
    kept[0] = False
    return kept[labels]


def _across(heights: Heights, dents: Mask) -> Heights:
    """Interpolate linearly across dents along the second axis."""
    result = heights.copy()
    place = np.arange(heights.shape[1])
    for row, dent in zip(result, dents, strict=True):
        if dent.any() and not dent.all():
            row[dent] = np.interp(place[dent], place[~dent], row[~dent])
    return result


def dents_seen_from(coarse: CoarseGrid, lung: Mask, direction: tuple[int, int, int]) -> Mask:
    """Find what dents the surface of a lung, up to `OTHER_MM` wide, seen from far away.

    Args:
        coarse: the grid.
        lung: (z, y, x) one lung on it, or on a part of it.
        direction: that it is seen from, in blocks along (z, y, x): along z, or -1, 0 or 1 along y
            and x.

    Returns:
        bool (z, y, x), not of the lung.
    """
    (dz, dy, dx), (c, a, b) = coarse.spacing, direction
    depth, rows, columns = lung.shape
    if c:
        ordered = lung[::-c]
        heights = np.where(lung.any(0), (depth - ordered.argmax(0)) * dz, NOWHERE)
        smooth = bridged(heights.astype(np.float32), (dy, dx), OTHER_MM)
        place = np.arange(1, depth + 1)[::c, None, None] * dz
        return (place <= smooth + dz / 2) & (place > heights) & (smooth > heights)
    y, x = np.ogrid[:rows, :columns]
    step = min(dy, dx) / np.hypot(a, b)
    height = (a * y + b * x) * step
    across = a * x - b * y
    across -= across.min()
    seen = np.full((depth, across.max() + 1), NOWHERE, np.float32)
    k, j, i = np.nonzero(lung)
    np.maximum.at(seen, (k, across[j, i]), height[j, i].astype(np.float32))
    smooth = bridged(seen, (dz, step), OTHER_MM)
    within = (height > seen[:, across]) & (height <= smooth[:, across] + step / 2)
    return within & (smooth > seen)[:, across]


def dents_at_ribs(coarse: CoarseGrid, lungs: Mask, middle: float) -> Mask:
    """Find what dents the surface of both lungs seen from the ribs.

    Seen from the line half-way between the lungs, the ribs' side of the pleura lies at a distance
    for each slice and angle.

    Args:
        coarse: the grid.
        lungs: (z, y, x) both lungs on it.
        middle: the column half-way between them.

    Returns:
        bool (z, y, x), not of the lungs.
    """
    dz, dy, dx = coarse.spacing
    rows = np.flatnonzero(lungs.any((0, 2)))
    y = (np.arange(lungs.shape[1]) - (rows[0] + rows[-1]) / 2) * dy
    x = (np.arange(lungs.shape[2]) - middle) * dx
    step = min(dy, dx)
    reach = np.arange(0, np.hypot(np.abs(y).max(), np.abs(x).max()), step)
    turn = 2 * np.pi / ANGLES
    angles = np.arange(ANGLES) * turn
    # Angles are counted from the front, where the sternum is.
    at_y = np.rint((-np.cos(angles)[:, None] * reach - y[0]) / dy).astype(int)
    at_x = np.rint((np.sin(angles)[:, None] * reach - x[0]) / dx).astype(int)
    there = (at_y >= 0) & (at_y < len(y)) & (at_x >= 0) & (at_x < len(x))
    rays = lungs[:, np.where(there, at_y, 0), np.where(there, at_x, 0)] & there
    outermost = len(reach) - 1 - rays[:, :, ::-1].argmax(2)
    heights = np.where(rays.any(2), reach[outermost], NOWHERE).astype(np.float32)
    arc = turn * float(np.median(heights[heights > 0]))
    smooth = bridged(heights, (dz, arc), COSTAL_MM)
    own = np.rint(np.arctan2(x[None], -y[:, None]) / turn).astype(int) % ANGLES
    away = np.hypot(y[:, None], x[None])
    dents = (away > heights[:, own]) & (away <= smooth[:, own] + 1.5 * step)
    return dents & (smooth > heights)[:, own] & (np.abs(x) > SPINE_MM)


def soft_masses(dents: Mask, hu: NDArray[np.float32]) -> Mask:
    """Choose from dents what can be a mass: the healthy wall is thin muscle between fat and bone.

    Args:
        dents: (z, y, x) without the lungs.
        hu: of the same blocks.
    """
    soft = dents & (hu > SOFT_HU[0]) & (hu < SOFT_HU[1])
    thick = ndimage.binary_opening(soft)
    return ndimage.binary_dilation(thick, iterations=2, mask=dents & (hu < SOFT_HU[1]))


def standing_out(
    closed: Mask, lung: Mask, hu: NDArray[np.float32], spacing: tuple[float, float, float]
) -> Mask:
    """Choose from what a ball closes the masses that stand out into the lung.

    Args:
        closed: (z, y, x) blocks without the lung.
        lung: one lung on the same blocks, with what belongs to it already.
        hu: of the same blocks.
        spacing: of the blocks in mm, (z, y, x).
    """
    core = ndimage.binary_erosion(closed & (hu > SOFT_HU[0]) & (hu < SOFT_HU[1]))
    pieces, _ = ndimage.label(core)
    masses = np.zeros_like(closed)
    for label, part in enumerate(ndimage.find_objects(pieces), 1):
        around = grown(part, 4, closed.shape)
        mass = ndimage.binary_dilation(pieces[around] == label, iterations=2, mask=closed[around])
        shell = ndimage.binary_dilation(mass, iterations=2) & ~mass
        sides_mm = [(s.stop - s.start) * mm for s, mm in zip(part, spacing, strict=True)]
        if max(sides_mm) <= LONGEST_MASS_MM and lung[around][shell].mean() >= STANDING_OUT:
            masses[around] |= mass
    return masses
