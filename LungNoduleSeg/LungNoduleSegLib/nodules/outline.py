"""The outline of a nodule as its image shows it, found from a rough mark of where it is."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import brentq
from scipy.special import gammainc

from CTLungScreeningLib.geometry import Box, distance_mm, grown, in_crop, out_of_crop
from LungNoduleSegLib.nodules.attenuation import (
    LEAST_CONTRAST_HU,
    LUNG_HU,
    MIN_SOLID_FRACTION,
    SOFT_HU,
    SOLID_HU,
)
from LungNoduleSegLib.nodules.table import Outline
from LungNoduleSegLib.nodules.vessels import BLUR_MM, VESSEL_MM, cut_free
from LungNoduleSegLib.nodules.wall import lung_side

MARGIN_MM = 12.0
"""Surroundings that are looked at, at least; more around a large nodule."""

MOST_AT_RIM = 0.1
"""What goes on beyond that has at least this share of the cross-section of a sphere as large; a
nodule with a thin vessel has less."""

MIN_GAIN = 1.5
"""A part-solid nodule is larger than what was taken for its solid part by this factor at least."""

MOSTLY_HAZE, RESOLVED_HU = 0.3, -150
"""Unless its solid part, outlined within it, has at most this share of its volume, and is dense
enough not to be a small nodule that the blur spreads."""

MOST_SOLID = 0.6
"""A nodule whose solid part has more of its volume than this is solid with a hazy rim."""

MOST_HAZE = 6.0
"""Ground glass larger than this many marks is the clutter of vessels and bronchi."""

MOST_BESIDE, MOST_SOLID_BESIDE = 4.5, 0.45
"""Likewise, and as `MOST_SOLID`, where the mark shows no ground glass: blur and inflamed lung look
like it."""

HAZE_HU = 180
"""Ground glass around a solid part is denser than lung by at least this."""

RIM_MM = (1.5, 2.5)
"""How far from a solid part, within its slices, ground glass is looked for: beyond the blur."""

MIN_HAZY = 0.7
"""Ground glass lies along this share of a solid part's edge at least; vessels along less."""

MIN_BEYOND = 0.15
"""A mark of which this share lies beyond a solid part and its blur shows ground glass."""

PSF_MM, ACROSS = 0.75, 0.63
"""Standard deviation of the whole blur within slices, and across them as a share of their distance;
chosen on artificial nodules of 4 to 9 mm."""

LEAST_RECOVERY = 0.4
"""Corrected for the blur, a volume keeps this share at least."""

PARTLY = 1.5
"""Voxels that are partly in a nodule reach this many of their widths beyond its mask."""

SMOOTH_MM = 0.5
"""Standard deviation of the Gaussian that takes away noise."""

FAINT, MOST_SMOOTHING = 5.0, 2.4
"""Ground glass is smoothed the more, up to this factor, the less it stands out from the noise."""

GAP_MM = 1.0
"""Gaps within ground glass up to twice this wide belong to it."""

TIE = 1e-4
"""Lifts voxels that lie on the surface by a hair, so that none is without an outline."""

FURTHEST_FROM_MARK = (0.2, 8.0)
"""Volume over that of the mark: beyond this something else was outlined."""


@dataclass(frozen=True, eq=False)
class ImageOutline:
    """What the image shows of a nodule.

    Attributes:
        field: float32, of the shape of the box: the nodule's surface is where it crosses 0.5.
        volume_mm3: with the voxels at the edge counted by their share, and less than the voxels of
            a small nodule, which the blur makes larger.
        solid: the same field for the solid part of a part-solid nodule, else None.
        noise_hu: robust standard deviation of the lung around.
        attached: whether a vessel or the wall of the lung had to be cut off.
        contact: share of its surface that borders on vessels or wall.
    """

    field: NDArray[np.float32]
    volume_mm3: float
    solid: NDArray[np.float32] | None
    noise_hu: float
    attached: bool
    contact: float


@dataclass(frozen=True, eq=False)
class NoduleOutline:
    """The voxels of a nodule, and their origin.

    Attributes:
        box: where the nodule lies, (z, y, x) of the grid.
        mask: its voxels within the box.
        made_by: origin of the outline.
        image: what the image shows, if that made it.
    """

    box: Box
    mask: NDArray[np.bool_]
    made_by: Outline
    image: ImageOutline | None = None


@dataclass(frozen=True, eq=False)
class _Part:
    """A nodule or its core on the crop: `field` crosses 0.5 at the surface, `level` is its HU.

    `less_lung_mm3` is its volume without the lung's share of what its blurred edge holds.
    """

    field: NDArray[np.float32]
    volume_mm3: float
    less_lung_mm3: float
    level: float
    cut: bool
    contact: float


def refine_outline(
    hu: NDArray[Any],
    lungs: NDArray[Any],
    spacing: NDArray[np.float64],
    box: Box,
    mark: NDArray[np.bool_],
    owner: NDArray[Any] | None = None,
    number: int = 0,
) -> NoduleOutline | None:
    """Outline a nodule where attenuation is half-way between its own and its surroundings'.

    Volume is the sum of each voxel's share: how far its attenuation lies from the surroundings'
    to the nodule's, corrected for the blur that makes small nodules fainter. Where tissue goes on
    into the wall of the lung, a smooth surface laid through the wall around the nodule cuts it
    (`lung_side`); vessels are cut off (`cut_free`). Ground glass is outlined half-way between lung
    and ground glass, its solid part half-way between both.

    Args:
        hu: (z, y, x) HU of the scan.
        lungs: non-zero in the lungs, same shape.
        spacing: mm along (z, y, x).
        box: where the mark lies in the scan.
        mark: (z, y, x) rough mask of the nodule within `box`.
        owner: number of the nodule that each voxel belongs to, 0 for none, of the shape of `hu`;
            None if there are no others.
        number: of this nodule in `owner`.

    Returns:
        The outline; None if the image shows none.
    """
    within = partial(_refined, hu, lungs, spacing, box, mark, owner, number)
    widest = reach_mm(mark, spacing)
    margin = max(MARGIN_MM, widest / 2)
    try:
        return within(margin, last=margin == widest)
    except _EscapedError:
        return within(widest, last=True)


class _EscapedError(Exception):
    """A part goes on beyond the crop."""


def _refined(
    hu: NDArray[Any],
    lungs: NDArray[Any],
    spacing: NDArray[np.float64],
    box: Box,
    mark: NDArray[np.bool_],
    owner: NDArray[Any] | None,
    number: int,
    margin_mm: float,
    last: bool,
) -> NoduleOutline | None:
    """Outline a nodule within a margin around its mark; other arguments as for `refine_outline`.

    Raises:
        _EscapedError: if it goes on beyond, unless this is the last try.
    """
    crop = _crop(box, hu.shape, spacing, margin_mm)
    finer = max(1, round(spacing[0] / max(spacing[1], 0.7)))
    fine = spacing / (finer, 1, 1)
    native = np.clip(hu[crop].astype(np.float32), -1024, SOFT_HU)
    density = _between_slices(native, finer)
    inside = np.zeros(native.shape, bool)
    inside[in_crop(box, crop)] = mark
    inside = np.repeat(inside, finer, axis=0)
    lung = np.repeat(lungs[crop] > 0, finer, axis=0)

    away = distance_mm(inside, fine)
    air = lung & (density < LUNG_HU) & (away > 2)
    if air.sum() < 50:
        return None
    near = air & (away < 10)
    lung_hu = density[near if near.sum() >= 50 else air]
    around, mean = float(np.median(lung_hu)), float(lung_hu.mean())
    noise = 1.4826 * float(np.median(np.abs(density[air] - around)))
    free = lung_side(density > (around + SOFT_HU) / 2, lung, inside, away, fine)
    if owner is not None:
        others = (owner[crop] != 0) & (owner[crop] != number)
        free &= ~np.repeat(others, finer, axis=0)
    if (inside & free).any():
        inside &= free
    smooth = ndimage.gaussian_filter(density, SMOOTH_MM / fine)
    densest, peak = _densest(smooth, inside)
    if peak < SOLID_HU:
        faint = np.clip(FAINT * noise / max(peak - around, 1), 1, MOST_SMOOTHING)
        smooth = ndimage.gaussian_filter(density, SMOOTH_MM * faint / fine)
        densest, peak = _densest(smooth, inside)
    if peak < around + max(LEAST_CONTRAST_HU, 2 * noise):
        return None
    seed = _deepest(densest, fine)
    rim = np.repeat(_rim(crop, len(hu)), finer, axis=0)
    nodule = solid = None
    for where in (free, free & (lung | inside)):
        scene = _Scene(density, smooth, where, rim, last, inside, fine, around, mean)
        found, core, complete = _outlined(scene, peak, seed)
        if nodule is None or complete:
            nodule, solid = found, core
        if complete:
            break
    marked = mark.sum() * spacing.prod()
    least, most = FURTHEST_FROM_MARK
    if nodule is None or not least <= nodule.volume_mm3 / marked <= most:
        return None
    field = _on_slices(nodule, finer, spacing)
    found = ndimage.find_objects((field >= 0.5).view(np.uint8), 1)
    if not found or found[0] is None:
        return None
    inner = grown(found[0], 2, field.shape)
    shown = ImageOutline(
        field[inner],
        _recovered(max(nodule.less_lung_mm3, nodule.volume_mm3 / 2), spacing),
        None if solid is None else _on_slices(solid, finer, spacing)[inner],
        noise,
        nodule.cut,
        nodule.contact,
    )
    return NoduleOutline(out_of_crop(inner, crop), shown.field >= 0.5, Outline.IMAGE, shown)


@dataclass(frozen=True, eq=False)
class _Scene:
    """The crop around a mark, its slices divided so that voxels are about cubes.

    Attributes:
        density: HU, at most `SOFT_HU`.
        smooth: the same, blurred by half a millimetre.
        free: the lung's side of its wall.
        rim: the faces of the crop beyond which the scan goes on.
        last: whether there will be no wider crop.
        mark: the rough mask.
        spacing: mm along (z, y, x).
        around: median HU of the lung around.
        mean: its mean HU, which its finer vessels raise.
    """

    density: NDArray[np.float32]
    smooth: NDArray[np.float32]
    free: NDArray[np.bool_]
    rim: NDArray[np.bool_]
    last: bool
    mark: NDArray[np.bool_]
    spacing: NDArray[np.float64]
    around: float
    mean: float


def _outlined(
    scene: _Scene, peak: float, seed: tuple[int, ...]
) -> tuple[_Part | None, _Part | None, bool]:
    """Outline the nodule, and its solid part if it is part-solid.

    The last value is False if ground glass that the mark shows is missing: it ran into a wall.
    """
    around, spacing = scene.around, scene.spacing
    solid_voxels = scene.mark & (scene.smooth > SOLID_HU)
    if solid_voxels.sum() < MIN_SOLID_FRACTION * scene.mark.sum():
        hazy = scene.smooth[scene.mark & (scene.smooth <= SOLID_HU) & _deep(scene.mark, spacing)]
        level = float(np.median(hazy)) if len(hazy) else peak
        whole = _grown(scene, scene.smooth, seed, around, level, SOLID_HU)
        return whole, None if whole is None else _core(scene, whole), whole is not None
    seed = _deepest(solid_voxels, spacing)
    level = float(np.percentile(scene.smooth[solid_voxels], 75))
    solid = _grown(scene, scene.density, seed, around, level)
    # At the low threshold of ground glass the blur of vessels and of the solid part join, however
    # wide they are.
    hazy_from = partial(
        _grown, scene, scene.smooth, seed, around, at_most=SOLID_HU, vessel_mm=np.inf
    )
    if solid is None:  # a vessel that runs on, perhaps through ground glass
        shown = _shown_haze(scene, solid_voxels)
        whole = None if shown is None else hazy_from(shown, rough=True)
        return whole, None if whole is None else _core(scene, whole), whole is not None
    haze, marked = _haze(scene, solid)
    if haze is None:
        return solid, None, True
    whole = hazy_from(haze)
    most = (MOST_HAZE if marked else MOST_BESIDE) * scene.mark.sum() * spacing.prod()
    if whole is None or whole.volume_mm3 > most:
        return solid, None, not marked
    core = _core(scene, whole)
    solid_share = 0.0 if core is None else core.volume_mm3 / whole.volume_mm3
    mostly_haze = level > RESOLVED_HU and solid_share <= MOSTLY_HAZE
    rim = not marked and solid_share > MOST_SOLID_BESIDE
    if rim or (whole.volume_mm3 < MIN_GAIN * solid.volume_mm3 and not mostly_haze):
        return solid, None, True
    if whole.cut and scene.free.all():  # elsewhere a rough surface comes out the same
        whole = hazy_from(haze, rough=True)
    return whole, core if solid_share <= MOST_SOLID else None, True


def _densest(
    smooth: NDArray[np.float32], mark: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], float]:
    """Return the denser part of a mark and its attenuation."""
    core = mark & (smooth >= np.percentile(smooth[mark], 70))
    return core, float(np.median(smooth[core]))


def _core(scene: _Scene, whole: _Part) -> _Part | None:
    """Outline the largest solid piece within ground glass; None if there is next to nothing."""
    inside = whole.field >= 0.5
    pieces, count = ndimage.label(inside & (scene.smooth > SOLID_HU))
    if not count:
        return None
    largest = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    if largest.sum() < MIN_SOLID_FRACTION * inside.sum():
        return None
    seed = _deepest(largest, scene.spacing)
    level = float(np.percentile(scene.smooth[largest], 75))
    haze = scene.smooth[inside & _far_from(largest, scene.spacing)]
    around = float(np.median(haze)) if len(haze) else whole.level
    return _grown(scene, scene.smooth, seed, around, level, within=inside)


def _deep(
    mask: NDArray[np.bool_], spacing: NDArray[np.float64], enough_mm: float = BLUR_MM
) -> NDArray[np.bool_]:
    """Return the inner part of a mask: what lies deep enough, or deepest in a small one."""
    depth = ndimage.distance_transform_edt(mask, sampling=spacing)
    return np.asarray(depth >= min(enough_mm, 0.6 * depth.max()))


def _closed(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Close the gaps that the texture of ground glass leaves."""
    if mask.all():
        return mask
    near = ndimage.distance_transform_edt(~mask, sampling=spacing) <= GAP_MM
    return mask | (ndimage.distance_transform_edt(near, sampling=spacing) > GAP_MM)


def _far_from(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the voxels beyond the blurred edge of a mask and those partly in it."""
    if not mask.any():
        return ~mask
    away = ndimage.distance_transform_edt(~mask, sampling=spacing)
    return np.asarray(away > max(BLUR_MM, PARTLY * spacing[1:].max()))


def _grown(
    scene: _Scene,
    density: NDArray[np.float32],
    seed: tuple[int, ...],
    around: float,
    level: float,
    at_most: float = SOFT_HU,
    within: NDArray[np.bool_] | None = None,
    vessel_mm: float = VESSEL_MM,
    rough: bool = False,
) -> _Part | None:
    """Grow a part from the seed to half-way between `around` and its own attenuation.

    Args:
        scene: the crop.
        density: HU to grow in.
        seed: voxel to begin at.
        around: attenuation of what surrounds it.
        level: first estimate of its own.
        at_most: what is denser does not count for its own.
        within: where it may lie; by default on the lung's side of the wall.
        vessel_mm: half the width of what is cut off at most.
        rough: whether its surface is known to be rough.

    Returns:
        The part; None if it is no denser than its surroundings, or goes on beyond the last crop.

    Raises:
        _EscapedError: if it goes on beyond another.
    """
    spacing = scene.spacing
    free = scene.free if within is None else within
    on_wall = at_most < SOFT_HU and not free.all()
    for _ in range(2):
        dense = density > (around + level) / 2
        dense[seed] = True
        if at_most < SOFT_HU:
            dense |= scene.mark & free & _closed(dense, spacing)
        body, rest, cut = cut_free(
            dense & free, seed, spacing, scene.mark, scene.rim, vessel_mm, on_wall, rough
        )
        if (body & scene.rim).sum() > MOST_AT_RIM * np.cbrt(body.sum()) ** 2:
            if scene.last:
                return None
            raise _EscapedError
        at = _around(body, spacing)
        body, near = body[at], density[at]
        deep = _deep(body, spacing, 2 * BLUR_MM)
        if at_most < SOFT_HU:
            hazy = body | (scene.mark & free)[at]
            deep = _deep(hazy, spacing) & _far_from(hazy & (near > at_most), spacing)
        if deep.any():
            level = float(np.median(near[deep]))
        if level <= max(around, scene.mean):
            return None
    shell = ndimage.binary_dilation(body) & ~body
    touching = shell & dense[at]
    cut = cut or bool((touching & ~free[at]).any())
    contact = float(touching.sum() / max(shell.sum(), 1))
    share = (near - around) / (level - around)
    lung = (scene.mean - around) / (level - around) if within is None else 0.0
    field, volume, less_lung = _surface(share, lung, body, rest[at], free[at], spacing)
    surface = np.full(density.shape, field.min(), np.float32)
    surface[at] = field
    return _Part(surface, volume, less_lung, level, cut, contact)


def _surface(
    share: NDArray[np.float32],
    lung: float,
    body: NDArray[np.bool_],
    rest: NDArray[np.bool_],
    free: NDArray[np.bool_],
    spacing: NDArray[np.float64],
) -> tuple[NDArray[np.float32], float, float]:
    """Sum the shares of the voxels in and around a body, and lay its surface to fit the sum.

    Args:
        share: how far attenuation lies from the surroundings' median (0) to the body's own (1).
        lung: the share of the surroundings' mean.
        body: voxels of the body.
        rest: as dense, but cut off.
        free: where the body may lie.
        spacing: mm along (z, y, x).

    Returns:
        A field that crosses 0.5 at the surface, the sum in mm³, and the sum from the mean on.
    """
    scale = spacing / np.maximum(spacing, BLUR_MM)
    outward = ndimage.distance_transform_edt(~body, sampling=scale)
    owned = (outward <= 1.5) & free
    if rest.any():
        owned &= (outward <= ndimage.distance_transform_edt(~rest, sampling=scale)) | body
    inner = ndimage.distance_transform_edt(body, sampling=scale) > 1
    edge = owned & ~inner
    volume, less_lung = (
        float((owned & inner).sum() + np.minimum(shares[edge], 1.2).sum())
        for shares in (share, (share - lung) / (1 - lung))
    )
    field = np.where(owned, share, np.minimum(share, 0))
    field[inner] = np.maximum(field[inner], 1)
    voxel = float(spacing.prod())
    return _holding(field, volume), volume * voxel, less_lung * voxel


def _recovered(volume: float, spacing: NDArray[np.float64]) -> float:
    """Correct a sum of shares for the contrast that the blur takes from a small nodule.

    The sum is contrast times volume over the contrast that is left in the middle. Of a sphere
    blurred by a Gaussian, the share that is left is the chance that the Gaussian lies within the
    sphere, a chi distribution with three degrees of freedom: the sphere that gives the sum counts.

    Args:
        volume: the sum, mm³.
        spacing: mm along (z, y, x) of the scan.
    """
    sigma = float(np.cbrt(PSF_MM**2 * np.hypot(PSF_MM, ACROSS * spacing[0])))

    def excess(true: float) -> float:
        radius = np.cbrt(3 * true / (4 * np.pi))
        return true - volume * float(gammainc(1.5, (radius / sigma) ** 2 / 2))

    least = LEAST_RECOVERY * volume
    return least if excess(least) >= 0 else float(brentq(excess, least, volume))


def _holding(field: NDArray[np.floating[Any]], voxels: float) -> NDArray[np.float32]:
    """Shift a field so that this number of voxels lies above 0.5, more if several are equal."""
    wanted = int(np.clip(round(voxels), 1, field.size - 1))
    values = -np.partition(-field.ravel(), (wanted - 1, wanted))
    edge = (values[wanted - 1] + values[wanted]) / 2
    return np.asarray(field - edge + 0.5 + TIE, np.float32)


def _haze(scene: _Scene, solid: _Part) -> tuple[float | None, bool]:
    """Attenuation of the ground glass around a solid part, and whether the mark shows it.

    None where there is none. Either the mark reaches beyond the solid part, or ground glass lies
    along most of its edge. That is looked for within the slices of the solid part, where slices
    however thick do not blur.
    """
    shown = _shown_haze(scene, solid.field >= 0.5)
    if shown is not None:
        return shown, True
    mask = (solid.field >= 0.5) & (scene.smooth > SOLID_HU)
    areas = mask.sum((1, 2))
    if not areas.any():
        return None, False
    beside = []
    coarser = max(0, PARTLY * scene.spacing[1:].max() - RIM_MM[0])
    rim = RIM_MM[0] + coarser, RIM_MM[1] + coarser
    for k in np.flatnonzero(areas >= 0.25 * areas.max()):
        away = ndimage.distance_transform_edt(~mask[k], sampling=scene.spacing[1:])
        ring = (away > rim[0]) & (away <= rim[1]) & scene.free[k]
        beside.append(scene.smooth[k][ring])
    values = np.concatenate(beside)
    hazy = values[values > scene.around + HAZE_HU]
    if not len(hazy) or len(hazy) < MIN_HAZY * len(values):
        return None, False
    return float(np.median(hazy)), False


def _shown_haze(scene: _Scene, solid: NDArray[np.bool_]) -> float | None:
    """Attenuation of the ground glass that the mark shows beyond what is solid, if it does."""
    beyond = scene.mark & (scene.smooth < SOLID_HU) & _far_from(solid, scene.spacing)
    if beyond.sum() <= MIN_BEYOND * scene.mark.sum():
        return None
    level = float(np.median(scene.smooth[beyond]))
    return level if level > scene.around + LEAST_CONTRAST_HU else None


def _around(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> Box:
    """Return the box around a mask with a margin beyond the reach of the blur."""
    (box,) = ndimage.find_objects(mask.view(np.uint8), 1)
    return _crop(box, mask.shape, spacing, 2 * max(BLUR_MM, float(spacing.max())))


def _deepest(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> tuple[int, ...]:
    depth = ndimage.distance_transform_edt(mask, sampling=spacing)
    return tuple(int(i) for i in np.unravel_index(depth.argmax(), depth.shape))


def reach_mm(mark: NDArray[np.bool_], spacing: NDArray[np.float64]) -> float:
    """Return how far around a mark (z, y, x) is looked at most: as far as it is wide."""
    return max(MARGIN_MM, float(np.cbrt(6 / np.pi * mark.sum() * spacing.prod())))


def _rim(crop: Box, slices: int) -> NDArray[np.bool_]:
    """Mark the faces of a crop: of the upper and lower one those beyond which the scan goes on."""
    rim = np.ones([part.stop - part.start for part in crop], bool)
    ends = slice(int(crop[0].start > 0), len(rim) - int(crop[0].stop < slices))
    rim[ends, 1:-1, 1:-1] = False
    return rim


def _crop(box: Box, shape: tuple[int, ...], spacing: NDArray[np.float64], margin_mm: float) -> Box:
    return grown(box, np.rint(margin_mm / spacing).astype(int) + 1, shape)


def _between_slices(density: NDArray[np.float32], finer: int) -> NDArray[np.float32]:
    """Divide each slice in `finer` ones, linear between the slices' middles."""
    if finer == 1:
        return density
    place = np.clip((np.arange(len(density) * finer) + 0.5) / finer - 0.5, 0, len(density) - 1)
    low = place.astype(int)
    high = np.minimum(low + 1, len(density) - 1)
    weight = (place - low).astype(np.float32)[:, None, None]
    return density[low] * (1 - weight) + density[high] * weight


def _on_slices(part: _Part, finer: int, spacing: NDArray[np.float64]) -> NDArray[np.float32]:
    """Bring a part's field back to the scan's slices, so that its voxels hold its volume."""
    field = part.field.reshape(-1, finer, *part.field.shape[1:]).mean(1)
    return _holding(field, part.volume_mm3 / float(spacing.prod()))
