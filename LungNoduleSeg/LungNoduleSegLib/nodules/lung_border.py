"""The lung border near a nodule."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG
from LungNoduleSegLib.nodules.table import Side

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class LungBorder:
    """What measuring needs to know of the lungs: where each lies and what borders it.

    Attributes:
        centre_x: mean voxel index x of each lung that is there.
        outside: places (z, y, x) in mm of the voxels that border it.
        spacing: mm along (z, y, x).
    """

    centre_x: dict[Side, float]
    outside: dict[Side, KDTree]
    spacing: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        lungs: NDArray[Any],
        spacing: NDArray[np.float64],
        nodules: NDArray[Any] | None = None,
    ) -> "LungBorder":
        """Look at lungs.

        Args:
            lungs: (z, y, x), 1 in the right and 2 in the left lung.
            spacing: mm along (z, y, x).
            nodules: their labels, which count as lung; None if all lie within the lungs.

        Raises:
            InputError: if the lungs are empty or fill the image.
        """
        if lungs.all() or not lungs.any():
            raise InputError(
                "The lung mask is empty or fills the whole image: segment the lungs of a scan that "
                "shows their border."
            )
        centre_x, outside = {}, {}
        for side, value in ((Side.RIGHT, RIGHT_LUNG), (Side.LEFT, LEFT_LUNG)):
            lung = lungs == value
            columns = lung.sum(axis=(0, 1))
            if columns.any():
                centre_x[side] = float(np.average(np.arange(len(columns)), weights=columns))
            inside = lung if nodules is None else lung | (nodules > 0)
            beside = np.argwhere(_beside(inside))
            outside[side] = KDTree(beside * spacing, balanced_tree=False)
        return cls(centre_x, outside, spacing)

    def side(self, lung_values: NDArray[Any], voxels: NDArray[np.int64]) -> Side:
        """Lung with most of the voxels; for a nodule outside both, the one nearer in x."""
        right, left = (np.count_nonzero(lung_values == value) for value in (RIGHT_LUNG, LEFT_LUNG))
        if right == left:
            x = voxels[:, 2].mean()
            return min(self.centre_x, key=lambda side: abs(self.centre_x[side] - x))
        return Side.RIGHT if right > left else Side.LEFT

    def gap(self, side: Side, mask: NDArray[np.bool_], box: Box) -> float:
        """Distance (mm) from the faces of the nodule's voxels to those outside the lung."""
        surface = np.argwhere(mask & ~ndimage.binary_erosion(mask))
        surface = (surface + [part.start for part in box]) * self.spacing
        outside = self.outside[side]
        centre = surface.mean(axis=0)
        reach = np.linalg.norm(surface - centre, axis=1).max()
        near = outside.query_ball_point(centre, outside.query(centre)[0] + reach + 1e-6)
        border = outside.data[near]
        distance, nearest = KDTree(surface).query(border)
        apart = np.abs(surface[nearest] - border)[distance.argmin()]
        return float(np.linalg.norm(np.maximum(apart - self.spacing, 0)))


def _beside(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels that share a face with `inside` without belonging to it."""
    beside = np.zeros_like(inside)
    for axis in range(inside.ndim):
        there, here = np.moveaxis(beside, axis, 0), np.moveaxis(inside, axis, 0)
        there[1:] |= here[:-1]
        there[:-1] |= here[1:]
    return beside & ~inside
