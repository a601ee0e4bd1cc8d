"""Train the candidate classifier on lesions, nodules and hard negatives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.geometry import TOUCHING, voxels_to_lps
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.network.classifier import (
    CUBE,
    build_classifier,
    cut_cubes,
    find_candidates,
    sampled_slices,
)
from LungNoduleSegLib.network.patches import TrainingScan, insert_random_lesions
from LungNoduleSegLib.network.transplants import NoduleCube

ROOM = (4, 8, 8)
"""Extra samples around `CUBE` along z, y and x, for random shifts."""

SHIFT = (1, 3, 3)
"""Largest random shift in samples along z, y and x, as a candidate's centre is not exact."""

TIMES = 4
"""Repetitions of each of a scan's own nodules."""

MOST = 300
"""Maximum number of scans that cubes are cut from, to limit memory."""


@dataclass(frozen=True)
class ClassifierPlan:
    """Settings of a classifier's training, kept in the model card.

    Attributes:
        rounds: times that lesions are inserted into each scan.
        lesions: inserted into a scan at a time.
        sites: negative examples on vessels and pleura per scan and round.
        steps: total number of batches.
        batch: cubes in a batch, half of them nodules.
        learning_rate: initial; decreases to a hundredth along a cosine.
        seed: of all random numbers.
    """

    rounds: int = 6
    lesions: int = 40
    sites: int = 40
    steps: int = 1600
    batch: int = 64
    learning_rate: float = 2e-3
    seed: int = 1


@dataclass(frozen=True)
class Cubes:
    """Cubes (n, *CUBE + ROOM) of 0…255, with and without nodules."""

    nodules: NDArray[np.uint8]
    others: NDArray[np.uint8]


def mistaken_places(probability: sitk.Image, nodules: sitk.Image | None) -> NDArray[np.float64]:
    """Centres (n, 3) in LPS mm of the candidates that touch no nodule.

    Args:
        probability: of a segmentation network.
        nodules: of the scan on the same grid, or None.
    """
    numbers, centres = find_candidates(probability)
    hit: NDArray[np.int32] = np.empty(0, np.int32)
    if nodules is not None:
        near = sitk.GetArrayFromImage(sitk.BinaryDilate(nodules > 0, (3, 3, 1))) > 0
        hit = np.unique(numbers[near])
    wrong = np.setdiff1d(np.arange(1, len(centres) + 1), hit)
    return centres[wrong - 1]


def gather_cubes(
    scans: Sequence[TrainingScan],
    mistakes: Sequence[NDArray[np.float64]],
    plan: ClassifierPlan,
    progress: ProgressCallback = silent,
    transplants: Sequence[NoduleCube] = (),
) -> Cubes:
    """Cut cubes from scans with inserted lesions, at random scales.

    Args:
        scans: to cut from.
        mistakes: for each scan, positions (n, 3) in LPS mm without a nodule, see `mistaken_places`.
        plan: settings.
        progress: counts the scans, in the stage "Cubes".
        transplants: real nodules that are inserted beside artificial lesions.
    """
    nodules: list[NDArray[np.uint8]] = []
    others: list[NDArray[np.uint8]] = []
    z, y, x = (n + room for n, room in zip(CUBE, ROOM, strict=True))
    visits = min(plan.rounds * len(scans), MOST)
    for visit in range(visits):
        progress("Cubes", visit, visits)
        turn, number = divmod(visit, len(scans))
        scan, wrong = scans[number], mistakes[number]
        rng = np.random.default_rng((plan.seed, turn, number))
        hu, labels, _ = insert_random_lesions(
            scan.hu, scan.lungs, scan.sites, plan.lesions, rng, transplants
        )
        slices = sampled_slices(hu)
        inserted, own = _centres(labels), np.repeat(_own_nodules(scan), TIMES, axis=0)
        places = np.concatenate([wrong, _sites(scan, plan.sites, rng)])
        for centres, into in (
            (np.concatenate([inserted, own]), nodules),
            (_away_from(labels, scan, places), others),
        ):
            into.append(cut_cubes(slices, centres, (z, y, x), rng.uniform(0.85, 1.15)))
    progress("Cubes", visits, visits)
    return Cubes(np.concatenate(nodules), np.concatenate(others))


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
    half = plan.batch // 2
    truth = np.repeat([1.0, 0.0], half)[:, None]
    losses, recent = [], []
    for step in range(1, plan.steps + 1):
        rng = np.random.default_rng((plan.seed, step))
        batch = [
            _vary(kind[rng.integers(len(kind))], rng)
            for kind in (cubes.nodules, cubes.others)
            for _ in range(half)
        ]
        recent.append(float(model.train_on_batch(np.stack(batch)[..., None], truth)))
        progress("Classifier", step, plan.steps)
        if step % 100 == 0 or step == plan.steps:
            losses.append(float(np.mean(recent)))
            recent.clear()
    return model, losses


def _vary(cube: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Randomly shift, flip, rotate, and change contrast, sharpness and noise."""
    start = [int(room // 2 + rng.integers(-s, s + 1)) for room, s in zip(ROOM, SHIFT, strict=True)]
    window = tuple(slice(a, a + n) for a, n in zip(start, CUBE, strict=True))
    values = cube[window].astype(np.float32)
    values = values[:: rng.choice([1, -1]), :, :: rng.choice([1, -1])]
    values = np.rot90(values, int(rng.integers(4)), axes=(1, 2))
    values = values * np.float32(rng.uniform(0.85, 1.15)) + np.float32(rng.normal(0, 10))
    if rng.random() < 0.3:
        values = ndimage.gaussian_filter(values, (0, 0.6, 0.6))
    if rng.random() < 0.5:
        noise = rng.normal(0, rng.uniform(0, 12), values.shape)
        values = values + ndimage.gaussian_filter(noise, (0, 0.6, 0.6))
    return np.clip(values, 0, 255).astype(np.float32)


def _sites(scan: TrainingScan, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw positions (n, 3) in LPS mm on vessels and pleura."""
    voxels = [
        kind[rng.integers(len(kind), size=count // 2)]
        for kind in (scan.sites.vessels, scan.sites.pleura)
        if len(kind)
    ]
    return voxels_to_lps(scan.hu, np.concatenate(voxels))


def _centres(labels: sitk.Image) -> NDArray[np.float64]:
    """Centres (n, 3) of the labels in LPS mm."""
    array = sitk.GetArrayViewFromImage(labels)
    present = np.unique(array)[1:]
    middles = np.array(ndimage.center_of_mass(array > 0, array, present), float)
    return voxels_to_lps(labels, middles.reshape(-1, 3))


def _own_nodules(scan: TrainingScan) -> NDArray[np.float64]:
    if scan.nodules is None:
        return np.empty((0, 3))
    parts, _ = ndimage.label(sitk.GetArrayViewFromImage(scan.nodules), TOUCHING)
    image = sitk.GetImageFromArray(parts)
    image.CopyInformation(scan.hu)
    return _centres(image)


def _away_from(
    labels: sitk.Image, scan: TrainingScan, places: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Remove positions within 6 mm of a lesion or nodule, and in what may be one."""
    taken = labels > 0
    if scan.nodules is not None:
        taken = taken | (scan.nodules > 0)
    distance = sitk.SignedMaurerDistanceMap(taken, False, False, True)
    indices = [distance.TransformPhysicalPointToIndex(place.tolist()) for place in places]
    free = [distance[index] > 6 for index in indices]
    if scan.doubtful is not None:
        free = [one and not scan.doubtful[i] for one, i in zip(free, indices, strict=True)]
    return places[free]
