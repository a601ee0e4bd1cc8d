"""Boxes cut from volumes, so that nothing is computed where there is nothing."""

import numpy as np
import SimpleITK as sitk

MARGIN_MM = 10.0
"""Kept around what is cropped to."""


_SAME_VOXEL = 1e-4
"""Grids whose voxels are closer than this part of a voxel, or of 1, are the same."""


def crop_to(labels: sitk.Image, *images: sitk.Image) -> tuple[sitk.Image, ...]:
    """Cut `labels` and the images on its grid to the box around its non-zero voxels.

    The box is `MARGIN_MM` wider on each side, within the grid; the results know their place in the
    LPS world. `labels` must not be empty.
    """
    held = sitk.GetArrayViewFromImage(labels) != 0
    start, size = [], []
    for axis, others in enumerate(((0, 1), (0, 2), (1, 2))):
        there = np.flatnonzero(held.any(axis=others))
        margin = int(np.ceil(MARGIN_MM / labels.GetSpacing()[axis]))
        low = max(int(there[0]) - margin, 0)
        high = min(int(there[-1]) + margin + 1, labels.GetSize()[axis])
        start.append(low)
        size.append(high - low)
    return tuple(sitk.RegionOfInterest(image, size, start) for image in (labels, *images))


def onto_grid(image: sitk.Image, grid: sitk.Image, outside: float) -> sitk.Image:
    """Bring an image to a grid, nearest neighbour, with `outside` where it says nothing.

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
    return sitk.Resample(image, grid, sitk.Transform(), sitk.sitkNearestNeighbor, outside)
