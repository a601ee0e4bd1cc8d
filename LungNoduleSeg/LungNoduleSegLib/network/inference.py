"""Run the segmentation network over a whole scan: a probability per voxel."""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.engine import Network, predict_each
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.network.preparation import BACKGROUND_STD, Preparation, prepare

GROUP_PIXELS = 8 * 256 * 256
"""Pixels of the neighbouring slices that share a rectangle, so that they are halved alike."""

MARGIN = 8
"""Pixels around the lungs that the network sees."""

UNIT = 16
"""Rows and columns of what the network sees are multiples of this: it halves them four times."""


def nodule_probability(
    model: Network,
    preparation: Preparation,
    hu: sitk.Image,
    lungs: sitk.Image,
    progress: ProgressCallback = silent,
) -> sitk.Image:
    """Probability that a voxel belongs to a nodule, float32 on the scan's grid, 0 outside lungs.

    Args:
        model: takes (batch, size, size, channels), gives (batch, size, size, 1).
        preparation: the one that the model was trained with.
        hu: axial HU image.
        lungs: label image on the same grid, non-zero in the lungs.
        progress: called after each slice.
    """
    prepared = prepare(hu, lungs, preparation)
    return prepared.restore(predict_slices(model, preparation, prepared.pixels(), progress))


def predict_slices(
    model: Network,
    preparation: Preparation,
    pixels: NDArray[np.float32],
    progress: ProgressCallback = silent,
) -> NDArray[np.float32]:
    """Run the network over prepared slices (n, size, size); the result has the same shape.

    A network that takes images of any size sees only the rectangle around the lungs of a few
    slices; the result is 0 outside it.
    """
    context, total = preparation.context, len(pixels)
    step = max(1, GROUP_PIXELS // preparation.size**2)
    padded = np.pad(pixels, ((context, context + step), (0, 0), (0, 0)), mode="edge")
    windows: list[tuple[slice, slice, slice]] = []
    for start in range(0, total, step):
        rows, columns = slice(None), slice(None)
        if model.input_shape[1] is None:
            rows, columns = _around_lungs(padded[start : start + step + 2 * context])
        if padded[start, rows, columns].size:
            windows += [
                (slice(first, first + preparation.channels), rows, columns)
                for first in range(start, min(start + step, total))
            ]
    batches = (np.moveaxis(padded[window], 0, -1)[None] for window in windows)
    result = np.zeros_like(pixels)
    found = zip(windows, predict_each(model, batches), strict=True)
    for done, ((stack, rows, columns), probability) in enumerate(found, start=1):
        result[stack.start, rows, columns] = probability[0, ..., 0]
        progress("Nodules", done, len(windows))
    return result


def _around_lungs(slices: NDArray[np.float32]) -> tuple[slice, slice]:
    """The rows and columns that hold lung, as many as the network can halve at each level."""
    lung = (slices != BACKGROUND_STD).any(axis=0)
    return _whole_units(lung.any(axis=1)), _whole_units(lung.any(axis=0))


def _whole_units(lung: NDArray[np.bool_]) -> slice:
    places = np.flatnonzero(lung)
    if not len(places):
        return slice(0, 0)
    first, last = max(places[0] - MARGIN, 0), min(places[-1] + 1 + MARGIN, len(lung))
    length = min(-(-(last - first) // UNIT) * UNIT, len(lung))
    first = min(first, len(lung) - length)
    return slice(int(first), int(first + length))
