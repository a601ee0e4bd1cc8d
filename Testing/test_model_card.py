"""A model travels with its card, for inference only, and nothing in it is run."""

import hashlib
import json
import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest

from CTLungScreeningLib import model_card, onnx_export
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.keras_training import require_new_training, training_notes
from CTLungScreeningLib.model_card import (
    ModelCard,
    card_from_text,
    convert_model,
    load_model,
    read_card,
    require_new_model,
    save_model,
    training_folder,
)

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


def test_a_model_that_differs_as_onnx_is_saved_to_train_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "m.keras"
    with monkeypatch.context() as patched:
        patched.setattr(onnx_export, "AGREEMENT", -1.0)
        card = save_model(small_model(), CARD, file)
        with pytest.raises(InputError, match=r"As ONNX, .* differ by .*: the network runs with"):
            convert_model(file)
    assert list(card.files) == ["m.keras"]
    notes = training_notes("1 GPU", tmp_path, [card])
    assert any(note.startswith("m.keras runs with Keras only") for note in notes)
    assert list(convert_model(file).files) == ["m.onnx", "m.keras"]


def test_whatever_goes_wrong_in_writing_onnx_no_model_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(onnx_export, "largest_differences", fail)
    assert list(save_model(small_model(), CARD, tmp_path / "m.keras").files) == ["m.keras"]


def test_a_model_is_saved_where_onnx_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "CTLungScreeningLib.onnx_export", None)
        assert list(save_model(small_model(), CARD, tmp_path / "m.keras").files) == ["m.keras"]
    assert list(convert_model(tmp_path / "m.keras").files) == ["m.onnx", "m.keras"]


def test_a_model_of_a_newer_keras_names_both_versions(tmp_path: Path) -> None:
    file = tmp_path / "m.keras"
    card = save_model(small_model(), CARD, tmp_path / "other.keras")
    with ZipFile(tmp_path / "other.keras") as old, ZipFile(file, "w") as new:
        for name in old.namelist():
            content = old.read(name).replace(b'"kernel_size"', b'"size_of_kernel"')
            if name == "metadata.json":
                content = json.dumps({"keras_version": "99.1"}).encode()
            new.writestr(name, content)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    text = json.dumps(card.__dict__ | {"files": {file.name: digest}})
    file.with_suffix(".json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"saved by Keras 99\.1 and cannot be read by 3\."):
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


def test_a_model_that_is_cut_short_is_damaged_not_missing(tmp_path: Path) -> None:
    file = tmp_path / "m.keras"
    card = save_model(small_model(), CARD, tmp_path / "other.keras")
    content = (tmp_path / "other.keras").read_bytes()[:-100]
    file.write_bytes(content)
    files = {file.name: hashlib.sha256(content).hexdigest()}
    text = json.dumps(card.__dict__ | {"files": files})
    file.with_suffix(".json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"m\.keras cannot be read .*: it is damaged"):
        load_model(file)


def test_a_packed_model_is_not_opened(tmp_path: Path) -> None:
    file = tmp_path / "m.keras"
    card = save_model(small_model(), CARD, tmp_path / "other.keras")
    with ZipFile(tmp_path / "other.keras") as old, ZipFile(file, "w", ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    text = json.dumps(card.__dict__ | {"files": files})
    file.with_suffix(".json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"m\.keras cannot be read as a Keras model"):
        load_model(file)


def test_a_refused_conversion_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "m.keras"
    save_model(small_model(), CARD, file)
    run_file, card_file = file.with_suffix(".onnx"), file.with_suffix(".json")
    run_file.unlink()
    card_file.rename(tmp_path / "real.json")
    card_file.symlink_to("real.json")
    with pytest.raises(InputError, match=r"m\.json is a link"):
        convert_model(file)
    assert not run_file.exists()
    card_file.unlink()
    (tmp_path / "real.json").rename(card_file)
    convert_model(file)
    assert run_file.is_file()


def test_a_conversion_whose_card_cannot_be_written_leaves_the_model_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "m.keras"
    save_model(small_model(), CARD, file)
    file.with_suffix(".onnx").unlink()
    before = {one: one.read_bytes() for one in tmp_path.iterdir()}

    def full(path: Path, _text: str) -> None:
        raise InputError(f"{path} cannot be written (No space left on device)")

    with monkeypatch.context() as patched:
        patched.setattr(model_card, "replace_text", full)
        with pytest.raises(InputError, match=r"m\.json cannot be written"):
            convert_model(file)
    assert {one: one.read_bytes() for one in tmp_path.iterdir()} == before
    convert_model(file)
    assert file.with_suffix(".onnx").is_file()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("command", [1, 2], "`command` must hold only strings"),
        ("training_cases", [None], "`training_cases` must hold only strings"),
        ("files", {"a.onnx": 3}, "`files` must hold only strings"),
        ("cost", {"seconds": "x"}, "`cost` must hold only numbers from 0 on"),
        ("cost", {"seconds": -1}, "`cost` must hold only numbers from 0 on"),
        ("cost", {"seconds": 10**400}, "`cost` must hold only numbers from 0 on"),
    ],
)
def test_what_a_field_holds_is_checked(field: str, value: object, words: str) -> None:
    text = json.dumps({"name": "a", "summary": "b", "label": "c", field: value})
    with pytest.raises(InputError, match=words):
        card_from_text(text, "the card")


@pytest.mark.parametrize(
    "name",
    [
        "mine (2) = a+b, #1 'x' & y",
        "Kno\u0308tchen",
        "\u0928\u0930\u094d\u0938",
        ".hidden",
        "v1.2 beta",
    ],
)
def test_a_model_of_any_name_is_opened_again(tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.keras"
    require_new_model(file)
    saved = save_model(small_model(), CARD, file)
    assert load_model(file)[1] == saved


@pytest.mark.parametrize("name", ["nul", "COM1.v2", "a\\b", "C:a", "a\nb", "a\udce4"])
def test_a_name_that_no_card_may_have_is_refused_before_a_training(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError, match="not a valid name for a model"):
        require_new_model(tmp_path / f"{name}.keras")


@pytest.mark.parametrize("path", ["/", ".", ".."])
def test_a_path_without_a_name_is_refused(path: str) -> None:
    def train(output: Path) -> None:
        require_new_training(output, training_folder(output), "cache")

    for use in (read_card, load_model, convert_model, train):
        with pytest.raises(InputError):
            use(Path(path))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../a",
        "a/../b",
        "/etc/a",
        "a//b",
        "a/",
        ".. /a",
        "a./b",
        "C:a",
        "\\\\a\\b",
        "a\0",
        "Aux.onnx",
    ],
)
def test_a_card_names_only_files_below_it(name: str) -> None:
    values = {"name": "a", "summary": "b", "label": "c", "files": {name: ""}}
    with pytest.raises(InputError, match="not a path below the card"):
        card_from_text(json.dumps(values), "the card")
