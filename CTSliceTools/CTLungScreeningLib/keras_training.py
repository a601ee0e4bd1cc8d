"""Train a Keras network into a folder: best model, curves, resume after an interruption.

A folder has `settings.json`, `history.csv` (one line per epoch), `best.keras` (the best epoch so
far), `checkpoint` (the last epoch, with the optimizer's state) and, if TensorFlow and tensorboard
are installed, `tensorboard`.
"""

import contextlib
import csv
import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from CTLungScreeningLib.errors import DAMAGE, InputError, counted
from CTLungScreeningLib.files import (
    refuse_existing,
    refuse_links,
    remove_leftovers,
    replace_text,
    replaced_file,
)
from CTLungScreeningLib.json_files import changed_names, read_object, write_object
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.model_card import RUN, TRAIN, ModelCard, require_new_model
from CTLungScreeningLib.progress import ProgressCallback, silent

SETTINGS, HISTORY, BEST = "settings.json", "history.csv", "best.keras"
CHECKPOINT, TENSORBOARD = "checkpoint", "tensorboard"
RUN_NAMES = (SETTINGS, HISTORY, BEST, CHECKPOINT, TENSORBOARD)
"""Files that `fit` writes into its folder."""

Epoch = dict[str, float]
"""`epoch` from 0, `loss`, `learning_rate`, `seconds` and each metric; `val_` ones of validation."""


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a training.

    Attributes:
        model: the `.keras` file, with its card beside it.
        folder: with the curves, as `history.csv` of each stage.
        epochs: the metrics of each epoch, and its `stage`.
        best: the epoch whose weights were kept.
        notes: on the hardware and software that was used.
    """

    model: Path
    folder: Path
    epochs: list[Epoch]
    best: Epoch
    notes: tuple[str, ...]


class EpochBatches(keras.utils.PyDataset):
    """Batches that may depend on the epoch, whose number `fit` sets, also after an interruption.

    Draw each batch from `numpy.random.default_rng((seed, self.epoch, index))`: then the batches do
    not depend on their order or the number of threads.

    Attributes:
        epoch: from 0.
    """

    epoch: int = 0


@contextlib.contextmanager
def hardware(batch_size: int) -> Iterator[str]:
    """Build and train models inside on all GPUs, with mixed precision.

    With several GPUs, each batch is distributed to as many of them as divide its size. Weights are
    float32, but the layers keep the precision in their configuration: to save a model for use on a
    CPU, build it again outside and copy the weights.

    Args:
        batch_size: examples in a batch.

    Yields:
        A description of the hardware.
    """
    try:
        devices = keras.distribution.list_devices("gpu")
    except (RuntimeError, AttributeError):  # JAX without such a device; PyTorch, which has no list
        devices = []
    count = max((n for n in range(1, len(devices) + 1) if batch_size % n == 0), default=0)
    before = keras.config.dtype_policy()
    if count:
        keras.config.set_dtype_policy("mixed_float16")
    try:
        with _shared(devices[:count]) if count > 1 else contextlib.nullcontext():
            yield f"{counted(count, 'GPU')}, mixed precision" if count else "CPU"
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def _shared(devices: list[str]) -> Iterator[None]:
    """Distribute batches: by Keras, or by TensorFlow itself, which Keras cannot distribute."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow  # noqa: PLC0415 - only where it is the backend

        with tensorflow.distribute.MirroredStrategy(devices).scope():
            yield
        return
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def fit(
    model: keras.Model,
    batches: keras.utils.PyDataset,
    folder: Path,
    *,
    epochs: int,
    settings: Mapping[str, Any],
    validation: keras.utils.PyDataset | None,
    patience: int | None,
    on_epoch: Callable[[Epoch], None],
    progress: ProgressCallback = silent,
) -> list[Epoch]:
    """Train a compiled model; at the end it has the weights of its best epoch.

    A training that was interrupted in `folder` goes on. Call `keras.utils.set_random_seed` before
    the model is built; with `EpochBatches` a resumed training gives the same result as an
    uninterrupted one.

    Args:
        model: compiled.
        batches: of one epoch, in order.
        folder: for the files named above; no file is overwritten.
        epochs: total number, including those before an interruption.
        settings: JSON of everything that determines the training; must be the same to resume.
        validation: batches for the validation after each epoch; None to keep the last one as best.
        patience: stop after so many epochs without a lower validation loss; None for never.
        on_epoch: called with the metrics after each epoch, earlier epochs first.
        progress: counts the batches, in the stage "Training"; may raise `Cancelled`.

    Returns:
        The metrics of all epochs, including those before an interruption.

    Raises:
        InputError: if the folder's training has other settings or lacks a part, or a link is in
            the way.
    """
    refuse_links(folder, *(folder / name for name in RUN_NAMES))
    for place in (folder, folder / CHECKPOINT):
        remove_leftovers(place)
    past: list[Epoch] = []
    if (folder / SETTINGS).exists():
        past = _past(folder, settings)
    else:
        refuse_existing(folder, RUN_NAMES)
        write_object(folder / SETTINGS, settings)
    if past:
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        try:
            for file in (folder / BEST, _checkpoints(folder)[len(past)]):
                model.load_weights(file)  # the best only to see now whether it can be read
        except DAMAGE as error:
            raise InputError(_lacks_a_part(folder)) from error
    for epoch in past:
        on_epoch(epoch)
    best = best_epoch(past) if past else None
    waited = len(past) - 1 - past.index(best) if best else 0
    if len(past) < epochs and (patience is None or waited < patience):
        if isinstance(batches, EpochBatches):
            batches.epoch = len(past)  # Keras reads the first batches before an epoch begins
        model.fit(
            batches,
            initial_epoch=len(past),
            epochs=epochs,
            validation_data=validation,
            shuffle=False,
            verbose=0,
            callbacks=[
                _Live(batches, epochs, on_epoch, progress),
                keras.callbacks.CSVLogger(folder / HISTORY, append=True),
                _Saving(folder, best),
                *([] if patience is None else [_Patience(patience, waited, best)]),
                *_tensorboard(folder),
            ],
        )
    progress("Training", epochs * len(batches), epochs * len(batches))
    if (folder / BEST).exists():
        model.load_weights(folder / BEST)
    return read_history(folder)


def read_history(folder: Path) -> list[Epoch]:
    """Read the metrics of a training's epochs.

    Raises:
        InputError: if the file is missing or damaged.
    """
    file = folder / HISTORY
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return [
                {name: float(value) for name, value in row.items() if value != "NA"}
                for row in csv.DictReader(stream)
            ]
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{file} cannot be read as the curves of a training: {error}.") from error


def training_notes(used: str, folder: Path, saved: Iterable[ModelCard]) -> tuple[str, ...]:
    """Return notes on the hardware, the files and the logging of a training.

    Args:
        used: from `hardware`.
        folder: of the training, with its first stage in `stage-1`.
        saved: cards of the models, from `save_models`.
    """
    only_keras = [card.file(TRAIN) for card in saved if card.file(RUN) is None]
    notes = (
        f"Trained on: {used}.",
        *(
            f"{name} runs with Keras only: `lung-nodule-seg models convert {name}` makes its .onnx "
            "file, or says why it cannot."
            for name in only_keras
        ),
    )
    if (folder / "stage-1" / TENSORBOARD).exists():
        return notes
    return (*notes, "No TensorBoard log was written: this needs tensorflow and tensorboard.")


def best_epoch(epochs: Sequence[Epoch]) -> Epoch:
    """Return the epoch with the smallest validation loss, the first of equals."""
    return min(epochs, key=_judged)


def require_new_training(output: Path, folder: Path, cache: str) -> None:
    """Check before a training that its model can be saved under a name.

    If the model is there because its training was killed after it had saved it, what that training
    left is removed first.

    Args:
        output: the `.keras` file.
        folder: of the training, with its first stage in `stage-1`.
        cache: as for `remove_intermediate`.

    Raises:
        InputError: as `require_new_model`, or if one of the folders is a link.
    """
    refuse_links(folder, folder / cache, *folder.glob("stage-*"))
    with contextlib.suppress(ValueError, KeyError, AttributeError):  # no model, or no name of one
        training = read_object(output.with_suffix(".json"))["training"]
        settings = read_object(folder / "stage-1" / SETTINGS)
        if output.exists() and all(training.get(name) == settings[name] for name in settings):
            remove_intermediate(folder, cache)
    require_new_model(output)


def remove_intermediate(folder: Path, cache: str) -> None:
    """Remove what only a resumed training needs, after the model was saved elsewhere.

    Args:
        folder: of the training, with its stages in `stage-1`, `stage-2`.
        cache: the name of another folder in it that is no longer needed.
    """
    shutil.rmtree(folder / cache, ignore_errors=True)
    for stage in folder.glob("stage-*"):
        shutil.rmtree(stage / CHECKPOINT, ignore_errors=True)
        (stage / BEST).unlink(missing_ok=True)


def _judged(epoch: Epoch) -> float:
    """The validation loss; without validation the later epoch is the better one."""
    return epoch.get("val_loss", -epoch["epoch"])


def _past(folder: Path, settings: Mapping[str, Any]) -> list[Epoch]:
    """The epochs before an interruption, up to the last checkpoint."""
    try:
        kept = dict(json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / SETTINGS} cannot be read ({error}): start again in another folder."
        ) from error
    if other := changed_names(kept, settings):
        raise InputError(
            f"{folder} has a training with other {', '.join(other)}: use the same settings, or "
            "another folder."
        )
    done = max(_checkpoints(folder), default=0)
    if not done:
        (folder / HISTORY).unlink(missing_ok=True)
        return []
    history = folder / HISTORY
    lines = history.read_text(encoding="utf-8").splitlines(True) if history.exists() else []
    if len(lines) <= done or not (folder / BEST).exists():
        raise InputError(_lacks_a_part(folder))
    replace_text(history, "".join(lines[: done + 1]))
    return read_history(folder)


def _lacks_a_part(folder: Path) -> str:
    return f"{folder} lacks a part of its training: start again in another folder."


def _checkpoints(folder: Path) -> dict[int, Path]:
    """The saved states by the number of epochs before them: one, or two after an interruption."""
    files = (folder / CHECKPOINT).glob("*.weights.h5")
    return {int(file.name.partition(".")[0]): file for file in files if file.name[0].isdecimal()}


def _tensorboard(folder: Path) -> list[keras.callbacks.Callback]:
    if keras.backend.backend() != "tensorflow" or not importlib.util.find_spec("tensorboard"):
        return []
    return [keras.callbacks.TensorBoard(folder / TENSORBOARD, write_graph=False)]


class _Saving(keras.callbacks.Callback):
    """Saves the best model, then the state that a training resumes from, after the curves.

    The state comes last and in one step, so that it never counts an epoch that curves and best
    model do not hold.
    """

    def __init__(self, folder: Path, best: Epoch | None) -> None:
        super().__init__()
        self._folder, self._best = folder, _judged(best) if best else None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        loss = _judged({"epoch": epoch, **logs})
        if self._best is None or loss < self._best:
            self._best = loss
            with replaced_file(self._folder / BEST) as temporary:
                self.model.save(temporary)
        before = _checkpoints(self._folder)
        state = self._folder / CHECKPOINT / f"{epoch + 1}.weights.h5"
        state.parent.mkdir(exist_ok=True)
        with replaced_file(state) as temporary:
            self.model.save_weights(temporary)
        for file in before.values():
            file.unlink()


class _Live(keras.callbacks.Callback):
    """Sets the epoch of the batches and reports progress."""

    def __init__(
        self,
        batches: keras.utils.PyDataset,
        epochs: int,
        on_epoch: Callable[[Epoch], None],
        progress: ProgressCallback,
    ) -> None:
        super().__init__()
        self._batches, self._epochs = batches, epochs
        self._on_epoch, self._report = on_epoch, progress
        self._epoch, self._began = 0, 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._batches.epoch = self._epoch = epoch
        for variable in self.model.variables:
            if variable.name == "seed_generator_state":  # of dropout; not in checkpoints
                seed, _ = keras.ops.convert_to_numpy(variable)
                variable.assign([seed, epoch << 16])
        self._began = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        count = len(self._batches)
        self._report("Training", self._epoch * count + batch + 1, self._epochs * count)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        logs["learning_rate"] = float(rate)
        logs["seconds"] = round(time.monotonic() - self._began, 3)
        self._on_epoch({"epoch": epoch, **{name: float(v) for name, v in logs.items()}})


class _Patience(keras.callbacks.EarlyStopping):
    """Early stopping that remembers the epochs before an interruption."""

    def __init__(self, patience: int, waited: int, best: Epoch | None) -> None:
        super().__init__("val_loss", patience=patience, mode="min")
        self._waited, self._best = waited, best

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        if self._best is not None:
            self.best = self._best["val_loss"]
            self.best_epoch = int(self._best["epoch"])
            self.wait = self._waited
