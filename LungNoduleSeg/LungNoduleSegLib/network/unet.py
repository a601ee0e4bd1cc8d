"""The U-Net of the tutorial in backend-neutral Keras 3, with its Dice coefficient and loss."""

from typing import Any

from CTLungScreeningLib.keras_loader import keras

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
        size: rows and columns, a multiple of 16; None takes any such multiple.
        channels: slices seen at once.
        filters: of the first level; they double at each level.
        batch_norm: normalize after each convolution, which lets small data sets be learnt faster.
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
    """Dice overlap of the whole batch, smoothed by 1 in numerator and denominator as in the seed.

    Both tensors have the same shape, values 0…1; two empty masks agree with 1.
    """
    y_true = keras.ops.cast(y_true, y_pred.dtype)
    overlap = keras.ops.sum(y_true * y_pred)
    total = keras.ops.sum(y_true) + keras.ops.sum(y_pred)
    return (2 * overlap + DICE_SMOOTH) / (total + DICE_SMOOTH)


@keras.saving.register_keras_serializable("LungNoduleSegLib")
def dice_loss(y_true: Any, y_pred: Any) -> Any:
    """The negative Dice coefficient, the tutorial's loss."""
    return -dice_coefficient(y_true, y_pred)
