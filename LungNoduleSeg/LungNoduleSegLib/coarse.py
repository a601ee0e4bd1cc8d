"""A CT volume on a grid of about 2 mm, on which shapes are judged in millimetres."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTSliceToolsLib.hu import LOWEST_HU

Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]

BLOCK_MM = 2.0
HIGHEST_HU = 200
"""Bone and metal count as this, so that a block's mean tells air from tissue beside them too."""
IN_PLANE = ndimage.generate_binary_structure(3, 1)
IN_PLANE[[0, 2]] = False


@dataclass(frozen=True)
class Coarse:
    """Block means of an axial volume.

    Attributes:
        hu: float32, (z, y, x), clipped to −1024…200 HU.
        spacing: of the blocks in mm, (z, y, x).
        factor: voxels in a block, (z, y, x); voxels left over at the far ends belong to none.
        left_mm: LPS x of the first column.
        full_shape: of the scan, (z, y, x).
    """

    hu: NDArray[np.float32]
    spacing: tuple[float, float, float]
    factor: tuple[int, int, int]
    left_mm: float
    full_shape: tuple[int, int, int]

    @classmethod
    def of(cls, axial: sitk.Image) -> "Coarse":
        """Take the means of blocks of about `BLOCK_MM`."""
        factor = [
            min(size, max(1, round(BLOCK_MM / spacing)))
            for size, spacing in zip(axial.GetSize(), axial.GetSpacing(), strict=True)
        ]
        image = sitk.BinShrink(sitk.Clamp(axial, axial.GetPixelID(), LOWEST_HU, HIGHEST_HU), factor)
        return cls(
            sitk.GetArrayFromImage(image).astype(np.float32),
            spacing=image.GetSpacing()[::-1],
            factor=(factor[2], factor[1], factor[0]),
            left_mm=image.GetOrigin()[0],
            full_shape=axial.GetSize()[::-1],
        )

    @property
    def voxel_ml(self) -> float:
        """Volume of a block."""
        return float(np.prod(self.spacing)) / 1000

    @property
    def x_mm(self) -> NDArray[np.floating]:
        """LPS x of each column of blocks."""
        return self.left_mm + np.arange(self.hu.shape[2]) * self.spacing[2]

    @cached_property
    def midline(self) -> float:
        """LPS x of the middle of the body: of the tissue in all slices."""
        tissue = np.count_nonzero(self.hu > -200, axis=(0, 1))
        return (
            float(np.average(self.x_mm, weights=tissue))
            if tissue.any()
            else float(self.x_mm.mean())
        )

    def distance(self, mask: Mask) -> NDArray[np.float32]:
        """Distance in mm from each block to the nearest one in `mask`; 0 in it, inf if empty."""
        if not mask.any():
            return np.full(mask.shape, np.inf, np.float32)
        image = sitk.GetImageFromArray(mask.view(np.uint8))
        image.SetSpacing(self.spacing[::-1])
        signed = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
        return np.maximum(sitk.GetArrayViewFromImage(signed), 0)

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
        first = factor * [part.start for part in box]
        # Voxels left over at the far ends belong to the last block.
        at_end = [part.stop == n for part, n in zip(box, self.hu.shape, strict=True)]
        last = np.where(at_end, self.full_shape, factor * [part.stop for part in box])
        size = last - first

        # In the index space of the scan: a block's centre lies between its voxels' centres.
        blocks = sitk.GetImageFromArray(field)
        blocks.SetSpacing(factor[::-1].astype(float).tolist())
        blocks.SetOrigin((first + (factor - 1) / 2)[::-1].tolist())
        fine = sitk.Resample(
            blocks,
            size[::-1].tolist(),
            sitk.Transform(),
            sitk.sitkLinear,
            first[::-1].astype(float).tolist(),
            [1.0, 1.0, 1.0],
            np.eye(3).ravel().tolist(),
            0.0,
            sitk.sitkFloat32,
            True,
        )
        nearest = [
            np.minimum(np.arange(n) // f, s - 1)
            for n, f, s in zip(size, factor, labels.shape, strict=True)
        ]
        drawn = np.zeros(self.full_shape, np.uint8)
        target = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        drawn[target] = labels[np.ix_(*nearest)] * (sitk.GetArrayViewFromImage(fine) < level)
        return drawn
