"""Grids of voxels, boxes cut from volumes, and resampling between grids."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product, takewhile
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""4×4, and its own inverse."""


def ijk_to_lps(image: sitk.Image) -> NDArray[np.float64]:
    """Return the 4×4 matrix from voxel indices (x, y, z) of a 3-D image to LPS mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return matrix


def voxels_to_lps(image: sitk.Image, voxels: NDArray[Any]) -> NDArray[np.float64]:
    """Convert voxel indices (n, 3) along (z, y, x), also fractional ones, to LPS mm."""
    matrix = ijk_to_lps(image)
    return matrix[:3, 3] + voxels[:, ::-1] @ matrix[:3, :3].T


def image_like(array: NDArray[Any], grid: sitk.Image) -> sitk.Image:
    """Return an array (z, y, x) as an image on the grid of another."""
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(grid)
    return image


TOUCHING = np.ones((3, 3, 3), bool)
"""Neighbours of a voxel over faces, edges and corners."""

MARGIN_MM = 10.0
"""Kept around what is cropped to."""


_SAME_VOXEL = 1e-4
"""Grids whose voxels are closer than this part of a voxel, or of 1, are the same."""


def crop_to(labels: sitk.Image, *images: sitk.Image) -> tuple[sitk.Image, ...]:
    """Cut `labels` and the images on its grid to the box around its non-zero voxels.

    The box is `MARGIN_MM` wider on each side, within the grid; the results know their place in the
    LPS world. `labels` must not be empty.
    """
    mask = sitk.GetArrayViewFromImage(labels) != 0
    box = box_of(mask)
    assert box is not None
    margin = np.ceil(MARGIN_MM / np.array(labels.GetSpacing()[::-1])).astype(int)
    wide = grown(box, margin, mask.shape)
    return tuple(cut_out(image, wide) for image in (labels, *images))


def cut_out(image: sitk.Image, box: "Box") -> sitk.Image:
    """Cut a box (z, y, x) out of an image; the result knows its place in the LPS world."""
    start, size = zip(*((one.start, one.stop - one.start) for one in box[::-1]), strict=True)
    return sitk.RegionOfInterest(image, size, start)


def imaged_box(hu: sitk.Image) -> "Box":
    """Return the box (z, y, x) without the sections at its ends that hold one value only.

    Such are of no scan: they pad a volume that was brought onto a larger grid.
    """
    z, y, x = (_imaged(hu, axis) for axis in range(3))
    return z, y, x


def imaged_slices(axial: sitk.Image) -> sitk.Image:
    """Cut the blank slices at the ends off an axial volume in HU (`AxialView`)."""
    slices = _imaged(axial, 0)
    columns, rows, depth = axial.GetSize()
    whole = slices == slice(0, depth)
    return axial if whole else cut_out(axial, (slices, slice(0, rows), slice(0, columns)))


def _imaged(hu: sitk.Image, axis: int) -> slice:
    sections = np.moveaxis(sitk.GetArrayViewFromImage(hu), axis, 0)
    below, above = (sum(1 for _ in takewhile(_blank, one)) for one in (sections, sections[::-1]))
    size = len(sections)
    return slice(below, size - above) if below < size else slice(0, size)


def _blank(section: NDArray[Any]) -> bool:
    return bool(section.min() == section.max())


def onto_grid(image: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Resample an image to a grid, nearest neighbour, 0 beyond its edges.

    Where the grid is a part of the image's own, that part is cut out, which is much faster.
    """
    corner = image.TransformPhysicalPointToContinuousIndex(grid.GetOrigin())
    start = [round(one) for one in corner]
    same = (
        np.allclose(corner, start, atol=_SAME_VOXEL)
        and np.allclose(image.GetSpacing(), grid.GetSpacing(), rtol=_SAME_VOXEL)
        and np.allclose(image.GetDirection(), grid.GetDirection(), atol=_SAME_VOXEL)
    )
    ends = zip(start, grid.GetSize(), image.GetSize(), strict=True)
    if same and all(low >= 0 and low + size <= whole for low, size, whole in ends):
        part = sitk.RegionOfInterest(image, grid.GetSize(), start)
        part.CopyInformation(grid)
        return part
    return sitk.Resample(image, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0)


GRID_TOLERANCE = 0.01
"""Largest distance, in voxels, between corresponding voxels of equal grids."""


def grid_difference(first: sitk.Image, second: sitk.Image) -> str:
    """Describe how the grids of two images differ; empty if they are equal."""
    if first.GetSize() != second.GetSize():
        sizes = (" × ".join(map(str, image.GetSize())) for image in (first, second))
        return f"{' and '.join(sizes)} voxels"
    apart = np.abs(Grid.of(first).corners() - Grid.of(second).corners()).max()
    if apart > GRID_TOLERANCE * min(second.GetSpacing()):
        return f"voxels up to {apart:.3g} mm apart"
    return ""


MAX_TILT_DEGREES = 5.0
"""Axes within this angle of the patient's are worked on as they are; beyond it, resampled."""


@dataclass(frozen=True)
class AxialView:
    """A volume whose array runs inferior→superior, anterior→posterior, right→left.

    Attributes:
        image: the axial volume. Its voxels are those of the input, re-ordered, where the input's
            axes lie within `MAX_TILT_DEGREES` of the patient's; else it is resampled linearly.
        original: the input, whose grid `restore` returns to.
        resampled: whether voxels were interpolated.
    """

    image: sitk.Image
    original: sitk.Image
    resampled: bool

    @classmethod
    def of(cls, image: sitk.Image, outside: float) -> "AxialView":
        """View `image` (3-D, LPS mm) axially; `outside` fills what resampling adds."""
        oriented = _oriented(image, "LPS")
        direction = np.reshape(oriented.GetDirection(), (3, 3))
        tilt = np.degrees(np.arccos(np.clip(np.diag(direction), -1, 1))).max()
        if tilt <= MAX_TILT_DEGREES:
            return cls(oriented, image, resampled=False)
        return cls(_resample_axis_aligned(oriented, outside), image, resampled=True)

    def restore(self, result: sitk.Image) -> sitk.Image:
        """Resample a result to the input's grid, nearest neighbour, 0 beyond its edges.

        `result` lies on the grid of `image` or on a box cut out of it (`cut_out`).
        """
        if self.resampled:
            return onto_grid(result, self.original)
        if result.GetSize() != self.image.GetSize():
            start = self.image.TransformPhysicalPointToIndex(result.GetOrigin())
            part = [slice(a, a + size) for a, size in zip(start, result.GetSize(), strict=True)]
            full = sitk.Image(self.image.GetSize(), result.GetPixelID())
            full.CopyInformation(self.image)
            full[tuple(part)] = result  # in place, unlike `sitk.Paste`
            result = full
        else:
            result = sitk.Image(result)
        result = _oriented(result, _orientation(self.original))
        result.CopyInformation(self.original)
        return result


def _orientation(image: sitk.Image) -> str:
    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())


def _oriented(image: sitk.Image, orientation: str) -> sitk.Image:
    """Re-order the voxels, without a copy where they already run that way."""
    return image if _orientation(image) == orientation else sitk.DICOMOrient(image, orientation)


def _resample_axis_aligned(image: sitk.Image, outside: float) -> sitk.Image:
    """Resample onto the axis-aligned box around `image`, keeping its spacing."""
    corners = Grid.of(image).corners()
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    spacing = np.array(image.GetSpacing())
    size = np.ceil((high - low) / spacing).astype(int) + 1
    return sitk.Resample(
        image,
        size.tolist(),
        sitk.Transform(),
        sitk.sitkLinear,
        low.tolist(),
        spacing.tolist(),
        np.eye(3).ravel().tolist(),
        outside,
        image.GetPixelID(),
    )


Box = tuple[slice, slice, slice]
Floats = NDArray[np.float64]
Integers = NDArray[np.int_]

_SAME_GRID = 1e-3
"""Grids whose voxels lie within this part of a voxel of each other have the same voxels."""


def box_of(mask: NDArray[np.bool_]) -> Box | None:
    """Return the box around the voxels of a mask (z, y, x), None if there are none; fast."""
    either = np.logical_or.reduce
    held = np.flatnonzero(either(mask, axis=(1, 2)))
    if not len(held):
        return None
    z = slice(int(held[0]), int(held[-1]) + 1)
    plane = either(mask[z], axis=0)
    rows, columns = np.flatnonzero(either(plane, axis=1)), np.flatnonzero(either(plane, axis=0))
    return (
        z,
        slice(int(rows[0]), int(rows[-1]) + 1),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )


def box_between(low: Sequence[int] | Integers, high: Sequence[int] | Integers) -> Box:
    """Return the box from a first index (z, y, x) up to another, which is not in it."""
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def in_crop(box: Box, crop: Box) -> Box:
    """Return where a box of an array lies in the part that was cut out as `crop`."""
    z, y, x = (slice(a.start - c.start, a.stop - c.start) for a, c in zip(box, crop, strict=True))
    return z, y, x


def out_of_crop(box: Box, crop: Box) -> Box:
    """Return where a box of a part that was cut out as `crop` lies in the array."""
    z, y, x = (slice(c.start + a.start, c.start + a.stop) for a, c in zip(box, crop, strict=True))
    return z, y, x


def shared_box(a: Box, b: Box) -> Box | None:
    """Return what two boxes of an array (z, y, x) share, None if they share no voxel."""
    low = [max(one.start, other.start) for one, other in zip(a, b, strict=True)]
    high = [min(one.stop, other.stop) for one, other in zip(a, b, strict=True)]
    if any(first >= end for first, end in zip(low, high, strict=True)):
        return None
    return box_between(low, high)


def box_around(boxes: Sequence[Box]) -> Box:
    """Return the smallest box of an array (z, y, x) that holds all of some boxes."""
    low = np.min([[part.start for part in box] for box in boxes], axis=0)
    return box_between(low, np.max([[part.stop for part in box] for box in boxes], axis=0))


def masks_meet(a: Box, mask_a: NDArray[np.bool_], b: Box, mask_b: NDArray[np.bool_]) -> bool:
    """Whether two masks of an array, each given within its box, share a voxel."""
    shared = shared_box(a, b)
    if shared is None:
        return False
    return bool((mask_a[in_crop(shared, a)] & mask_b[in_crop(shared, b)]).any())


def grown(box: Box, margin: int | Integers, shape: Sequence[int]) -> Box:
    """Return a box (z, y, x) with a margin of voxels around it, within an array of a shape.

    Args:
        box: with a start and a stop along each axis.
        margin: one number for all axes, or one for each, (3,).
        shape: of the array.
    """
    z, y, x = (
        slice(max(part.start - more, 0), min(part.stop + more, length))
        for part, more, length in zip(box, np.broadcast_to(margin, 3).tolist(), shape, strict=True)
    )
    return z, y, x


def distance_mm(mask: NDArray[np.bool_], spacing: Sequence[float] | Floats) -> NDArray[np.float32]:
    """Return the distance of each voxel to the nearest one in a mask.

    Args:
        mask: (z, y, x).
        spacing: mm along (z, y, x).

    Returns:
        mm, (z, y, x); 0 in the mask, inf if it is empty.
    """
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    image = sitk.GetImageFromArray(np.ascontiguousarray(mask).view(np.uint8))
    image.SetSpacing(np.asarray(spacing)[::-1].tolist())
    signed = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    return np.maximum(sitk.GetArrayViewFromImage(signed), 0)


@dataclass(frozen=True, eq=False)
class Grid:
    """The grid of a volume, without the voxels.

    Attributes:
        origin: LPS mm of the centre of the first voxel.
        spacing: mm along x, y, z.
        direction: cosines, 9 numbers by rows.
        size: voxels along x, y, z.
    """

    origin: tuple[float, ...]
    spacing: tuple[float, ...]
    direction: tuple[float, ...]
    size: tuple[int, ...]

    @classmethod
    def of(cls, image: sitk.Image) -> "Grid":
        """Return the grid of an image."""
        return cls(image.GetOrigin(), image.GetSpacing(), image.GetDirection(), image.GetSize())

    @property
    def first_voxel(self) -> sitk.Image:
        """An image of one voxel that turns indices of the grid to places and back."""
        image = sitk.Image((1, 1, 1), sitk.sitkUInt8)
        image.SetOrigin(self.origin)
        image.SetSpacing(self.spacing)
        image.SetDirection(self.direction)
        return image

    def corners(self) -> NDArray[np.float64]:
        """Return the LPS mm (8, 3) of the voxels in the corners."""
        last = np.array(self.size[::-1]) - 1
        return voxels_to_lps(self.first_voxel, np.array(list(np.ndindex(2, 2, 2))) * last)

    def shares_voxels(self, other: "Grid") -> bool:
        """Whether voxels of another grid are this one's, in whatever order, where both have any."""
        between = np.linalg.inv(ijk_to_lps(other.first_voxel)) @ ijk_to_lps(self.first_voxel)
        return bool(np.allclose(between, np.rint(between), atol=_SAME_GRID))

    def covered(self, box: Box, other: "Grid") -> Box | None:
        """Return the part of another grid's array that a box of this one's covers, None if none.

        Both are (z, y, x); voxels that lie partly in the box belong to it.
        """
        own, there = self.first_voxel, other.first_voxel
        ends = [(part.start - 0.5, part.stop - 0.5) for part in box[::-1]]
        corners = np.array(
            [
                there.TransformPhysicalPointToContinuousIndex(
                    own.TransformContinuousIndexToPhysicalPoint(corner)
                )
                for corner in product(*ends)
            ]
        )
        low = np.floor(corners.min(axis=0) + 0.5 + _SAME_GRID).astype(int)
        high = np.ceil(corners.max(axis=0) + 0.5 - _SAME_GRID).astype(int)
        low, high = np.maximum(low, 0)[::-1], np.minimum(high, other.size)[::-1]
        return None if (low >= high).any() else box_between(low, high)


@dataclass(frozen=True, eq=False)
class CroppedMask:
    """A mask within a volume.

    Attributes:
        grid: of the volume.
        box: the part of its (z, y, x) array that holds the mask.
        voxels: bool (z, y, x), of the shape of the box.
    """

    grid: Grid
    box: Box
    voxels: NDArray[np.bool_]

    @classmethod
    def of(cls, grid: Grid, box: Box, voxels: NDArray[np.bool_]) -> "CroppedMask | None":
        """Cut a mask to the box around its voxels; None if there are none."""
        inner = box_of(voxels)
        if inner is None:
            return None
        return cls(grid, out_of_crop(inner, box), voxels[inner])

    @property
    def image(self) -> sitk.Image:
        """The box as an image with its place in the LPS world, 1 in the mask."""
        image = sitk.GetImageFromArray(self.voxels.astype(np.uint8))
        start = [part.start for part in self.box[::-1]]
        first = self.grid.first_voxel
        image.SetOrigin(first.TransformIndexToPhysicalPoint(start))
        image.SetSpacing(first.GetSpacing())
        image.SetDirection(first.GetDirection())
        return image

    def _shifted_to(self, grid: Grid) -> list[int] | None:
        """The first index (z, y, x) of the mask on a grid that differs by whole voxels only."""
        if not np.allclose(self.grid.direction, grid.direction, atol=_SAME_GRID) or not (
            np.allclose(self.grid.spacing, grid.spacing, rtol=_SAME_GRID)
        ):
            return None
        start = [part.start for part in self.box[::-1]]
        place = self.grid.first_voxel.TransformIndexToPhysicalPoint(start)
        exact = grid.first_voxel.TransformPhysicalPointToContinuousIndex(place)
        whole = [round(one) for one in exact[::-1]]
        return whole if np.allclose(exact[::-1], whole, atol=_SAME_GRID) else None

    def on(self, grid: Grid) -> "CroppedMask | None":
        """Resample the mask to another grid, nearest neighbour; None if no voxel is inside.

        Where the two grids have the same voxels, in whatever order, nothing changes.
        """
        shifted = self._shifted_to(grid)
        if shifted is not None:
            return _cut(grid, shifted, self.voxels)
        box, first = self.grid.covered(self.box, grid), grid.first_voxel
        if box is None:
            return None
        brought = sitk.Resample(
            self.image,
            [part.stop - part.start for part in box[::-1]],
            sitk.Transform(),
            sitk.sitkNearestNeighbor,
            first.TransformIndexToPhysicalPoint([part.start for part in box[::-1]]),
            first.GetSpacing(),
            first.GetDirection(),
        )
        return CroppedMask.of(grid, box, sitk.GetArrayFromImage(brought) > 0)


def _cut(grid: Grid, start: Sequence[int], voxels: NDArray[np.bool_]) -> CroppedMask | None:
    """Write voxels (z, y, x) into a grid from an index on; those outside are dropped."""
    low = [max(-one, 0) for one in start]
    high = [
        min(size, whole - one)
        for one, size, whole in zip(start, voxels.shape, grid.size[::-1], strict=True)
    ]
    if any(a >= b for a, b in zip(low, high, strict=True)):
        return None
    box = box_between(np.add(start, low), np.add(start, high))
    kept = voxels[box_between(low, high)]
    if kept.shape == voxels.shape:
        return CroppedMask(grid, box, voxels)
    return CroppedMask.of(grid, box, kept)


@dataclass(frozen=True)
class ScanAlignment:
    """Which levels of two scans are the same.

    Attributes:
        z_mm: LPS z of the one scan in mm, increasing, (n,).
        other_mm: the same levels of the other scan, (n,).
    """

    z_mm: Floats
    other_mm: Floats

    def z_at(self, other_mm: float) -> float:
        """Return the LPS z of the one scan for that of the other, both in mm."""
        return _interpolate(other_mm, self.other_mm, self.z_mm)

    def other_at(self, z_mm: float) -> float:
        """Return the LPS z of the other scan for that of the one, both in mm; undoes `z_at`."""
        return _interpolate(z_mm, self.z_mm, self.other_mm)


def _interpolate(x: float, xs: Floats, ys: Floats) -> float:
    """Interpolate; beyond the ends, continue with a slope of 1."""
    inside = float(np.clip(x, xs[0], xs[-1]))
    return float(np.interp(inside, xs, ys)) + x - inside
