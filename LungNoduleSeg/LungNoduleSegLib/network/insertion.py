"""Insert lesions into real lungs: training examples with exact masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from LungNoduleSegLib.lesions import insert_lesion, random_lesion
from LungNoduleSegLib.network.transplants import NoduleCube, transplant

VESSEL_HU = -400
"""Soft tissue inside the lungs: blood vessels, where no lesion is."""

TRANSPLANTED = 0.6
"""Share of the inserted lesions that are real nodules, where there are any to take."""

PLEURAL = 0.7
"""Share of the attached nodules that are put on the pleura; the others hang on a vessel."""

TRIES = 8
"""Places that a nodule is tried at before an artificial lesion is taken instead."""

PSF_MM = (0.5, 0.8)
"""Range of the scanner's blur, one standard deviation."""


@dataclass(frozen=True)
class LesionSites:
    """Voxels (n, 3) as (z, y, x) where a lesion may be centred, by surroundings."""

    parenchyma: NDArray[np.intp]
    pleura: NDArray[np.intp]
    vessels: NDArray[np.intp]


def find_sites(hu: sitk.Image, lungs: sitk.Image) -> LesionSites:
    """Find where lesions may be put: amid the lung, on its surface and on its vessels.

    Args:
        hu: HU image.
        lungs: label image on the same grid, non-zero in the lungs.
    """
    inside = sitk.GetArrayViewFromImage(lungs) > 0
    core = ndimage.binary_erosion(inside, iterations=2)
    dense = sitk.GetArrayViewFromImage(hu) > VESSEL_HU
    return LesionSites(
        parenchyma=np.argwhere(core & ~dense),
        pleura=np.argwhere(inside & ~ndimage.binary_erosion(inside)),
        vessels=np.argwhere(core & dense),
    )


def insert_random_lesions(
    hu: sitk.Image,
    lungs: sitk.Image,
    sites: LesionSites,
    count: int,
    rng: np.random.Generator,
    cubes: Sequence[NoduleCube] = (),
) -> tuple[sitk.Image, sitk.Image, int]:
    """Put `count` random lesions into a copy of a scan.

    Half lie amid the lung, three in ten on the pleura, two in ten on vessels. With `cubes`,
    `TRANSPLANTED` of the lesions are real nodules, each where its own attachment belongs; the
    others are artificial.

    Returns:
        The changed HU image, a uint16 image with the number of the lesion (from 1) in each of its
        voxels, and how many of them are real nodules.
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
            placed_real = _transplant_somewhere(array, hu, inside, sites, cubes, rng)
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
    images = []
    for result in (array, labels):
        image = sitk.GetImageFromArray(result)
        image.CopyInformation(hu)
        images.append(image)
    return images[0], images[1], transplanted


def _transplant_somewhere(
    array: NDArray[np.int16],
    hu: sitk.Image,
    inside: NDArray[np.bool_],
    sites: LesionSites,
    cubes: Sequence[NoduleCube],
    rng: np.random.Generator,
) -> tuple[tuple[slice, ...], NDArray[np.bool_]] | None:
    """Transplant a random nodule to a place that suits it, None where it fits none of a few."""
    cube = cubes[int(rng.integers(len(cubes)))]
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
