"""The picture of one axial slice that the networks see."""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.geometry import AxialView
from CTLungScreeningLib.hu import AIR_HU, SLICE_WINDOW

SIZE = 256
"""Rows and columns of a slice image."""

PIXEL_MM = 2.0
"""Side of its pixels: the image covers 512 mm, the largest field of view that is in common use."""


def slice_image(hu: NDArray[np.generic], spacing: tuple[float, float]) -> NDArray[np.uint8]:
    """Window one slice to 8 bit and bring it to the networks' grid, centre on centre.

    Every scan comes to the same scale, so a head stays smaller than an abdomen whatever field of
    view each was reconstructed with. What the slice does not cover is black, as air is.

    Args:
        hu: (rows, columns) in HU, anterior and the patient's right first.
        spacing: mm between rows and between columns.

    Returns:
        (`SIZE`, `SIZE`), 0…255 for `SLICE_WINDOW`.
    """
    rows, columns = (
        max(1, round(count * mm / PIXEL_MM)) for count, mm in zip(hu.shape, spacing, strict=True)
    )
    # Not at the top: the panel opens in a Slicer where no package is installed yet.
    from PIL import Image  # noqa: PLC0415

    scaled = Image.fromarray(SLICE_WINDOW.to_uint8(hu)).resize(
        (columns, rows), Image.Resampling.BILINEAR
    )
    left, top = (columns - SIZE) // 2, (rows - SIZE) // 2
    return np.asarray(scaled.crop((left, top, left + SIZE, top + SIZE)))


def slice_images(image: sitk.Image) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Make the pictures of all slices of a volume, from feet to head.

    Args:
        image: HU, any orientation; resampled to axial slices where it is oblique.

    Returns:
        The pictures, (slices, `SIZE`, `SIZE`), and the LPS z of the centre of each in mm,
        increasing.
    """
    axial = AxialView.of(image, AIR_HU).image
    columns_mm, rows_mm, slices_mm = axial.GetSpacing()
    hu = sitk.GetArrayViewFromImage(axial)
    pictures = np.stack([slice_image(one, (rows_mm, columns_mm)) for one in hu])
    columns, rows, count = axial.GetSize()
    lowest = axial.TransformContinuousIndexToPhysicalPoint(((columns - 1) / 2, (rows - 1) / 2, 0.0))
    step = slices_mm * axial.GetDirection()[8]
    return pictures, lowest[2] + step * np.arange(count)
