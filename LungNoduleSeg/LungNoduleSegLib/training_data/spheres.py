"""Nodules as spheres, as far as LUNA16's annotations describe them."""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray


def sphere_labels(
    grid: sitk.Image, centres: NDArray[np.float64], radii: NDArray[np.float64]
) -> sitk.Image:
    """Mark the voxels whose centres lie in spheres.

    A sphere that lies between the voxel centres is marked by the one nearest to its middle, so that
    no nodule within the grid is lost. Where spheres overlap, the first keeps its voxels.

    Args:
        grid: any image, of any orientation and spacing, flipped axes included.
        centres: (n, 3), LPS mm.
        radii: (n,), mm; a voxel at just this distance belongs to the sphere.

    Returns:
        uint16 on the grid: the number of the sphere, from 1, or 0.
    """
    shape = np.array(grid.GetSize()[::-1])
    spacing = np.array(grid.GetSpacing()[::-1])
    labels = np.zeros(shape, np.uint16)
    for number, (centre, radius) in enumerate(zip(centres, radii, strict=True), 1):
        # The axes are orthonormal: distances along them, in mm, are distances in the world.
        index = np.array(grid.TransformPhysicalPointToContinuousIndex(centre.tolist())[::-1])
        first = np.clip(np.ceil(index - radius / spacing), 0, shape).astype(int)
        last = np.clip(np.floor(index + radius / spacing) + 1, 0, shape).astype(int)
        box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        offsets = np.ogrid[box]
        squares = [((o - i) * mm) ** 2 for o, i, mm in zip(offsets, index, spacing, strict=True)]
        inside = sum(squares) <= radius**2
        nearest = np.rint(index).astype(int)
        if not inside.any() and np.all((nearest >= 0) & (nearest < shape)):
            box = tuple(slice(i, i + 1) for i in nearest)
            inside = np.ones((1, 1, 1), bool)
        part = labels[box]
        part[inside & (part == 0)] = number
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(grid)
    return image
