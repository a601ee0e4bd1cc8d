"""A training of a network on patches that can be stopped, and goes on from its checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from CTLungScreeningLib.errors import Cancelled
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.network.inference import Preparation
from LungNoduleSegLib.network.patch_batches import PatchBatches
from LungNoduleSegLib.network.patches import PatchTrainingPlan, TrainingScan
from LungNoduleSegLib.network.transplants import NoduleCube
from LungNoduleSegLib.network.unet import compile_for_training

CHECKPOINT_STEPS = 500
"""Batches between two checkpoints of a training."""


def train(
    model: keras.Model,
    scans: Sequence[TrainingScan],
    preparation: Preparation,
    plan: PatchTrainingPlan,
    progress: ProgressCallback = silent,
    cubes: Sequence[NoduleCube] = (),
    checkpoint: Path | None = None,
) -> list[float]:
    """Train `model` in place; returns the mean loss of every hundred steps.

    Args:
        model: the network, compiled here.
        scans: to draw patches from.
        preparation: of the slices.
        plan: settings.
        progress: callback, in the stage "Training"; may raise `Cancelled`.
        cubes: real nodules to transplant into the scans.
        checkpoint: `.npz` file for the state every `CHECKPOINT_STEPS` and when the training is
            cancelled, from which it then continues; removed at the end.

    Raises:
        ValueError: if there are no scans.
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
    try:
        for step in range(done + 1, plan.steps + 1):
            loss, *_ = model.train_on_batch(*batches[step - 1])
            model.reset_metrics()
            done = step
            recent.append(float(loss))
            if step % 100 == 0 or step == plan.steps:
                losses.append(float(np.mean(recent)))
                recent.clear()
            progress("Training", step, plan.steps)
            if checkpoint is not None and step % CHECKPOINT_STEPS == 0 and step < plan.steps:
                _keep(model, checkpoint, step, losses)
    except Cancelled:
        if checkpoint is not None:
            _keep(model, checkpoint, done, losses)
        raise
    finally:
        batches.close()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return losses


def _state(model: keras.Model) -> list[Any]:
    return [*model.weights, *model.optimizer.variables]


def _keep(model: keras.Model, file: Path, step: int, losses: Sequence[float]) -> None:
    """Write the state of a training atomically."""
    arrays: dict[str, Any] = {f"v{n}": np.asarray(one) for n, one in enumerate(_state(model))}
    arrays |= {"step": step, "losses": np.array(losses)}
    temporary = file.with_name(f".{file.name}")
    with temporary.open("wb") as stream:
        np.savez(stream, **arrays)
    temporary.replace(file)


def _resume(model: keras.Model, file: Path) -> tuple[int, list[float]]:
    """Restore the state of `_keep`; returns its step and the losses so far."""
    with np.load(file, allow_pickle=False) as kept:
        for n, one in enumerate(_state(model)):
            one.assign(kept[f"v{n}"])
        return int(kept["step"]), kept["losses"].tolist()
