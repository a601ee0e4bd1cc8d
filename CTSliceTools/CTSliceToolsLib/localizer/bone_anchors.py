"""Anchors in head and pelvis, found by their bone."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTSliceToolsLib.localizer.body_grid import (
    COARSE_MM,
    IN_PLANE,
    PIXEL_CM2,
    TISSUE,
    Anchor,
    BodyGrid,
    Lungs,
    Mask,
    component_sizes,
    enclosed,
    grey,
)

BONE = grey(200)
"""Cortical bone in blocks of 4 mm."""

SPONGY = grey(130)
SOFT = grey(-100)

SKULL_GAP = 4
"""Half the width, in pixels, of gaps in a slice of the skull that are closed."""

LEAST_BRAIN_ML = 200.0

ORBIT_BELOW_MM = 12.0
"""The skull opens at the roofs of the orbits, by so much above their middle.

It is the mean of the two heads of ../shared/data; less where the chin is up.
"""

LEAST_FLOOR_CM2 = 40.0

SCALP_CM2 = 1.0
LARGEST_CUT_CM2 = 80.0
HEAD_RADIUS_MM = 80.0
"""Of the ball that a vertex just above the scan is taken from."""

MOST_BONE = 0.3
"""Share of bone in a body; what has more is none."""

WING_MM = (36.0, 100.0)
"""The wings of the ilium lie further from the middle than the first and reach the second."""

LEAST_WING_ML = 60.0
WINGS_LEVEL_MM = 35.0
"""The crests of both sides are not further apart along z."""

FEMUR_MM = (50.0, 135.0)
LARGEST_HOLE_CM2 = 20.0
"""Spongy bone within a section of the head of femur may be as thin as soft tissue."""

EDGE_MM = 8.0
"""A ball nearer than this to the lowest slice may go on below it."""

FEMUR_RADIUS_MM = (14.0, 32.0)
HEADS_LEVEL_MM = 20.0
CREST_TO_FEMUR_MM = (90.0, 200.0)


def head_anchors(body: BodyGrid) -> Iterator[Anchor]:
    """Find the brain, which bone encloses, and from it the top of the head and the orbits."""
    bone = (body.coarse > BONE) & body.body
    room = SKULL_GAP + 1
    padded = np.pad(bone, ((0, 0), (room, room), (room, room)))
    skull = ndimage.binary_closing(padded, IN_PLANE, SKULL_GAP)[:, room:-room, room:-room]
    pieces, count = ndimage.label(enclosed(~skull) & (body.coarse > SOFT))
    size = component_sizes(pieces, count + 1)
    if size.max() * body.voxel_ml < LEAST_BRAIN_ML:
        return
    brain = pieces == size.argmax()
    bottom, top = map(int, np.flatnonzero(brain.any((1, 2)))[[0, -1]])
    if bottom > 1 and np.count_nonzero(brain[bottom]) * PIXEL_CM2 > LEAST_FLOOR_CM2:
        z = float(body.z_mm[bottom]) - ORBIT_BELOW_MM
        yield Anchor("Roofs of the orbits", "Center of orbit", z, 14.0)
    section, area = ndimage.binary_dilation(brain[top], iterations=2), 0.0
    while top + 1 < len(brain):
        regions, _ = ndimage.label(body.coarse[top + 1] > TISSUE)
        met = np.unique(regions[section & (regions > 0)])
        above = np.isin(regions, met)
        if np.count_nonzero(above & section) * PIXEL_CM2 < SCALP_CM2:
            break
        top, section = top + 1, ndimage.binary_dilation(section) & above
    else:
        area = np.count_nonzero(section) * PIXEL_CM2
    if area < LARGEST_CUT_CM2:
        missing = 100 * area / (2 * np.pi * HEAD_RADIUS_MM)
        z = float(body.z_mm[top]) + body.step_mm / 2 + missing
        yield Anchor("Top of head", "Top of head", z, float(np.hypot(4, missing / 2)))


def pelvis_anchors(body: BodyGrid, lungs: Lungs | None) -> Iterator[Anchor]:
    """Find the crests of the ilium and the heads of the femur, where no lungs lie lower."""
    floor = np.flatnonzero(lungs.mask.any((1, 2)))[0] if lungs is not None else len(body.z_mm)
    if floor < 2:
        return
    coarse, inside = body.coarse[:floor], body.body[:floor]
    bone = (coarse > BONE) & inside
    columns = bone.sum((0, 1))
    if not 0 < columns.sum() < MOST_BONE * np.count_nonzero(inside):
        return
    middle = float(np.searchsorted(np.cumsum(columns), columns.sum() / 2))
    x_mm = (np.arange(bone.shape[2]) - middle) * COARSE_MM
    crest = _level_of_both(lambda side: _crest(body, bone, side * x_mm), max, WINGS_LEVEL_MM)
    if crest is not None and crest < body.z_mm[-1] - 2 * body.step_mm:
        yield Anchor("Crests of the ilium", "Tip of iliac crest", crest, 5.0)
    spongy = (coarse > SPONGY) & inside
    femur = _level_of_both(lambda side: _femur(body, spongy, side * x_mm), np.mean, HEADS_LEVEL_MM)
    if femur is None:
        return
    low, high = CREST_TO_FEMUR_MM
    one_body = inside[np.abs(body.z_mm[:floor] - femur).argmin(), :, round(middle)].any()
    if one_body and (crest is None or low < crest - femur < high):
        yield Anchor("Heads of the femur", "Head of femur", femur, 7.0)


def _level_of_both(
    find: Callable[[int], float | None],
    combine: Callable[[Sequence[float]], float],
    apart_mm: float,
) -> float | None:
    """Combine what is found at the right and the left, if both are there and about level."""
    right, left = find(-1), find(1)
    if right is None or left is None or abs(right - left) > apart_mm:
        return None
    return float(combine((right, left)))


def _crest(body: BodyGrid, bone: Mask, aside_mm: NDArray[np.floating]) -> float | None:
    """LPS z of the top of the largest bone on one side, if it is as wide as a wing."""
    nearest, reached = WING_MM
    regions, count = ndimage.label(bone & (aside_mm > nearest), np.ones((3, 3, 3)))
    size = component_sizes(regions, count + 1)
    largest = int(size.argmax())
    if size[largest] * body.voxel_ml < LEAST_WING_ML:
        return None
    slices, _, columns = ndimage.find_objects(regions)[largest - 1]
    if aside_mm[columns].max() < reached:
        return None
    return float(body.z_mm[slices.stop - 1])


def _femur(body: BodyGrid, bone: Mask, aside_mm: NDArray[np.floating]) -> float | None:
    """LPS z of the middle of the largest ball of bone on one side."""
    columns = np.flatnonzero((aside_mm > FEMUR_MM[0]) & (aside_mm < FEMUR_MM[1]))
    margin = slice(max(0, columns[0] - 8), columns[-1] + 9) if len(columns) else slice(0)
    side = bone[:, :, margin]
    if not side.any():
        return None
    filled = ndimage.binary_closing(side, IN_PLANE, 2)
    holes, count = ndimage.label(enclosed(~filled), IN_PLANE)
    small = component_sizes(holes, count + 1) * PIXEL_CM2 < LARGEST_HOLE_CM2
    small[0] = False
    filled |= small[holes]
    image = sitk.GetImageFromArray(np.pad(filled, ((1, 1), (0, 0), (0, 0))).astype(np.uint8))
    image.SetSpacing((COARSE_MM, COARSE_MM, body.step_mm))
    depth = -sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    )[1:-1]
    within = (aside_mm > FEMUR_MM[0]) & (aside_mm < FEMUR_MM[1])
    depth = depth * within[margin]
    radius = depth.max()
    if not FEMUR_RADIUS_MM[0] < radius < FEMUR_RADIUS_MM[1]:
        return None
    heights = body.z_mm[np.nonzero(depth > 0.9 * radius)[0]]
    return float(heights.mean()) if heights.min() > body.z_mm[0] + EDGE_MM else None
