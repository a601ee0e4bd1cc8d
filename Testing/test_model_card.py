"""A model travels with its card, for inference only, and nothing in it is run."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.model_card import ModelCard, load_model, save_model

CARD = ModelCard("small", "a test", "probability", {"size": 8}, limitations=["untrained"])


def small_model() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs))
    model.compile("adam", "mse")
    model.train_on_batch(np.ones((1, 8, 8, 1)), np.ones((1, 6, 6, 2)))
    return model


def test_a_saved_model_is_the_same_without_its_optimizer(tmp_path: Path) -> None:
    model = small_model()
    file = tmp_path / "small.keras"
    saved = save_model(model, CARD, file)
    again, card = load_model(file)
    assert card == saved
    assert card.limitations == ["untrained"]
    assert not again.compiled
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    np.testing.assert_allclose(again.predict_on_batch(x), model.predict_on_batch(x), rtol=1e-6)
    with pytest.raises(InputError, match="already holds"):
        save_model(model, CARD, file)


def test_a_model_that_carries_code_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs))
    file = tmp_path / "code.keras"
    save_model(model, CARD, file)
    with pytest.raises(InputError, match="cannot be read as a Keras model"):
        load_model(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not a model card"),
        ("[]", "is not a model card"),
        ('{"name": "x", "colour": 1}', "is not a model card"),
    ],
)
def test_a_damaged_card_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "m.keras"
    save_model(small_model(), CARD, file)
    file.with_suffix(".json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        load_model(file)


def test_a_model_that_is_no_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.keras"
    card = save_model(small_model(), CARD, tmp_path / "other.keras")
    file.write_bytes(b"not a model")
    digest = hashlib.sha256(b"not a model").hexdigest()
    text = json.dumps(card.__dict__ | {"files": {file.name: digest}})
    file.with_suffix(".json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read as a Keras model"):
        load_model(file)
