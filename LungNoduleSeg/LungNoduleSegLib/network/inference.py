"""Run the segmentation network over a whole scan: a probability per voxel."""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.engine import Network
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.network.preparation import BACKGROUND_STD, Preparation, prepare, with_context

BATCH_PIXELS = 8 * 256 * 256
"""Pixels in one batch: what bounds the network's memory, whatever the scan's size."""

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
        progress: called after each batch.
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

    A network that takes images of any size sees only the rectangle around the lungs of the slices
    in a batch; the result is 0 outside it.
    """
    context, total = preparation.context, len(pixels)
    step = max(1, BATCH_PIXELS // preparation.size**2)
    padded = np.pad(pixels, ((context, context + step), (0, 0), (0, 0)), mode="edge")
    any_size = model.input_shape[1] is None
    result = np.zeros_like(pixels)
    for start in range(0, total, step):
        window = padded[start : start + step + 2 * context]
        rows, columns = _around_lungs(window) if any_size else (slice(None), slice(None))
        seen = window[:, rows, columns]
        stop = min(start + step, total)
        if seen.size:
            batch = with_context(seen, context)[context : context + step]
            predicted = model.predict_on_batch(batch)[..., 0]
            result[start:stop, rows, columns] = predicted[: stop - start]
        progress("Nodules", stop, total)
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
