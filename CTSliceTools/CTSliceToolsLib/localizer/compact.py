"""The default localizer network: small enough to run on any CPU."""

from typing import Any

from CTLungScreeningLib.keras_loader import keras
from CTSliceToolsLib.slice_image import SIZE

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
