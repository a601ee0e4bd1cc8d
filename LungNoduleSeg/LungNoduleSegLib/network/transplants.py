"""Transplant real nodules from one lung into another, as training examples.

A `NoduleCube` is a nodule with a margin, cut from an outlined scan. It is rotated, flipped, scaled,
and resampled to the grid of another scan. The lung around it is brought to the density and noise of
the host's, and blended into it over about three voxels. A nodule attached to pleura or vessel is
attached again, on the same side.
"""

import csv
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import AxialView, Box, box_between, grown
from CTLungScreeningLib.hu import AIR_HU, DENSE_HU
from CTLungScreeningLib.model_card import contents_sha256
from CTLungScreeningLib.reading.volume_files import read_labels
from LungNoduleSegLib.lesions import fine_noise
from LungNoduleSegLib.nodules.table import NoduleKind, sphere_diameter

IMAGES, MASKS, TABLE = "image", "mask", "nodules.csv"
"""Subfolders of a folder of cubes, with equal file names, and its optional table."""

MARGIN_MM = 8.0
"""Margin of `cut_cubes` around a nodule."""

ATTACHED_SHARE = 0.12
"""Minimum share of the surface of a nodule that is attached to something dense."""

HIDDEN_SHARE = 0.3
"""Share of a nodule that may lie on dense tissue of the host, where it is not seen."""

RIM_MM = 1.2
"""Width of the donor's border that is kept around the outline before it fades."""

SCALE = (0.8, 1.25)
"""Range of the random scale."""

TISSUE_HU = 40
"""Density of a nodule without air: it stays as it is when the lung around it changes."""

_OUTSIDE_MM = 1.5
"""Distance that a transplant may extend beyond the lung mask."""


@dataclass(frozen=True)
class NoduleCube:
    """A nodule with its surroundings.

    Attributes:
        name: of its file, or of the scan and its number there.
        hu: (z, y, x) HU, axes along the patient's (LPS).
        mask: bool, of the same shape.
        spacing: mm along z, y, x.
        texture: as radiologists rated it, None if unknown.
    """

    name: str
    hu: NDArray[np.int16]
    mask: NDArray[np.bool_]
    spacing: tuple[float, float, float]
    texture: NoduleKind | None = None

    @cached_property
    def diameter_mm(self) -> float:
        """Of a sphere of the same volume."""
        volume = float(np.count_nonzero(self.mask)) * float(np.prod(self.spacing))
        return float(sphere_diameter(volume))

    @cached_property
    def attachment(self) -> NDArray[np.float64] | None:
        """The direction (y, x) to the wall or vessel it is attached to, None without attachment."""
        shell = shell_around(self.mask)
        touching = np.argwhere(shell & (self.hu > DENSE_HU))
        if len(touching) < ATTACHED_SHARE * np.count_nonzero(shell):
            return None
        away = touching.mean(axis=0) - np.argwhere(self.mask).mean(axis=0)
        flat = away[1:] * self.spacing[1:]
        length = np.linalg.norm(flat)
        return flat / length if length > 0.1 * self.diameter_mm else None


def read_cubes(folder: Path) -> list[NoduleCube]:
    """Read nodules from a folder with an `image` and a `mask` file of the same name for each.

    Args:
        folder: with `image/NAME` in HU and `mask/NAME`, non-zero in the nodule; any orientation.
            In `nodules.csv`, if it is there, the columns `file` and `texture` or `Texture_value`
            say which texture each has, see `NoduleKind.of_texture`.

    Raises:
        InputError: if there are none, one of a pair is missing, damaged or of another size, or a
            texture cannot be read.
    """
    files = _visible(folder / IMAGES)
    if not files:
        raise InputError(f"{folder / IMAGES} is empty: choose a folder with image/ and mask/.")
    textures = _read_textures(folder / TABLE)
    cubes = (_read_cube(file, folder / MASKS / file.name) for file in files)
    return [
        replace(cube, texture=textures.get(file.name))
        for file, cube in zip(files, cubes, strict=True)
        if cube
    ]


def cubes_sha256(folder: Path) -> str:
    """Digest the files that `read_cubes` reads, by name and content."""
    return contents_sha256([*_visible(folder / IMAGES), *_visible(folder / MASKS), folder / TABLE])


def _visible(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*"))


def cut_cubes(name: str, hu: sitk.Image, nodules: sitk.Image) -> list[NoduleCube]:
    """Cut each nodule out of an outlined scan, with `MARGIN_MM` around it.

    Args:
        name: of the scan.
        hu: axial HU image (`AxialView`).
        nodules: label image on the same grid.
    """
    values, labels = sitk.GetArrayFromImage(hu), sitk.GetArrayViewFromImage(nodules)
    spacing = hu.GetSpacing()[::-1]
    margin = np.ceil(MARGIN_MM / np.array(spacing)).astype(int)
    cubes = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        wide = grown(box, margin, labels.shape)
        cubes.append(
            NoduleCube(f"{name}-{number}", values[wide].copy(), labels[wide] == number, spacing)
        )
    return cubes


def transplant(
    hu: NDArray[np.int16] | NDArray[np.float32],
    geometry: sitk.Image,
    inside: NDArray[np.bool_],
    cube: NoduleCube,
    voxel: tuple[int, int, int],
    rng: np.random.Generator,
    scale: tuple[float, float] = SCALE,
) -> tuple[Box, NDArray[np.bool_]] | None:
    """Insert a nodule into a scan in place, randomly rotated, flipped and scaled.

    Args:
        hu: (z, y, x) HU of an axial scan; changed around `voxel`.
        geometry: an image on that grid; its voxels are not read.
        inside: bool (z, y, x), the lungs.
        cube: the nodule.
        voxel: (z, y, x) of its centre; on the lung's surface for an attached nodule.
        rng: random numbers.
        scale: range of the random scale.

    Returns:
        The box and the nodule's mask in it; or None, without a change, if it does not fit: outside
        the grid, mostly outside the lungs, or on dense tissue.
    """
    spacing = np.array(geometry.GetSpacing()[::-1])
    outward = _outward(inside, voxel, spacing) if cube.attachment is not None else None
    matrix = _orientation(cube, outward, rng) / rng.uniform(*scale)
    box = _box(cube, matrix, voxel, spacing, hu.shape)
    if box is None:
        return None
    coverage, donor = _resampled(cube, matrix, voxel, spacing, box)
    room = ndimage.distance_transform_edt(~inside[box], spacing) <= _OUTSIDE_MM
    mask = (coverage >= 0.5) & room
    whole = np.count_nonzero(coverage >= 0.5)
    beneath = hu[box].astype(np.float32)
    if not whole or np.count_nonzero(mask & inside[box]) < 0.6 * whole:
        return None
    if np.mean(beneath[mask & inside[box]] > DENSE_HU) > HIDDEN_SHARE:
        return None
    apart = ndimage.distance_transform_edt(coverage < 0.5, spacing)
    around = (apart > 2 * RIM_MM) & (donor < DENSE_HU), inside[box] & (beneath < DENSE_HU)
    donor, noises = _matched(donor, beneath, *around)
    fade = max(RIM_MM, float(spacing[1]))
    weight = np.clip(1.5 - apart / (2 * fade), 0, 1) * room  # 1 in the nodule and its border
    blended = beneath + weight * (donor - beneath)
    # Two independent noises cancel out in their mean: it is brought back to their strength.
    mixed = weight * noises[0] + (1 - weight) * noises[1]
    blended += mixed * (1 / np.hypot(weight, 1 - weight) - 1)
    # The host's vessels and walls are kept: they are visible in ground glass and must not be cut.
    blended = np.where(beneath > DENSE_HU, np.maximum(blended, beneath), blended)
    hu[box] = np.rint(blended) if np.issubdtype(hu.dtype, np.integer) else blended
    return box, mask & inside[box]


def shell_around(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The second and third layer of voxels around a nodule: it blurs the first itself."""
    near, beyond = (ndimage.binary_dilation(mask, iterations=n) for n in (1, 3))
    return beyond & ~near


def _matched(
    donor: NDArray[np.float32],
    host: NDArray[np.float32],
    around: NDArray[np.bool_],
    lung: NDArray[np.bool_],
) -> tuple[NDArray[np.float32], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Bring a donor to the density and the noise of the host's lung.

    Args:
        donor: HU on the host's grid.
        host: HU beneath it.
        around: lung around the donor's nodule.
        lung: lung of the host.

    Returns:
        The donor, and the fine noise that is now in it and in the host.
    """
    noise, own = fine_noise(donor), fine_noise(host)
    if min(np.count_nonzero(around), np.count_nonzero(lung)) < 20:
        return donor, (noise, own)
    level, wanted = np.median(donor[around]), np.median(host[lung])
    share = np.clip((TISSUE_HU - donor) / (TISSUE_HU - level), 0, 1)  # of lung in each voxel
    strength, aim = noise[around].std(), own[lung].std()
    if strength > aim:
        change = (aim / strength - 1) * noise
    else:
        change = np.sqrt(1 - (strength / max(aim, 1.0)) ** 2) * own
    return donor + (wanted - level) * share + change, (noise + change, own)


def _read_textures(table: Path) -> dict[str, NoduleKind]:
    """Read the texture of each file from the table, empty if there is none."""
    if not table.is_file():
        return {}
    try:
        with csv_files.open_table(table) as (_, rows):
            listed = list(rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} cannot be read as CSV ({error}): save it as UTF-8.") from error
    textures = {}
    for line, row in listed:
        text = (row.get("Texture_value") or row.get("texture") or "").strip()
        try:
            if text:
                textures[row.get("file", "").strip()] = NoduleKind.of_texture(text)
        except ValueError:
            raise InputError(
                f"{table} line {line}: '{text}' is not a texture; write a rating from 1 (ground "
                "glass) to 5 (solid), or leave it empty."
            ) from None
    return textures


def _read_cube(image: Path, mask: Path) -> NoduleCube | None:
    """Read one nodule; None if its mask is empty."""
    try:
        hu, outline = read_labels(image), read_labels(mask)
    except InputError as error:
        raise InputError(f"{image} or {mask} is missing or damaged: cut it again.") from error
    if hu.GetSize() != outline.GetSize():
        raise InputError(f"{mask} does not match {image}: cut both from one scan.")
    outline.CopyInformation(hu)
    hu, outline = (AxialView.of(one, AIR_HU).image for one in (hu, outline))
    inside = sitk.GetArrayFromImage(outline) > 0
    if not inside.any():
        return None
    values = np.clip(sitk.GetArrayFromImage(hu), -1100, 3000).astype(np.int16)
    return NoduleCube(image.name.split(".")[0], values, inside, hu.GetSpacing()[::-1])


def _outward(
    inside: NDArray[np.bool_], voxel: tuple[int, int, int], spacing: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return the outward direction (y, x) near a voxel on the lung's surface."""
    z, y, x = voxel
    reach = [int(np.ceil(6 / step)) for step in spacing[1:]]
    top, left = max(y - reach[0], 0), max(x - reach[1], 0)
    patch = inside[z, top : y + reach[0] + 1, left : x + reach[1] + 1]
    outside = np.argwhere(~patch)
    if not len(outside) or not patch.any():
        return None
    away = (outside.mean(axis=0) + np.array([top - y, left - x])) * spacing[1:]
    length = np.linalg.norm(away)
    return away / length if length > 0.5 else None


def _orientation(
    cube: NoduleCube, outward: NDArray[np.float64] | None, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw a rotation and flips as a matrix from host to donor, (z, y, x) in mm."""
    flips = np.diag(rng.choice([-1.0, 1.0], 3))
    angle = rng.uniform(0, 2 * np.pi)
    if outward is not None and cube.attachment is not None:
        hangs = flips[1:, 1:] @ cube.attachment  # its direction after flipping
        angle = np.arctan2(outward[0], outward[1]) - np.arctan2(hangs[0], hangs[1])
        angle += rng.normal(0, 0.2)
    turn = np.eye(3)
    turn[1:, 1:] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    return np.asarray(np.linalg.inv(turn @ flips), float)


def _box(
    cube: NoduleCube,
    matrix: NDArray[np.float64],
    voxel: tuple[int, int, int],
    spacing: NDArray[np.float64],
    shape: tuple[int, ...],
) -> Box | None:
    """Return the box of the nodule and its border, None if it exceeds the grid."""
    extent = np.ptp(np.argwhere(cube.mask), axis=0) / 2 * cube.spacing + 3 * RIM_MM
    reach = np.abs(np.linalg.inv(matrix)) @ extent
    steps = np.ceil(reach / spacing).astype(int) + 1
    low, high = np.array(voxel) - steps, np.array(voxel) + steps + 1
    if (low < 0).any() or (high > shape).any():
        return None
    return box_between(low, high)


def _resampled(
    cube: NoduleCube,
    matrix: NDArray[np.float64],
    voxel: tuple[int, int, int],
    spacing: NDArray[np.float64],
    box: Box,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Resample mask (coverage, 0…1) and HU to the host's grid, averaged over its thicker slices."""
    donor_spacing = np.array(cube.spacing)
    centre = np.argwhere(cube.mask).mean(axis=0)
    samples = max(1, int(np.ceil(spacing[0] / donor_spacing[0])))
    shares = (np.arange(samples) + 0.5) / samples - 0.5
    axes = [
        (np.arange(one.start, one.stop) - at) * step
        for one, at, step in zip(box, voxel, spacing, strict=True)
    ]
    sums = [np.zeros([len(axis) for axis in axes], np.float32) for _ in range(2)]
    mask = cube.mask.astype(np.float32)
    for share in shares:
        offsets = np.stack(np.meshgrid(axes[0] + share * spacing[0], *axes[1:], indexing="ij"))
        index = np.tensordot(matrix, offsets, 1) / donor_spacing[:, None, None, None]
        index += centre[:, None, None, None]
        sums[0] += ndimage.map_coordinates(mask, index, order=1, mode="constant")
        sums[1] += ndimage.map_coordinates(
            cube.hu.astype(np.float32), index, order=1, mode="nearest"
        )
    return (sums[0] / samples).astype(np.float32), (sums[1] / samples).astype(np.float32)
