"""Prepare a CT for the network and compute a probability for every voxel."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.engine import Network, predict_each
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import box_of, image_like
from CTLungScreeningLib.hu import DENSE_HU, LUNG_CONTENT_WINDOW
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.nodules.marks import pieces_of

BACKGROUND_STD = -1.2
"""Value outside the lungs, in standard deviations from the lungs' mean (the tutorial's choice)."""

CLOSING_MM = 12.0
"""Vessels and nodules of up to about twice this width belong to the air around them."""

WHOLE = 1.08
"""The standard deviation of whole lungs, without wall or effusion in their mask, over that of lung
with air and what lies within it: the median of five scans and a phantom, 1.04 to 1.23."""

STATISTICS_MM = 3.0
"""Distance of the voxels whose mean and standard deviation are taken."""

SLICES_AT_ONCE = 64
"""Slices of the scan that predictions are resampled to together, for the sake of memory."""


@dataclass(frozen=True)
class Preparation:
    """Preprocessing of slices, kept in the model card for training and inference.

    Attributes:
        size: rows and columns of the network's input.
        context: neighbouring slices on either side that become channels, `2 * context + 1` in all.
        slab_mm: thinner slices are averaged in whole numbers to about this thickness; 0 keeps all.
        per_slice: use the bounding square, mean and standard deviation of each slice, as in the
            tutorial, instead of those of the whole scan.
    """

    size: int = 512
    context: int = 0
    slab_mm: float = 0.0
    per_slice: bool = False

    def __post_init__(self) -> None:
        for name, least, most in (("size", 1, 4096), ("context", 0, 100)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise InputError(
                    f"`{name}` must be a whole number from {least} to {most}, not {value!r}."
                )
        if type(self.slab_mm) not in (int, float) or not 0 <= self.slab_mm <= 100:
            raise InputError(f"`slab_mm` must be a number from 0 to 100, not {self.slab_mm!r}.")
        if type(self.per_slice) is not bool:
            raise InputError(f"`per_slice` must be true or false, not {self.per_slice!r}.")

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return 2 * self.context + 1


@dataclass(frozen=True)
class Prepared:
    """Prepared slices of one scan.

    Attributes:
        blocks: prepared images, `size` × `size` × n, in standard deviations from the lungs' mean,
            with LPS geometry; one block for the scan, or one per slice.
        lungs: the scan's lungs, on the grid that predictions are restored to.
        preparation: the settings.
    """

    blocks: tuple[sitk.Image, ...]
    lungs: sitk.Image
    preparation: Preparation

    def pixels(self) -> NDArray[np.float32]:
        """All prepared slices, (n, size, size)."""
        return np.concatenate([sitk.GetArrayViewFromImage(block) for block in self.blocks])

    def inputs(self) -> NDArray[np.float32]:
        """The network's input, (n, size, size, channels); end slices are repeated."""
        return with_context(self.pixels(), self.preparation.context)

    def restore(self, predictions: NDArray[np.float32]) -> sitk.Image:
        """Resample predictions (n, size, size) to the scan's grid, 0 outside the lungs."""
        restored = np.zeros(self.lungs.GetSize()[::-1], np.float32)
        start = 0
        for block in self.blocks:
            image = image_like(
                np.ascontiguousarray(predictions[start : start + block.GetDepth()], np.float32),
                block,
            )
            start += block.GetDepth()
            low, high = _slices_of(image, self.lungs)
            image = _extend_ends(image)
            for first in range(low, high, SLICES_AT_ONCE):
                target = self.lungs[:, :, first : min(first + SLICES_AT_ONCE, high)]
                back = sitk.Resample(image, target, sitk.Transform(), sitk.sitkLinear, 0.0)
                inside = sitk.GetArrayViewFromImage(target) > 0
                part = restored[first : first + len(inside)]
                np.copyto(part, sitk.GetArrayViewFromImage(back), where=inside)
        return image_like(restored, self.lungs)


def prepare(hu: sitk.Image, lungs: sitk.Image, preparation: Preparation) -> Prepared:
    """Mask, crop to the lungs' bounding square, resize and normalize the slices with lung.

    Mean and standard deviation come from lung with air and what lies within it: wall or effusion
    in the mask does not change what the network sees of the rest. Slice by slice they are those of
    the whole mask, as in the tutorial.

    Args:
        hu: axial HU image (see `AxialView`).
        lungs: label image on the same grid, non-zero in the lungs, not empty.
        preparation: settings.
    """
    blocks = [
        _prepare_block(hu[:, :, low:high], lungs[:, :, low:high], preparation)
        for low, high in _blocks(lungs, preparation)
    ]
    return Prepared(tuple(blocks), lungs, preparation)


def prepare_mask(mask: sitk.Image, prepared: Prepared) -> NDArray[np.float32]:
    """Resample a mask on the scan's grid to the prepared slices: coverage (n, size, size)."""
    blocks = []
    for block in prepared.blocks:
        low, high = _slices_of(block, mask)
        slab = average_slabs(
            sitk.Cast(mask[:, :, low:high] > 0, sitk.sitkFloat32), prepared.preparation.slab_mm
        )
        blocks.append(sitk.Resample(slab, block, sitk.Transform(), sitk.sitkLinear, 0.0))
    return np.concatenate([sitk.GetArrayViewFromImage(block) for block in blocks])


def average_slabs(image: sitk.Image, slab_mm: float) -> sitk.Image:
    """Average whole numbers of slices to about `slab_mm`; thicker ones are kept."""
    slab = round(slab_mm / image.GetSpacing()[2])
    if slab <= 1:
        return image
    missing = -image.GetDepth() % slab
    return sitk.BinShrink(sitk.ZeroFluxNeumannPad(image, (0, 0, 0), (0, 0, missing)), (1, 1, slab))


def with_context(pixels: NDArray[np.float32], context: int) -> NDArray[np.float32]:
    """Add `context` neighbours on either side of each slice as channels, (n, y, x, channels)."""
    numbers = np.arange(len(pixels))
    offsets = range(-context, context + 1)
    return np.stack([pixels[np.clip(numbers + o, 0, len(pixels) - 1)] for o in offsets], axis=-1)


def _blocks(lungs: sitk.Image, preparation: Preparation) -> Iterator[tuple[int, int]]:
    """Ranges of slices that are prepared together: all, or each separately."""
    held = np.flatnonzero(sitk.GetArrayViewFromImage(lungs).any(axis=(1, 2)))
    if preparation.per_slice:
        yield from ((int(k), int(k) + 1) for k in held)
        return
    yield int(held[0]), int(held[-1]) + 1


def _prepare_block(hu: sitk.Image, lungs: sitk.Image, preparation: Preparation) -> sitk.Image:
    inside = sitk.GetArrayViewFromImage(lungs) > 0
    values = sitk.GetArrayViewFromImage(hu).astype(np.float32)
    np.clip(values, LUNG_CONTENT_WINDOW.low, LUNG_CONTENT_WINDOW.high, out=values)
    lung = values[inside]
    aerated = lung[:0] if preparation.per_slice else _aerated(values, inside, hu.GetSpacing())
    if aerated.size:
        mean, std = float(aerated.mean()), WHOLE * float(aerated.std())
    else:
        mean, std = float(lung.mean()), float(lung.std())
    values[:] = BACKGROUND_STD
    values[inside] = (lung - mean) / (std or 1.0)
    image = image_like(values, hu)
    del values, lung  # as large as the scan
    image = average_slabs(image, preparation.slab_mm)
    origin, side = _bounding_square(lungs, inside)
    step = side / preparation.size
    shift = (step - np.array(hu.GetSpacing()[:2])) / 2
    direction = np.reshape(image.GetDirection(), (3, 3))
    corner = np.array(image.TransformContinuousIndexToPhysicalPoint((*origin, 0.0)))
    corner += direction[:, :2] @ shift
    return sitk.Resample(
        image,
        (preparation.size, preparation.size, image.GetDepth()),
        sitk.Transform(),
        sitk.sitkLinear,
        corner.tolist(),
        (step, step, image.GetSpacing()[2]),
        image.GetDirection(),
        BACKGROUND_STD,
    )


def _aerated(
    hu: NDArray[np.float32], inside: NDArray[np.bool_], spacing: tuple[float, ...]
) -> NDArray[np.float32]:
    """HU of some of the voxels with air and of what lies between them, empty without air."""
    steps = [max(1, round(STATISTICS_MM / one)) for one in spacing[::-1]]
    some = tuple(slice(None, None, step) for step in steps)
    hu, inside = hu[some], inside[some]
    box = box_of(inside)
    if box is None:
        return np.empty(0, np.float32)
    hu, inside = hu[box], inside[box]
    air = sitk.GetImageFromArray(((hu < DENSE_HU) & inside).astype(np.uint8))
    radius = [
        round(CLOSING_MM / one / step) for one, step in zip(spacing, steps[::-1], strict=True)
    ]
    closed = sitk.GetArrayFromImage(sitk.BinaryMorphologicalClosing(air, radius)) > 0
    return hu[inside & closed]


def _bounding_square(
    lungs: sitk.Image, inside: NDArray[np.bool_]
) -> tuple[tuple[float, float], float]:
    """First voxel (x, y as continuous indices) and side in mm of the square around the lungs."""
    columns, rows = np.flatnonzero(inside.any((0, 1))), np.flatnonzero(inside.any((0, 2)))
    spacing = lungs.GetSpacing()
    width = (columns[-1] - columns[0] + 1) * spacing[0]
    height = (rows[-1] - rows[0] + 1) * spacing[1]
    side = max(width, height)
    x = columns[0] - (side - width) / 2 / spacing[0]
    y = rows[0] - (side - height) / 2 / spacing[1]
    return (float(x), float(y)), float(side)


def _slices_of(block: sitk.Image, grid: sitk.Image) -> tuple[int, int]:
    """Range of the grid's slices that a block was made from."""
    half = block.GetSpacing()[2] / 2
    along = np.array(grid.GetDirection()).reshape(3, 3)[:, 2]
    first = np.dot(np.array(block.GetOrigin()) - grid.GetOrigin(), along) - half
    last = first + block.GetSpacing()[2] * block.GetDepth()
    spacing = grid.GetSpacing()[2]
    return round(first / spacing + 0.5), min(round(last / spacing + 0.5), grid.GetDepth())


def _extend_ends(image: sitk.Image) -> sitk.Image:
    """Repeat the outermost slices, columns and rows, so that border voxels have a value."""
    return sitk.ZeroFluxNeumannPad(image, (1, 1, 1), (1, 1, 1))


GROUP_PIXELS = 8 * 256 * 256
"""Pixels of neighbouring slices that share a rectangle."""

MARGIN = 8
"""Margin around the lungs in the network's input, in pixels."""

UNIT = 16
"""Rows and columns of the network's input are multiples of this, because it halves them 4 times."""


LOWEST = 0.2
"""Minimum probability of a candidate's voxels."""

AROUND_CANDIDATE = 40
"""Pixels around a candidate that a second network is shown."""


def nodule_probability(
    model: Network,
    preparation: Preparation,
    hu: sitk.Image,
    lungs: sitk.Image,
    progress: ProgressCallback = silent,
    second: Network | None = None,
) -> sitk.Image:
    """Probability that a voxel belongs to a nodule, float32 on the scan's grid, 0 outside lungs.

    Args:
        model: maps (batch, size, size, channels) to (batch, size, size, 1).
        preparation: that the model was trained with.
        hu: axial HU image.
        lungs: label image on the same grid, non-zero in the lungs.
        progress: called after each slice.
        second: a network for the same preparation, see `add_second_opinion`.
    """
    prepared = prepare(hu, lungs, preparation)
    pixels = prepared.pixels()
    predictions = predict_slices(model, preparation, pixels, progress)
    if second is not None:
        predictions = add_second_opinion(second, preparation, pixels, predictions)
    return prepared.restore(predictions)


def predict_slices(
    model: Network,
    preparation: Preparation,
    pixels: NDArray[np.float32],
    progress: ProgressCallback = silent,
) -> NDArray[np.float32]:
    """Run the network over prepared slices (n, size, size); the result has the same shape.

    A network with variable input size processes only the rectangle around the lungs of a few
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


def add_second_opinion(
    model: Network,
    preparation: Preparation,
    pixels: NDArray[np.float32],
    predictions: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Average the predictions around each candidate of one network with those of another.

    The mean of two networks that were trained apart has fewer false positives than either. As the
    second one sees the candidates only, it takes little time.

    Args:
        model: with variable input size.
        preparation: of both networks.
        pixels: prepared slices (n, size, size).
        predictions: of the first network, same shape.

    Returns:
        The mean where both looked, elsewhere the predictions, same shape.
    """
    context = preparation.context
    padded = np.pad(pixels, ((context, context), (0, 0), (0, 0)), mode="edge")
    candidates, _ = pieces_of(predictions >= LOWEST)
    windows: list[tuple[int, slice, slice]] = []
    for slices, *sides in ndimage.find_objects(candidates):
        rows, columns = (_whole_units(side, len(pixels[0]), AROUND_CANDIDATE) for side in sides)
        windows += [(k, rows, columns) for k in range(slices.start, slices.stop)]
    batches = (
        np.moveaxis(padded[k : k + preparation.channels, rows, columns], 0, -1)[None]
        for k, rows, columns in windows
    )
    result = predictions.copy()
    for (k, rows, columns), second in zip(windows, predict_each(model, batches), strict=True):
        result[k, rows, columns] = (predictions[k, rows, columns] + second[0, ..., 0]) / 2
    return result


def _around_lungs(slices: NDArray[np.float32]) -> tuple[slice, slice]:
    """The rows and columns with lung, extended to multiples of `UNIT`."""
    lung = (slices != BACKGROUND_STD).any(axis=0)
    rows, columns = (np.flatnonzero(lung.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return (
        _whole_units(slice(int(rows[0]), int(rows[-1]) + 1), len(lung), MARGIN),
        _whole_units(slice(int(columns[0]), int(columns[-1]) + 1), len(lung), MARGIN),
    )


def _whole_units(part: slice, size: int, margin: int) -> slice:
    """Extend a range of `size` pixels by a margin to a multiple of `UNIT`."""
    first, last = max(part.start - margin, 0), min(part.stop + margin, size)
    length = min(-(-(last - first) // UNIT) * UNIT, size)
    first = min(first, size - length)
    return slice(first, first + length)
