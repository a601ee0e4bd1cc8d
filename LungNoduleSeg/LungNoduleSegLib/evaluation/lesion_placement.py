"""Insert synthetic lesions of each type and size into a real lung."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.geometry import voxels_to_lps
from LungNoduleSegLib.lesions import (
    PSF_MM,
    VESSEL_HU,
    InsertedLesion,
    Lesion,
    insert_lesion,
    lesion_density,
    random_lesion,
)
from LungNoduleSegLib.nodules.table import NoduleKind

SIZES_MM = ((4, 6), (6, 8), (8, 12), (12, 20), (20, 30))
"""Diameter ranges; there is one lesion per type and range."""

CLEARANCE_MM = 5.0
"""Distance between lesions, in addition to a quarter of their radii for spikes."""

DRAWN, TRIALS = 30_000, 50
"""Number of lung voxels drawn for a lesion, and of suitable ones that are tried."""

Array = NDArray[np.float32]


class LesionType(StrEnum):
    """Composition, border or attachment of a lesion."""

    SMOOTH = "smooth"
    LOBULATED = "lobulated"
    SPICULATED = "spiculated"
    PART_SOLID = "part-solid"
    GROUND_GLASS = "ground-glass"
    CALCIFIED = "calcified"
    JUXTAPLEURAL = "juxtapleural"
    JUXTAVASCULAR = "juxtavascular"


_KINDS = {
    LesionType.PART_SOLID: NoduleKind.PART_SOLID,
    LesionType.GROUND_GLASS: NoduleKind.NON_SOLID,
    LesionType.CALCIFIED: NoduleKind.CALCIFIED,
}
_BORDERS = {
    LesionType.SMOOTH: (0.1, 0.0),
    LesionType.LOBULATED: (0.9, 0.0),
    LesionType.SPICULATED: (0.4, 0.8),
}
"""Lobulation and spiculation; random for other types."""


@dataclass(frozen=True)
class LungSites:
    """Candidate sites for lesions in the lungs, one row per voxel.

    Attributes:
        position: (n, 3) LPS mm.
        depth_mm: (n,) to the border of the lung.
        vessel_mm: (n,) to the nearest vessel.
    """

    position: NDArray[np.float64]
    depth_mm: Array
    vessel_mm: Array


@dataclass(frozen=True)
class SyntheticLesion:
    """An inserted lesion.

    Attributes:
        type: requested type.
        size_mm: requested range of diameters.
        lesion: the lesion, with its true diameter.
        centre: LPS mm, of its voxels within the lung.
    """

    type: LesionType
    size_mm: tuple[int, int]
    lesion: Lesion
    centre: tuple[float, float, float]


Ball = tuple[NDArray[np.float64], float]
"""Centre in LPS mm and radius in mm."""


def find_lung_sites(hu: sitk.Image, lungs: sitk.Image) -> LungSites:
    """Measure the depth of each lung voxel and its distance from vessels.

    Args:
        hu: HU image.
        lungs: label image on the same grid, non-zero in the lungs.
    """
    inside = lungs > 0
    dense = (hu > VESSEL_HU) & sitk.BinaryErode(inside, (2, 2, 1))
    depth, vessel = (
        sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(mask, within, False, True))
        for mask, within in ((inside, True), (dense, False))
    )
    voxels = np.argwhere(sitk.GetArrayViewFromImage(inside))
    position = voxels_to_lps(hu, voxels)
    at = tuple(voxels.T)
    # The map is zero at the centres of the outermost voxels, half a voxel from the border.
    return LungSites(position, depth[at] + min(hu.GetSpacing()) / 2, vessel[at])


def insert_synthetic_lesions(
    hu: sitk.Image,
    lungs: sitk.Image,
    sites: LungSites,
    occupied: Sequence[Ball],
    rng: np.random.Generator,
) -> tuple[sitk.Image, tuple[SyntheticLesion, ...]]:
    """Insert one lesion of each type and size into a copy of a scan, apart from each other.

    Returns:
        The new image and the lesions, fewer than requested if the lungs are too small.
    """
    array = sitk.GetArrayFromImage(hu)
    inside = sitk.GetArrayViewFromImage(lungs) > 0
    psf = float(rng.uniform(*PSF_MM))
    taken = list(occupied)
    placed = []
    for size in reversed(SIZES_MM):
        for kind in LesionType:
            wanted = _draw(kind, size, rng)
            for x, y, z in _places(wanted, kind, sites, taken, rng)[:TRIALS].tolist():
                lesion = replace(wanted, centre=(x, y, z))
                density = lesion_density(lesion, hu)
                if (density.mask & inside[density.box]).any():
                    put = insert_lesion(array, hu, lesion, psf, inside)
                    placed.append(SyntheticLesion(kind, size, lesion, _centre(put, hu)))
                    taken.append((np.array(lesion.centre), lesion.diameter_mm / 2))
                    break
    changed = sitk.GetImageFromArray(array)
    changed.CopyInformation(hu)
    return changed, tuple(placed)


def _draw(kind: LesionType, size_mm: tuple[int, int], rng: np.random.Generator) -> Lesion:
    diameter = float(rng.uniform(*size_mm))
    lesion = random_lesion(rng, (0, 0, 0), _KINDS.get(kind, NoduleKind.SOLID), diameter)
    if kind in _BORDERS:
        lobulation, spiculation = _BORDERS[kind]
        lesion = replace(lesion, lobulation=lobulation, spiculation=spiculation)
    return lesion


def _places(
    lesion: Lesion,
    kind: LesionType,
    sites: LungSites,
    taken: Sequence[Ball],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw centres (n, 3) in LPS mm that suit a lesion and are clear of others."""
    drawn = rng.choice(len(sites.position), min(DRAWN, len(sites.position)), replace=False)
    position, depth, vessel = sites.position[drawn], sites.depth_mm[drawn], sites.vessel_mm[drawn]
    radius = lesion.diameter_mm / 2
    if kind is LesionType.JUXTAPLEURAL:
        fits = (depth > 0.25 * radius) & (depth < 0.95 * radius)
    else:
        fits = depth > radius + 1
    if kind is LesionType.JUXTAVASCULAR:
        fits &= (vessel > 0.5 * radius) & (vessel < radius)
    for centre, other in taken:
        clear = 1.25 * (radius + other) + CLEARANCE_MM
        fits &= np.linalg.norm(position - centre, axis=1) > clear
    return position[fits]


def _centre(put: InsertedLesion, grid: sitk.Image) -> tuple[float, float, float]:
    start = [part.start for part in put.box]
    middle = np.argwhere(put.mask).mean(axis=0) + start
    x, y, z = grid.TransformContinuousIndexToPhysicalPoint(middle[::-1].tolist())
    return x, y, z
