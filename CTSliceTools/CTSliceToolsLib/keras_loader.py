"""The one place that imports Keras: `from CTSliceToolsLib.keras_loader import keras`.

Keras runs on TensorFlow, JAX or PyTorch, whichever is installed, in this order; the environment
variable KERAS_BACKEND overrules it. Inside the Slicer application this module is imported in child
processes only: TensorFlow and Slicer's rendering crash each other.
"""

import importlib.util
import os

from CTSliceToolsLib.errors import InputError

BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}


def _choose_backend() -> str:
    for backend, package in BACKENDS.items():
        if importlib.util.find_spec(package):
            return backend
    raise InputError(
        "Keras has no backend: install one of them, for instance with `pip install tensorflow`."
    )


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "KERAS_BACKEND" not in os.environ:
    os.environ["KERAS_BACKEND"] = _choose_backend()

import keras  # noqa: E402 - the backend is chosen before

__all__ = ["keras"]
