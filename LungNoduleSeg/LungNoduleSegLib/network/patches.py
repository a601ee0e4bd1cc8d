"""Training patches from scans with lesions inserted on the fly."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.geometry import Box, image_like
from CTLungScreeningLib.hu import AIR_HU
from LungNoduleSegLib.lesions import PSF_MM, VESSEL_HU, insert_lesion, random_lesion
from LungNoduleSegLib.network.inference import Preparation, prepare, prepare_mask
from LungNoduleSegLib.network.transplants import NoduleCube, transplant

TRANSPLANTED = 0.6
"""Share of real nodules among inserted lesions, if any are available."""

PLEURAL = 0.7
"""Share of attached nodules placed on the pleura; the others are placed on a vessel."""

TRIES = 8
"""Attempts to place a nodule before an artificial lesion is used instead."""

TILTED = 0.5
"""Share of prepared scans that are tilted."""

TILT_DEGREES = 20.0
"""Largest angle about each axis."""

STRETCH = (0.9, 1.1)
"""Range of a tilted scan's scale along each axis."""

LOOSE = 0.4
"""Share of prepared scans whose lungs reach into the wall in places."""

LOOSE_MM = (1.0, 8.0)
"""Range of how far they reach into it."""


@dataclass(frozen=True)
class LesionSites:
    """Voxels (n, 3) as (z, y, x) where a lesion may be centred, by surroundings."""

    parenchyma: NDArray[np.int16]
    pleura: NDArray[np.int16]
    vessels: NDArray[np.int16]


def find_sites(hu: sitk.Image, lungs: sitk.Image) -> LesionSites:
    """Find sites for lesions: in the parenchyma, on the pleura and on vessels.

    Args:
        hu: HU image.
        lungs: label image on the same grid, non-zero in the lungs.
    """
    inside = sitk.GetArrayViewFromImage(lungs) > 0
    core = ndimage.binary_erosion(inside, iterations=2)
    dense = sitk.GetArrayViewFromImage(hu) > VESSEL_HU
    masks = core & ~dense, inside & ~ndimage.binary_erosion(inside), core & dense
    return LesionSites(*(np.argwhere(mask).astype(np.int16) for mask in masks))


def insert_random_lesions(
    hu: sitk.Image,
    lungs: sitk.Image,
    sites: LesionSites,
    count: int,
    rng: np.random.Generator,
    cubes: Sequence[NoduleCube] = (),
) -> tuple[sitk.Image, sitk.Image, int]:
    """Insert `count` random lesions into a copy of a scan.

    Half are in the parenchyma, three in ten on the pleura, two in ten on vessels. With `cubes`,
    `TRANSPLANTED` of the lesions are real nodules, placed according to their attachment.

    Returns:
        The new HU image, a uint16 label image of the lesions, and the number of real nodules.
    """
    array = sitk.GetArrayFromImage(hu)
    inside = sitk.GetArrayViewFromImage(lungs) > 0
    labels = np.zeros(array.shape, np.uint16)
    psf = float(rng.uniform(*PSF_MM))
    kinds = (sites.parenchyma, sites.pleura, sites.vessels)
    weights = np.array([0.5, 0.3, 0.2]) * [len(kind) > 0 for kind in kinds]
    transplanted = 0
    for number in range(1, count + 1):
        if cubes and rng.random() < TRANSPLANTED:
            cube = cubes[int(rng.integers(len(cubes)))]
            placed_real = _transplant_somewhere(array, hu, inside, sites, cube, rng)
            if placed_real is not None:
                box, mask = placed_real
                labels[box][mask] = number
                transplanted += 1
                continue
        chosen = kinds[rng.choice(3, p=weights / weights.sum())]
        voxel = chosen[rng.integers(len(chosen))]
        x, y, z = hu.TransformIndexToPhysicalPoint([int(v) for v in voxel[::-1]])
        lesion = random_lesion(rng, (x, y, z))
        placed = insert_lesion(array, hu, lesion, psf, inside)
        labels[placed.box][placed.mask] = number
    return image_like(array, hu), image_like(labels, hu), transplanted


def _transplant_somewhere(
    array: NDArray[np.int16],
    hu: sitk.Image,
    inside: NDArray[np.bool_],
    sites: LesionSites,
    cube: NoduleCube,
    rng: np.random.Generator,
) -> tuple[Box, NDArray[np.bool_]] | None:
    """Transplant a nodule to a suitable place; None if several attempts fail."""
    if cube.attachment is None:
        kind = sites.parenchyma
    else:
        kind = sites.pleura if rng.random() < PLEURAL else sites.vessels
    for _ in range(TRIES):
        if not len(kind):
            return None
        z, y, x = (int(v) for v in kind[rng.integers(len(kind))])
        placed = transplant(array, hu, inside, cube, (z, y, x), rng)
        if placed is not None:
            return placed
    return None


PIXELS_OF_PART = 32
"""Number of patch centres per lesion, nodule or false positive."""

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class TrainingScan:
    """One scan to train on, cropped to its lungs.

    Attributes:
        name: for the model card.
        hu: axial HU image.
        lungs: label image on the same grid.
        nodules: outlined nodules on the same grid, None if the scan was not annotated.
        sites: for lesions.
        mistaken: mask of a network's false positives on the same grid, see `with_mistakes`.
        doubtful: mask on the same grid of what may be a nodule: it is never taught as a mistake.
    """

    name: str
    hu: sitk.Image
    lungs: sitk.Image
    nodules: sitk.Image | None
    sites: LesionSites
    mistaken: sitk.Image | None = None
    doubtful: sitk.Image | None = None


@dataclass(frozen=True)
class PatchTrainingPlan:
    """Settings of a network's training on patches, kept in its model card.

    Attributes:
        steps: total number of batches.
        batch: patches in a batch: a quarter each with an inserted lesion, an outlined nodule and a
            false positive, if available.
        patch: side of a patch in pixels, a multiple of 16.
        learning_rate: initial; decreases to a hundredth along a cosine.
        lesions: inserted into a scan each time it is prepared.
        refresh: batches between two preparations.
        kept: number of prepared scans that batches are drawn from.
        seed: of all random numbers.
    """

    steps: int = 3000
    batch: int = 16
    patch: int = 128
    learning_rate: float = 1e-3
    lesions: int = 40
    refresh: int = 20
    kept: int = 8
    seed: int = 1


KINDS = 4
"""Kinds of patches that a batch holds in turn, see `PatchTrainingPlan.batch`."""


@dataclass(frozen=True)
class PatchPool:
    """Patches of one prepared scan, float16.

    Attributes:
        pixels: (`KINDS`, n, side, side, channels).
        masks: (`KINDS`, n, side, side, 1), 0…1.
    """

    pixels: NDArray[np.float16]
    masks: NDArray[np.float16]

    def patch(self, kind: int, number: int) -> Batch:
        """Return a patch; after the last one comes the first one again."""
        place = kind, number % self.pixels.shape[1]
        return self.pixels[place].astype(np.float32), self.masks[place].astype(np.float32)


@dataclass(frozen=True)
class _Prepared:
    """Slices and masks (n, y, x), and patch centres (m, 3) of each kind."""

    pixels: NDArray[np.float32]
    mask: NDArray[np.float32]
    centres: tuple[NDArray[np.intp], ...]


def training_scan(
    name: str,
    hu: sitk.Image,
    lungs: sitk.Image,
    nodules: sitk.Image | None = None,
    mistaken: sitk.Image | None = None,
    doubtful: sitk.Image | None = None,
) -> TrainingScan:
    """Make a training scan from axial images on one grid, cropped to the lungs."""
    return TrainingScan(name, hu, lungs, nodules, find_sites(hu, lungs), mistaken, doubtful)


def patch_pool(
    scans: Sequence[TrainingScan],
    preparation: Preparation,
    plan: PatchTrainingPlan,
    cubes: Sequence[NoduleCube],
    number: int,
) -> PatchPool:
    """Prepare a scan with lesions and cut as many patches as are used while it is kept.

    Args:
        scans: to draw from; each is used once per random pass over all of them.
        preparation: of the slices; its size varies.
        plan: settings.
        cubes: real nodules that are inserted beside artificial lesions.
        number: of the preparation; with the plan's seed it determines the result.
    """
    turn, place = divmod(number, len(scans))
    order = np.random.default_rng((plan.seed, 1, turn)).permutation(len(scans))
    rng = np.random.default_rng((plan.seed, 2, number))
    prepared = _prepare_with_lesions(scans[order[place]], preparation, plan, rng, cubes)
    count = -(-plan.refresh * plan.batch // KINDS)
    shape = (KINDS, count, plan.patch, plan.patch)
    pixels = np.empty((*shape, preparation.channels), np.float16)
    masks = np.empty((*shape, 1), np.float16)
    for kind, n in np.ndindex(KINDS, count):
        patch = _patch(prepared, kind, preparation.context, plan.patch, rng)
        pixels[kind, n], masks[kind, n] = patch
    return PatchPool(pixels, masks)


def _prepare_with_lesions(
    scan: TrainingScan,
    preparation: Preparation,
    plan: PatchTrainingPlan,
    rng: np.random.Generator,
    cubes: Sequence[NoduleCube],
) -> _Prepared:
    """Insert lesions into one scan and prepare it at a random scale."""
    hu, labels, _ = insert_random_lesions(scan.hu, scan.lungs, scan.sites, plan.lesions, rng, cubes)
    inserted = labels > 0
    empty = inserted < 0
    outlined = scan.nodules > 0 if scan.nodules is not None else empty
    mistaken = scan.mistaken if scan.mistaken is not None else empty
    lungs = loosen_lungs(scan.lungs, rng) if rng.random() < LOOSE else scan.lungs
    images = [hu, lungs, inserted | outlined, outlined, mistaken]
    if rng.random() < TILTED:
        transform = random_tilt(hu, rng)
        images = [tilt(image, transform) for image in images]
    if hu.GetSpacing()[2] < 3 and rng.random() < 0.25:
        images = [_thicker(image) for image in images]
    size = int(rng.uniform(0.8, 1.25) * preparation.size)
    prepared = prepare(images[0], images[1], replace(preparation, size=size))
    pixels = prepared.pixels()
    covered, real, wrong = (prepare_mask(mask, prepared) for mask in images[2:])
    anywhere = np.argwhere(pixels[:, ::2, ::2] > -1.1) * (1, 2, 2)
    lesions, nodules = _centres(covered > 0.5, rng), _centres(real > 0.5, rng)
    mistakes = _centres((wrong > 0.5) & (covered <= 0), rng)
    lesions = lesions if len(lesions) else anywhere
    nodules = nodules if len(nodules) else lesions
    mistakes = mistakes if len(mistakes) else anywhere
    return _Prepared(pixels, covered, (lesions, anywhere, nodules, mistakes))


def random_tilt(image: sitk.Image, rng: np.random.Generator) -> sitk.AffineTransform:
    """Draw a rotation about all axes and a stretch along them, around an image's middle.

    Slices of a tilted scan cut its vessels and fissures elsewhere than those of the scan itself.

    Returns:
        From the tilted scan's LPS mm to the scan's.
    """
    middle = [(n - 1) / 2 for n in image.GetSize()]
    centre = image.TransformContinuousIndexToPhysicalPoint(middle)
    transform = sitk.AffineTransform(3)
    transform.SetCenter(centre)
    transform.Scale(rng.uniform(*STRETCH, 3).tolist())
    for axes in ((1, 2), (0, 2), (0, 1)):
        transform.Rotate(*axes, float(np.deg2rad(rng.uniform(-TILT_DEGREES, TILT_DEGREES))))
    return transform


def tilt(image: sitk.Image, transform: sitk.AffineTransform) -> sitk.Image:
    """Resample a HU or label image by `random_tilt`, on a grid that holds all of it."""
    back = transform.GetInverse()
    corners = [
        image.TransformPhysicalPointToContinuousIndex(
            back.TransformPoint(image.TransformIndexToPhysicalPoint(corner))
        )
        for corner in product(*((0, n - 1) for n in image.GetSize()))
    ]
    low, high = np.floor(np.min(corners, axis=0)), np.ceil(np.max(corners, axis=0))
    grid = ((high - low + 1).astype(int).tolist(), transform)
    origin = image.TransformContinuousIndexToPhysicalPoint(low.tolist())
    rest = (origin, image.GetSpacing(), image.GetDirection())
    if image.GetPixelID() != sitk.sitkUInt8:
        return sitk.Resample(image, *grid, sitk.sitkLinear, *rest, AIR_HU)
    smooth = sitk.Cast(image > 0, sitk.sitkFloat32)
    return sitk.Resample(smooth, *grid, sitk.sitkLinear, *rest, 0.0) >= 0.5


def loosen_lungs(lungs: sitk.Image, rng: np.random.Generator) -> sitk.Image:
    """Grow the lungs into their surroundings, over random parts of their surface.

    Segmentations differ in how closely they follow the wall. A network that has only seen one of
    them takes a piece of wall or rib within the lungs for a nodule.

    Args:
        lungs: label image, non-zero in the lungs.
        rng: random numbers.

    Returns:
        1 in the lungs and in what they have gained, at most `LOOSE_MM` from them; the same grid.
    """
    reach = float(rng.uniform(*LOOSE_MM))
    grown = sitk.BinaryDilate(lungs > 0, [round(reach / step) for step in lungs.GetSpacing()])
    field = sitk.GetImageFromArray(rng.normal(size=(6, 6, 6)))
    field.SetSpacing([n * s / 5 for n, s in zip(lungs.GetSize(), lungs.GetSpacing(), strict=True)])
    field.SetOrigin(lungs.GetOrigin())
    field.SetDirection(lungs.GetDirection())
    parts = sitk.Resample(field, lungs, sitk.Transform(), sitk.sitkLinear, -1.0) > 0
    return (lungs > 0) | (grown & parts)


def _centres(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw equal numbers of pixels from each component of a mask, so that small ones count too."""
    parts, count = ndimage.label(mask)
    pixels = rng.permutation(np.argwhere(parts))
    owner = parts[tuple(pixels.T)]
    drawn = [pixels[owner == number][:PIXELS_OF_PART] for number in range(1, count + 1)]
    return np.concatenate([np.resize(part, (PIXELS_OF_PART, 3)) for part in drawn] or [pixels])


def _thicker(image: sitk.Image) -> sitk.Image:
    """Average pairs of slices; masks are thresholded at one half."""
    if image.GetPixelID() != sitk.sitkUInt8:
        return sitk.BinShrink(image, (1, 1, 2))
    return sitk.BinShrink(sitk.Cast(image > 0, sitk.sitkFloat32), (1, 1, 2)) >= 0.5


def _patch(scan: _Prepared, kind: int, context: int, side: int, rng: np.random.Generator) -> Batch:
    """Cut and augment one patch, (side, side, channels) and (side, side, 1)."""
    centres = scan.centres[kind]
    z, y, x = centres[rng.integers(len(centres))]
    size = scan.pixels.shape[1]
    top, left = (
        int(np.clip(c - side // 2 + rng.integers(-side // 4, side // 4 + 1), 0, size - side))
        for c in (y, x)
    )
    window = np.s_[top : top + side, left : left + side]
    neighbours = np.clip(np.arange(z - context, z + context + 1), 0, len(scan.pixels) - 1)
    pixels = scan.pixels[(neighbours, *window)]
    mask = scan.mask[z][window]
    return _vary(np.moveaxis(pixels, 0, -1), mask[..., None], rng)


def _vary(
    pixels: NDArray[np.float32], mask: NDArray[np.float32], rng: np.random.Generator
) -> Batch:
    """Randomly flip, rotate, and change contrast, sharpness and noise of all channels alike."""
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
