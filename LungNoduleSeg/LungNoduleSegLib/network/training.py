"""Training of the nodule U-Net on patches of prepared slices, with lesions inserted on the way."""

from collections.abc import Sequence
from dataclasses import replace
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
) -> list[float]:
    """Train `model` in place, `cubes` transplanted into the scans; returns the loss of each hundred
    steps.

    Raises:
        ValueError: if there is no scan.
    """
    if not scans:
        raise ValueError("there is no scan to train on")
    keras.utils.set_random_seed(plan.seed)
    compile_for_training(model, plan.learning_rate, plan.steps)
    batches = PatchBatches(scans, preparation, plan, plan.steps, cubes)
    losses, recent = [], []
    for step in range(1, plan.steps + 1):
        loss, *_ = model.train_on_batch(*batches[step - 1])
        recent.append(float(loss))
        progress("Training", step, plan.steps)
        if step % 100 == 0 or step == plan.steps:
            losses.append(float(np.mean(recent)))
            recent.clear()
        model.reset_metrics()
    return losses
