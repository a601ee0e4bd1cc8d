"""Lungs that somebody segmented, instead of finding them."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.lungs.coarse_grid import CoarseGrid
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG
from LungNoduleSegLib.lungs.sides import tell_apart

HIGHEST_MEDIAN_HU = -400
"""Half of a lung's voxels are darker, even of one with much disease; of other organs none are."""


def read_lungs(file: Path, axial: sitk.Image) -> sitk.Image:
    """Read a label image of the lungs onto the grid of a scan, nearest neighbour.

    Args:
        file: of any orientation and spacing: 1 in the patient's right and 2 in the left lung, or
            one value for both, whose sides are then told apart.
        axial: the scan in HU (`AxialView`).

    Returns:
        uint8 on the grid of `axial`: `RIGHT_LUNG`, `LEFT_LUNG`, 0 elsewhere.

    Raises:
        InputError: if the file cannot be read, has other labels, or does not show lungs there.
    """
    try:
        given = sitk.ReadImage(file)
    except RuntimeError as error:
        raise InputError(
            f"{file} cannot be read as an image: give the lungs as a label image."
        ) from error
    if given.GetDimension() != 3 or given.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"{file} is no volume with one value a voxel: give a 3-D label image.")
    values = np.unique(sitk.GetArrayViewFromImage(given))
    values = values[values != 0]
    whole = len(values) == 1 and values[0] != LEFT_LUNG
    if not whole and not set(values.tolist()) <= {RIGHT_LUNG, LEFT_LUNG}:
        raise InputError(
            f"{file} has the labels {', '.join(f'{v:g}' for v in values[:5])}: give 1 for the "
            "right and 2 for the left lung, or 1 for both."
        )
    labels = sitk.Cast(given == int(values[0]) if whole else given, sitk.sitkUInt8)
    lungs = sitk.Resample(labels, axial, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    array = sitk.GetArrayViewFromImage(lungs)
    if not array.any():
        raise InputError(f"{file} marks no lung within the scan: give the lungs of this scan.")
    median = float(np.median(sitk.GetArrayViewFromImage(axial)[array > 0]))
    if median > HIGHEST_MEDIAN_HU:
        raise InputError(
            f"{file} marks what has a median of {median:.0f} HU in the scan, which is no lung: "
            "give the lungs of this scan."
        )
    if whole:
        return _with_sides(lungs, axial)
    right, left = (_middle(array == value) for value in (RIGHT_LUNG, LEFT_LUNG))
    if right > left:
        raise InputError(
            f"{file} has its labels on the wrong sides: give 1 for the patient's right lung and 2 "
            "for the left."
        )
    return lungs


def _middle(lung: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    """Mean index x, which grows to the patient's left; NaN without voxels."""
    columns = lung.sum(axis=(0, 1))
    return float(columns @ np.arange(len(columns)) / columns.sum()) if columns.any() else np.nan


def _with_sides(lungs: sitk.Image, axial: sitk.Image) -> sitk.Image:
    """Tell right and left apart in a mask of both."""
    coarse = CoarseGrid.of(axial)
    share = sitk.BinShrink(sitk.Cast(lungs > 0, sitk.sitkFloat32), coarse.factor[::-1])
    blocks = sitk.GetArrayViewFromImage(share) > 0
    sides = tell_apart(coarse, blocks)
    array = sitk.GetArrayFromImage(lungs)
    z, y, x = (
        np.minimum(np.arange(size) // factor, count - 1)
        for size, factor, count in zip(array.shape, coarse.factor, sides.shape, strict=True)
    )
    found = sides[z][:, y][:, :, x]
    rest = np.where(coarse.x_mm[x] < coarse.midline_mm, RIGHT_LUNG, LEFT_LUNG)
    result = sitk.GetImageFromArray(
        (np.where(found > 0, found, rest) * (array > 0)).astype(np.uint8)
    )
    result.CopyInformation(lungs)
    return result
