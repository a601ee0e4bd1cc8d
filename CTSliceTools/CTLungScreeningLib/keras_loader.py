"""The one place that imports Keras: `from CTLungScreeningLib.keras_loader import keras`.

Keras runs on TensorFlow, JAX or PyTorch, whichever is installed, in this order; the environment
variable KERAS_BACKEND overrules it. Inside the Slicer application this module is imported in child
processes only: TensorFlow and Slicer's rendering crash each other.
"""

import gc
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from CTLungScreeningLib.errors import InputError

BACKENDS = ("tensorflow", "jax", "torch")

UNUSED = ("matplotlib", "sklearn")
"""Imported by Keras if installed, for wrappers that we do not use."""


def _choose_backend() -> str:
    for backend in BACKENDS:
        if importlib.util.find_spec(backend):
            return backend
    raise InputError(
        "Keras has no backend: install one of them, for instance with `pip install tensorflow "
        "onnx`."
    )


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Drop what TensorFlow's C++ code prints while it is loaded, before it heeds any setting."""
    try:
        kept = os.dup(2)
    except OSError:  # no console at all, as in a Windows application
        yield
        return
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a device, not a file
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def _hidden(packages: tuple[str, ...]) -> Iterator[None]:
    """Hide packages from Keras, whose import takes half as long again with these two."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Import leaves next to no garbage, and looking for it takes half a second."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "KERAS_BACKEND" not in os.environ:
    os.environ["KERAS_BACKEND"] = _choose_backend()

with _quiet_stderr(), _hidden(UNUSED), _no_garbage_collection():
    import keras

__all__ = ["keras"]
