"""The networks' input image of an axial slice."""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.geometry import AxialView
from CTLungScreeningLib.hu import AIR_HU, SLICE_WINDOW

SIZE = 256
"""Rows and columns of a slice image."""

PIXEL_MM = 2.0
"""Pixel size: the image covers 512 mm, the largest common field of view."""


def slice_image(hu: NDArray[np.generic], spacing: tuple[float, float]) -> NDArray[np.uint8]:
    """Window one slice to 8 bit and resample it to the networks' grid, centred.

    All scans have the same scale, independent of their field of view. Areas outside the slice are
    black, like air.

    Args:
        hu: (rows, columns) in HU, anterior and the patient's right first.
        spacing: mm between rows and between columns.

    Returns:
        (`SIZE`, `SIZE`), 0…255 for `SLICE_WINDOW`.
    """
    rows, columns = (
        max(1, round(count * mm / PIXEL_MM)) for count, mm in zip(hu.shape, spacing, strict=True)
    )
    # Imported here because Slicer imports this module before packages are installed.
    from PIL import Image  # noqa: PLC0415

    scaled = Image.fromarray(SLICE_WINDOW.to_uint8(hu)).resize(
        (columns, rows), Image.Resampling.BILINEAR
    )
    left, top = (columns - SIZE) // 2, (rows - SIZE) // 2
    return np.asarray(scaled.crop((left, top, left + SIZE, top + SIZE)))


def stored_slice_image(
    hu: NDArray[np.generic], orientation: NDArray[np.float64], spacing: tuple[float, float]
) -> NDArray[np.uint8]:
    """Make the image of a slice as it was stored, see `slice_image`.

    Like the images of a whole scan (`slice_images`), it starts anterior and at the patient's right,
    whatever the orientation. Slices of a tilted gantry are not resampled.

    Args:
        hu: (rows, columns) in HU.
        orientation: (2, 3), unit vectors in LPS: along a row, and along a column.
        spacing: mm between columns and between rows.
    """
    row, column = orientation
    across = row[:2] / np.linalg.norm(row[:2])
    down = np.array([-across[1], across[0]]) * np.sign(np.cross(row, column)[2])
    image = sitk.GetImageFromArray(np.ascontiguousarray(hu)[None])
    image.SetSpacing((*spacing, 1))
    image.SetDirection((across[0], down[0], 0, across[1], down[1], 0, 0, 0, 1))
    return slice_images(image)[0][0]


def slice_images(image: sitk.Image) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Make the images of all slices of a volume, from feet to head.

    Args:
        image: HU, any orientation; resampled to axial slices if oblique.

    Returns:
        The images, (slices, `SIZE`, `SIZE`), and the LPS z of their centres in mm, increasing.
    """
    axial = AxialView.of(image, AIR_HU).image
    columns_mm, rows_mm, slices_mm = axial.GetSpacing()
    hu = sitk.GetArrayViewFromImage(axial)
    pictures = np.stack([slice_image(one, (rows_mm, columns_mm)) for one in hu])
    columns, rows, count = axial.GetSize()
    lowest = axial.TransformContinuousIndexToPhysicalPoint(((columns - 1) / 2, (rows - 1) / 2, 0.0))
    step = slices_mm * axial.GetDirection()[8]
    return pictures, lowest[2] + step * np.arange(count)
