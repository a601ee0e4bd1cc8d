"""The trachea of LIDC-IDRI-0001, followed slice by slice."""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage


def trachea_lumen(
    image: sitk.Image, top: int, carina: int, largest_mm2: float = 700
) -> NDArray[np.bool_]:
    """Air below −900 HU followed from slice `top` near the middle down to the carina."""
    hu = sitk.GetArrayViewFromImage(image)
    pixel = image.GetSpacing()[0] * image.GetSpacing()[1]
    lumen = np.zeros(hu.shape, bool)
    labels, count = ndimage.label(hu[top] < -900)
    for label in range(1, count + 1):
        region = labels == label
        off_centre = abs(ndimage.center_of_mass(region)[1] - hu.shape[2] / 2)
        if 80 < region.sum() * pixel < 600 and off_centre < 80:
            lumen[top] = region
    for k in range(top - 1, carina - 1, -1):
        labels, _ = ndimage.label(hu[k] < -900)
        size = np.bincount(labels.ravel()) * pixel
        followed = [label for label in np.unique(labels[lumen[k + 1]]) if label]
        lumen[k] = np.isin(labels, [label for label in followed if size[label] < largest_mm2])
    return lumen
