"""Train the nodule U-Net on patches with inserted lesions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.network.inference import nodule_probability
from LungNoduleSegLib.network.patches import PatchBatches, PatchTrainingPlan, TrainingScan
from LungNoduleSegLib.network.preparation import Preparation
from LungNoduleSegLib.network.transplants import NoduleCube
from LungNoduleSegLib.network.unet import dice_coefficient

CHECKPOINT_STEPS = 100
"""Batches between two checkpoints of a training."""


def with_mistakes(
    model: keras.Model, scan: TrainingScan, preparation: Preparation, threshold: float = 0.3
) -> TrainingScan:
    """Run a network over a scan as it is and note what it wrongly marks, to be learnt from.

    Whatever is not outlined counts as wrong; in a scan with nodules that nobody outlined, these
    would be unlearnt.
    """
    marked = nodule_probability(model, preparation, scan.hu, scan.lungs) > threshold
    if scan.nodules is not None:
        marked = marked & ~sitk.BinaryDilate(scan.nodules > 0, (3, 3, 1))
    return replace(scan, mistaken=marked)


@keras.saving.register_keras_serializable("LungNoduleSegLib")
def dice_cross_entropy_loss(y_true: Any, y_pred: Any) -> Any:
    """One minus the Dice coefficient of the batch plus the mean binary cross-entropy.

    The sum learns from empty patches too, where the Dice coefficient alone says nothing (Isensee et
    al., nnU-Net, Nature Methods 2021).
    """
    cross_entropy = keras.ops.mean(keras.losses.binary_crossentropy(y_true, y_pred))
    return 1 - dice_coefficient(y_true, y_pred) + cross_entropy


def compile_for_training(model: keras.Model, learning_rate: float, steps: int) -> None:
    """Compile with Adam, clipped gradients, and a rate that falls to a hundredth along a cosine."""
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=0.01)
    model.compile(
        keras.optimizers.Adam(schedule, clipnorm=1.0),
        dice_cross_entropy_loss,
        metrics=[dice_coefficient],
    )


def train(
    model: keras.Model,
    scans: Sequence[TrainingScan],
    preparation: Preparation,
    plan: PatchTrainingPlan,
    progress: ProgressCallback = silent,
    cubes: Sequence[NoduleCube] = (),
    checkpoint: Path | None = None,
) -> list[float]:
    """Train `model` in place; returns the loss of each hundred steps.

    Args:
        model: the network, compiled here.
        scans: to draw patches from.
        preparation: of the slices.
        plan: how.
        progress: callback, in the stage "Training"; may raise `Cancelled`.
        cubes: real nodules to transplant into the scans.
        checkpoint: `.npz` file that keeps the state every `CHECKPOINT_STEPS` and from which an
            interrupted training goes on; removed at the end.

    Raises:
        ValueError: if there is no scan.
    """
    if not scans:
        raise ValueError("there is no scan to train on")
    keras.utils.set_random_seed(plan.seed)
    compile_for_training(model, plan.learning_rate, plan.steps)
    model.optimizer.build(model.trainable_variables)
    batches = PatchBatches(scans, preparation, plan, plan.steps, cubes)
    losses: list[float] = []
    done = 0
    if checkpoint is not None and checkpoint.exists():
        done, losses = _resume(model, checkpoint)
    recent = []
    for step in range(done + 1, plan.steps + 1):
        loss, *_ = model.train_on_batch(*batches[step - 1])
        recent.append(float(loss))
        progress("Training", step, plan.steps)
        if step % 100 == 0 or step == plan.steps:
            losses.append(float(np.mean(recent)))
            recent.clear()
        if checkpoint is not None and step % CHECKPOINT_STEPS == 0 and step < plan.steps:
            _keep(model, checkpoint, step, losses)
        model.reset_metrics()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return losses


def _state(model: keras.Model) -> list[Any]:
    return [*model.weights, *model.optimizer.variables]


def _keep(model: keras.Model, file: Path, step: int, losses: Sequence[float]) -> None:
    """Write the state of a training; the file is whole at any time."""
    arrays: dict[str, Any] = {f"v{n}": np.asarray(one) for n, one in enumerate(_state(model))}
    arrays |= {"step": step, "losses": np.array(losses)}
    temporary = file.with_name(f".{file.name}")
    with temporary.open("wb") as stream:
        np.savez(stream, **arrays)
    temporary.replace(file)


def _resume(model: keras.Model, file: Path) -> tuple[int, list[float]]:
    """Take up a training where `_keep` left it; gives its step and the losses so far."""
    with np.load(file, allow_pickle=False) as kept:
        for n, one in enumerate(_state(model)):
            one.assign(kept[f"v{n}"])
        return int(kept["step"]), kept["losses"].tolist()
