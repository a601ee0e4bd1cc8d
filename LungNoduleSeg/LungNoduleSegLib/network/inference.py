"""The network over a whole scan: a probability for each voxel in the lungs."""

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTSliceToolsLib.progress import Report, silent
from LungNoduleSegLib.network.preparation import Preparation, prepare, with_context

if TYPE_CHECKING:
    import keras

BATCH_PIXELS = 8 * 256 * 256
"""Pixels in one batch: what bounds the network's memory, whatever the scan's size."""


def nodule_probability(
    model: "keras.Model",
    preparation: Preparation,
    hu: sitk.Image,
    lungs: sitk.Image,
    report: Report = silent,
) -> sitk.Image:
    """Probability that a voxel belongs to a nodule, float32 on the scan's grid, 0 outside lungs.

    Args:
        model: takes (batch, size, size, channels), gives (batch, size, size, 1).
        preparation: the one that the model was trained with.
        hu: axial HU image.
        lungs: label image on the same grid, non-zero in the lungs.
        report: called after each batch.
    """
    prepared = prepare(hu, lungs, preparation)
    return prepared.restore(predict_slices(model, preparation, prepared.pixels(), report))


def predict_slices(
    model: "keras.Model",
    preparation: Preparation,
    pixels: NDArray[np.float32],
    report: Report = silent,
) -> NDArray[np.float32]:
    """Run the network over prepared slices (n, size, size); the result has the same shape."""
    context, total = preparation.context, len(pixels)
    step = max(1, BATCH_PIXELS // preparation.size**2)
    padded = np.pad(pixels, ((context, context + step), (0, 0), (0, 0)), mode="edge")
    result = np.empty_like(pixels)
    for start in range(0, total, step):
        window = padded[start : start + step + 2 * context]
        batch = with_context(window, context)[context : context + step]
        predicted = model.predict_on_batch(batch)[..., 0]
        stop = min(start + step, total)
        result[start:stop] = predicted[: stop - start]
        report("Nodules", stop, total)
    return result
