"""The default localizer's network: small enough to run on any CPU, made for slice images of CT."""

from typing import Any

from CTSliceToolsLib.keras_loader import keras
from CTSliceToolsLib.localizer.slice_image import SIZE

WIDTHS = (32, 64, 96, 128)
"""Filters of the four stages of two convolutions each, halving the image from one to the next."""


def build_compact() -> keras.Model:
    """Build the network: (batch, `SIZE`, `SIZE`, 1) of 0…255 to locations (batch, 1), 0…1.

    A coarse first convolution, then stages as in VGG (Simonyan and Zisserman, 2015) with batch
    normalization; averages over the whole image instead of a flattened one, so that it matters
    little where in the image the patient lies.
    """

    def convolve(x: Any, width: int, size: int = 3, strides: int = 1) -> Any:
        x = keras.layers.Conv2D(width, size, strides, padding="same", use_bias=False)(x)
        return keras.layers.ReLU()(keras.layers.BatchNormalization()(x))

    inputs = keras.Input((SIZE, SIZE, 1))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = convolve(x, WIDTHS[0] // 2, size=5, strides=2)
    for width in WIDTHS:
        x = keras.layers.MaxPooling2D()(x)
        x = convolve(convolve(x, width), width)
    x = keras.layers.Concatenate()(
        [keras.layers.GlobalAveragePooling2D()(x), keras.layers.GlobalMaxPooling2D()(x)]
    )
    x = keras.layers.Dropout(0.3)(x)
    x = keras.layers.Dense(64, activation="relu")(x)
    x = keras.layers.Dropout(0.3)(x)
    outputs = keras.layers.Dense(1, activation="sigmoid", dtype="float32")(x)
    return keras.Model(inputs, outputs, name="compact")
