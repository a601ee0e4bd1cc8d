"""The networks a localizer is built on: inputs, head, weights, what is frozen."""

import socket
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.model_card import ModelCard, load_model, save_model
from CTSliceToolsLib.localizer.networks import build_compact, build_localizer, unfreeze
from CTSliceToolsLib.options import Backbone

layers, applications = keras.layers, keras.applications
PICTURES = np.random.default_rng(2).integers(0, 256, (2, 256, 256, 1), np.uint8)
PREPARED_BY = {
    Backbone.INCEPTION: applications.inception_v3.preprocess_input,
    Backbone.XCEPTION: applications.xception.preprocess_input,
    Backbone.RESNET50: applications.resnet50.preprocess_input,
    Backbone.VGG19: applications.vgg19.preprocess_input,
}
# Of the networks without their top, as the documentation of keras.applications has them.
PARAMETERS = {
    Backbone.INCEPTION: 21_802_784,
    Backbone.XCEPTION: 20_861_480,
    Backbone.RESNET50: 23_587_712,
    Backbone.VGG19: 20_024_384,
}
BIG = list(PARAMETERS)
ONE_BY_DEFAULT = [
    backbone if backbone is Backbone.VGG19 else pytest.param(backbone, marks=pytest.mark.slow)
    for backbone in BIG
]


def bottom_of(model: keras.Model) -> keras.Model:
    (bottom,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
    return bottom


@pytest.fixture(scope="module")
def vgg19() -> keras.Model:
    keras.utils.set_random_seed(1)
    return build_localizer(Backbone.VGG19, random=True)


@pytest.fixture(scope="module")
def vgg19_file(vgg19: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights in the form in which keras.applications distributes them."""
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    file = tmp_path_factory.mktemp("weights") / "vgg19_notop.h5"
    with h5py.File(file, "w") as stream:
        save_weights_to_hdf5_group(stream, bottom_of(vgg19))
    return file


@pytest.mark.parametrize("backbone", ONE_BY_DEFAULT)
def test_backbone_sees_what_it_was_trained_on_and_has_the_tutorials_head(
    backbone: Backbone, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = (
        request.getfixturevalue("vgg19")
        if backbone is Backbone.VGG19
        else build_localizer(backbone, random=True)
    )
    bottom = bottom_of(model)
    assert bottom.count_params() == PARAMETERS[backbone]
    seen = keras.Model(model.inputs, model.layers[model.layers.index(bottom) - 1].output)
    rgb = np.repeat(PICTURES.astype(np.float32), 3, axis=-1)
    np.testing.assert_allclose(
        seen.predict(PICTURES, verbose=0), PREPARED_BY[backbone](rgb), atol=1e-4
    )
    head = model.layers[model.layers.index(bottom) + 1 :]
    assert [type(layer) for layer in head] == [
        layers.Flatten,
        layers.BatchNormalization,
        layers.Dropout,
        layers.Dense,
        layers.BatchNormalization,
        layers.Dropout,
        layers.Dense,
    ]
    assert [head[2].rate, head[5].rate] == [0.5, 0.5]
    assert [head[3].units, head[6].units] == [128, 1]
    assert [head[3].activation, head[6].activation] == [
        keras.activations.relu,
        keras.activations.sigmoid,
    ]
    assert bottom.trainable and len(model.trainable_weights) > 8, "at random, all is trained"
    locations = model.predict(PICTURES, verbose=0)
    assert locations.shape == (2, 1)
    assert ((locations > 0) & (locations < 1)).all()
    save_model(model, ModelCard("m", "a test", "location", {}), tmp_path / "m.keras")
    again, _ = load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again.predict(PICTURES, verbose=0), locations, atol=1e-6)


def test_pretrained_backbone_is_frozen_until_it_is_fine_tuned(
    vgg19: keras.Model, vgg19_file: Path
) -> None:
    model = build_localizer(Backbone.VGG19, vgg19_file)
    for loaded, saved in zip(
        bottom_of(model).get_weights(), bottom_of(vgg19).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(loaded, saved)
    assert not bottom_of(model).trainable_weights
    assert len(model.trainable_weights) == 8, "two batch normalizations, two dense layers"
    unfreeze(model)
    assert len(bottom_of(model).trainable_weights) == 32


def test_compact_gives_one_location_a_slice_and_is_small() -> None:
    model = build_localizer(Backbone.COMPACT)
    assert model.input_shape == (None, 256, 256, 1)
    assert model.predict(PICTURES, verbose=0).shape == (2, 1)
    assert model.count_params() * 4 < 8e6


def test_compact_starts_from_a_localizer(tmp_path: Path) -> None:
    first = build_compact()
    save_model(first, ModelCard("m", "a test", "location", {}), tmp_path / "m.keras")
    again = build_localizer(Backbone.COMPACT, tmp_path / "m.keras")
    for loaded, saved in zip(again.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(loaded, saved)


def test_imagenet_weights_that_cannot_be_had_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    with pytest.raises(InputError, match=r"vgg19 could not be downloaded.*--weights.*--random"):
        build_localizer(Backbone.VGG19)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path, vgg19_file: Path) -> None:
    text = tmp_path / "text.h5"
    text.write_text("no weights")
    other = tmp_path / "other.keras"
    inputs = keras.Input((256, 256, 1))
    flat = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(inputs)))
    save_model(flat, ModelCard("m", "a test", "location", {}), other)
    for backbone, weights, random, message in (
        (Backbone.VGG19, text, False, "text.h5 does not hold the weights of vgg19"),
        (Backbone.RESNET50, vgg19_file, False, "does not hold the weights of resnet50"),
        (Backbone.COMPACT, other, False, "other.keras does not hold the weights of compact"),
        (Backbone.COMPACT, vgg19_file, False, "vgg19_notop.h5 cannot be loaded into compact"),
        (Backbone.VGG19, tmp_path / "none.h5", False, "none.h5 does not exist"),
        (Backbone.VGG19, vgg19_file, True, "not both"),
    ):
        with pytest.raises(InputError, match=message):
            build_localizer(backbone, weights, random)
