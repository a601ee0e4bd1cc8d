"""Masks that are kept as the box around their voxels, and brought from one grid to another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

Box = tuple[slice, slice, slice]

_SAME_VOXEL = 1e-3
"""Grids whose voxels lie within this part of a voxel of each other have the same voxels."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a volume lie, without the voxels.

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
        """Give the grid of an image."""
        return cls(image.GetOrigin(), image.GetSpacing(), image.GetDirection(), image.GetSize())

    @property
    def first_voxel(self) -> sitk.Image:
        """An image of one voxel that turns indices of the grid to places and back."""
        image = sitk.Image((1, 1, 1), sitk.sitkUInt8)
        image.SetOrigin(self.origin)
        image.SetSpacing(self.spacing)
        image.SetDirection(self.direction)
        return image


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
        (inner,) = ndimage.find_objects(voxels.view(np.uint8), 1) or [None]
        if inner is None:
            return None
        z, y, x = (
            slice(part.start + found.start, part.start + found.stop)
            for part, found in zip(box, inner, strict=True)
        )
        return cls(grid, (z, y, x), voxels[inner])

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
        """Where the mask begins, (z, y, x), on a grid that differs by whole voxels only."""
        if not np.allclose(self.grid.direction, grid.direction, atol=_SAME_VOXEL) or not (
            np.allclose(self.grid.spacing, grid.spacing, rtol=_SAME_VOXEL)
        ):
            return None
        start = [part.start for part in self.box[::-1]]
        place = self.grid.first_voxel.TransformIndexToPhysicalPoint(start)
        exact = grid.first_voxel.TransformPhysicalPointToContinuousIndex(place)
        whole = [round(one) for one in exact[::-1]]
        return whole if np.allclose(exact[::-1], whole, atol=_SAME_VOXEL) else None

    def on(self, grid: Grid) -> "CroppedMask | None":
        """Bring the mask to another grid, nearest neighbour; None if nothing of it lies there.

        Where the two grids have the same voxels, in whatever order, nothing changes.
        """
        shifted = self._shifted_to(grid)
        if shifted is not None:
            return _cut(grid, shifted, self.voxels)
        image, first = self.image, grid.first_voxel
        ends = np.array(image.GetSize()) - 0.5
        corners = np.array(
            [
                first.TransformPhysicalPointToContinuousIndex(
                    image.TransformContinuousIndexToPhysicalPoint(
                        np.where(end, ends, -0.5).tolist()
                    )
                )
                for end in np.ndindex(2, 2, 2)
            ]
        )
        low = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
        high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, grid.size)
        if (low >= high).any():
            return None
        brought = sitk.Resample(
            image,
            (high - low).tolist(),
            sitk.Transform(),
            sitk.sitkNearestNeighbor,
            first.TransformIndexToPhysicalPoint(low.tolist()),
            first.GetSpacing(),
            first.GetDirection(),
        )
        x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        return CroppedMask.of(grid, (z, y, x), sitk.GetArrayFromImage(brought) > 0)


def _cut(grid: Grid, start: Sequence[int], voxels: NDArray[np.bool_]) -> CroppedMask | None:
    """Put voxels (z, y, x) into a grid from an index on; what lies outside it is cut off."""
    low = [max(-one, 0) for one in start]
    high = [
        min(size, whole - one)
        for one, size, whole in zip(start, voxels.shape, grid.size[::-1], strict=True)
    ]
    if any(a >= b for a, b in zip(low, high, strict=True)):
        return None
    inner = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    z, y, x = (
        slice(one + part.start, one + part.stop) for one, part in zip(start, inner, strict=True)
    )
    kept = voxels[inner]
    if kept.shape == voxels.shape:
        return CroppedMask(grid, (z, y, x), voxels)
    return CroppedMask.of(grid, (z, y, x), kept)
