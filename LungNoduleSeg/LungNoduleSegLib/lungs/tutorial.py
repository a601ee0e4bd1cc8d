"""The lung region of interest as in the Data Science Bowl 2017 tutorial, slice by slice.

J. Mulholland and A. Sander, "U-Net Segmentation Approach to Cancer Diagnosis", tutorial of the
3rd Annual Data Science Bowl, Booz Allen Hamilton and Kaggle, 2017: standardize, k-means with two
classes on the central part, threshold half-way between them, erosion, dilation, regions kept by
their bounding box, dilation. Its lengths are in pixels of a 512 × 512 slice; here they scale with
the size of the slice.
"""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from skimage.measure import label, regionprops
from skimage.morphology import dilation, erosion

from CTLungScreeningLib.progress import ProgressCallback
from LungNoduleSegLib.lungs.air import CoarseGrid, Mask
from LungNoduleSegLib.lungs.volume import by_midline

TUTORIAL_SIZE = 512
MIDDLE = slice(100, 400)
EROSION, DILATION = 4, 10
LARGEST_EXTENT = 475
HIGHEST_TOP, LOWEST_BOTTOM = 40, 472


def find_lungs(axial: sitk.Image, progress: ProgressCallback) -> NDArray[np.uint8]:
    """Label the lungs right and left of the body's midline in an axial volume in HU.

    The tutorial itself does not separate the lungs.
    """
    hu = sitk.GetArrayViewFromImage(axial)
    x_mm = axial.GetOrigin()[0] + np.arange(hu.shape[2]) * axial.GetSpacing()[0]
    side = by_midline(x_mm, CoarseGrid.of(axial).midline_mm)
    labels = np.zeros(hu.shape, np.uint8)
    for k, plane in enumerate(hu):
        labels[k] = find_lungs_in_slice(plane) * side
        progress("Lungs", k + 1, len(hu))
    return labels


def find_lungs_in_slice(plane: NDArray[np.number]) -> Mask:
    """Find the lungs in one slice, (y, x) in HU, of any size."""
    height, width = plane.shape
    spread = float(np.std(plane))
    if spread == 0:
        return np.zeros(plane.shape, bool)
    image = (plane.astype(np.float64) - float(np.mean(plane))) / spread
    middle = image[_scaled_slice(height), _scaled_slice(width)]
    # The extremes become the mean of the middle: padding and metal must not make a class.
    extremes = (image == image.min()) | (image == image.max())
    image[extremes] = middle.mean()
    if np.ptp(middle) == 0:
        return np.zeros(plane.shape, bool)
    threshold = _between_classes(middle)

    eroded = erosion(image < threshold, _footprint(EROSION, plane.shape))
    regions = label(dilation(eroded, _footprint(DILATION, plane.shape)))
    kept = [region.label for region in regionprops(regions) if _fits(region.bbox, plane.shape)]
    return dilation(np.isin(regions, kept), _footprint(DILATION, plane.shape))


def _between_classes(values: NDArray[np.float64]) -> float:
    """Return the value half-way between the means of the two classes of k-means.

    In one dimension either class is a range, so the best division is found among all that there
    are, as by N. Otsu, IEEE Trans Syst Man Cybern 1979;9:62-66; the tutorial tries random starts.
    """
    ordered = np.sort(values, axis=None)
    total = np.cumsum(ordered)
    low = np.arange(1, len(ordered))
    high = len(ordered) - low
    below, above = total[:-1] / low, (total[-1] - total[:-1]) / high
    best = int(np.argmax(low * high * (above - below) ** 2))
    return float(below[best] + above[best]) / 2


def _fits(bbox: tuple[int, int, int, int], shape: tuple[int, ...]) -> bool:
    """Whether a region's bounding box is that of a lung: not too large, clear of both ends."""
    down, across = (length / TUTORIAL_SIZE for length in shape)
    top, left, bottom, right = bbox
    return (
        bottom - top < LARGEST_EXTENT * down
        and right - left < LARGEST_EXTENT * across
        and top > HIGHEST_TOP * down
        and bottom < LOWEST_BOTTOM * down
    )


def _scaled_slice(length: int) -> slice:
    return slice(
        round(MIDDLE.start * length / TUTORIAL_SIZE), round(MIDDLE.stop * length / TUTORIAL_SIZE)
    )


def _footprint(size: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.ones([max(1, round(size * length / TUTORIAL_SIZE)) for length in shape], np.uint8)
