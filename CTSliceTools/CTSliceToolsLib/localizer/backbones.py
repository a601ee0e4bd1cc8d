"""Networks that locate a slice: a backbone, pretrained or not, and the tutorial's head on it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.model_card import load_model
from CTSliceToolsLib.localizer.compact import build_compact
from CTSliceToolsLib.localizer.training_plan import Backbone
from CTSliceToolsLib.slice_image import SIZE


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
        InputError: if the weights cannot be had, or are of another network.
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
    """Let everything be trained; it takes effect when the model is compiled."""
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
    """Put scaling and channels before, and the tutorial's head behind, a network."""
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
