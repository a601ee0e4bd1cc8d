"""Segment the right and left lung of a CT scan."""

import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry.axial import AxialView
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.lungs import volume
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG
from LungNoduleSegLib.lungs.method import LungMethod

__all__ = ["LEFT_LUNG", "RIGHT_LUNG", "LungMethod", "segment_lungs"]


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
        InputError: if there is no lung in the scan.
    """
    view = AxialView.of(image, AIR_HU)
    if method == LungMethod.VOLUME:
        labels = volume.find_lungs(view.image, progress)
    else:
        from LungNoduleSegLib.lungs import tutorial  # noqa: PLC0415 - scikit-learn is slow to import

        labels = tutorial.find_lungs(view.image, progress)
    if not labels.any():
        raise InputError("no lung was found: give a CT scan that shows the chest.")
    result = sitk.GetImageFromArray(labels)
    result.CopyInformation(view.image)
    return view.restore(result)
