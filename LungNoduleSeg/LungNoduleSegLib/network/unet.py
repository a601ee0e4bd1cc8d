"""The tutorial's U-Net in backend-independent Keras 3, with Dice loss."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CTLungScreeningLib.errors import DAMAGE, InputError
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.model_card import require_whole
from LungNoduleSegLib.network.patches import TrainingScan

LEVELS = 5
DICE_SMOOTH = 1.0


def build_unet(
    size: int | None = 512, channels: int = 1, filters: int = 32, batch_norm: bool = False
) -> keras.Model:
    """Build the network: (batch, size, size, channels) to probabilities (batch, size, size, 1).

    The defaults are the tutorial's network: five levels of two 3×3 convolutions with ReLU, 32 to
    512 filters, max pooling down, nearest-neighbour upsampling and concatenation up. It follows
    Ronneberger et al., U-Net, MICCAI 2015.

    Args:
        size: rows and columns, a multiple of 16; None for variable multiples of 16.
        channels: number of input slices.
        filters: of the first level, doubled at each level.
        batch_norm: use batch normalization, which speeds up training on small data sets.
    """

    def convolve(x: Any, width: int) -> Any:
        for _ in range(2):
            x = keras.layers.Conv2D(width, 3, padding="same", use_bias=not batch_norm)(x)
            if batch_norm:
                x = keras.layers.BatchNormalization()(x)
            x = keras.layers.ReLU()(x)
        return x

    inputs = keras.Input((size, size, channels))
    widths = [filters * 2**level for level in range(LEVELS)]
    x, skips = inputs, []
    for width in widths[:-1]:
        x = convolve(x, width)
        skips.append(x)
        x = keras.layers.MaxPooling2D()(x)
    x = convolve(x, widths[-1])
    for width, skip in zip(reversed(widths[:-1]), reversed(skips), strict=True):
        x = keras.layers.Concatenate()([keras.layers.UpSampling2D()(x), skip])
        x = convolve(x, width)
    outputs = keras.layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")(x)
    return keras.Model(inputs, outputs, name="unet")


@keras.saving.register_keras_serializable("LungNoduleSegLib")
def dice_coefficient(y_true: Any, y_pred: Any) -> Any:
    """Dice coefficient of the whole batch, smoothed by 1 as in the tutorial.

    Both tensors have the same shape, values 0…1; two empty masks give 1.
    """
    y_true = keras.ops.cast(y_true, y_pred.dtype)
    overlap = keras.ops.sum(y_true * y_pred)
    total = keras.ops.sum(y_true) + keras.ops.sum(y_pred)
    return (2 * overlap + DICE_SMOOTH) / (total + DICE_SMOOTH)


@keras.saving.register_keras_serializable("LungNoduleSegLib")
def dice_loss(y_true: Any, y_pred: Any) -> Any:
    """The negative Dice coefficient, the tutorial's loss."""
    return -dice_coefficient(y_true, y_pred)


SUFFIXES = (".keras", ".h5", ".hdf5")


def load_weights(model: keras.Model, file: Path) -> None:
    """Load the weights of a network; code in the file is never run.

    Args:
        model: the network.
        file: `.keras`, or `.h5` of Keras: `.weights.h5`, or weights or a model of earlier versions.

    Raises:
        InputError: if it cannot be read or has another architecture.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise InputError(f"{file} is not a weights file: choose one of {', '.join(SUFFIXES)}.")
    if not file.is_file():
        raise InputError(f"{file} does not exist: choose a file with weights.")
    try:
        if file.suffix.lower() == ".keras":
            require_whole(file)
            _copy(keras.saving.load_model(file, compile=False, safe_mode=True), model, file)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # many lines before the actual error
                model.load_weights(file)
    except InputError:
        raise
    except DAMAGE as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError(
            f"{file} does not have the weights of this network with {model.count_params():,} "
            f"parameters and input {_words(model.input_shape)} ({reason}): choose one of the same "
            "preset and size."
        ) from error


def _copy(source: keras.Model, model: keras.Model, file: Path) -> None:
    """Copy the weights if all have the same shape."""
    shapes, needed = ([weight.shape for weight in one.weights] for one in (source, model))
    if shapes != needed:
        raise InputError(
            f"{file} is of another network: it has {source.count_params():,} parameters and input "
            f"{_words(source.input_shape)}, this one {model.count_params():,} and "
            f"{_words(model.input_shape)}; choose one of the same preset and size."
        )
    model.set_weights(source.get_weights())


def _words(shape: tuple[int | None, ...]) -> str:
    return " × ".join("any" if length is None else str(length) for length in shape[1:])


MISTAKEN_ABOVE = 0.3
"""Probability above which a voxel is marked by a network whose mistakes are learned from."""


def with_mistakes(scan: TrainingScan, probability: sitk.Image) -> TrainingScan:
    """Add the false positives of a network to a scan, as training examples.

    Everything outside outlined nodules and doubtful places counts as false positive, so all others
    must be outlined.

    Args:
        scan: to add to.
        probability: of a network, on the scan's grid.
    """
    marked = probability > MISTAKEN_ABOVE
    if scan.nodules is not None:
        marked = marked & ~sitk.BinaryDilate(scan.nodules > 0, (3, 3, 1))
    if scan.doubtful is not None:
        marked = marked & (scan.doubtful == 0)
    return replace(scan, mistaken=marked)


@keras.saving.register_keras_serializable("LungNoduleSegLib")
def dice_cross_entropy_loss(y_true: Any, y_pred: Any) -> Any:
    """One minus the Dice coefficient of the batch plus the mean binary cross-entropy.

    Unlike the Dice coefficient alone, the sum also learns from empty patches (Isensee et al.,
    nnU-Net, Nature Methods 2021).
    """
    cross_entropy = keras.ops.mean(keras.losses.binary_crossentropy(y_true, y_pred))
    return 1 - dice_coefficient(y_true, y_pred) + cross_entropy


def compile_for_training(model: keras.Model, learning_rate: float, steps: int) -> None:
    """Compile with Adam, clipped gradients, and a cosine decay of the rate to a hundredth."""
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=0.01)
    model.compile(
        keras.optimizers.Adam(schedule, clipnorm=1.0),
        dice_cross_entropy_loss,
        metrics=[dice_coefficient],
    )
