"""Boxes cut from volumes, so that nothing is computed where there is nothing."""

import numpy as np
import SimpleITK as sitk

MARGIN_MM = 10.0
"""Kept around what is cropped to."""


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
