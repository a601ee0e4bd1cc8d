"""Anatomical anchors: landmarks found without a network, as evidence beside its predictions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.geometry import TOUCHING
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
    find_lungs,
    grey,
)
from CTSliceToolsLib.localizer.ribs import rib_anchors
from CTSliceToolsLib.slice_image import PIXEL_MM

SOFT = grey(-150)

BESIDE_MM = 16.0
"""Domes and apices lie further than this from the middle of the lungs; the trachea does not."""

APEX_CM2 = 1.5
"""Section of one lung at its apex."""

APEX_BELOW_T1_MM = 1.0
"""The apices lie at T1, on average this much below it in the scans of ../shared/data."""

DOME_CM2 = 6.0
"""Section of the dome where its height is taken: spikes hardly count, and the error is 2 mm."""

DOME_DEPTH_MM = 16.0
"""Tissue reaches at least this far below the lung."""

BELOW_TOP_MM = 60.0
FLAT_MM = 3.0
LEAST_SECTION_CM2 = 100.0
MOST_HOLLOW_CM2 = 20.0
"""A dome that is steeper than that, and as near to the highest slice, may be the edge of one that
reaches above the scan: there the lung has a small section, or one that goes around the dome."""

LUMEN = grey(-700)
STRICTER = (LUMEN, grey(-800), grey(-850), grey(-900), grey(-930))
"""Upper limits of air in a lumen: where lung and bronchus merge, a lower one separates them."""

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
    steep = float(height[0] - height[least])
    near_top = body.z_mm[-1] - height[0] < BELOW_TOP_MM
    if near_top and steep > FLAT_MM and not _whole(lung[-1]):
        return None
    return float(height[least]) - body.step_mm / 2, steep


def _whole(section: Mask) -> bool:
    """Whether a section of lung is not that of one around a dome."""
    between = np.maximum.accumulate(section, 0) & np.maximum.accumulate(section[::-1], 0)[::-1]
    hollow = np.count_nonzero(between & ~section) * PIXEL_CM2
    large = np.count_nonzero(section) * PIXEL_CM2 > LEAST_SECTION_CM2
    return bool(large and hollow < MOST_HOLLOW_CM2)


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
        above = ndimage.center_of_mass(lumen)[1]
        lumen = np.isin(regions, lumens)
        aside = [ndimage.center_of_mass(regions == one)[1] - above for one in lumens]
        if np.ptp(aside) * PIXEL_MM > BRONCHI_APART_MM:
            wide = lungs.mask[k].sum() * PIXEL_CM2 > LEAST_LUNG_CM2
            parted = min(aside) < 0 < max(aside)  # else lung lies beside the trachea
            return float(body.z_mm[k]) if wide and parted else None
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


BONE = grey(200)
"""Cortical bone in blocks of 4 mm."""

SPONGY = grey(130)
SOFT_TISSUE = grey(-100)

SKULL_GAP = 4
"""Half the width, in pixels, of gaps in a slice of the skull that are closed."""

LEAST_BRAIN_ML = 200.0

ORBIT_BELOW_MM = 12.0
"""The skull opens at the roofs of the orbits, by so much above their middle.

It is the mean of the two heads of ../shared/data; less where the chin is up.
"""

LEAST_FLOOR_CM2 = 40.0

BEHIND_FACE_MM = 65.0
"""Brain that begins further behind the face than this lies below the roofs of the orbits."""

SCALP_CM2 = 1.0
LARGEST_CUT_CM2 = 80.0
HEAD_RADIUS_MM = 80.0
"""Radius of the sphere that estimates a vertex just above the scan."""

MOST_BONE = 0.3
"""Largest share of bone in a body; what has more is not a body."""

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
    pieces, count = ndimage.label(enclosed(~skull) & (body.coarse > SOFT_TISSUE))
    size = component_sizes(pieces, count + 1)
    if size.max() * body.voxel_ml < LEAST_BRAIN_ML:
        return
    brain = pieces == size.argmax()
    top = int(np.flatnonzero(brain.any((1, 2)))[-1])
    face, front = body.body.any(2).argmax(1), brain.any(2).argmax(1)
    above: Mask = brain.any((1, 2)) & ((front - face) * COARSE_MM < BEHIND_FACE_MM)
    bottom = int(above.argmax())
    if bottom > 1 and np.count_nonzero(brain[bottom]) * PIXEL_CM2 > LEAST_FLOOR_CM2:
        z = float(body.z_mm[bottom]) - ORBIT_BELOW_MM
        yield Anchor("Roofs of the orbits", "Center of orbit", z, 14.0)
    section, area = ndimage.binary_dilation(brain[top], iterations=2), 0.0
    while top + 1 < len(brain):
        regions, _ = ndimage.label(body.coarse[top + 1] > TISSUE)
        met = np.unique(regions[section & (regions > 0)])
        scalp = np.isin(regions, met)
        if np.count_nonzero(scalp & section) * PIXEL_CM2 < SCALP_CM2:
            break
        top, section = top + 1, ndimage.binary_dilation(section) & scalp
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
    regions, count = ndimage.label(bone & (aside_mm > nearest), TOUCHING)
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


LEAST_BONE_CM2 = 1.0
"""Minimum area of bone in a section of a body, anywhere between the vertex and the feet."""

ADULT_CM2 = 100.0
"""The section of an adult's neck; other parts of the trunk are larger."""


LEG_SHARE = 0.6
"""Ratio of the sections of two legs; that of an arm to a trunk or a head is smaller."""

TRUNK_CM2 = 350.0
"""The section of an adult's trunk; that of a head is smaller."""

SOFT_ORGAN = (grey(0), grey(180))
ORGAN_MM = 52.0
"""The liver is at least this wide; other soft organs that lie to one side are not."""

LEAST_LIVER_CM2 = 20.0
LEAST_LIVER_MM = 50.0
"""The liver has at least this section over this length; the heart does not, on either side."""


MIRRORED = (
    "The liver lies on the left: the scan is mirrored left for right, or the organs are (situs "
    "inversus)."
)


@dataclass(frozen=True)
class Anatomy:
    """Anatomy found in the slices of a scan without the network.

    Attributes:
        anchors: landmarks that were found, from head to feet.
        strange: one sentence for each reason to think that this is not a CT of an adult's trunk or
            head, so that it cannot be located.
        warnings: one sentence for each reason to check the anchors.
    """

    anchors: tuple[Anchor, ...] = ()
    strange: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def examine(pictures: NDArray[np.uint8], z_mm: NDArray[np.float64]) -> Anatomy:
    """Find landmarks of the head, the chest and the pelvis in the slices of a scan.

    What is outside the field of view, or does not look as expected, is left out. An anchor can be
    wrong, as where gas in the bowel lies like lung: `scan_fit` weighs them against each other.

    Args:
        pictures: slice images of one scan, uint8 (n, `SIZE`, `SIZE`), in any order.
        z_mm: LPS z of their centres in mm, (n,).
    """
    if len(z_mm) < 2:
        return Anatomy()
    body = BodyGrid.of(pictures, np.asarray(z_mm, float))
    if not body.body.any():
        return Anatomy(strange=("There is no body in the slices.",) if pictures.any() else ())
    mirrored = is_mirrored(body)
    if mirrored:
        body = BodyGrid(body.fine[:, :, ::-1], body.z_mm, body.step_mm)
    lungs = find_lungs(body)
    found = [*head_anchors(body), *rib_anchors(body), *pelvis_anchors(body, lungs)]
    if lungs is not None:
        found += chest_anchors(body, lungs)
    anchors = tuple(sorted(found, key=lambda anchor: -anchor.z_mm))
    return Anatomy(anchors, tuple(_strange(body)), (MIRRORED,) if mirrored else ())


def is_mirrored(body: BodyGrid) -> bool:
    """Whether a liver is seen, and on the left."""
    smooth = ndimage.uniform_filter(body.coarse, (max(1, round(10 / body.step_mm)), 3, 3))
    soft = (smooth > SOFT_ORGAN[0]) & (smooth < SOFT_ORGAN[1]) & body.body
    soft &= (np.count_nonzero(body.body, axis=(1, 2)) * PIXEL_CM2 > TRUNK_CM2)[:, None, None]
    size = round(ORGAN_MM / COARSE_MM)
    organ = ndimage.uniform_filter(soft.astype(np.float32), (0, size, size)) > 0.93
    if not organ.any():
        return False
    middle = round(float(ndimage.center_of_mass(body.body)[2]))
    right, left = (
        np.count_nonzero(side, axis=(1, 2)) * PIXEL_CM2
        for side in (organ[:, :, :middle], organ[:, :, middle:])
    )
    tall = np.count_nonzero(left > LEAST_LIVER_CM2) * body.step_mm > LEAST_LIVER_MM
    return bool(tall and left.sum() > 3 * right.sum())


def _strange(body: BodyGrid) -> Iterator[str]:
    tissue = body.coarse > TISSUE
    if tissue[:, [0, -1]].mean() > 0.9 and tissue[:, :, [0, -1]].mean() > 0.9:
        yield (
            "There is no air around the body: the values are not CT Hounsfield units, or show a "
            "part far from its skin, and the locations are not to be trusted."
        )
    section = np.median(np.count_nonzero(body.body, axis=(1, 2))) * PIXEL_CM2
    bone = np.median(np.count_nonzero(body.coarse > BONE, axis=(1, 2))) * PIXEL_CM2
    if bone < LEAST_BONE_CM2:
        yield (
            f"Half of the slices show less than {LEAST_BONE_CM2:g} cm² of bone: this does not look "
            "like a human body, and the locations are not to be trusted."
        )
    if section < ADULT_CM2:
        yield (
            f"The body has a section of {section:.0f} cm², too little for an adult: the locations "
            "are not to be trusted."
        )
    if np.median(body.second_share) > LEG_SHARE:
        yield (
            "Most slices show two parts of about the same size, as legs are: the locations are not "
            "to be trusted."
        )
