"""Cut the cubes that the candidate classifier learns from: lesions, nodules and hard negatives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import TOUCHING, image_like, voxels_to_lps
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.workers import each
from LungNoduleSegLib.network.classifier import CUBE, cut_cubes, find_candidates, sampled_slices
from LungNoduleSegLib.network.patches import TrainingScan, insert_random_lesions
from LungNoduleSegLib.network.transplants import NoduleCube

ROOM = (4, 8, 8)
"""Extra samples around `CUBE` along z, y and x, for random shifts."""

TIMES = 4
"""Repetitions of each of a scan's own nodules."""

MOST = 300
"""Maximum number of scans that cubes are cut from, to limit memory."""

MOST_MISTAKES = 150
"""Maximum number of a scan's mistakes that are drawn each time."""

WORTH_A_PROCESS = 8
"""Scans that take several times as long as a process takes to start."""


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
    visits = list(range(min(plan.rounds * len(scans), MOST)))
    shared = scans, mistakes, plan, tuple(transplants)
    pairs = []
    for pair in each(_cut, visits, "Cubes", progress, WORTH_A_PROCESS, *shared):
        if isinstance(pair, InputError):
            raise pair
        pairs.append(pair)
    nodules, others = zip(*pairs, strict=True)
    return Cubes(np.concatenate(nodules), np.concatenate(others))


def _cut(
    scans: Sequence[TrainingScan],
    mistakes: Sequence[NDArray[np.float64]],
    plan: ClassifierPlan,
    transplants: Sequence[NoduleCube],
    visit: int,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Insert lesions into a scan and cut cubes with nodules, and others."""
    turn, number = divmod(visit, len(scans))
    scan, wrong = scans[number], mistakes[number]
    rng = np.random.default_rng((plan.seed, turn, number))
    hu, labels, _ = insert_random_lesions(
        scan.hu, scan.lungs, scan.sites, plan.lesions, rng, transplants
    )
    slices = sampled_slices(hu)
    inserted, own = _centres(labels), np.repeat(_own_nodules(scan), TIMES, axis=0)
    wrong = rng.permutation(wrong)[:MOST_MISTAKES]
    places = np.concatenate([wrong, _sites(scan, plan.sites, rng)])
    z, y, x = (n + room for n, room in zip(CUBE, ROOM, strict=True))
    nodules, others = (
        _blurred(cut_cubes(slices, centres, (z, y, x), rng.uniform(0.85, 1.15)), rng)
        for centres in (np.concatenate([inserted, own]), _away_from(labels, scan, places))
    )
    return nodules, others


def _blurred(cubes: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur three in ten of the cubes within their slices."""
    for number in np.flatnonzero(rng.random(len(cubes)) < 0.3):
        cubes[number] = ndimage.gaussian_filter(cubes[number], (0, 0.6, 0.6))
    return cubes


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
    return _centres(image_like(parts, scan.hu))


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
