"""The localizer's networks: backbones with the tutorial's head, the compact one, augmentation.

All layers take and give batches (n, rows, columns, 1) of 0…255, change each image in its own way,
and do nothing unless they are called with `training=True`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.model_card import load_model
from CTSliceToolsLib.options import Backbone
from CTSliceToolsLib.slice_image import SIZE

ops = keras.ops


TURN_DEGREES, SHIFT, SHEAR, ZOOM = 12, 0.12, 0.1, 0.2
"""Largest angle, shift as a fraction of the image's side, shear, and relative change of scale, of
both axes alike and half as much of one alone."""

CONTRAST, BRIGHTNESS, NOISE = 0.2, 15, 8
"""Largest relative change of contrast, change of brightness, and deviation of the noise, of 255."""

LEAST_RADIUS = 0.35
"""Of a field of view, as a fraction of the image's side."""


class _RandomLayer(keras.layers.Layer):
    """A layer that changes images in training only, reproducibly from its seed."""

    def __init__(self, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool = False) -> Any:
        """Change the images in training, else return them as they are."""
        return self.change(images) if training else images

    def change(self, images: Any) -> Any:
        """Change each image at random; implemented by each kind of change."""
        raise NotImplementedError

    def uniform(self, images: Any, low: float, high: float, rank: int = 1) -> Any:
        """One random number per image, with `rank` axes."""
        shape = (ops.shape(images)[0],) + (1,) * (rank - 1)
        return keras.random.uniform(shape, low, high, seed=self.seed_generator)


class RandomAffine(_RandomLayer):
    """Rotation, shifts, shear, zoom and flip of each image, in a single interpolation.

    Half of the images are mirrored, left for right.
    """

    def __init__(self, seed: int, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        # TensorFlow's compiler XLA, which Keras uses on GPUs, cannot resample.
        self.supports_jit = keras.config.backend() != "tensorflow"

    def change(self, images: Any) -> Any:
        """Move each image by an affine map of its own about its centre."""
        angle = self.uniform(images, -1, 1) * np.deg2rad(TURN_DEGREES)
        shear = self.uniform(images, -SHEAR, SHEAR)
        both = self._scale(images, ZOOM)
        scale_x = both * self._scale(images, ZOOM / 2)
        scale_x = scale_x * ops.sign(self.uniform(images, -1, 1))
        cos, sin = ops.cos(angle), ops.sin(angle)
        xx, xy = scale_x * cos, both * (shear * cos - sin)
        yx, yy = scale_x * sin, both * (shear * sin + cos)
        rows, columns = images.shape[1:3]
        x, y = (columns - 1) / 2, (rows - 1) / 2
        to_x = x - xx * x - xy * y + self.uniform(images, -SHIFT, SHIFT) * columns
        to_y = y - yx * x - yy * y + self.uniform(images, -SHIFT, SHIFT) * rows
        none = ops.zeros_like(xx)
        matrix = ops.stack([xx, xy, to_x, yx, yy, to_y, none, none], axis=1)
        return ops.image.affine_transform(images, matrix, data_format="channels_last")

    def _scale(self, images: Any, change: float) -> Any:
        limit = float(np.log1p(change))
        return ops.exp(self.uniform(images, -limit, limit))


class RandomIntensity(_RandomLayer):
    """Contrast, brightness and noise of each image.

    The images of a batch share one field of noise, each with an amplitude of its own: random
    numbers for every pixel would take longer than all the rest.
    """

    def change(self, images: Any) -> Any:
        """Apply a random gain, offset and noise to each image, clipped to 0…255."""
        gain = self.uniform(images, 1 - CONTRAST, 1 + CONTRAST, rank=4)
        offset = self.uniform(images, -BRIGHTNESS, BRIGHTNESS, rank=4)
        sd = self.uniform(images, -NOISE, NOISE, rank=4)
        noise = keras.random.normal((1, *images.shape[1:]), seed=self.seed_generator)
        return ops.clip(images * gain + (offset + sd * noise), 0, 255)


class RandomFieldOfView(_RandomLayer):
    """Black outside a circle, as reconstruction in a small field of view leaves it.

    Half of the images keep all.
    """

    def change(self, images: Any) -> Any:
        """Blacken every second image, on average, outside a circle of its own."""
        rows, columns = images.shape[1:3]
        y, x = np.arange(rows, dtype=np.float32), np.arange(columns, dtype=np.float32)
        centre_x = columns * self.uniform(images, 0.45, 0.55, rank=4)
        centre_y = rows * self.uniform(images, 0.45, 0.55, rank=4)
        radius = columns * self.uniform(images, LEAST_RADIUS, 0.7, rank=4)
        limit = ops.where(self.uniform(images, -1, 1, rank=4) < 0, rows * columns, radius) ** 2
        distance = (x[:, None] - centre_x) ** 2 + (y[:, None, None] - centre_y) ** 2
        return ops.where(distance <= limit, images, 0.0)


WIDTHS = (24, 48, 96, 128)
"""Filters of the first convolution and of the three stages after it."""


def build_compact() -> keras.Model:
    """Build the network: (batch, `SIZE`, `SIZE`, 1) of 0…255 to locations (batch, 1), 0…1.

    A coarse first convolution, then stages of two small ones as in VGG (Simonyan and Zisserman,
    2015) with batch normalization, each at half the size of the one before; mean and maximum over
    the whole image instead of a flattened one, so that it matters little where in the image the
    patient lies.
    """

    def convolve(x: Any, width: int, size: int = 3, strides: int = 1) -> Any:
        x = keras.layers.Conv2D(width, size, strides, padding="same", use_bias=False)(x)
        return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.95)(x))

    inputs = keras.Input((SIZE, SIZE, 1))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = convolve(x, WIDTHS[0], size=8, strides=4)
    for width in WIDTHS[1:]:
        x = keras.layers.MaxPooling2D()(x)
        x = convolve(convolve(x, width), width)
    x = keras.layers.Concatenate()(
        [keras.layers.GlobalAveragePooling2D()(x), keras.layers.GlobalMaxPooling2D()(x)]
    )
    x = keras.layers.Dense(64, activation="relu")(x)
    x = keras.layers.Dropout(0.2)(x)
    outputs = keras.layers.Dense(1, activation="sigmoid", dtype="float32")(x)
    return keras.Model(inputs, outputs, name="compact")


@dataclass(frozen=True)
class _Base:
    """A network of keras.applications and what its weights expect of values 0…255."""

    name: str
    scale: float
    offset: Any


_MINUS_ONE_TO_ONE = (1 / 127.5, -1.0)
_MINUS_IMAGENET_MEAN = (1.0, [-103.939, -116.779, -123.68])
"""Blue, green, red."""

_IMAGENET = "imagenet"

_BASES = {
    Backbone.INCEPTION: _Base("InceptionV3", *_MINUS_ONE_TO_ONE),
    Backbone.XCEPTION: _Base("Xception", *_MINUS_ONE_TO_ONE),
    Backbone.RESNET50: _Base("ResNet50", *_MINUS_IMAGENET_MEAN),
    Backbone.VGG19: _Base("VGG19", *_MINUS_IMAGENET_MEAN),
}


def build_localizer(
    backbone: Backbone, weights: Path | None = None, random: bool = False
) -> keras.Model:
    """Build a network: (batch, `SIZE`, `SIZE`, 1) of 0…255 to locations (batch, 1), 0…1.

    A pretrained backbone is frozen, and its batch normalization stays as it is even when it is
    trained later. One that starts at random is trained from the start. `compact` always starts at
    random unless it gets a `.keras` file.

    Args:
        backbone: which.
        weights: a `.keras` file of a whole localizer with this backbone, its card beside it, or a
            `.h5` file of the backbone without its top, as keras.applications distributes them.
        random: start the backbone at random; else, without `weights`, those of ImageNet are
            downloaded, or taken from Keras' folder of earlier downloads.

    Raises:
        InputError: if the weights cannot be obtained, or are of another network.
    """
    if random and weights is not None:
        raise InputError(f"Start from {weights} or with --random, not both.")
    if weights is not None and not weights.is_file():
        raise InputError(f"{weights} does not exist: give a .keras or .h5 file with weights.")
    whole = weights is not None and weights.suffix == ".keras"
    if backbone is not Backbone.COMPACT:
        bottom = _bottom(backbone, None if random or whole else weights or _IMAGENET)
        model = _with_head(backbone, bottom, pretrained=not random)
    elif weights is None or whole:
        model = build_compact()
    else:
        raise InputError(f"{weights} cannot be loaded into compact: give a .keras file of one.")
    if whole and weights is not None:
        there, _ = load_model(weights)
        try:
            model.set_weights(there.get_weights())
        except ValueError as error:
            raise _unfit(backbone, weights) from error
    return model


def unfreeze(model: keras.Model) -> None:
    """Make all layers trainable; it takes effect when the model is compiled."""
    for layer in model.layers:  # one by one: a model that is not frozen itself passes nothing on
        layer.trainable = True


def _bottom(backbone: Backbone, weights: Path | str | None) -> keras.Model:
    """Build the network without its top, with weights from a file, from `_IMAGENET`, or random."""
    build = getattr(keras.applications, _BASES[backbone].name)
    try:
        return build(
            include_top=False, weights=weights and str(weights), input_shape=(SIZE, SIZE, 3)
        )
    except Exception as error:
        if weights == _IMAGENET:  # what Keras raises without a connection is a bare Exception
            raise InputError(
                f"The ImageNet weights of {backbone} could not be downloaded: give their file "
                "with --weights, or start at random with --random."
            ) from error
        if isinstance(error, (ValueError, OSError, KeyError)):
            raise _unfit(backbone, weights) from error
        raise


def _unfit(backbone: Backbone, weights: Path | str | None) -> InputError:
    return InputError(
        f"{weights} does not hold the weights of {backbone}: give a .keras file of a localizer "
        "with this backbone, or a .h5 file of the backbone without its top."
    )


def _with_head(backbone: Backbone, bottom: keras.Model, pretrained: bool) -> keras.Model:
    """Add scaling and channels before a network, and the tutorial's head after it."""
    layers, base = keras.layers, _BASES[backbone]
    bottom.trainable = not pretrained
    inputs = keras.Input((SIZE, SIZE, 1))
    x = layers.Concatenate()([inputs] * 3)
    x = layers.Rescaling(base.scale, base.offset)(x)
    x = bottom(x, training=False) if pretrained else bottom(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(0.5)(layers.BatchNormalization()(x))
    x = layers.Dense(128, activation="relu")(x)
    x = layers.Dropout(0.5)(layers.BatchNormalization()(x))
    outputs = layers.Dense(1, activation="sigmoid", dtype="float32")(x)
    return keras.Model(inputs, outputs, name=str(backbone))
