"""Train the candidate classifier on cubes with and without nodules."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.network.classifier import CUBE, build_classifier
from LungNoduleSegLib.network.classifier_cubes import ROOM, ClassifierPlan, Cubes

SHIFT = (1, 3, 3)
"""Largest random shift in samples along z, y and x, as a candidate's centre is not exact."""

NOISE = (64, 128, 128)
"""Samples along z, y and x of the noise that each cube is given another part of."""


def train_classifier(
    cubes: Cubes, plan: ClassifierPlan, progress: ProgressCallback = silent
) -> tuple[keras.Model, list[float]]:
    """Train a classifier; returns it with the mean loss of every hundred steps."""
    keras.utils.set_random_seed(plan.seed)
    model = build_classifier()
    schedule = keras.optimizers.schedules.CosineDecay(plan.learning_rate, plan.steps, alpha=0.01)
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=1e-3),
        keras.losses.BinaryCrossentropy(label_smoothing=0.02),
    )
    truth = np.repeat([1.0, 0.0], plan.batch // 2)[:, None]
    losses, recent = [], []
    for step, batch in enumerate(_batches(cubes, plan), start=1):
        recent.append(float(model.train_on_batch(batch, truth)))
        progress("Classifier", step, plan.steps)
        if step % 100 == 0 or step == plan.steps:
            losses.append(float(np.mean(recent)))
            recent.clear()
    return model, losses


def _batches(cubes: Cubes, plan: ClassifierPlan) -> Iterator[NDArray[np.float32]]:
    """Yield the batches (n, *CUBE, 1) of a training, nodules first; the next one is made ahead."""
    rng = np.random.default_rng(plan.seed)
    noise = ndimage.gaussian_filter(rng.normal(size=NOISE), (0, 0.6, 0.6)).astype(np.float32)
    noise /= noise.std()

    def batch(step: int) -> NDArray[np.float32]:
        rng = np.random.default_rng((plan.seed, step))
        varied = [
            _vary(kind[rng.integers(len(kind))], noise, rng)
            for kind in (cubes.nodules, cubes.others)
            for _ in range(plan.batch // 2)
        ]
        return np.stack(varied)[..., None]

    with ThreadPoolExecutor(1) as thread:
        ready = thread.submit(batch, 1)
        for step in range(2, plan.steps + 2):
            done, ready = ready, thread.submit(batch, step)
            yield done.result()


def _vary(
    cube: NDArray[np.uint8], noise: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Randomly shift, flip, rotate, and change contrast and noise."""
    start = [int(room // 2 + rng.integers(-s, s + 1)) for room, s in zip(ROOM, SHIFT, strict=True)]
    values = cube[_window(start)].astype(np.float32)
    values = values[:: rng.choice([1, -1]), :, :: rng.choice([1, -1])]
    values = np.rot90(values, int(rng.integers(4)), axes=(1, 2))
    values = values * np.float32(rng.uniform(0.85, 1.15)) + np.float32(rng.normal(0, 10))
    if rng.random() < 0.5:
        part = [int(rng.integers(n - m + 1)) for n, m in zip(NOISE, CUBE, strict=True)]
        values += np.float32(rng.uniform(0, 7)) * noise[_window(part)]
    return np.clip(values, 0, 255, out=values)


def _window(start: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(start, CUBE, strict=True))
