"""Train the candidate classifier on lesions, nodules and hard negatives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.geometry import voxels_to_lps
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.network.classifier import (
    CUBE,
    TOUCHING,
    build_classifier,
    cut_cubes,
    find_candidates,
    sampled_slices,
)
from LungNoduleSegLib.network.patches import TrainingScan, insert_random_lesions
from LungNoduleSegLib.network.transplants import NoduleCube

ROOM = (4, 8, 8)
"""Samples beyond `CUBE` along z, y and x, to shift it in training."""

SHIFT = (1, 3, 3)
"""Samples along z, y and x that the centre may be off: a candidate's centre is not a nodule's."""

TIMES = 4
"""How often a nodule that the scan has itself is cut for each lesion inserted."""

MOST = 300
"""Times that cubes are cut from a scan, in all; more would not fit into memory."""


@dataclass(frozen=True)
class ClassifierPlan:
    """How a classifier is trained; kept in the model card.

    Attributes:
        rounds: times that lesions are inserted into each scan.
        lesions: inserted into a scan at a time.
        sites: places on vessels and on the pleura that are shown as no nodule, a scan and round.
        steps: batches in all.
        batch: cubes in a batch, half of them nodules.
        learning_rate: at the start; it falls to a hundredth along a cosine.
        seed: of everything random.
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
    """Cubes (n, *CUBE + ROOM) of 0…255 of nodules and of what is none."""

    nodules: NDArray[np.uint8]
    others: NDArray[np.uint8]


def mistaken_places(probability: sitk.Image, nodules: sitk.Image | None) -> NDArray[np.float64]:
    """Centres (n, 3) in LPS mm of the candidates that touch no nodule.

    Args:
        probability: of a segmentation network.
        nodules: those of the scan on the same grid, None if it has none.
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
    """Cut cubes from scans with lesions inserted, at a scale of its own each time.

    Args:
        scans: to cut from.
        mistakes: of each scan, places (n, 3) in LPS mm without a nodule; see `mistaken_places`.
        plan: how.
        progress: counts the scans, in the stage "Cubes".
        transplants: real nodules that are put into the scans, beside artificial lesions.
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
            (_away_from(labels, scan.nodules, places), others),
        ):
            into.append(cut_cubes(slices, centres, (z, y, x), rng.uniform(0.85, 1.15)))
    progress("Cubes", visits, visits)
    return Cubes(np.concatenate(nodules), np.concatenate(others))


def train_classifier(
    cubes: Cubes, plan: ClassifierPlan, progress: ProgressCallback = silent
) -> tuple[keras.Model, list[float]]:
    """Train a classifier; returns it with the mean loss of each hundred steps."""
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
    """Shift, flip, turn, and change contrast, sharpness and noise."""
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
    """Draw places (n, 3) in LPS mm on vessels and on the pleura."""
    voxels = [
        kind[rng.integers(len(kind), size=count // 2)]
        for kind in (scan.sites.vessels, scan.sites.pleura)
        if len(kind)
    ]
    return voxels_to_lps(scan.hu, np.concatenate(voxels))


def _centres(labels: sitk.Image) -> NDArray[np.float64]:
    """Mean places (n, 3) in LPS mm of the labels that are there."""
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
    labels: sitk.Image, nodules: sitk.Image | None, places: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Leave out the places within 6 mm of a lesion or nodule."""
    taken = labels > 0
    if nodules is not None:
        taken = taken | (nodules > 0)
    distance = sitk.SignedMaurerDistanceMap(taken, False, False, True)
    indices = [distance.TransformPhysicalPointToIndex(place.tolist()) for place in places]
    return places[[distance[index] > 6 for index in indices]]
