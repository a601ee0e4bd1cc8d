"""Cavities: air that the thick wall of a nodule shuts in, filled to see the nodule as a whole."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist, squareform

from CTLungScreeningLib.geometry import Box, box_between, distance_mm, grown, image_like, in_crop
from LungNoduleSegLib.nodules.attenuation import SOFT_HU
from LungNoduleSegLib.nodules.table import sphere_diameter

OPEN_HU = -400
"""Half-way from lung to tissue: below it is air, or a wall that is too thin to shut it in."""

SMALLEST_MM, LARGEST_MM = 5.0, 51.0
"""Spheres of the smallest and the largest cavity."""

BLUR_MM, BLUR = 1.0, 1 / 20
"""The wall stays shut when it is blurred by this standard deviation, by this share of the cavity's
sphere, or by a pixel. That takes a wall of some 2.5 mm, of 3.5 mm around 36 mm: a thinner one is
that of a cyst, a bulla, a bronchus or a bowel."""

EMPTY_HU = -900
"""Air in the middle of a cavity lies below it; lung that consolidation encloses lies above."""

LEAST_ROUND = 0.6
"""The widest ball within a cavity has this share of its sphere's width at least: a bronchus, wide
and plugged at either end as it may be, is long."""

MOST_TOGETHER, BETWEEN_MM = 2, 5.0
"""More cavities than the first with no more than the second between them are a honeycomb."""

EDGE_MM = 1.2
"""The edge of a cavity is blurred this far into its wall."""

COARSE_MM = 1.8
"""Voxels up to this size do to look for air that is shut in."""


def fill_cavities(hu: sitk.Image, lungs: sitk.Image) -> sitk.Image:
    """Give the cavities of nodules the attenuation of soft tissue.

    The networks know solid nodules only, and a nodule is measured along its outside, as Lung-RADS
    does.

    Args:
        hu: axial HU.
        lungs: non-zero in the lungs, on the same grid.

    Returns:
        The image, `hu` itself if it shows no cavity.
    """
    array, lung = map(sitk.GetArrayViewFromImage, (hu, lungs))
    spacing = np.array(hu.GetSpacing())[::-1]
    numbers = np.zeros(array.shape, np.uint16)
    balls = []
    for box, air in _shut_in(array, spacing):
        if np.mean(lung[box][air] > 0) < 0.5 or np.mean(numbers[box][air] > 0) > 0.5:
            continue
        found = _within_thick_wall(array, spacing, box, air)
        if found is not None:
            crop, cavity = found
            balls.append((*_middle(crop, cavity) * spacing, _width(cavity, spacing) / 2))
            numbers[crop][_with_edge(cavity, spacing)] = len(balls)
    few = np.concatenate([[False], _are_few(np.array(balls).reshape(-1, 4))])
    if not few.any():
        return hu
    return image_like(np.where(few[numbers], np.maximum(array, SOFT_HU), array), hu)


def air_in(box: Box, hu: sitk.Image, filled: sitk.Image) -> NDArray[np.bool_]:
    """Return which voxels of a box are air in a cavity, given what `fill_cavities` returned."""
    array, solid = (sitk.GetArrayViewFromImage(image)[box] for image in (hu, filled))
    return (solid != array) & (array < OPEN_HU)


def _shut_in(
    hu: NDArray[Any], spacing: NDArray[np.float64]
) -> Iterator[tuple[Box, NDArray[np.bool_]]]:
    """Yield air that does not reach the border: its box and its voxels, walls widened to a grid."""
    step = np.maximum(COARSE_MM // spacing, 1).astype(int)
    size = hu.shape // step
    parts = (
        hu[tuple(slice(o, n * s, s) for o, n, s in zip(offset, size, step, strict=True))]
        for offset in product(*map(range, step))
    )
    coarse = next(parts).copy()
    for part in parts:
        np.maximum(coarse, part, out=coarse)
    numbers, _ = ndimage.label(coarse < OPEN_HU)
    width = sphere_diameter(np.bincount(numbers.ravel()) * np.prod(spacing * step))
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        # The coarse grid takes from a small one.
        if not SMALLEST_MM / 2 <= width[number] <= LARGEST_MM or _reaches_border(box, size):
            continue
        air = numbers[box] == number
        for axis, times in enumerate(step):
            air = air.repeat(times, axis)
        low, high = (np.array([getattr(part, end) for part in box]) for end in ("start", "stop"))
        yield box_between(low * step, high * step), air


def _within_thick_wall(
    hu: NDArray[Any], spacing: NDArray[np.float64], box: Box, air: NDArray[np.bool_]
) -> tuple[Box, NDArray[np.bool_]] | None:
    """Find the cavity that some air is in: its voxels in a box; None if it is none."""
    blur = max(BLUR_MM, BLUR * _width(air, spacing), spacing[1:].max())
    crop = grown(box, np.ceil(4 * blur / spacing).astype(int), hu.shape)
    density = np.minimum(hu[crop].astype(np.float32), SOFT_HU)
    smooth = ndimage.gaussian_filter(density, blur / spacing)
    pieces, _ = ndimage.label(smooth < OPEN_HU)
    within = pieces[in_crop(box, crop)][air]
    if not within.any():
        return None
    number = np.bincount(within[within > 0]).argmax()
    cavity = pieces == number
    if _reaches_border(ndimage.find_objects(pieces)[number - 1], cavity.shape):
        return None
    width = _width(cavity, spacing)
    depth = ndimage.distance_transform_edt(cavity, sampling=spacing)
    is_cavity = (
        SMALLEST_MM <= width <= LARGEST_MM
        and 2 * depth.max() >= LEAST_ROUND * width
        and smooth.ravel()[depth.argmax()] < EMPTY_HU
    )
    return (crop, cavity) if is_cavity else None


def _with_edge(cavity: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(distance_mm(cavity, spacing) <= max(EDGE_MM, spacing[1:].max()))


def _are_few(balls: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which balls (n, 4), centre and radius in mm, do not lie among too many others."""
    if len(balls) <= MOST_TOGETHER:
        return np.ones(len(balls), bool)
    apart = squareform(pdist(balls[:, :3])) - balls[:, 3] - balls[:, 3, None]
    _, group = connected_components(apart <= BETWEEN_MM)
    return np.asarray(np.bincount(group)[group] <= MOST_TOGETHER)


def _middle(box: Box, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.argwhere(mask).mean(axis=0) + [part.start for part in box]


def _width(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> float:
    """Diameter (mm) of the sphere of a mask's volume."""
    return float(sphere_diameter(mask.sum() * spacing.prod()))


def _reaches_border(box: Box, shape: tuple[int, ...] | NDArray[np.int64]) -> bool:
    return any(part.start == 0 or part.stop == n for part, n in zip(box, shape, strict=True))
