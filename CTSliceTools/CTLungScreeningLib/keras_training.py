"""Training a Keras network into a folder: best model, curves, going on after an interruption.

A folder holds `settings.json` (what the training was asked for), `history.csv` (one line an epoch),
`best.keras` (the best epoch so far), `checkpoint` (the last epoch, with the optimizer's state) and,
where TensorFlow and the package tensorboard are there, `tensorboard`.
"""

import contextlib
import csv
import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import new_file, refuse_existing
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.progress import ProgressCallback, silent

SETTINGS, HISTORY, BEST = "settings.json", "history.csv", "best.keras"
CHECKPOINT, TENSORBOARD = "checkpoint", "tensorboard"
RUN_NAMES = (SETTINGS, HISTORY, BEST, CHECKPOINT, TENSORBOARD)
"""What `fit` writes into its folder."""

Epoch = dict[str, float]
"""`epoch` from 0, `loss`, `learning_rate`, `seconds` and each metric; `val_` ones of validation."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training gave.

    Attributes:
        model: the `.keras` file, with its card beside it.
        folder: with the curves, as `history.csv` of each stage.
        epochs: the figures of each epoch, and its `stage`.
        best: the epoch whose weights were kept.
        notes: sentences on what was and was not used.
    """

    model: Path
    folder: Path
    epochs: list[Epoch]
    best: Epoch
    notes: tuple[str, ...]


class EpochBatches(keras.utils.PyDataset):
    """Batches that may depend on the epoch; `fit` sets its number, also after an interruption.

    Draw each batch from `numpy.random.default_rng((seed, self.epoch, index))`: then the batches are
    the same in whatever order and by however many threads they are made.

    Attributes:
        epoch: from 0.
    """

    epoch: int = 0


@contextlib.contextmanager
def hardware(batch_size: int) -> Iterator[str]:
    """Make models built and trained inside use every GPU there is, and half precision on them.

    With several GPUs each batch is shared out among as many of them as divide its size. Weights
    stay in float32, but the layers keep the precision in their configuration: to save a model for
    use on a CPU, build it again outside and copy the weights.

    Args:
        batch_size: examples in a batch.

    Yields:
        What is used, in words.
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
            yield f"{count} GPU{'s' * (count > 1)}, mixed precision" if count else "CPU"
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def _shared(devices: list[str]) -> Iterator[None]:
    """Share out batches: by Keras itself, but for TensorFlow, which Keras leaves to its own way."""
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
    validation: keras.utils.PyDataset | None = None,
    patience: int | None = None,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    on_epoch: Callable[[Epoch], None] | None = None,
    progress: ProgressCallback = silent,
) -> list[Epoch]:
    """Train a compiled model; at the end it has the weights of its best epoch.

    The best epoch has the lowest validation loss, or training loss where there is no validation.
    Call `keras.utils.set_random_seed` before the model is built; batches of `EpochBatches` make an
    interrupted and resumed training the same as one in one go.

    Args:
        model: compiled.
        batches: of one epoch, taken in their order.
        folder: for the files named above; nothing in it is overwritten.
        epochs: in all, those before an interruption included.
        settings: all that determines the training, for JSON; a training goes on with the same only.
        validation: batches that the model is tried on after each epoch.
        patience: stop after so many epochs without a better one.
        resume: go on where an earlier training in `folder` ended; begin where there is none.
        callbacks: further ones.
        on_epoch: called with the figures of each epoch as it ends, earlier epochs first.
        progress: counts the batches, in the stage "Training"; may raise `Cancelled`.

    Returns:
        The figures of all epochs, those before an interruption included.

    Raises:
        InputError: if the folder holds a training and it is not to be resumed, or it was another.
    """
    past = _past(folder, settings) if resume and (folder / SETTINGS).exists() else None
    if past is None:
        refuse_existing(folder, RUN_NAMES)
        with new_file(folder / SETTINGS) as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        past = []
    if on_epoch is not None:
        for epoch in past:
            on_epoch(epoch)
    monitor = "loss" if validation is None else "val_loss"
    best = min(range(len(past)), key=lambda n: past[n][monitor], default=None)
    waited = 0 if best is None else len(past) - 1 - best
    if len(past) < epochs and (patience is None or waited < patience):
        if isinstance(batches, EpochBatches):
            batches.epoch = len(past)  # Keras looks at the first batches before an epoch begins
        model.fit(
            batches,
            epochs=epochs,
            validation_data=validation,
            shuffle=False,
            verbose=0,
            callbacks=[
                _Backup(folder / CHECKPOINT, delete_checkpoint=False),
                _Live(batches, epochs, on_epoch, progress),
                *callbacks,
                keras.callbacks.CSVLogger(folder / HISTORY, append=True),
                keras.callbacks.ModelCheckpoint(
                    folder / BEST,
                    monitor,
                    save_best_only=True,
                    mode="min",
                    initial_value_threshold=None if best is None else past[best][monitor],
                ),
                *([] if patience is None else [_Patience(monitor, patience, past, best)]),
                *_tensorboard(folder),
            ],
        )
    progress("Training", epochs * len(batches), epochs * len(batches))
    if (folder / BEST).exists():
        if not model.optimizer.built:  # nothing was left to train
            model.optimizer.build(model.trainable_variables)
        model.load_weights(folder / BEST)
    return read_history(folder)


def read_history(folder: Path) -> list[Epoch]:
    """Read the figures of a training's epochs.

    Raises:
        InputError: if there are none or they are damaged.
    """
    file = folder / HISTORY
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return [
                {name: float(value) for name, value in row.items() if value != "NA"}
                for row in csv.DictReader(stream)
            ]
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{file} cannot be read as curves of a training: {error}.") from error


def training_notes(used: str, folder: Path) -> tuple[str, ...]:
    """Say with what a training in `folder`, whose first stage is in `stage-1`, was done.

    Args:
        used: what `hardware` yielded.
        folder: of the whole training.
    """
    notes = (f"Trained on: {used}.",)
    if (folder / "stage-1" / TENSORBOARD).exists():
        return notes
    return (*notes, "Nothing was logged for TensorBoard: this needs tensorflow and tensorboard.")


def remove_checkpoints(folder: Path) -> None:
    """Remove the weights in a folder of `fit`, once the model is saved elsewhere."""
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    (folder / BEST).unlink(missing_ok=True)


def _past(folder: Path, settings: Mapping[str, Any]) -> list[Epoch]:
    """The epochs before an interruption; what came after the last checkpoint is dropped."""
    try:
        kept = dict(json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / SETTINGS} cannot be read ({error}): start again in another folder."
        ) from error
    asked = json.loads(json.dumps(settings))
    other = sorted(name for name in kept | asked if kept.get(name) != asked.get(name))
    if other:
        raise InputError(
            f"{folder} holds a training with other {', '.join(other)}: give the same settings, or "
            "another folder."
        )
    metadata = folder / CHECKPOINT / "training_metadata.json"
    done = json.loads(metadata.read_text(encoding="utf-8"))["epoch"] if metadata.exists() else 0
    if not (folder / HISTORY).exists():
        return []
    lines = (folder / HISTORY).read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / HISTORY).write_text("".join(lines[: done + 1 if done else 0]), encoding="utf-8")
    return read_history(folder)


def _tensorboard(folder: Path) -> list[keras.callbacks.Callback]:
    if keras.backend.backend() != "tensorflow" or not importlib.util.find_spec("tensorboard"):
        return []
    return [keras.callbacks.TensorBoard(folder / TENSORBOARD, write_graph=False)]


class _Backup(keras.callbacks.BackupAndRestore):
    """Takes back what Keras keeps of a restored epoch: the model's next stage would begin there."""

    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs)
        self.model._initial_epoch = None


class _Live(keras.callbacks.Callback):
    """Tells the batches their epoch, and whoever waits how far the training is."""

    def __init__(
        self,
        batches: keras.utils.PyDataset,
        epochs: int,
        on_epoch: Callable[[Epoch], None] | None,
        progress: ProgressCallback,
    ) -> None:
        super().__init__()
        self._batches, self._epochs = batches, epochs
        self._on_epoch, self._report = on_epoch, progress
        self._epoch, self._began = 0, 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._batches.epoch = self._epoch = epoch
        for variable in self.model.variables:
            if variable.name == "seed_generator_state":  # of dropout …; no checkpoint keeps it
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
        if self._on_epoch is not None:
            self._on_epoch({"epoch": epoch, **{name: float(v) for name, v in logs.items()}})


class _Patience(keras.callbacks.EarlyStopping):
    """Early stopping that remembers the epochs before an interruption."""

    def __init__(self, monitor: str, patience: int, past: list[Epoch], best: int | None) -> None:
        super().__init__(monitor, patience=patience, mode="min")
        self._past, self._best = past, best

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        if self._best is not None:
            self.best = self._past[self._best][self.monitor]
            self.best_epoch = self._best
            self.wait = len(self._past) - 1 - self._best
