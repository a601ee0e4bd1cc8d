"""Training of a localizer on the partitioned slices of a data set."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from CTLungScreeningLib.files import fingerprint, refuse_existing
from CTLungScreeningLib.hu import SLICE_WINDOW
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.keras_training import (
    SETTINGS,
    Epoch,
    TrainingResult,
    best_epoch,
    fit,
    hardware,
    remove_intermediate,
    require_new_training,
    training_notes,
)
from CTLungScreeningLib.model_card import ModelCard, file_sha256, save_model, training_folder
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.staging import only_writer
from CTSliceToolsLib.dataset.conversion import Part, partition_files
from CTSliceToolsLib.localizer.networks import (
    RandomAffine,
    RandomFieldOfView,
    RandomIntensity,
    build_localizer,
    unfreeze,
)
from CTSliceToolsLib.localizer.plots import plot_curves
from CTSliceToolsLib.localizer.slice_batches import (
    SliceBatches,
    SlicePack,
    pack_slices,
)
from CTSliceToolsLib.localizer.unlabelled import (
    MixedBatches,
    UnlabelledScan,
    labelled_error,
    mixed_loss,
    pack_scans,
)
from CTSliceToolsLib.options import LocalizerTrainingPlan
from CTSliceToolsLib.slice_image import PIXEL_MM, SIZE

_PARTS = (Part.TRAINING, Part.VALIDATION)
CURVES = "curves.png"
_SLICES = "slices"
"""Folder of the packs, within that of the training."""


def augmentation(seed: int) -> list[keras.layers.Layer]:
    """Make the layers that change training slices: turned, moved, sheared, scaled, mirrored, noisy.

    They compute in float32 even where the network does not: positions need it.
    """
    return [
        RandomAffine(seed=seed, dtype="float32"),
        RandomIntensity(seed=seed + 1, dtype="float32"),
        RandomFieldOfView(seed=seed + 2, dtype="float32"),
    ]


def train(
    data: Path,
    output: Path,
    plan: LocalizerTrainingPlan | None = None,
    progress: ProgressCallback = silent,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> TrainingResult:
    """Train a localizer on the slices in `data`/training and keep the best on `data`/validation.

    Called again with the same arguments after an interruption, it goes on after the last epoch.

    Args:
        data: folder of `ct-slice-tools partition`.
        output: the new `.keras` file, with its card beside it.
        plan: settings; None for the default.
        progress: counts slices, then batches.
        on_epoch: called with the figures of each epoch, see `TrainingResult.epochs`.

    Returns:
        The model and its training; the folder also holds the curves as `curves.png`.

    Raises:
        InputError: if slices or weights cannot be obtained, or the output or another training
        exists.
    """
    plan = plan or LocalizerTrainingPlan()
    folder = training_folder(output)
    require_new_training(output, folder, _SLICES)
    if not (folder / "stage-1" / SETTINGS).exists():
        refuse_existing(folder, [CURVES])
    with only_writer(output, "training"):
        files = {part: partition_files(data, part) for part in _PARTS}
        began = time.monotonic()
        with hardware(plan.batch) as used:
            keras.utils.set_random_seed(plan.seed)
            localizer = build_localizer(plan.backbone, plan.weights, plan.random)
            packs = [pack_slices(files[part], folder / _SLICES, part, progress) for part in _PARTS]
            settings = _settings(plan, files)
            scans: list[UnlabelledScan] = []
            left_out: list[str] = []
            if plan.unlabelled is not None:
                scans, left_out = pack_scans(plan.unlabelled, folder / _SLICES, progress)
                settings["unlabelled"] = fingerprint([scan.file for scan in scans])
            epochs = _run_stages(
                localizer, packs, scans, folder, plan, settings, progress, on_epoch
            )
        (folder / CURVES).unlink(missing_ok=True)  # of the same training, killed after it
        plot_curves(folder / CURVES, epochs)
        best = best_epoch(epochs)
        facts = {
            "slices": {part: len(files[part]) for part in _PARTS},
            "used": used,
            "seconds": round(time.monotonic() - began),
        }
        # Built anew, as the layers above may keep the half precision they were trained with.
        plain = build_localizer(plan.backbone, random=True)
        plain.set_weights(localizer.get_weights())
        saved = save_model(plain, _card(output.stem, settings | facts, best), output)
        remove_intermediate(folder, _SLICES)
        notes = (*training_notes(used, folder, [saved]), *left_out)
        return TrainingResult(output, folder, epochs, best, notes)


def _settings(plan: LocalizerTrainingPlan, files: dict[Part, list[Path]]) -> dict[str, Any]:
    """All that determines the training; files by digests, as a path could name a patient."""
    weights = None if plan.weights is None else file_sha256(plan.weights)
    chosen = asdict(plan) | {"weights": weights, "unlabelled": None}
    return chosen | {f"{part}_data": fingerprint(files[part]) for part in _PARTS}


@dataclass(frozen=True)
class _Stage:
    number: int
    epochs: int
    rate: float
    before: int = 0

    def name(self, epoch: Epoch) -> Epoch:
        """Number an epoch over all stages, from 1."""
        return epoch | {"epoch": self.before + epoch["epoch"] + 1, "stage": self.number}


def _run_stages(
    localizer: keras.Model,
    packs: Sequence[SlicePack],
    scans: Sequence[UnlabelledScan],
    folder: Path,
    plan: LocalizerTrainingPlan,
    settings: dict[str, Any],
    progress: ProgressCallback,
    on_epoch: Callable[[Epoch], None],
) -> list[Epoch]:
    """Train what is not frozen, then, if asked for, everything; leave the best weights of all."""
    training: SliceBatches | MixedBatches = SliceBatches(packs[0], plan.batch, plan.seed)
    if scans:
        training = MixedBatches(training, scans, plan.seed)
    validation = SliceBatches(packs[1], plan.batch)

    def run(stage: _Stage) -> list[Epoch]:
        model = _with_augmentation(localizer, plan, stage.number)
        model.compile(
            keras.optimizers.Adam(
                keras.optimizers.schedules.CosineDecay(
                    stage.rate, stage.epochs * len(training), alpha=0.01
                )
            ),
            mixed_loss(plan.batch) if scans else "mean_squared_error",
            metrics=[labelled_error(plan.batch)]
            if scans
            else [keras.metrics.MeanAbsoluteError("error")],
        )
        epochs = fit(
            model,
            training,
            folder / f"stage-{stage.number}",
            epochs=stage.epochs,
            settings=settings,
            validation=validation,
            patience=plan.patience,
            on_epoch=lambda epoch: on_epoch(stage.name(epoch)),
            progress=lambda _, done, total: progress(f"Stage {stage.number}", done, total),
        )
        return list(map(stage.name, epochs))

    epochs = run(_Stage(1, plan.epochs, plan.learning_rate))
    if plan.fine_tune_epochs:
        before = localizer.get_weights()
        unfreeze(localizer)
        tuned = run(_Stage(2, plan.fine_tune_epochs, plan.fine_tune_rate, len(epochs)))
        if best_epoch(tuned)["val_loss"] >= best_epoch(epochs)["val_loss"]:
            localizer.set_weights(before)
        epochs += tuned
    return epochs


def _with_augmentation(
    localizer: keras.Model, plan: LocalizerTrainingPlan, stage: int
) -> keras.Model:
    changes = augmentation(plan.seed + 10 * stage) if plan.augment else []
    return keras.Sequential([keras.Input((SIZE, SIZE, 1)), *changes, localizer])


def _card(name: str, training: dict[str, Any], best: Epoch) -> ModelCard:
    return ModelCard(
        name=name,
        summary=f"Where in the body an axial CT slice lies ({training['backbone']}).",
        label="normalized location: 0 at the top of the head, 0.5 at the head of femur",
        preparation={"size": SIZE, "pixel_mm": PIXEL_MM, "window": asdict(SLICE_WINDOW)},
        training=training,
        results={"best epoch, on the validation slices": best},
        limitations=[
            "The figures are of the slices that the best epoch was chosen by: test it on others "
            "with ct-slice-tools evaluate.",
            "Not to be trusted where the training slices did not reach.",
        ],
    )
