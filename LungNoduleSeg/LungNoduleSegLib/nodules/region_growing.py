"""Grow a nodule from a clicked point."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.child_process import Pause, Work, complete
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import Box, box_between, distance_mm, grown, out_of_crop
from LungNoduleSegLib.nodules.attenuation import LEAST_CONTRAST_HU, LUNG_HU, SOFT_HU
from LungNoduleSegLib.nodules.vessels import climb, opened_at, piece_at

LARGEST_MM = 40.0
"""A region that grows wider than this about the point has leaked into something else."""

SMALLEST_MM = 2.0
"""Sphere diameter below which a nodule is lost in the noise."""

CLICK_MM = 2.0
"""A click may miss the nodule's densest part by this."""

DENT_MM = 15.0
"""Radius of the ball that closes the dent a nodule makes in a lung mask that leaves it out."""

RIM_MM = (1.2, 2.5)
"""Distance from the edge of a solid part to search for ground glass: beyond the scanner's blur."""

SMALL_MM, SURE = 12.0, 0.4
"""Of a region whose sphere is smaller than the first, only what lies deeper than this share of its
greatest depth is sure to be nodule: bits of vessels grow with it. Chosen on LIDC-IDRI's patients of
even numbers."""

NECKS = (0.5, 0.65, 0.8)
"""Parts thinner than the first share of the nodule, vessels and strands of pleura, are cut off.
The next one is taken if the rest is wider than `LARGEST_MM`, as with a broad base on the wall."""


@dataclass(frozen=True, eq=False)
class GrownNodule:
    """A nodule as it grew.

    Attributes:
        box: where it lies in the grid, (z, y, x).
        mask: its voxels within the box.
        sure: of them, those to outline it from by the image.
    """

    box: Box
    mask: NDArray[np.bool_]
    sure: NDArray[np.bool_]


def grow_nodule(
    hu: sitk.Image, lungs: sitk.Image, point: tuple[float, float, float]
) -> GrownNodule:
    """Grow a nodule about a point in a lung or on its border; see `grow_work`."""
    return complete(grow_work(hu, lungs, point))


def grow_work(
    hu: sitk.Image, lungs: sitk.Image, point: tuple[float, float, float]
) -> Work[GrownNodule]:
    """Grow a nodule about a point in a lung or on its border.

    Its edge is where the density is half-way between the lung nearby and the nodule; if ground
    glass surrounds that, half-way between the lung and the ground glass. Outside the
    lung mask it grows only within dents of it, where a mask that leaves out what touches the
    pleura has lost the nodule. Parts attached by a neck are cut off: the part whose depth reaches
    one of `NECKS` of the greatest is grown back by as much (after Kuhnigk et al., IEEE Trans Med
    Imaging 2006;25:417-434, who open with a strength fit to the nodule).

    Args:
        hu: HU, axial (`AxialView`).
        lungs: non-zero in the lungs, on the same grid.
        point: LPS mm.

    Raises:
        InputError: if the point lies outside the lungs, nothing there is denser than lung, or it
            grows wider than `LARGEST_MM`.
    """
    box, click = _around(hu, point)
    spacing = np.array(hu.GetSpacing())[::-1]
    density = np.clip(sitk.GetArrayViewFromImage(hu)[box].astype(np.float32), -1024, SOFT_HU)
    lung = sitk.GetArrayViewFromImage(lungs)[box] > 0
    allowed = yield from _without_dents(lung, spacing)
    yield Pause("Growing", 1, 2)
    if not allowed[click]:
        raise InputError("There is no lung at the point: click on a nodule in a lung.")
    offset = [(np.arange(n) - c) * s for n, c, s in zip(density.shape, click, spacing, strict=True)]
    z, y, x = np.meshgrid(*offset, indexing="ij", sparse=True)
    distance = np.sqrt(z**2 + y**2 + x**2)
    aerated = density[lung & (density < LUNG_HU)]
    around = float(np.median(aerated)) if len(aerated) else LUNG_HU
    smooth = ndimage.gaussian_filter(density, 0.5 / spacing)

    seed = _densest(smooth, allowed & (distance <= max(CLICK_MM, spacing.max())))
    if smooth[seed] < around + LEAST_CONTRAST_HU:
        raise InputError("Nothing at the point is denser than lung: click on a nodule.")
    within = allowed & (distance <= LARGEST_MM / 2)

    def grown_to(level: float) -> NDArray[np.bool_]:
        dense = within & (density > level)
        dense[seed] = True
        for neck in NECKS:
            piece = _cut_free(dense, seed, spacing, neck)
            if not too_wide(piece):
                break
        return piece

    def too_wide(piece: NDArray[np.bool_]) -> bool:
        return bool(distance[piece].max() > LARGEST_MM / 2 - spacing.max())

    nodule = grown_to((around + float(smooth[seed])) / 2)
    level = (around + float(np.percentile(density[nodule], 75))) / 2
    nodule = grown_to(level)
    rim = density[within & (density <= level) & _rim(nodule, spacing)]
    if len(rim) and np.median(rim) > around + LEAST_CONTRAST_HU:
        nodule = grown_to((around + float(np.median(rim))) / 2)
    if too_wide(nodule):
        raise InputError(
            f"What is at the point grows wider than {LARGEST_MM:g} mm: draw it in the Segment "
            "Editor."
        )
    if np.count_nonzero(nodule) * spacing.prod() < np.pi / 6 * SMALLEST_MM**3:
        raise InputError(
            f"What is at the point is smaller than {SMALLEST_MM:g} mm: click on a nodule."
        )
    (inner,) = ndimage.find_objects(nodule.view(np.uint8), 1)
    mask = nodule[inner]
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    small = np.count_nonzero(mask) * spacing.prod() < np.pi / 6 * SMALL_MM**3
    sure = depth >= SURE * depth.max() if small else mask
    return GrownNodule(out_of_crop(inner, box), mask, sure)


def _around(
    image: sitk.Image, point: tuple[float, float, float]
) -> tuple[Box, tuple[int, int, int]]:
    """Return the box about a point in which it may grow, and the point's voxel in that box."""
    index = image.TransformPhysicalPointToIndex(point)
    if not all(0 <= i < size for i, size in zip(index, image.GetSize(), strict=True)):
        raise InputError("The point lies outside the lungs: click on a nodule in a lung.")
    x, y, z = index
    clicked = box_between((z, y, x), (z + 1, y + 1, x + 1))
    reach = np.ceil((LARGEST_MM / 2 + DENT_MM) / np.array(image.GetSpacing()[::-1])).astype(int)
    box = grown(clicked, reach, image.GetSize()[::-1])
    return box, (z - box[0].start, y - box[1].start, x - box[2].start)


def _without_dents(
    lung: NDArray[np.bool_], spacing: NDArray[np.float64]
) -> Work[NDArray[np.bool_]]:
    """Close a mask with a ball of `DENT_MM`, on a margin of nothing."""
    if not lung.any():
        return lung
    margin = [(int(n),) * 2 for n in np.ceil(DENT_MM / spacing) + 1]
    padded = np.pad(lung, margin)
    near = distance_mm(padded, spacing) <= DENT_MM
    yield Pause("Growing", 0, 2)
    closed = distance_mm(~near, spacing) > DENT_MM
    inner = tuple(
        slice(low, size - low) for (low, _), size in zip(margin, closed.shape, strict=True)
    )
    return np.asarray(closed[inner] | lung)


def _densest(density: NDArray[np.float32], among: NDArray[np.bool_]) -> tuple[int, ...]:
    place = np.where(among, density, -np.inf).argmax()
    return tuple(int(i) for i in np.unravel_index(place, density.shape))


def _cut_free(
    dense: NDArray[np.bool_], seed: tuple[int, ...], spacing: NDArray[np.float64], neck: float
) -> NDArray[np.bool_]:
    """Return the body of the piece with the seed, without parts thinner than a share of it."""
    box, piece, start = piece_at(dense, seed)
    depth = ndimage.distance_transform_edt(piece, sampling=spacing)
    deepest = climb(depth, start, spacing, CLICK_MM)
    body, _ = opened_at(deepest, piece, depth, neck * float(depth[deepest]), spacing)
    nodule = np.zeros(dense.shape, bool)
    nodule[box] = body[1:-1, 1:-1, 1:-1]
    return nodule


def _rim(nodule: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the voxels around a nodule as far off as `RIM_MM` says."""
    distance = distance_mm(nodule, spacing)
    return np.asarray((distance > RIM_MM[0]) & (distance <= RIM_MM[1]))
