"""Networks run without Keras, as they run with it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from CTLungScreeningLib import engine
from CTLungScreeningLib.engine import Device, OnnxNetwork, device_of
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.model_card import (
    convert_model,
    file_sha256,
    load_model,
    load_network,
    read_card,
)
from CTLungScreeningLib.onnx_export import AGREEMENT, largest_differences, to_onnx
from CTSliceToolsLib.localizer.prediction import DEFAULT_MODEL as LOCALIZER
from LungNoduleSegLib.detectors.network_detector import load_networks
from LungNoduleSegLib.options import DEFAULT_MODEL
from LungNoduleSegLib.phantom.chest import LesionRequest, PhantomSpec, make_phantom, write_phantom
from LungNoduleSegLib.segmenter import NoduleSegmenter

BUNDLED = {
    DEFAULT_MODEL: (3, 32, 48, 5),
    DEFAULT_MODEL.with_name("nodule-classifier.onnx"): (5, 16, 36, 36, 1),
    LOCALIZER: (2, 256, 256, 1),
}

BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"keras", "tensorflow", "jax", "torch", "onnx"}:
            raise ModuleNotFoundError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
"""
"""As `sitecustomize.py` it runs at the start of each Python process."""


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = PhantomSpec(size=(224, 224, 75), spacing=(1.6, 1.6, 4.0), lesions=(LesionRequest(20),))
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(make_phantom(spec), folder)
    return folder / "dicom"


@pytest.fixture
def without_keras(tmp_path: Path) -> Callable[..., str]:
    """Run a command of a module in a process, and its children, that cannot import Keras."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCK, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(folder)}

    def call(*arguments: str | Path) -> str:
        command = [sys.executable, "-m", *map(str, arguments), "--progress", "none"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_the_block_holds(without_keras: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="is blocked"):
        without_keras("CTSliceToolsLib", "train", tmp_path, "-o", tmp_path / "a.keras")


TRAINING = {
    "CTLungScreeningLib": {"keras_loader", "keras_training", "onnx_export"},
    "CTSliceToolsLib": {
        "localizer.networks",
        "localizer.slice_batches",
        "localizer.training",
        "localizer.unlabelled",
    },
    "LungNoduleSegLib": {
        "network.classifier_training",
        "network.patch_batches",
        "network.unet",
        "training_data.training",
    },
}
"""The modules that need Keras."""

IMPORT_ALL = """
import importlib, pkgutil, sys

package = importlib.import_module(sys.argv[1])
for one in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not one.name.endswith("__main__"):
        try:
            importlib.import_module(one.name)
        except ModuleNotFoundError as error:
            print(one.name.partition(".")[2], error)
"""


@pytest.mark.parametrize("package", TRAINING)
def test_only_training_imports_keras(package: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCK, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    call = [sys.executable, "-c", IMPORT_ALL, package]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in done.stdout.splitlines()} == TRAINING[package]


def test_a_run_needs_no_keras(
    phantom: Path, without_keras: Callable[..., str], tmp_path: Path
) -> None:
    output = without_keras("LungNoduleSegLib", "run", phantom, "-o", tmp_path / "out")
    assert "1 nodule; the results are in" in output


def test_a_prediction_needs_no_keras(
    phantom: Path, without_keras: Callable[..., str], tmp_path: Path
) -> None:
    output = without_keras("CTSliceToolsLib", "predict", phantom, "-o", tmp_path / "out.json")
    assert "75 slices, from 0." in output


@pytest.mark.slow
def test_nothing_but_training_needs_keras(
    phantom: Path, without_keras: Callable[..., str], tmp_path: Path
) -> None:
    without_keras("LungNoduleSegLib", "batch", phantom, "-o", tmp_path / "batch")
    without_keras("LungNoduleSegLib", "features", phantom, "-o", tmp_path / "features.csv")
    without_keras("CTSliceToolsLib", "match", phantom, "--like", phantom, "--slice", "9")


@pytest.mark.parametrize("file", BUNDLED, ids=lambda file: file.stem)
def test_a_bundled_network_gives_what_its_keras_file_gives(file: Path) -> None:
    network, card = load_network(file, Device.CPU)
    trained, same_card = load_model(file)
    assert card == same_card
    assert network.input_shape == trained.input_shape
    images = np.random.default_rng(1).normal(size=BUNDLED[file]).astype(np.float32)
    found, expected = (np.asarray(one.predict_on_batch(images)) for one in (network, trained))
    np.testing.assert_allclose(found, expected, atol=AGREEMENT)


@pytest.mark.slow
@pytest.mark.parametrize("scan", ["LIDC-IDRI-0001", "CMB-CRC-MSB-01068.nrrd"])
def test_a_scan_has_the_nodules_that_keras_finds(
    scan: str, shared_data: Path, tmp_path: Path
) -> None:
    for name in ("nodule-unet", "nodule-classifier"):
        source = DEFAULT_MODEL.with_name(f"{name}.keras")
        card = read_card(source)
        files = {source.name: card.files[source.name]}
        shutil.copy(source, tmp_path)
        text = json.dumps(asdict(replace(card, files=files)))
        (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
    for file in DEFAULT_MODEL.parent.glob("nodule-second-opinion.*"):
        shutil.copy(file, tmp_path)
    models = (DEFAULT_MODEL, tmp_path / "nodule-unet.keras")
    ours, theirs = (NoduleSegmenter(one).apply(shared_data / scan) for one in models)
    assert theirs.record["model"]["device"] == "Keras"
    assert len(ours.nodules) == len(theirs.nodules) > 0
    for one, other in zip(ours.nodules, theirs.nodules, strict=True):
        for value in ("x", "y", "z", "diameter_mm"):
            assert getattr(one, value) == pytest.approx(getattr(other, value), abs=0.1)
        assert one.probability == pytest.approx(other.probability, abs=0.01)


class Gpu:
    """An engine on a GPU that gives `wrong` results, and fails from the second batch on."""

    def __init__(self, wrong: float = 0.0) -> None:
        self.wrong, self.calls = wrong, 0

    def load(self, processor: Any) -> Any:
        def run(batch: Any) -> Any:
            self.calls += 1
            if self.calls > 2:
                raise RuntimeError("CUDA out of memory\nat a place in a file")
            return processor(batch) + self.wrong

        return run


def with_gpu(monkeypatch: pytest.MonkeyPatch, gpu: Gpu) -> None:
    _, processor = OnnxNetwork(DEFAULT_MODEL, Device.CPU)._processor
    monkeypatch.setattr(engine, "_gpus", lambda *_: iter([("CUDA", lambda: gpu.load(processor))]))


def test_the_processor_goes_on_when_the_memory_of_the_gpu_runs_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_gpu(monkeypatch, Gpu())
    network = OnnxNetwork(DEFAULT_MODEL)
    images = np.zeros((1, 32, 32, 5), np.float32)
    first = network.predict_on_batch(images)
    assert (network.device, network.notes) == ("CUDA", [])
    np.testing.assert_array_equal(network.predict_on_batch(images), first)
    assert network.device.startswith("CPU")
    (note,) = network.notes
    assert "CUDA out of memory." in note
    assert "the processor took over" in note


def test_a_gpu_with_other_results_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, Gpu(wrong=0.02))
    network = OnnxNetwork(DEFAULT_MODEL, Device.GPU)
    assert network.device.startswith("CPU")
    assert network.notes == ["CUDA is not used: its results differ from the processor's by 0.02."]


def test_a_gpu_that_is_asked_for_and_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_gpus", lambda *_: iter([]))
    assert OnnxNetwork(DEFAULT_MODEL).notes == []
    detector = load_networks(DEFAULT_MODEL, Device.GPU)
    assert detector.notes == ("No GPU was found that runs networks: the processor ran them.",)
    assert str(detector.record()["device"]).startswith("CPU")


def test_threads_are_those_of_the_cores_or_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(engine.THREADS, raising=False)
    cores = engine._threads()
    assert cores >= 1
    monkeypatch.setenv(engine.THREADS, "1")
    assert engine._threads() == 1
    monkeypatch.setenv(engine.THREADS, str(cores + 5))
    assert engine._threads() == cores


def test_each_core_runs_batches_of_its_own_and_they_come_back_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "_threads", lambda: 3)
    network = OnnxNetwork(DEFAULT_MODEL, Device.CPU, small_batches=True)
    rng = np.random.default_rng(4)
    batches = [rng.normal(size=(1, 32, 16 * k, 5)).astype(np.float32) for k in range(1, 9)]
    expected = [network.predict_on_batch(one) for one in batches]
    waiting = iter(batches)
    outputs = engine.predict_each(network, waiting)
    first = next(outputs)
    assert len(list(waiting)) == 4  # inputs are not made long before they are run
    list(outputs)
    outputs = engine.predict_each(network, batches[1:])
    for found, alone in zip([first, *outputs], expected, strict=True):
        np.testing.assert_array_equal(found, alone)


def test_a_batch_that_cannot_be_run_ends_all_of_them() -> None:
    network = OnnxNetwork(DEFAULT_MODEL, Device.CPU, small_batches=True)
    batches = [np.zeros((1, 32, 32, channels), np.float32) for channels in (5, 4, 5)]
    outputs = engine.predict_each(network, batches)
    with pytest.raises(Exception, match="invalid dimensions"):
        list(outputs)


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "broken.onnx"
    file.write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"broken\.onnx cannot be read as an ONNX model: "):
        OnnxNetwork(file)


def test_a_model_without_an_onnx_file_is_converted(tmp_path: Path) -> None:
    source = LOCALIZER.with_suffix(".keras")
    shutil.copy(source, tmp_path / "mine.keras")
    card = asdict(read_card(source)) | {"files": {"mine.keras": file_sha256(source)}}
    (tmp_path / "mine.json").write_text(json.dumps(card), encoding="utf-8")
    assert device_of(load_network(tmp_path / "mine.keras")[0]) == "Keras"
    convert_model(tmp_path / "mine.keras")
    network, card_after = load_network(tmp_path / "mine.keras", Device.CPU)
    assert isinstance(network, OnnxNetwork)
    assert list(card_after.files) == ["mine.onnx", "mine.keras"]
    with pytest.raises(InputError, match=r"already holds mine\.onnx"):
        convert_model(tmp_path / "mine.keras")
    (tmp_path / "mine.onnx").unlink()
    changed = card_after.files | {"mine.onnx": "0" * 64}
    text = json.dumps(asdict(replace(card_after, files=changed)))
    (tmp_path / "mine.json").write_text(text, encoding="utf-8")
    assert convert_model(tmp_path / "mine.keras") == read_card(tmp_path / "mine.onnx")


@pytest.mark.parametrize("kind", ["nested", "all layers", "sequential", "doubled"])
def test_networks_of_every_kind_are_written(kind: str) -> None:
    from CTLungScreeningLib.keras_loader import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    inputs = keras.Input((32, 32, 2))
    if kind == "sequential":
        model = keras.Sequential([inputs, layers.Conv2D(3, 5, strides=2), layers.Flatten()])
    elif kind == "nested":
        inner_inputs = keras.Input((32, 32, 3))
        inner = keras.Model(
            inner_inputs, layers.BatchNormalization()(layers.Conv2D(4, 3)(inner_inputs))
        )
        x = inner(layers.Conv2D(3, 1)(inputs), training=False)
        model = keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.Flatten()(x)))
    elif kind == "doubled":
        x = layers.UpSampling2D()(layers.MaxPooling2D()(layers.Conv2D(3, 1)(inputs)))
        x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
        y = layers.UpSampling2D()(layers.MaxPooling2D()(inputs))
        x = layers.Conv2D(5, 3, padding="same")(layers.Concatenate()([x, y, inputs]))
        model = keras.Model(inputs, x)
    else:
        x = layers.SeparableConv2D(6, 3, padding="same", depth_multiplier=2)(inputs)
        x = layers.Activation("tanh")(layers.ZeroPadding2D(((1, 2), (3, 0)))(x))
        x = layers.AveragePooling2D(3, strides=2, padding="same")(x)
        y = layers.MaxPooling2D(3, strides=1, padding="same")(x)
        x = layers.Add()([x, y])
        x = layers.UpSampling2D(2, interpolation="bilinear")(layers.Cropping2D(((1, 0), (2, 1)))(x))
        x = layers.GlobalAveragePooling2D()(x)
        model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    (difference,) = largest_differences(model, to_onnx(model))
    assert difference < AGREEMENT


def test_large_weights_take_16_bits_where_results_stay_the_same() -> None:
    from CTLungScreeningLib.keras_loader import keras
    from LungNoduleSegLib.network.unet import build_unet

    keras.utils.set_random_seed(0)
    model = build_unet(64, 1, 4)
    assert len(to_onnx(model)) < 2.5 * model.count_params()
    *_, last = model.layers
    kernel, bias = last.get_weights()
    last.set_weights([kernel * 100, bias])  # now 16 bits would change them
    written = to_onnx(model)
    assert len(written) > 4 * model.count_params()
    (difference,) = largest_differences(model, written)
    assert difference <= AGREEMENT


def test_a_unet_never_doubles_an_image() -> None:
    bundled = onnx.load(DEFAULT_MODEL.with_suffix(".onnx"))
    kinds = [node.op_type for node in bundled.graph.node]
    assert "Resize" not in kinds
    assert kinds.count("ConvTranspose") == kinds.count("MaxPool")


def test_a_layer_that_cannot_be_written_is_named() -> None:
    from CTLungScreeningLib.keras_loader import keras

    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, keras.layers.GaussianNoise(0.1, name="noise")(inputs))
    with pytest.raises(InputError, match=r"The layer noise \(GaussianNoise\) cannot be written"):
        to_onnx(model)


USE = """
import sys, time
from pathlib import Path

import numpy as np

if sys.argv[1] == "export":
    from CTLungScreeningLib.onnx_export import largest_differences
from CTLungScreeningLib.engine import OnnxNetwork

OnnxNetwork(Path(sys.argv[2])).predict_on_batch(np.zeros((1, 256, 256, 1), np.float32))
time.sleep(1)
"""


@pytest.mark.parametrize("use", ["run", "export"])
def test_nothing_is_reported_to_the_maker_of_the_engine(tmp_path: Path, use: str) -> None:
    """ONNX Runtime keeps an identifier of the computer and its events in the home folder."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "PYTHONPATH", "KERAS_BACKEND", "SYSTEMROOT")
    }
    environment |= {"HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", USE, use, str(LOCALIZER)]
    subprocess.run(command, check=True, env=environment)
    kept = [file for file in tmp_path.rglob("*") if "onnx" in file.name.lower()]
    assert kept == []


@pytest.mark.parametrize("inputs", [[], [[]], [["batch"]], [["batch", 1]], [["batch", 1, "x"]] * 2])
def test_a_network_of_other_inputs_is_refused(inputs: list[list[Any]], tmp_path: Path) -> None:
    given = [
        onnx.helper.make_tensor_value_info(f"x{number}", onnx.TensorProto.FLOAT, shape)
        for number, shape in enumerate(inputs)
    ]
    one = onnx.numpy_helper.from_array(np.ones(1, np.float32), "one")
    found = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    nodes = [onnx.helper.make_node("Sum", [*(value.name for value in given), "one"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "odd", given, [found], [one])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(InputError, match=r"odd\.onnx must have one input: export it with a single"):
        OnnxNetwork(tmp_path / "odd.onnx")
