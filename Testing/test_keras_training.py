"""Training into a folder: curves, the best model, going on, stopping early, several devices."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from CTLungScreeningLib.errors import Cancelled, InputError
from CTLungScreeningLib.files import private_folders
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.keras_training import (
    BEST,
    CHECKPOINT,
    HISTORY,
    RUN_NAMES,
    TENSORBOARD,
    Epoch,
    EpochBatches,
    fit,
    hardware,
    read_history,
    require_new_training,
)
from CTLungScreeningLib.model_card import ModelCard, save_model
from CTLungScreeningLib.progress import ProgressCallback, silent
from stopped_training import stop_at, without_seconds

SETTINGS = {"seed": 3, "learning_rate": 0.05}


class Line(EpochBatches):
    """Points on a plane, others in each epoch."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        x = np.random.default_rng((3, self.epoch, index)).normal(size=(4, 2)).astype(np.float32)
        return x, x @ np.array([[2.0], [-1.0]], np.float32)


def model(rate: float = 0.05) -> keras.Model:
    keras.utils.set_random_seed(1)
    made = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dropout(0.2), keras.layers.Dense(1, use_bias=False)]
    )
    made.compile(keras.optimizers.Adam(rate), "mse")
    return made


def train(
    model: keras.Model,
    folder: Path,
    epochs: int = 3,
    settings: dict[str, Any] = SETTINGS,
    patience: int | None = None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    progress: ProgressCallback = silent,
    validated: bool = True,
) -> list[Epoch]:
    return fit(
        model,
        Line(),
        folder,
        epochs=epochs,
        settings=settings,
        validation=Line() if validated else None,
        patience=patience,
        on_epoch=on_epoch,
        progress=progress,
    )


@pytest.mark.parametrize("stop", [2, 12, 15])
def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, stop: int
) -> None:
    whole = model()
    curves = train(whole, tmp_path / "whole", epochs=6)
    with pytest.raises(Cancelled):
        train(model(), tmp_path / "parts", epochs=6, progress=stop_at("Training", stop))
    again = model()
    seen: list[Epoch] = []
    resumed = train(again, tmp_path / "parts", epochs=6, on_epoch=seen.append)
    assert without_seconds(seen) == without_seconds(resumed)
    assert [epoch["epoch"] for epoch in resumed] == list(range(6))
    assert without_seconds(resumed) == without_seconds(curves)
    np.testing.assert_array_equal(again.get_weights()[0], whole.get_weights()[0])


def test_without_validation_the_last_epoch_is_the_best(tmp_path: Path) -> None:
    whole = model()
    train(whole, tmp_path / "whole", epochs=3, validated=False)
    np.testing.assert_array_equal(
        keras.saving.load_model(tmp_path / "whole" / BEST).get_weights()[0],
        whole.get_weights()[0],
    )
    with pytest.raises(Cancelled):
        train(model(), tmp_path / "parts", progress=stop_at("Training", 7), validated=False)
    again = model()
    train(again, tmp_path / "parts", validated=False)
    np.testing.assert_array_equal(again.get_weights()[0], whole.get_weights()[0])


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(4))
def test_a_training_killed_while_it_saves_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Before the renaming of best model or state, of the first or second epoch."""
    whole, again = model(), model()
    curves = train(whole, tmp_path / "whole")
    renamed: list[Path] = []
    parts = tmp_path / "parts"

    def replace(self: Path, target: Path) -> None:
        renamed.append(target)
        if len(renamed) > moment:
            with (parts / HISTORY).open("a") as stream:
                stream.write("1,0.")
            self.write_bytes(self.read_bytes()[:100])
            raise Killed
        self.rename(target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", replace)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a killed process tidies nothing
        train(model(), parts)
    assert private_folders(parts) or private_folders(parts / CHECKPOINT)
    resumed = train(again, parts)
    assert without_seconds(resumed) == without_seconds(curves)
    np.testing.assert_array_equal(again.get_weights()[0], whole.get_weights()[0])
    assert {file.name for file in parts.iterdir()} == set(RUN_NAMES)
    assert [file.name for file in (parts / CHECKPOINT).iterdir()] == ["3.weights.h5"]


@pytest.mark.parametrize("other", [{}, {"seed": 4}])
def test_a_saved_model_ends_its_own_training_only(tmp_path: Path, other: dict[str, int]) -> None:
    trained, folder, output = model(), tmp_path / "m-training", tmp_path / "m.keras"
    train(trained, folder / "stage-1", epochs=1)
    card = ModelCard("m", "a summary", "a label", {}, training=SETTINGS | other)
    save_model(trained, card, output)
    with pytest.raises(InputError, match="already holds"):
        require_new_training(output, folder, "cache")
    assert (folder / "stage-1" / HISTORY).exists()
    for name in (BEST, CHECKPOINT):
        assert (folder / "stage-1" / name).exists() == bool(other)


def test_a_stage_after_an_interrupted_one_begins_at_its_first_epoch(tmp_path: Path) -> None:
    def stages(trained: keras.Model, progress: ProgressCallback) -> list[Epoch]:
        curves: list[Epoch] = []
        for name in ("first", "second"):
            curves += train(trained, tmp_path / name, progress=progress)
        return curves

    with pytest.raises(Cancelled):
        stages(model(), stop_at("Training", 12))
    resumed = stages(model(), lambda *_: None)
    assert [epoch["epoch"] for epoch in resumed] == [0, 1, 2, 0, 1, 2]


def test_the_folder_holds_curves_and_best_model_and_is_not_overwritten(tmp_path: Path) -> None:
    epochs: list[Epoch] = []
    trained = model()
    curves = train(trained, tmp_path, on_epoch=epochs.append)
    assert {file.name for file in tmp_path.iterdir()} == set(RUN_NAMES)
    assert list((tmp_path / TENSORBOARD / "train").glob("events.*"))
    assert curves == read_history(tmp_path)
    assert without_seconds(curves) == without_seconds(epochs)
    assert curves[0]["learning_rate"] == pytest.approx(0.05)
    best = keras.saving.load_model(tmp_path / BEST, compile=False, safe_mode=True)
    np.testing.assert_array_equal(best.get_weights()[0], trained.get_weights()[0])
    with pytest.raises(InputError, match="other learning_rate"):
        train(model(), tmp_path, settings=SETTINGS | {"learning_rate": 1})
    (tmp_path / "settings.json").unlink()
    with pytest.raises(InputError, match="already holds"):
        train(model(), tmp_path)


def test_training_stops_when_nothing_gets_better_and_keeps_the_best(tmp_path: Path) -> None:
    diverging = model(rate=3.0)
    curves = train(diverging, tmp_path, epochs=60, patience=3)
    losses = [epoch["val_loss"] for epoch in curves]
    assert len(losses) == int(np.argmin(losses)) + 4 < 60
    assert train(model(rate=3.0), tmp_path, epochs=60, patience=3) == curves


def test_damaged_curves_are_named(tmp_path: Path) -> None:
    (tmp_path / HISTORY).write_text("epoch,loss\n0,much\n")
    with pytest.raises(InputError, match=HISTORY):
        read_history(tmp_path)


def test_without_a_gpu_models_are_made_as_ever() -> None:
    if keras.distribution.list_devices("gpu"):
        pytest.skip("there is a GPU")
    with hardware(4) as words:
        assert words == "CPU"
        assert keras.config.dtype_policy().name == "float32"


@pytest.mark.filterwarnings("error:Skipping")
def test_half_precision_is_for_gpus_and_goes_on_with_its_loss_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: ["GPU:0"])

    def half() -> keras.Model:
        with hardware(4) as words:
            assert words == "1 GPU, mixed precision"
            assert keras.config.dtype_policy().name == "mixed_float16"
            return model()

    whole, again = half(), half()
    assert keras.config.dtype_policy().name == "float32"
    curves = train(whole, tmp_path / "whole")
    with pytest.raises(Cancelled):
        train(half(), tmp_path / "parts", progress=stop_at("Training", 12))
    resumed = train(again, tmp_path / "parts")
    assert without_seconds(resumed) == without_seconds(curves)
    assert {weight.dtype for weight in whole.get_weights()} == {np.dtype(np.float32)}


TWO_DEVICES = """
import sys, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from pathlib import Path
from CTLungScreeningLib import keras_training
from CTLungScreeningLib.keras_loader import keras
import test_keras_training as test
keras.distribution.list_devices = lambda kind: ["CPU:0", "CPU:1"]
keras.config.set_dtype_policy("float32")
with keras_training.hardware(4) as words:
    keras.config.set_dtype_policy("float32")
    model = test.model()
print(words, len(model.distribute_strategy.extended.worker_devices))
curves = test.train(model, Path(sys.argv[1]), epochs=2, settings={})
print(curves[-1]["loss"] < curves[0]["loss"])
"""


@pytest.mark.slow
def test_two_devices_share_each_batch(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, str(tmp_path)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stdout.splitlines() == ["2 GPUs, mixed precision 2", "True"], shown.stderr
    assert json.loads((tmp_path / "settings.json").read_text()) == {}


def test_packages_hidden_from_keras_can_be_imported_afterwards() -> None:
    code = """
import sys
from CTLungScreeningLib.keras_loader import UNUSED, keras
print([name for name in UNUSED if name in sys.modules])
import matplotlib.pyplot, sklearn.cluster
"""
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert shown.stdout.strip() == "[]", shown.stderr
    assert shown.returncode == 0, shown.stderr
