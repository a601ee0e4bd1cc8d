"""Weights of an earlier training, checked before they are used."""

import warnings
from pathlib import Path

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.keras_loader import keras

SUFFIXES = (".keras", ".h5", ".hdf5")


def load_weights(model: keras.Model, file: Path) -> None:
    """Give a network the weights in a file; code in the file is never run.

    Args:
        model: the network.
        file: `.keras`, or `.h5` as Keras writes it: `.weights.h5`, or weights or a whole model of
            earlier versions.

    Raises:
        InputError: if it cannot be read or is of a network of another architecture.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise InputError(f"{file} is no file of weights: give one of {', '.join(SUFFIXES)}.")
    if not file.is_file():
        raise InputError(f"{file} does not exist: give a file with weights.")
    try:
        if file.suffix.lower() == ".keras":
            _copy(keras.saving.load_model(file, compile=False, safe_mode=True), model, file)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # dozens of lines before the error that says it
                model.load_weights(file)
    except InputError:
        raise
    except (ValueError, TypeError, OSError, KeyError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError(
            f"{file} does not hold the weights of this network of {model.count_params():,} "
            f"parameters and input {_words(model.input_shape)} ({reason}): give one of the same "
            "preset and size."
        ) from error


def _copy(source: keras.Model, model: keras.Model, file: Path) -> None:
    """Copy the weights if all have the same shape."""
    theirs, ours = ([weight.shape for weight in one.weights] for one in (source, model))
    if theirs != ours:
        raise InputError(
            f"{file} is of another network: it has {source.count_params():,} parameters and input "
            f"{_words(source.input_shape)}, this one {model.count_params():,} and "
            f"{_words(model.input_shape)}; give one of the same preset and size."
        )
    model.set_weights(source.get_weights())


def _words(shape: tuple[int | None, ...]) -> str:
    return " × ".join("any" if length is None else str(length) for length in shape[1:])
