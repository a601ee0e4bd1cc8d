"""Training of the nodule U-Net on patches of prepared slices, with lesions inserted on the way."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTSliceToolsLib.keras_loader import keras
from CTSliceToolsLib.progress import Report, silent
from LungNoduleSegLib.network.inference import nodule_probability
from LungNoduleSegLib.network.insertion import LesionSites, find_sites, insert_random_lesions
from LungNoduleSegLib.network.preparation import Preparation, prepare, prepare_mask
from LungNoduleSegLib.network.unet import dice_coefficient

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class TrainingScan:
    """One scan to train on, cropped to its lungs.

    Attributes:
        name: for the model card.
        hu: axial HU image.
        lungs: label image on the same grid.
        nodules: outlined nodules on the same grid, None where nobody has looked for any.
        sites: where lesions may be inserted.
        mistaken: what a network took for nodules and is none, on the same grid; see
            `with_mistakes`.
    """

    name: str
    hu: sitk.Image
    lungs: sitk.Image
    nodules: sitk.Image | None
    sites: LesionSites
    mistaken: sitk.Image | None = None


@dataclass(frozen=True)
class TrainingPlan:
    """How a network is trained; kept in its model card.

    Attributes:
        steps: batches in all.
        batch: patches in a batch; half of them hold a lesion, and a quarter a place that the
            network was mistaken about, where such are known.
        patch: side of a patch in pixels, a multiple of 16.
        learning_rate: at the start; it falls to a hundredth along a cosine.
        lesions: inserted into each scan each time it is prepared anew.
        refresh: batches between two preparations of a scan.
        kept: prepared scans that batches are drawn from.
        seed: of everything random.
    """

    steps: int = 3000
    batch: int = 16
    patch: int = 128
    learning_rate: float = 1e-3
    lesions: int = 40
    refresh: int = 20
    kept: int = 8
    seed: int = 1


@dataclass(frozen=True)
class _Prepared:
    """Slices and masks (n, y, x), and pixels (m, 3) that patches are cut around."""

    pixels: NDArray[np.float16]
    mask: NDArray[np.float16]
    anywhere: NDArray[np.intp]
    lesions: NDArray[np.intp]
    mistakes: NDArray[np.intp]

    def centres(self, number: int) -> NDArray[np.intp]:
        """Give the pixels for a patch by its number in the batch."""
        return (self.lesions, self.anywhere, self.lesions, self.mistakes)[number % 4]


def training_scan(
    name: str, hu: sitk.Image, lungs: sitk.Image, nodules: sitk.Image | None = None
) -> TrainingScan:
    """Make a training scan of axial images on one grid, cropped to the lungs."""
    return TrainingScan(name, hu, lungs, nodules, find_sites(hu, lungs))


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


def train(
    model: keras.Model,
    scans: Sequence[TrainingScan],
    preparation: Preparation,
    plan: TrainingPlan,
    report: Report = silent,
) -> list[float]:
    """Train `model` in place; returns the loss of each hundred steps.

    Raises:
        ValueError: if there is no scan.
    """
    if not scans:
        raise ValueError("there is no scan to train on")
    keras.utils.set_random_seed(plan.seed)
    schedule = keras.optimizers.schedules.CosineDecay(
        plan.learning_rate, plan.steps, alpha=0.01, warmup_steps=0
    )
    model.compile(keras.optimizers.Adam(schedule, clipnorm=1.0), dice_cross_entropy_loss)
    losses, recent = [], []
    for step, (x, y) in enumerate(_batches(scans, preparation, plan), 1):
        recent.append(float(model.train_on_batch(x, y)))
        report("Training", step, plan.steps)
        if step % 100 == 0 or step == plan.steps:
            losses.append(float(np.mean(recent)))
            recent.clear()
        if step == plan.steps:
            break
    return losses


def _batches(
    scans: Sequence[TrainingScan], preparation: Preparation, plan: TrainingPlan
) -> Iterator[Batch]:
    """Draw batches without end from a few prepared scans, one of which is renewed now and then."""
    rng = np.random.default_rng(plan.seed)
    kept = [
        _prepare_with_lesions(scans[n % len(scans)], preparation, plan, rng)
        for n in range(max(plan.kept, len(scans)))
    ]
    step, turn = 0, 0
    while True:
        patches = [
            _patch(kept[rng.integers(len(kept))], n, preparation.context, plan.patch, rng)
            for n in range(plan.batch)
        ]
        x, y = zip(*patches, strict=True)
        yield np.stack(x), np.stack(y)
        step += 1
        if step % plan.refresh == 0:
            scan = scans[turn % len(scans)]
            kept[turn % len(kept)] = _prepare_with_lesions(scan, preparation, plan, rng)
            turn += 1


def _prepare_with_lesions(
    scan: TrainingScan, preparation: Preparation, plan: TrainingPlan, rng: np.random.Generator
) -> _Prepared:
    """Insert lesions into one scan and prepare it at a scale of its own."""
    hu, labels, _ = insert_random_lesions(scan.hu, scan.lungs, scan.sites, plan.lesions, rng)
    mask = labels > 0
    if scan.nodules is not None:
        mask = mask | (scan.nodules > 0)
    mistaken = scan.mistaken if scan.mistaken is not None else mask < 0
    lungs = scan.lungs
    if hu.GetSpacing()[2] < 3 and rng.random() < 0.25:
        hu, mask, mistaken, lungs = (_thicker(image) for image in (hu, mask, mistaken, lungs))
    size = int(rng.uniform(0.8, 1.25) * preparation.size)
    prepared = prepare(hu, lungs, replace(preparation, size=size))
    pixels, covered = prepared.pixels(), prepare_mask(mask, prepared)
    anywhere = np.argwhere(pixels[:, ::2, ::2] > -1.1) * (1, 2, 2)
    lesions = np.argwhere(covered > 0.5)
    mistakes = np.argwhere((prepare_mask(mistaken, prepared) > 0.5) & (covered <= 0))
    return _Prepared(
        pixels.astype(np.float16),
        covered.astype(np.float16),
        anywhere,
        lesions if len(lesions) else anywhere,
        mistakes if len(mistakes) else anywhere,
    )


def _thicker(image: sitk.Image) -> sitk.Image:
    """Average slices two by two; a mask keeps what fills at least half of a pair."""
    if image.GetPixelID() == sitk.sitkInt16:
        return sitk.BinShrink(image, (1, 1, 2))
    return sitk.BinShrink(sitk.Cast(image > 0, sitk.sitkFloat32), (1, 1, 2)) >= 0.5


def _patch(
    scan: _Prepared, number: int, context: int, side: int, rng: np.random.Generator
) -> Batch:
    """Cut one patch, (side, side, channels) and (side, side, 1), and vary it."""
    centres = scan.centres(number)
    z, y, x = centres[rng.integers(len(centres))]
    size = scan.pixels.shape[1]
    top, left = (
        int(np.clip(c - side // 2 + rng.integers(-side // 4, side // 4 + 1), 0, size - side))
        for c in (y, x)
    )
    window = np.s_[top : top + side, left : left + side]
    neighbours = np.clip(np.arange(z - context, z + context + 1), 0, len(scan.pixels) - 1)
    pixels = scan.pixels[neighbours][:, *window].astype(np.float32)
    mask = scan.mask[z][window].astype(np.float32)
    return _vary(np.moveaxis(pixels, 0, -1), mask[..., None], rng)


def _vary(
    pixels: NDArray[np.float32], mask: NDArray[np.float32], rng: np.random.Generator
) -> Batch:
    """Flip, turn, and change contrast, sharpness and noise, all channels alike."""
    if rng.random() < 0.5:
        pixels = pixels[..., ::-1]
    if rng.random() < 0.5:
        pixels, mask = pixels[:, ::-1], mask[:, ::-1]
    turns = int(rng.integers(4))
    pixels, mask = np.rot90(pixels, turns), np.rot90(mask, turns)
    pixels = pixels * np.float32(rng.uniform(0.7, 1.35)) + np.float32(rng.normal(0, 0.1))
    if rng.random() < 0.2:
        pixels = ndimage.gaussian_filter(pixels, (0.7, 0.7, 0))
    if rng.random() < 0.5:
        noise = rng.normal(0, rng.uniform(0, 0.4), pixels.shape)
        pixels = pixels + ndimage.gaussian_filter(noise, (0.6, 0.6, 0))
    return np.ascontiguousarray(pixels, np.float32), np.ascontiguousarray(mask)
