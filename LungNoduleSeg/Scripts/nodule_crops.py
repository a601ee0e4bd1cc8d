"""Artificial nodules in small blocks of lung: measured, and held against their truth."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing import Pool

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from LungNoduleSegLib.lesions import (
    Lesion,
    insert_lesion,
    lesion_density,
    random_lesion,
)
from LungNoduleSegLib.nodules.attenuation import nodule_kind
from LungNoduleSegLib.nodules.measures import axial_diameters
from LungNoduleSegLib.nodules.outline import refine_outline
from LungNoduleSegLib.nodules.table import NoduleKind
from LungNoduleSegLib.phantom.canvas import Canvas, coverage
from LungNoduleSegLib.phantom.chest import Place, grain

MARGIN_MM = 18.0
"""Lung around the lesion."""

PARENCHYMA_HU, WALL_HU, VESSEL_HU = -850.0, 40.0, 40.0
FINE_MM = 0.35
"""Voxels of the grid that holds the truth."""


class Kernel(StrEnum):
    """How the scanner's reconstruction renders edges and noise."""

    SOFT = "soft"
    SHARP = "sharp"


PSF_MM = {Kernel.SOFT: 0.7, Kernel.SHARP: 0.4}
"""Standard deviation of the in-plane blur."""

NOISE_GAIN = {Kernel.SOFT: 1.0, Kernel.SHARP: 1.8}
"""Noise of the same exposure relative to the soft kernel's."""

GRAIN_MM = {Kernel.SOFT: 0.9, Kernel.SHARP: 0.5}


@dataclass(frozen=True)
class CropSpec:
    """A block of lung to be made.

    Attributes:
        diameter_mm: of the sphere of the lesion's volume.
        kind: of the lesion.
        place: free in the lung, on a vessel, or on the pleura.
        slice_mm: slice thickness and distance.
        pixel_mm: in-plane spacing.
        kernel: of the reconstruction.
        noise_hu: standard deviation of the noise that the soft kernel gives.
        seed: of the lesion's shape and the anatomy.
        noise_seed: of the noise alone.
    """

    diameter_mm: float
    kind: NoduleKind = NoduleKind.SOLID
    place: Place = Place.FREE
    slice_mm: float = 1.25
    pixel_mm: float = 0.7
    kernel: Kernel = Kernel.SOFT
    noise_hu: float = 15.0
    seed: int = 0
    noise_seed: int = 0


@dataclass(frozen=True, eq=False)
class Crop:
    """A block of lung and the truth about its lesion.

    Attributes:
        hu: int16 (z, y, x).
        lungs: bool, on a grid as coarse as that on which lungs are found in a scan.
        mask: voxels at least half inside the lesion.
        spacing: mm along (z, y, x).
        volume_mm3: of the lesion.
        longest_mm, across_mm: axial diameters of its exact mask.
        solid_mm: mean axial diameter of the core of a part-solid lesion, else None.
    """

    hu: NDArray[np.int16]
    lungs: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    spacing: NDArray[np.float64]
    volume_mm3: float
    longest_mm: float
    across_mm: float
    solid_mm: float | None

    @property
    def mean_mm(self) -> float:
        """Mean of the two axial diameters."""
        return (self.longest_mm + self.across_mm) / 2


def make_crop(spec: CropSpec) -> Crop:
    """Make a block of lung; the same `spec` gives the same voxels."""
    shape, anatomy = (np.random.default_rng((spec.seed, part)) for part in range(2))
    noise = np.random.default_rng((spec.seed, spec.noise_seed, 2))
    lesion = _lesion(spec, shape)
    spacing = np.array([spec.slice_mm, spec.pixel_mm, spec.pixel_mm])
    grid = _grid(spec.diameter_mm, spacing, anatomy)
    wall = _wall(spec, anatomy)
    canvas = Canvas(grid, np.full(grid.GetSize()[::-1], PARENCHYMA_HU, np.float32))
    if spec.place is Place.VESSEL:
        _attach_vessel(canvas, spec.diameter_mm / 2, anatomy)
    _scatter_vessels(canvas, spec.diameter_mm / 2, anatomy)
    lung = _inside(canvas, wall)
    canvas.hu[:] = WALL_HU + lung * (canvas.hu - WALL_HU)
    inserted = insert_lesion(canvas.hu, grid, lesion, 0.0, lung >= 0.5)
    mask = np.zeros(lung.shape, bool)
    mask[inserted.box] = inserted.mask
    hu = _scan(canvas.hu, lung > 0.5, spec, noise)
    volume, longest, across, solid = _truth(lesion, wall, shape)
    coarse = _coarsened(lung > 0.5, spacing)
    return Crop(hu, coarse, mask, spacing, volume, longest, across, solid)


def _lesion(spec: CropSpec, rng: np.random.Generator) -> Lesion:
    return random_lesion(rng, (0.0, 0.0, 0.0), spec.kind, spec.diameter_mm)


def _grid(diameter_mm: float, spacing: NDArray[np.float64], rng: np.random.Generator) -> sitk.Image:
    """Lay a grid about the lesion, its centre anywhere within a voxel."""
    half = diameter_mm * 0.8 + MARGIN_MM
    size = np.ceil(2 * half / spacing[::-1]).astype(int)
    grid = sitk.Image(size.tolist(), sitk.sitkUInt8)
    grid.SetSpacing(spacing[::-1].tolist())
    shift = rng.uniform(-0.5, 0.5, 3)
    grid.SetOrigin(((-(size - 1) / 2 + shift) * spacing[::-1]).tolist())
    return grid


@dataclass(frozen=True, eq=False)
class _Wall:
    """A sphere whose surface is the pleura; the lung lies within it, or around it."""

    centre: NDArray[np.float64]
    radius: float
    lung_within: bool

    def depth(self, x: NDArray, y: NDArray, z: NDArray) -> NDArray[np.float32]:
        """Distance (mm) into the lung of places in LPS mm."""
        a, b, c = (p - m for p, m in zip((x, y, z), self.centre, strict=True))
        inward = self.radius - np.sqrt(a * a + b * b + c * c)
        return np.asarray(inward if self.lung_within else -inward, np.float32)


def _wall(spec: CropSpec, rng: np.random.Generator) -> _Wall | None:
    """Lay a chest wall, or in one of four cases a diaphragm, through the lesion."""
    if spec.place is not Place.PLEURA:
        return None
    depth = rng.uniform(0.35, 0.55) * spec.diameter_mm / 2
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    if rng.random() < 0.75:
        radius = rng.uniform(70, 130)
        return _Wall(direction * (radius - depth), radius, True)
    radius = rng.uniform(60, 90)
    return _Wall(direction * (radius + depth), radius, False)


def _inside(canvas: Canvas, wall: _Wall | None) -> NDArray[np.float32]:
    """Share of each voxel inside the lung."""
    if wall is None:
        return np.ones(canvas.hu.shape, np.float32)
    parts = 4
    x, y, z = (canvas.axis(i, per_voxel=parts) for i in range(3))
    share = np.empty(canvas.hu.shape, np.float32)
    edge = min(canvas.spacing) / parts
    height, width = canvas.geometry.GetSize()[1::-1]
    for k in range(len(share)):
        depth = wall.depth(
            x[None, None], y[None, :, None], z[parts * k : parts * (k + 1), None, None]
        )
        inside = coverage(-depth, edge).reshape(parts, height, parts, width, parts)
        share[k] = inside.mean((0, 2, 4))
    return share


def _attach_vessel(canvas: Canvas, radius: float, rng: np.random.Generator) -> None:
    """Add a vessel through the lesion, off its centre."""
    offset, along = rng.normal(size=(2, 3))
    offset *= rng.uniform(0.5, 1.0) * radius / np.linalg.norm(offset)
    along -= offset * (along @ offset) / (offset @ offset)
    along *= 200 / np.linalg.norm(along)
    thick = rng.uniform(0.6, min(2.2, max(0.8, 0.4 * radius)))
    start = offset if rng.random() < 0.5 else offset - along
    canvas.tube(np.stack([start, offset + along]), thick, VESSEL_HU)


def _scatter_vessels(canvas: Canvas, radius: float, rng: np.random.Generator) -> None:
    """Draw thin vessels that pass by the lesion at 4 mm or more."""
    for _ in range(4):
        offset, along = rng.normal(size=(2, 3))
        offset *= (1.5 * radius + rng.uniform(4, 12)) / np.linalg.norm(offset)
        along -= offset * (along @ offset) / (offset @ offset)
        along *= 200 / np.linalg.norm(along)
        ends = np.stack([offset - along, offset + along])
        canvas.tube(ends, rng.uniform(0.4, 1.2), VESSEL_HU)


def _scan(
    hu: NDArray[np.float32], lung: NDArray[np.bool_], spec: CropSpec, rng: np.random.Generator
) -> NDArray[np.int16]:
    sigma = PSF_MM[spec.kernel] / spec.pixel_mm
    fine = GRAIN_MM[spec.kernel] / spec.pixel_mm
    result = np.empty(hu.shape, np.int16)
    shape = hu.shape[1:]
    for k, plane in enumerate(hu):
        white = rng.standard_normal(shape, np.float32)
        texture = 16 * lung[k] * grain(white, 1.4 / spec.pixel_mm)
        white = rng.standard_normal(shape, np.float32)
        noise = NOISE_GAIN[spec.kernel] * spec.noise_hu * grain(white, max(fine, 0.4))
        result[k] = np.rint(ndimage.gaussian_filter(plane + texture, sigma) + noise)
    return result


def _truth(
    lesion: Lesion, wall: _Wall | None, rng: np.random.Generator
) -> tuple[float, float, float, float | None]:
    """Volume and axial diameters of a lesion, and of its solid core, on a fine grid."""
    size = [int(np.ceil((2.5 * lesion.diameter_mm + 8) / FINE_MM))] * 3
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing((FINE_MM,) * 3)
    grid.SetOrigin([-(n - 1) / 2 * FINE_MM for n in size])
    density = lesion_density(lesion, grid)
    share, core = density.coverage, density.core
    if wall is not None:
        canvas = Canvas(grid, np.empty(size[::-1], np.float32))
        x, y, z = (canvas.axis(i, density.box[2 - i]) for i in range(3))
        depth = wall.depth(x[None, None], y[None, :, None], z[:, None, None])
        inside = coverage(-depth, FINE_MM)
        share, core = (part * inside.astype(np.float32) for part in (share, core))
    spacing = np.full(3, FINE_MM)
    both = axial_diameters(share >= 0.5, density.box, spacing)
    solid = None
    if lesion.kind is NoduleKind.PART_SOLID:
        inner = axial_diameters(core >= 0.5, density.box, spacing)
        solid = (inner.longest_mm + inner.across_mm) / 2
    return float(share.sum() * FINE_MM**3), both.longest_mm, both.across_mm, solid


def _coarsened(lung: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Give a mask the steps of blocks of 2.5 mm."""
    factor = np.maximum(1, np.round(2.5 / spacing)).astype(int)
    index = [
        np.minimum(np.arange(n) // f * f + f // 2, n - 1)
        for n, f in zip(lung.shape, factor, strict=True)
    ]
    return lung[np.ix_(*index)]


@dataclass(frozen=True)
class Trial:
    """What was measured of one artificial nodule, and the truth.

    Attributes:
        spec: of the nodule.
        spacing: mm along (z, y, x).
        kind: as it was measured.
        attached: whether something had to be cut off.
        contact: share of the surface that borders on it.
        noise_hu: of the lung around.
        measured, truth: longest and perpendicular axial diameter (mm), their mean, volume (mm³),
            mean diameter of the solid part (NaN without one).
    """

    spec: CropSpec
    spacing: tuple[float, float, float]
    kind: NoduleKind
    attached: bool
    contact: float
    noise_hu: float
    measured: tuple[float, float, float, float, float]
    truth: tuple[float, float, float, float, float]


def rough_mark(crop: Crop, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mark a lesion as a network does: off its centre, and too large or too small.

    The mark lies up to 35 % of the radius within the surface, or 15 % outside.
    """
    radius = float(np.cbrt(3 / 4 / np.pi * crop.volume_mm3))
    inward = ndimage.distance_transform_edt(crop.mask, sampling=crop.spacing)
    depth = inward - ndimage.distance_transform_edt(~crop.mask, sampling=crop.spacing)
    shift = rng.normal(0, 0.08 * radius, 3) / crop.spacing
    depth = ndimage.shift(depth, shift, order=1, mode="nearest")
    pieces, count = ndimage.label(depth > rng.uniform(-0.15, 0.35) * radius)
    if not count:
        return crop.mask
    return np.asarray(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1)


def measure_trial(spec: CropSpec) -> Trial | None:
    """Make a nodule and measure it; None if no voxel shows it, or the image has no outline."""
    crop = make_crop(spec)
    if not crop.mask.any():  # thinner than half a slice
        return None
    mark = rough_mark(crop, np.random.default_rng((spec.seed, 9)))
    (box,) = ndimage.find_objects(mark.view(np.uint8), 1)
    outline = refine_outline(crop.hu, crop.lungs, crop.spacing, box, mark[box])
    if outline is None or outline.image is None:
        return None
    image = outline.image
    both = axial_diameters(image.field, outline.box, crop.spacing)
    mean = (both.longest_mm + both.across_mm) / 2
    hu, solid = crop.hu[outline.box], np.nan
    kind = nodule_kind(hu, outline.mask, crop.spacing, image.noise_hu)
    if kind in (NoduleKind.SOLID, NoduleKind.PART_SOLID):
        kind = NoduleKind.SOLID if image.solid is None else NoduleKind.PART_SOLID
    if image.solid is not None and (image.solid >= 0.5).any():
        core = axial_diameters(image.solid, outline.box, crop.spacing)
        solid = (core.longest_mm + core.across_mm) / 2
    truth_solid = np.nan if crop.solid_mm is None else crop.solid_mm
    z, y, x = crop.spacing.tolist()
    return Trial(
        spec,
        (z, y, x),
        kind,
        image.attached,
        image.contact,
        image.noise_hu,
        (both.longest_mm, both.across_mm, mean, image.volume_mm3, solid),
        (crop.longest_mm, crop.across_mm, crop.mean_mm, crop.volume_mm3, truth_solid),
    )


def measure_trials(specs: Iterable[CropSpec], processes: int) -> Iterator[Trial | None]:
    """Measure many nodules, in processes of their own."""
    with Pool(processes) as pool:
        yield from pool.imap(measure_trial, specs, chunksize=4)
