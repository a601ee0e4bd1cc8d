"""Artificial lung lesions: their shape, their density, and how they enter a scan.

One model serves the phantom and the training on real lungs. A lesion is described in world
millimetres, so it comes out the same on any grid: flipped, oblique or anisotropic.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.geometry import Box, box_between
from LungNoduleSegLib.nodules.table import NoduleKind

VESSEL_HU = -400
"""Soft tissue inside the lungs: blood vessels, where no lesion is."""

PSF_MM = (0.5, 0.8)
"""Range of the scanner's blur, one standard deviation."""


SHELL_HU = {
    NoduleKind.SOLID: (-20.0, 80.0),
    NoduleKind.PART_SOLID: (-650.0, -400.0),
    NoduleKind.NON_SOLID: (-700.0, -450.0),
    NoduleKind.CALCIFIED: (0.0, 80.0),
}
CORE_HU = {NoduleKind.PART_SOLID: (-20.0, 60.0), NoduleKind.CALCIFIED: (200.0, 600.0)}
CORE_FRACTION = {NoduleKind.PART_SOLID: (0.4, 0.65), NoduleKind.CALCIFIED: (0.65, 0.95)}
"""Diameter of the core over that of the lesion."""

TEXTURE_HU = {
    NoduleKind.SOLID: 10.0,
    NoduleKind.PART_SOLID: 50.0,
    NoduleKind.NON_SOLID: 50.0,
    NoduleKind.CALCIFIED: 15.0,
}
"""Standard deviation of the slow variation of density inside a lesion."""

EDGE_MM = {
    NoduleKind.SOLID: 0.15,
    NoduleKind.PART_SOLID: 0.4,
    NoduleKind.NON_SOLID: 0.4,
    NoduleKind.CALCIFIED: 0.0,
}
"""Blur of the edge of the lesion itself, on top of the scanner's: ground glass fades out."""

HAZE, HAZE_MM = 0.5, 2.0
"""Density and reach of the thickened tissue around a fully spiculated lesion."""

DIRECTIONS = (112, 224)
"""Steps of polar angle and azimuth in the table of radii: under 2 degrees each."""


@dataclass(frozen=True)
class Lesion:
    """A lesion as it is asked for.

    Attributes:
        centre: LPS mm.
        diameter_mm: of the sphere of the same volume.
        kind: what it is made of.
        lobulation: 0 smooth … 1 coarsely knobbly.
        spiculation: 0 none … 1 many thin spikes, as long as the radius.
        elongation: long axis over short axis of the underlying ellipsoid, 1 or more.
        seed: fixes its shape, orientation, density and texture.
    """

    centre: tuple[float, float, float]
    diameter_mm: float
    kind: NoduleKind = NoduleKind.SOLID
    lobulation: float = 0.3
    spiculation: float = 0.0
    elongation: float = 1.2
    seed: int = 0


@dataclass(frozen=True)
class LesionDensity:
    """A lesion on a grid, in the box of voxels around it.

    Attributes:
        box: slices into the (z, y, x) array.
        coverage: float32, the share of each voxel inside the lesion, 0…1, before any blur.
        core: float32, the share inside its solid or calcified core; 0 where it has none.
        shell_hu, core_hu: float32, the density of the two.
    """

    box: Box
    coverage: NDArray[np.float32]
    core: NDArray[np.float32]
    shell_hu: NDArray[np.float32]
    core_hu: float

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Voxels at least half inside the lesion."""
        return self.coverage >= 0.5


@dataclass(frozen=True)
class InsertedLesion:
    """An inserted lesion: `mask` (bool, z, y, x) covers the array's `box`."""

    box: Box
    mask: NDArray[np.bool_]


def random_lesion(
    rng: np.random.Generator,
    centre: tuple[float, float, float],
    kind: NoduleKind | None = None,
    diameter_mm: float | None = None,
) -> Lesion:
    """Draw a lesion at `centre` (LPS mm): mostly small, mostly solid, the larger the more spiky.

    Diameters are log-normal about 8 mm within 4…30 mm; 70 % are solid, 10 % part-solid, 12 %
    non-solid and 8 % calcified, unless `kind` or `diameter_mm` says otherwise.
    """
    if kind is None:
        kind = NoduleKind(rng.choice(list(NoduleKind), p=[0.7, 0.1, 0.12, 0.08]))
    if diameter_mm is None:
        diameter_mm = float(np.clip(rng.lognormal(np.log(8), 0.5), 4, 30))
        if kind is NoduleKind.PART_SOLID:
            diameter_mm = max(diameter_mm, float(rng.uniform(7, 12)))
        if kind is NoduleKind.NON_SOLID:  # smaller ones are lost in the noise
            diameter_mm = max(diameter_mm, float(rng.uniform(6, 10)))
    spiky = kind is not NoduleKind.CALCIFIED and rng.random() < np.clip(diameter_mm / 25, 0.1, 0.7)
    return Lesion(
        centre=centre,
        diameter_mm=diameter_mm,
        kind=kind,
        lobulation=float(rng.beta(2, 2)),
        spiculation=float(rng.uniform(0.2, 1)) if spiky else 0.0,
        elongation=float(1 + rng.gamma(2, 0.12)),
        seed=int(rng.integers(2**31)),
    )


def lesion_density(lesion: Lesion, geometry: sitk.Image, margin_mm: float = 0.0) -> LesionDensity:
    """Rasterize a lesion on the grid of `geometry`, in its bounding box plus `margin_mm`.

    Each voxel is sampled at points about a sixteenth of the diameter apart (0.35…1 mm), so that a
    thick slice holds the lesion averaged over its thickness.

    Raises:
        ValueError: if the box lies wholly outside the grid.
    """
    rng = np.random.default_rng((lesion.seed, 1))
    shell_mean = rng.uniform(*SHELL_HU[lesion.kind])
    box = _box(lesion, geometry, margin_mm)
    coverage = _coverage(lesion, geometry, box)
    shell = shell_mean + TEXTURE_HU[lesion.kind] * _texture(lesion, geometry, box, rng)
    core, core_hu = np.zeros_like(coverage), 0.0
    if lesion.kind in CORE_HU:
        core_hu = rng.uniform(*CORE_HU[lesion.kind])
        core = np.minimum(coverage, _coverage(_core(lesion, rng), geometry, box))
    return LesionDensity(box, coverage, core, shell.astype(np.float32), core_hu)


def insert_lesion(
    hu: NDArray[np.int16] | NDArray[np.float32],
    geometry: sitk.Image,
    lesion: Lesion,
    psf_mm: float = 0.6,
    inside: NDArray[np.bool_] | None = None,
) -> InsertedLesion:
    """Insert a lesion into a scan, in place, and return its exact mask.

    The lesion is blurred by the scanner's point-spread function, takes over the fine noise of what
    lies beneath, and never makes a voxel darker, so vessels show through ground glass.

    Args:
        hu: (z, y, x) HU on the grid of `geometry`; changed within the lesion's box.
        geometry: an image on that grid; its voxels are not read.
        lesion: what to put where.
        psf_mm: standard deviation of the scanner's blur; 0.5…0.8 mm is usual.
        inside: bool (z, y, x), where a lesion may be: the lung. The mask stops at its edge. The
            density runs on for 1.5 mm, so that a lesion on the pleura merges with the chest wall.

    Raises:
        ValueError: if the lesion lies wholly outside the grid.
    """
    spacing = np.array(geometry.GetSpacing()[::-1])
    density = lesion_density(lesion, geometry, margin_mm=3 * (psf_mm + HAZE_MM / 2))
    box, mask, filled = density.box, density.mask, density.coverage
    if inside is not None:
        mask &= inside[box]
        filled = filled * _dilate(inside[box], spacing, 1.5)
    sharp = filled
    filled = ndimage.gaussian_filter(sharp, (psf_mm + EDGE_MM[lesion.kind]) / spacing)
    if lesion.spiculation:
        haze = ndimage.gaussian_filter(sharp, (psf_mm + HAZE_MM) / spacing)
        filled = np.maximum(filled, HAZE * lesion.spiculation * haze)
    core = ndimage.gaussian_filter(density.core, psf_mm / spacing)
    beneath = hu[box].astype(np.float32)
    target = density.shell_hu + core * (density.core_hu - density.shell_hu) + fine_noise(beneath)
    changed = beneath + filled * np.maximum(target - beneath, 0)
    hu[box] = np.rint(changed) if np.issubdtype(hu.dtype, np.integer) else changed
    return InsertedLesion(box, mask)


@lru_cache(maxsize=256)
def _radii(lesion: Lesion) -> NDArray[np.float32]:
    """Return the distance (mm) from the centre to the surface for each of `DIRECTIONS`."""
    rng = np.random.default_rng((lesion.seed, 0))
    polar, azimuth = np.meshgrid(
        (np.arange(DIRECTIONS[0]) + 0.5) * np.pi / DIRECTIONS[0],
        (np.arange(DIRECTIONS[1]) + 0.5) * 2 * np.pi / DIRECTIONS[1] - np.pi,
        indexing="ij",
    )
    directions = np.stack(
        [np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], -1
    ).astype(np.float32)

    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    axes = np.array([lesion.elongation, rng.uniform(1, lesion.elongation), 1.0])
    radius = 1 / np.linalg.norm(directions @ rotation / axes, axis=-1)

    lobes = 8
    away = 1 - directions @ _unit(rng, lobes)
    relief = np.exp(-away / rng.uniform(0.4, 0.8, lobes) ** 2) @ rng.normal(0, 0.3, lobes)
    ripples = 12
    waves = directions @ (_unit(rng, ripples) * rng.uniform(6, 20, ripples)).astype(np.float32)
    roughness = np.cos(waves + rng.uniform(0, 2 * np.pi, ripples).astype(np.float32)).sum(-1)
    rough = 0.004 + 0.008 * lesion.lobulation + 0.02 * lesion.spiculation
    relief = lesion.lobulation * relief + rough * roughness
    radius = radius * np.exp(relief)

    spikes = int(np.rint(36 * lesion.spiculation))
    away = 1 - directions @ _unit(rng, spikes)
    widths = np.clip(rng.uniform(0.5, 1.2, spikes) / (lesion.diameter_mm / 2), 0.04, 0.25)
    lengths = (0.2 + 0.6 * lesion.spiculation) * rng.uniform(0.2, 1, spikes)
    for i in range(spikes):
        near = away[..., i] < 8 * widths[i] ** 2
        radius[near] += lengths[i] * np.exp(-away[near, i] / widths[i] ** 2)

    solid_angle = np.sin(polar) / np.sin(polar).sum()
    volume_ratio = (radius**3 * solid_angle).sum()
    return (lesion.diameter_mm / 2 * radius / np.cbrt(volume_ratio)).astype(np.float32)


def _unit(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Return random directions (3, count)."""
    vectors = rng.normal(size=(3, count))
    return (vectors / np.linalg.norm(vectors, axis=0)).astype(np.float32)


def _core(lesion: Lesion, rng: np.random.Generator) -> Lesion:
    """Return the denser part inside a lesion, somewhat off its centre."""
    fraction = rng.uniform(*CORE_FRACTION[lesion.kind])
    shift = rng.normal(size=3)
    shift *= 0.6 * (1 - fraction) * lesion.diameter_mm / 2 / np.linalg.norm(shift)
    x, y, z = np.add(lesion.centre, shift).tolist()
    return replace(
        lesion,
        centre=(x, y, z),
        diameter_mm=fraction * lesion.diameter_mm,
        spiculation=0.0,
        seed=lesion.seed + 1,
    )


def _axes(geometry: sitk.Image) -> NDArray[np.float64]:
    """Return the world step (mm) of one index step along x, y and z, as columns."""
    return np.reshape(geometry.GetDirection(), (3, 3)) * geometry.GetSpacing()


def _box(lesion: Lesion, geometry: sitk.Image, margin_mm: float) -> Box:
    """Return the voxels around the lesion, cut off at the grid's border."""
    centre = geometry.TransformPhysicalPointToContinuousIndex(lesion.centre)
    reach = _radii(lesion).max() + margin_mm
    extent = reach * np.linalg.norm(np.linalg.inv(_axes(geometry)), axis=1)
    start = np.maximum(np.floor(centre - extent).astype(int), 0)
    stop = np.minimum(np.ceil(centre + extent).astype(int) + 1, geometry.GetSize())
    if np.any(start >= stop):
        raise ValueError(f"the lesion at {lesion.centre} mm lies outside the image")
    return box_between(start[::-1], stop[::-1])


def _offsets(
    lesion: Lesion, geometry: sitk.Image, box: Box, per_voxel: tuple[int, int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return world offsets x, y, z (mm) from the lesion's centre at `per_voxel` (z, y, x) points.

    Each has the shape (z, y, x) of the box times `per_voxel`.
    """
    centre = geometry.TransformPhysicalPointToContinuousIndex(lesion.centre)[::-1]
    index = [
        s.start + (np.arange((s.stop - s.start) * n) + 0.5) / n - 0.5 - c
        for s, n, c in zip(box, per_voxel, centre, strict=True)
    ]
    k, j, i = np.ix_(*index)
    x, y, z = (a[0] * i + a[1] * j + a[2] * k for a in _axes(geometry))
    return x.astype(np.float32), y.astype(np.float32), z.astype(np.float32)


def _coverage(lesion: Lesion, geometry: sitk.Image, box: Box) -> NDArray[np.float32]:
    """Return the share of each voxel of the box that lies within the surface."""
    step = np.clip(lesion.diameter_mm / 16, 0.35, 1.0)
    nx, ny, nz = (int(np.ceil(s / step)) for s in geometry.GetSpacing())
    x, y, z = _offsets(lesion, geometry, box, (nz, ny, nx))
    distance = np.sqrt(x * x + y * y + z * z)
    polar = np.arccos(np.clip(z / np.maximum(distance, 1e-6), -1, 1))
    row = np.minimum((polar * (DIRECTIONS[0] / np.pi)).astype(np.intp), DIRECTIONS[0] - 1)
    turn = (np.arctan2(y, x) + np.pi) * (DIRECTIONS[1] / (2 * np.pi))
    within = distance <= _radii(lesion)[row, turn.astype(np.intp) % DIRECTIONS[1]]
    depth, height, width = (s.stop - s.start for s in box)
    return within.reshape(depth, nz, height, ny, width, nx).mean((1, 3, 5), dtype=np.float32)


def _texture(
    lesion: Lesion, geometry: sitk.Image, box: Box, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a smooth field of mean 0 and deviation 1 over the box: plane waves of 3…12 mm."""
    waves = 24
    heading = rng.normal(size=(waves, 3))
    length = rng.uniform(3, 12, waves) * np.linalg.norm(heading, axis=1)
    phase = rng.uniform(0, 2 * np.pi, waves)
    x, y, z = _offsets(lesion, geometry, box, (1, 1, 1))
    field = np.zeros_like(x)
    for (a, b, c), shift in zip(
        2 * np.pi * (heading.T / length).T.astype(np.float32), phase, strict=True
    ):
        field += np.cos(a * x + b * y + c * z + np.float32(shift))
    return field * np.float32(np.sqrt(2 / waves))


def fine_noise(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what differs from its neighbours in the slice, without vessels and edges."""
    residual = hu - ndimage.median_filter(hu, (1, 3, 3))
    limit = 3 * 1.4826 * np.median(np.abs(residual))
    return np.clip(residual, -limit, limit)


def _dilate(
    mask: NDArray[np.bool_], spacing: NDArray[np.float64], by_mm: float
) -> NDArray[np.bool_]:
    """Grow a mask by a distance."""
    if not mask.any():
        return mask
    return ndimage.distance_transform_edt(~mask, spacing) <= by_mm
