"""A CT volume on a grid of about 2.5 mm, for work on shapes in millimetres."""

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.hu import LOWEST_HU

Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]

BLOCK_MM = 2.5
LEAST_TISSUE_HU = -200
HIGHEST_HU = 200
"""Bone and metal count as this, so that a block's mean tells air from tissue beside them too."""
IN_PLANE = ndimage.generate_binary_structure(3, 1)
IN_PLANE[[0, 2]] = False


@dataclass(frozen=True)
class CoarseGrid:
    """Block means of an axial volume.

    Attributes:
        hu: float32, (z, y, x), clipped to −1024…200 HU.
        spacing: of the blocks in mm, (z, y, x).
        factor: voxels in a block, (z, y, x); voxels left over at the far ends belong to none.
        first: the first block's place among all blocks of the scan, (z, y, x).
        x_mm: LPS x of each column of blocks.
        midline_mm: LPS x of the middle of the body, taken from the tissue in all slices.
        full_shape: of the scan, (z, y, x).
    """

    hu: NDArray[np.float32]
    spacing: tuple[float, float, float]
    factor: tuple[int, int, int]
    first: tuple[int, int, int]
    x_mm: NDArray[np.floating]
    midline_mm: float
    full_shape: tuple[int, int, int]

    @classmethod
    def of(cls, axial: sitk.Image) -> "CoarseGrid":
        """Take the means of blocks of about `BLOCK_MM`."""
        factor = [
            min(size, max(1, round(BLOCK_MM / spacing)))
            for size, spacing in zip(axial.GetSize(), axial.GetSpacing(), strict=True)
        ]
        image = sitk.BinShrink(sitk.Clamp(axial, axial.GetPixelID(), LOWEST_HU, HIGHEST_HU), factor)
        hu = sitk.GetArrayFromImage(image).astype(np.float32)
        x_mm = image.GetOrigin()[0] + np.arange(hu.shape[2]) * image.GetSpacing()[0]
        tissue = np.count_nonzero(hu > LEAST_TISSUE_HU, axis=(0, 1))
        return cls(
            hu,
            spacing=image.GetSpacing()[::-1],
            factor=(factor[2], factor[1], factor[0]),
            first=(0, 0, 0),
            x_mm=x_mm,
            midline_mm=float(np.average(x_mm, weights=tissue if tissue.any() else None)),
            full_shape=axial.GetSize()[::-1],
        )

    def cropped(self, box: Box) -> "CoarseGrid":
        """The blocks of a box."""
        z, y, x = (start + part.start for start, part in zip(self.first, box, strict=True))
        return replace(self, hu=self.hu[box], x_mm=self.x_mm[box[2]], first=(z, y, x))

    @property
    def voxel_ml(self) -> float:
        """Volume of a block."""
        return float(np.prod(self.spacing)) / 1000

    def closings(self, mask: Mask, radii_mm: tuple[float, ...]) -> list[Mask]:
        """Close `mask` with balls of each radius."""
        reach = _distance(mask, self.spacing)
        return [_distance(reach > radius, self.spacing) > radius for radius in radii_mm]

    def box(self, mask: Mask, margin_mm: float) -> Box:
        """The bounding box of `mask`, grown by a margin within the volume."""
        found = []
        for axis, spacing in enumerate(self.spacing):
            line = np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis)))
            margin = int(np.ceil(margin_mm / spacing))
            end = min(mask.shape[axis], int(line[-1]) + 1 + margin)
            found.append(slice(max(0, int(line[0]) - margin), end))
        return found[0], found[1], found[2]

    def draw(
        self, field: NDArray[np.float32], labels: NDArray[np.uint8], level: float, box: Box
    ) -> NDArray[np.uint8]:
        """Draw `labels` on the scan's own grid where `field` is below `level`.

        Args:
            field: on the blocks of `box`; it is interpolated linearly.
            labels: on the same blocks; each voxel takes that of its block.
            level: the surface.
            box: a box of blocks; voxels outside it are 0.
        """
        factor = np.array(self.factor)
        start = np.array(self.first) + [part.start for part in box]
        first, last = start * factor, (start + labels.shape) * factor
        # Voxels left over at the far ends belong to the last block.
        last = np.where(last + factor > self.full_shape, self.full_shape, last)
        size = last - first

        z, y, x = (
            _Taps.of(blocks, int(voxels), f)
            for blocks, voxels, f in zip(field.shape, size, self.factor, strict=True)
        )
        drawn = np.zeros(self.full_shape, np.uint8)
        target = drawn[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
        for k, plane in enumerate(target):
            surface = y.between_rows(x.between_rows(z.between(field, k).T).T)
            plane[:] = labels[z.own[k]][y.own][:, x.own] * (surface < level)
        return drawn


@dataclass(frozen=True)
class _Taps:
    """For each voxel along an axis: its own block, the two blocks around it, the second's weight.

    A block's centre lies half-way between its first and its last voxel's.
    """

    own: NDArray[np.intp]
    low: NDArray[np.intp]
    high: NDArray[np.intp]
    weight: NDArray[np.float32]

    @classmethod
    def of(cls, blocks: int, voxels: int, factor: int) -> "_Taps":
        place = np.clip((np.arange(voxels) - (factor - 1) / 2) / factor, 0, blocks - 1)
        low = place.astype(np.intp)
        return cls(
            own=np.minimum(np.arange(voxels) // factor, blocks - 1),
            low=low,
            high=np.minimum(low + 1, blocks - 1),
            weight=(place - low).astype(np.float32),
        )

    def between(self, field: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        weight = self.weight[k]
        return field[self.low[k]] * (1 - weight) + field[self.high[k]] * weight

    def between_rows(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        weight = self.weight[:, None]
        return rows[self.low] * (1 - weight) + rows[self.high] * weight


def _distance(mask: Mask, spacing: tuple[float, float, float]) -> NDArray[np.float32]:
    """Distance in mm from each voxel to the nearest one in `mask`; 0 in it, inf if it is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    image = sitk.GetImageFromArray(np.ascontiguousarray(mask).view(np.uint8))
    image.SetSpacing(spacing[::-1])
    signed = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    return np.maximum(sitk.GetArrayViewFromImage(signed), 0)
