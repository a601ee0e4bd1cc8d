"""A network of one weight that takes what is brighter than lung for nodules: runs are quick.

    python Testing/bright_model.py FILE

Run as a program where the process renders: Keras and rendering do not share one.
"""

import sys
from pathlib import Path

import numpy as np


def write_bright_model(file: Path, size: int = 64, limit: float = 2.0) -> Path:
    """Write it with its card; `limit` in standard deviations above the mean of the lung."""
    from CTLungScreeningLib.keras_loader import keras
    from CTLungScreeningLib.model_card import ModelCard, save_model

    inputs = keras.Input((size, size, 1))
    layer = keras.layers.Conv2D(1, 1, activation="sigmoid")
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.full((1, 1, 1, 1), 5.0), np.array([-5 * limit])])
    save_model(model, ModelCard("bright", "a test", "probability", {"size": size}), file)
    return file


if __name__ == "__main__":
    write_bright_model(Path(sys.argv[1]))
