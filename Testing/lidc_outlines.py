"""What is known of LIDC-IDRI-0001: its radiologists' outlines, and its trachea."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import polygon

NAMESPACE = "{http://www.nih.gov}"


def outlined_nodules(xml: Path, image: sitk.Image) -> NDArray[np.bool_]:
    """Voxels that at least one reader outlined as nodule, (z, y, x).

    An outline runs along the first pixels outside the nodule.
    """
    mask = np.zeros(image.GetSize()[::-1], bool)
    for roi in ET.parse(xml).getroot().iter(f"{NAMESPACE}roi"):
        if roi.findtext(f"{NAMESPACE}inclusion") != "TRUE":
            continue
        z = float(roi.findtext(f"{NAMESPACE}imageZposition", ""))
        edge = np.array(
            [
                [int(point.findtext(f"{NAMESPACE}{axis}", "")) for axis in ("yCoord", "xCoord")]
                for point in roi.iter(f"{NAMESPACE}edgeMap")
            ]
        )
        plane = np.zeros(mask.shape[1:], bool)
        plane[polygon(edge[:, 0], edge[:, 1], plane.shape)] = True
        plane[edge[:, 0], edge[:, 1]] = False
        mask[round((z - image.GetOrigin()[2]) / image.GetSpacing()[2])] |= plane
    return mask


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
