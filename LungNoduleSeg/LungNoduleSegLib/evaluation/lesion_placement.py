"""Insert lesions into a real lung: synthetic ones of each type and size, or real nodules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.geometry import (
    Box,
    box_of,
    cut_out,
    grown,
    image_like,
    in_crop,
    voxels_to_lps,
)
from LungNoduleSegLib.evaluation.subgroups import SIZES_MM, place_of
from LungNoduleSegLib.lesions import (
    PSF_MM,
    VESSEL_HU,
    Lesion,
    insert_lesion,
    lesion_density,
    random_lesion,
)
from LungNoduleSegLib.network.transplants import NoduleCube, transplant
from LungNoduleSegLib.nodules.table import NoduleKind, Place, sphere_diameter

CLEARANCE_MM = 5.0
"""Distance between lesions, in addition to a quarter of their radii for spikes."""

ON_VESSEL = 0.3
"""Share of attached real nodules that are put on a vessel; the others are put on the pleura."""

DRAWN, TRIALS = 30_000, 50
"""Number of lung voxels drawn for a lesion, and of suitable ones that are tried."""

Array = NDArray[np.float32]


class LesionType(StrEnum):
    """Composition, border or attachment of a synthetic lesion; or a real nodule."""

    SMOOTH = "smooth"
    LOBULATED = "lobulated"
    SPICULATED = "spiculated"
    PART_SOLID = "part-solid"
    GROUND_GLASS = "ground-glass"
    CALCIFIED = "calcified"
    JUXTAPLEURAL = "juxtapleural"
    JUXTAVASCULAR = "juxtavascular"
    TRANSPLANTED = "transplanted"


_KINDS = {
    LesionType.PART_SOLID: NoduleKind.PART_SOLID,
    LesionType.GROUND_GLASS: NoduleKind.NON_SOLID,
    LesionType.CALCIFIED: NoduleKind.CALCIFIED,
}
SYNTHETIC = tuple(one for one in LesionType if one is not LesionType.TRANSPLANTED)
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
class PlacedLesion:
    """An inserted lesion.

    Attributes:
        type: what was asked for.
        diameter_mm: of the sphere of the same volume.
        texture: None if unknown.
        place: whether it touches pleura or vessel.
        centre: LPS mm, of its voxels within the lung.
        box: slices of the scan along (z, y, x).
        mask: bool (z, y, x) in the box.
    """

    type: LesionType
    diameter_mm: float
    texture: NoduleKind | None
    place: Place
    centre: tuple[float, float, float]
    box: Box
    mask: NDArray[np.bool_] = field(compare=False)


Ball = tuple[NDArray[np.float64], float]
"""Centre in LPS mm and radius in mm."""

Fits = Callable[[Array, Array], NDArray[np.bool_]]
"""Which sites suit a lesion, by their depth and their distance from vessels in mm."""


def find_lung_sites(hu: sitk.Image, lungs: sitk.Image) -> LungSites:
    """Measure the depth of each lung voxel and its distance from vessels.

    Args:
        hu: HU image.
        lungs: label image on the same grid, non-zero in the lungs, not empty.
    """
    box = box_of(sitk.GetArrayViewFromImage(lungs) > 0)
    assert box is not None
    box = grown(box, 3, lungs.GetSize()[::-1])
    inside = cut_out(lungs, box) > 0
    dense = (cut_out(hu, box) > VESSEL_HU) & sitk.BinaryErode(inside, (2, 2, 1))
    depth, vessel = (
        sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(mask, within, False, True))
        for mask, within in ((inside, True), (dense, False))
    )
    voxels = np.argwhere(sitk.GetArrayViewFromImage(inside))
    position = voxels_to_lps(hu, voxels + [part.start for part in box])
    at = tuple(voxels.T)
    # The map is zero at the centres of the outermost voxels, half a voxel from the border.
    return LungSites(position, depth[at] + min(hu.GetSpacing()) / 2, vessel[at])


def insert_synthetic_lesions(
    hu: sitk.Image,
    lungs: sitk.Image,
    sites: LungSites,
    occupied: Sequence[Ball],
    rng: np.random.Generator,
) -> tuple[sitk.Image, tuple[PlacedLesion, ...]]:
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
        for kind in SYNTHETIC:
            wanted = _draw(kind, size, rng)
            fits = _fitting(wanted, kind)
            for x, y, z in _places(wanted.diameter_mm, fits, sites, taken, rng).tolist():
                lesion = replace(wanted, centre=(x, y, z))
                density = lesion_density(lesion, hu)
                if (density.mask & inside[density.box]).any():
                    put = insert_lesion(array, hu, lesion, psf, inside)
                    where = put.box, put.mask
                    made = kind, lesion.diameter_mm, lesion.kind
                    placed.append(_placed(*made, where, array, inside, hu))
                    taken.append((np.array(lesion.centre), lesion.diameter_mm / 2))
                    break
    return image_like(array, hu), tuple(placed)


def insert_real_nodules(
    hu: sitk.Image,
    lungs: sitk.Image,
    sites: LungSites,
    occupied: Sequence[Ball],
    cubes: Sequence[NoduleCube],
    rng: np.random.Generator,
) -> tuple[sitk.Image, tuple[PlacedLesion, ...]]:
    """Transplant nodules into a copy of a scan at their own size, apart from each other.

    One that was attached is put on the pleura or, `ON_VESSEL` of them, on a vessel.

    Returns:
        The new image and the nodules, without those that fit nowhere.
    """
    array = sitk.GetArrayFromImage(hu)
    inside = sitk.GetArrayViewFromImage(lungs) > 0
    taken = list(occupied)
    placed = []
    for cube in sorted(cubes, key=lambda one: -one.diameter_mm):
        fits = _fitting_real(cube, max(hu.GetSpacing()[:2]), bool(rng.random() < ON_VESSEL))
        for place in _places(cube.diameter_mm, fits, sites, taken, rng):
            x, y, z = hu.TransformPhysicalPointToIndex(place.tolist())
            put = transplant(array, hu, inside, cube, (z, y, x), rng, scale=(1.0, 1.0))
            if put is not None and put[1].any():
                volume = np.count_nonzero(put[1]) * np.prod(hu.GetSpacing())
                made = LesionType.TRANSPLANTED, float(sphere_diameter(volume)), cube.texture
                placed.append(_placed(*made, put, array, inside, hu))
                taken.append((place, cube.diameter_mm / 2))
                break
    return image_like(array, hu), tuple(placed)


def _draw(kind: LesionType, size_mm: tuple[int, int], rng: np.random.Generator) -> Lesion:
    diameter = float(rng.uniform(*size_mm))
    lesion = random_lesion(rng, (0, 0, 0), _KINDS.get(kind, NoduleKind.SOLID), diameter)
    if kind in _BORDERS:
        lobulation, spiculation = _BORDERS[kind]
        lesion = replace(lesion, lobulation=lobulation, spiculation=spiculation)
    return lesion


def _fitting(lesion: Lesion, kind: LesionType) -> Fits:
    """Tell which sites suit a synthetic lesion, by depth and distance from vessels."""
    radius = lesion.diameter_mm / 2
    if kind is LesionType.JUXTAPLEURAL:
        return lambda depth, _: (depth > 0.25 * radius) & (depth < 0.95 * radius)
    if kind is LesionType.JUXTAVASCULAR:
        return lambda depth, vessel: (
            (depth > radius + 1) & (vessel > 0.5 * radius) & (vessel < radius)
        )
    return lambda depth, _: depth > radius + 1


def _fitting_real(cube: NoduleCube, pixel_mm: float, on_vessel: bool) -> Fits:
    """Tell which sites suit a real nodule."""
    if cube.attachment is None:
        return lambda depth, vessel: (depth > cube.diameter_mm / 2 + 1) & (vessel > pixel_mm)
    if on_vessel:
        return lambda depth, vessel: (depth > cube.diameter_mm / 2 + 1) & (vessel <= 0)
    return lambda depth, _: depth < pixel_mm


def _places(
    diameter_mm: float,
    fits: Fits,
    sites: LungSites,
    taken: Sequence[Ball],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw up to `TRIALS` centres (n, 3) in LPS mm that suit a lesion and are clear of others."""
    drawn = rng.choice(len(sites.position), min(DRAWN, len(sites.position)), replace=False)
    position = sites.position[drawn]
    suitable = fits(sites.depth_mm[drawn], sites.vessel_mm[drawn])
    for centre, other in taken:
        clear = 1.25 * (diameter_mm / 2 + other) + CLEARANCE_MM
        suitable &= np.linalg.norm(position - centre, axis=1) > clear
    return position[suitable][:TRIALS]


def _placed(
    kind: LesionType,
    diameter_mm: float,
    texture: NoduleKind | None,
    where: tuple[Box, NDArray[np.bool_]],
    array: NDArray[np.int16],
    inside: NDArray[np.bool_],
    grid: sitk.Image,
) -> PlacedLesion:
    """Describe a lesion that was put into an array."""
    box, mask = where
    start = [part.start for part in box]
    middle = np.argwhere(mask).mean(axis=0) + start
    x, y, z = grid.TransformContinuousIndexToPhysicalPoint(middle[::-1].tolist())
    wide = grown(box, 4, array.shape)
    whole = np.zeros_like(inside[wide])
    whole[in_crop(box, wide)] = mask
    place = place_of(array[wide], inside[wide], grid.GetSpacing()[::-1], whole)
    return PlacedLesion(kind, diameter_mm, texture, place, (x, y, z), box, mask)
