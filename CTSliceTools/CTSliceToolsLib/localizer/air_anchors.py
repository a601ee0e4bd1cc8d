"""Anchors in the chest: bifurcation of the trachea, right dome of the diaphragm, apices."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from CTSliceToolsLib.localizer.body_grid import (
    COARSE_MM,
    IN_PLANE,
    PIXEL_CM2,
    Anchor,
    BodyGrid,
    Lungs,
    Mask,
    component_sizes,
    enclosed,
    grey,
)
from CTSliceToolsLib.slice_image import PIXEL_MM

SOFT = grey(-150)

BESIDE_MM = 16.0
"""Domes and apices lie further than this from the middle of the lungs; the trachea does not."""

APEX_CM2 = 1.5
"""Section of one lung at its apex."""

APEX_BELOW_T1_MM = 1.0
"""The apices lie at T1: by so much lower on average in the scans of ../shared/data."""

DOME_CM2 = 6.0
"""Section of the dome where its height is taken: it makes light of spikes, and errs by 2 mm."""

DOME_DEPTH_MM = 16.0
"""Tissue reaches at least so far below the lung."""

LUMEN = grey(-700)
STRICTER = (LUMEN, grey(-800), grey(-850), grey(-900), grey(-930))
"""Where lung and bronchus run into each other, a lower limit still parts them."""

TRACHEA_CM2 = (0.5, 7.0)
LEAST_TRACHEA_MM = 25.0
TRACHEA_REACH_MM = 60.0
"""Half the width of the strip in which trachea and bronchi are followed."""

LEAST_BRONCHUS_CM2 = 0.25
BRONCHI_APART_MM = 8.0

LEAST_LUNG_CM2 = 60.0
"""Section of both lungs at the bifurcation."""


def chest_anchors(body: BodyGrid, lungs: Lungs) -> Iterator[Anchor]:
    """Find what the air in lungs and airways shows."""
    column = np.arange(lungs.mask.shape[2])
    aside = BESIDE_MM / COARSE_MM
    right = lungs.mask & (column < lungs.middle - aside)
    left = lungs.mask & (column > lungs.middle + aside)
    apices = [z for side in (right, left) if (z := _apex(body, side)) is not None]
    if apices:
        spread = float(np.ptp(apices)) / 2
        z = float(np.mean(apices)) + APEX_BELOW_T1_MM
        yield Anchor("Apices of the lungs", "T1", z, float(np.hypot(10, spread)))
    if (dome := _dome(body, right)) is not None:
        z, spread = dome
        sd = float(np.hypot(5, spread / 2))
        yield Anchor("Right dome of diaphragm", "Right dome of diaphragm", z, sd)
    if (carina := _carina(body, lungs)) is not None:
        sd = float(np.hypot(4, body.step_mm / 2))
        yield Anchor("Bifurcation of trachea", "Bifurcation of trachea", carina, sd)


def _apex(body: BodyGrid, lung: Mask) -> float | None:
    """LPS z of the top of a lung, if there are slices above it."""
    wide = np.flatnonzero(lung.sum((1, 2)) * PIXEL_CM2 > APEX_CM2)
    if not len(wide) or wide[-1] > len(lung) - 3:
        return None
    return float(body.z_mm[wide[-1]])


def _dome(body: BodyGrid, lung: Mask) -> tuple[float, float] | None:
    """LPS z of the highest tissue below a lung, away from its sides, and how steep it is there."""
    footprint = lung.any(0)
    within = ndimage.binary_fill_holes(ndimage.binary_closing(footprint, iterations=2))
    within = ndimage.binary_erosion(within, iterations=round(BESIDE_MM / COARSE_MM))
    least = round(DOME_CM2 / PIXEL_CM2)
    if np.count_nonzero(within & ~footprint) > least:  # the dome reaches above the scan
        return None
    depth = max(1, round(DOME_DEPTH_MM / body.step_mm))
    lowest = lung.argmax(0)
    rows, columns = np.nonzero(within & footprint & (lowest >= depth))
    first = lowest[rows, columns]
    below = [body.coarse[first - k, rows, columns] for k in range(min(2, depth), depth + 1)]
    solid = (np.array(below) > SOFT).all(0)
    height = np.full(footprint.shape, -np.inf)
    height[rows[solid], columns[solid]] = body.z_mm[first[solid]]
    height = np.sort(ndimage.median_filter(height, 3).ravel())[::-1]
    if not np.isfinite(height[least]):
        return None
    return float(height[least]) - body.step_mm / 2, float(height[0] - height[least])


def _carina(body: BodyGrid, lungs: Lungs) -> float | None:
    """LPS z of the first slice from above with two lumens where there was one."""
    middle, reach = round(lungs.middle * COARSE_MM / PIXEL_MM), round(TRACHEA_REACH_MM / PIXEL_MM)
    strip = slice(max(0, middle - reach), middle + reach)
    inside = body.body.repeat(2, axis=1).repeat(2, axis=2)[:, :, strip]
    density = np.where(inside, body.fine[:, :, strip], 255)
    top = _trachea(body, density, middle - strip.start)
    if top is None:
        return None
    k, lumen, section = top
    pixel = PIXEL_MM**2 / 100
    steps = max(1, round(body.step_mm / PIXEL_MM / 1.5))
    while k > 0:
        k -= 1
        near = ndimage.binary_dilation(lumen, iterations=steps)
        for limit in STRICTER:
            regions, count = ndimage.label(density[k] < limit)
            area = np.bincount(regions.ravel(), minlength=count + 1) * pixel
            met = np.unique(regions[near & (regions > 0)])
            at_side = np.union1d(regions[:, 0], regions[:, -1])
            leaks = np.isin(met, at_side) | (area[met] > 2.2 * section)
            if not leaks.any():
                break
        lumens = met[~leaks & (area[met] > LEAST_BRONCHUS_CM2)]
        if not len(lumens):
            return None
        lumen = np.isin(regions, lumens)
        across = [ndimage.center_of_mass(regions == one)[1] * PIXEL_MM for one in lumens]
        if np.ptp(across) > BRONCHI_APART_MM:
            wide = lungs.mask[k].sum() * PIXEL_CM2 > LEAST_LUNG_CM2
            return float(body.z_mm[k]) if wide else None
    return None


def _trachea(
    body: BodyGrid, density: NDArray[np.uint8], middle: float
) -> tuple[int, Mask, float] | None:
    """The top of the longest chain of round lumens near the middle: slice, lumen, section in cm².

    From top to bottom each lies below the one before and is about as large.
    """
    lumens = density < LUMEN
    regions, count = ndimage.label(enclosed(lumens), IN_PLANE)
    area = component_sizes(regions, count + 1) * PIXEL_MM**2 / 100
    boxes = ndimage.find_objects(regions)
    fits = np.zeros(count + 1, bool)
    for label, (_, rows, columns) in enumerate(boxes, 1):
        height, width = (PIXEL_MM * (part.stop - part.start) for part in (rows, columns))
        off = abs((columns.start + columns.stop) / 2 - middle) * PIXEL_MM
        fits[label] = (
            TRACHEA_CM2[0] <= area[label] <= TRACHEA_CM2[1]
            and max(height, width) < 2.5 * min(height, width)
            and area[label] > 0.5 * height * width / 100
            and off < TRACHEA_REACH_MM / 2
        )
    length, below = np.zeros(count + 1, int), np.zeros(count + 1, int)
    for label in map(int, np.flatnonzero(fits)):  # labels grow with z
        k, rows, columns = boxes[label - 1]
        length[label] = 1
        if k.start == 0:
            continue
        under = regions[k.start - 1, rows, columns][regions[k.start, rows, columns] == label]
        for one in np.unique(under[fits[under]]):
            if 0.4 < area[label] / area[one] < 2.5 and length[one] >= length[label]:
                length[label], below[label] = length[one] + 1, one
    if not count or length.max() * body.step_mm < LEAST_TRACHEA_MM:
        return None
    chain = [int(length.argmax())]
    while below[chain[-1]]:
        chain.append(int(below[chain[-1]]))
    k = boxes[chain[0] - 1][0].start
    return k, regions[k] == chain[0], float(np.median(area[chain[: len(chain) // 2 + 1]]))
