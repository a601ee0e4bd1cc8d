"""The right and left lung of a CT scan: segmented, or taken from an external mask."""

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import AxialView, image_like, onto_grid
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.options import choice_of
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.volume_files import read_labels
from LungNoduleSegLib.lungs import volume
from LungNoduleSegLib.lungs.air import CoarseGrid
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG, LungMethod, require_lungs
from LungNoduleSegLib.lungs.programs import PROGRAMS, find_lobes, lungs_of
from LungNoduleSegLib.lungs.volume import separate_sides


def segment_lungs(
    image: sitk.Image, method: LungMethod = LungMethod.VOLUME, progress: ProgressCallback = silent
) -> sitk.Image:
    """Find the lungs.

    Args:
        image: a CT volume in HU, of any orientation and spacing.
        method: how to find them.
        progress: callback, in the stage "Lungs".

    Returns:
        uint8 labels on the grid of `image`: 0 outside, `RIGHT_LUNG`, `LEFT_LUNG` (the patient's).

    Raises:
        InputError: if there is no such method, no lung in the scan, or a program is missing or
            fails.
    """
    method = choice_of(LungMethod, method, "method")
    view = AxialView.of(image, AIR_HU)
    if method in PROGRAMS:
        return view.restore(lungs_of(find_lobes(view.image, PROGRAMS[method], progress)))
    if method == LungMethod.VOLUME:
        labels = volume.find_lungs(view.image, progress)
    else:
        from LungNoduleSegLib.lungs import tutorial  # noqa: PLC0415 - slow to import

        labels = tutorial.find_lungs(view.image, progress)
    if not labels.any():
        raise InputError("no lung was found: give a CT scan that shows the chest.")
    return view.restore(image_like(labels, view.image))


_MOST_LABELS = 32
"""Lobes and segments of both lungs are fewer."""


def read_lungs(file: Path, axial: sitk.Image) -> sitk.Image:
    """Read a label image of the lungs onto the grid of a scan: `lungs_from` of a file.

    Raises:
        InputError: as `lungs_from`, or if the file cannot be read.
    """
    return lungs_from(read_labels(file), axial, str(file))


def lungs_from(given: sitk.Image, axial: sitk.Image, source: str) -> sitk.Image:
    """Bring a label image of the lungs onto the grid of a scan, nearest neighbour.

    Args:
        given: of any orientation and spacing: 1 in the patient's right and 2 in the left lung. With
            any other values all that is not 0 is lung, such as that of lobes, and the sides are
            told apart.
        axial: the scan in HU (`AxialView`).
        source: begins messages.

    Returns:
        uint8 on the grid of `axial`: `RIGHT_LUNG`, `LEFT_LUNG`, 0 elsewhere.

    Raises:
        InputError: if it is not a label image, or does not show lungs there.
    """
    values = require_labels(given, _MOST_LABELS, source, "lungs")
    sided = LEFT_LUNG in values and set(values.tolist()) <= {RIGHT_LUNG, LEFT_LUNG}
    labels = sitk.Cast(given if sided else given != 0, sitk.sitkUInt8)
    lungs = onto_grid(labels, axial)
    require_lungs(lungs, axial, source)
    if not sided:
        return _with_sides(lungs, axial)
    array = sitk.GetArrayViewFromImage(lungs)
    right, left = (_middle(array == value) for value in (RIGHT_LUNG, LEFT_LUNG))
    if right > left:
        raise InputError(
            f"{source} has its labels on the wrong sides: give 1 for the patient's right lung and "
            "2 for the left."
        )
    return lungs


def require_labels(image: sitk.Image, most: int, source: str, what: str) -> NDArray[Any]:
    """Refuse a picture, probabilities and whatever else is not a label image.

    Args:
        image: to check.
        most: it may have so many different labels.
        source: begins messages.
        what: of a scan it labels.

    Returns:
        Its values other than 0, sorted; of a mask this may be any.

    Raises:
        InputError: if it is not a label image.
    """
    array = sitk.GetArrayViewFromImage(image)
    values = np.unique(array[array != 0])
    if not np.isfinite(values).all():
        raise InputError(
            f"{source} has voxels that are not numbers: give the {what} as a label image."
        )
    if len(values) and values.min() < 0:
        raise InputError(
            f"{source} has values below 0, down to {values.min():g}: it is a scan, not its {what}; "
            "give a label image."
        )
    fractions = bool((values != np.rint(values)).any())
    if len(values) > 1 and (fractions or len(values) > most):
        raise InputError(
            f"{source} has {len(values)} different values, as probabilities or a picture have: "
            f"give the {what} as a label image."
        )
    return values


def _middle(lung: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    """Mean index x, which grows to the patient's left; NaN without voxels."""
    columns = lung.sum(axis=(0, 1))
    return float(columns @ np.arange(len(columns)) / columns.sum()) if columns.any() else np.nan


def _with_sides(lungs: sitk.Image, axial: sitk.Image) -> sitk.Image:
    """Separate right and left in a mask of both."""
    coarse = CoarseGrid.of(axial)
    share = sitk.BinShrink(sitk.Cast(lungs > 0, sitk.sitkFloat32), coarse.factor[::-1])
    blocks = sitk.GetArrayViewFromImage(share) > 0
    sides = separate_sides(coarse, blocks)
    array = sitk.GetArrayFromImage(lungs)
    z, y, x = (
        np.minimum(np.arange(size) // factor, count - 1)
        for size, factor, count in zip(array.shape, coarse.factor, sides.shape, strict=True)
    )
    found = sides[z][:, y][:, :, x]
    rest = np.where(coarse.x_mm[x] < coarse.midline_mm, RIGHT_LUNG, LEFT_LUNG)
    return image_like((np.where(found > 0, found, rest) * (array > 0)).astype(np.uint8), lungs)
