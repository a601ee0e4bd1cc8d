"""Artificial nodules measured, and held against their truth: for the bench and the intervals."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import Pool

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from LungNoduleSegLib.nodules.attenuation import nodule_kind
from LungNoduleSegLib.nodules.measures import axial_diameters
from LungNoduleSegLib.nodules.outline import refine_outline
from LungNoduleSegLib.nodules.table import NoduleKind
from LungNoduleSegLib.phantom.crops import Crop, CropSpec, make_crop


@dataclass(frozen=True)
class Trial:
    """What was measured of one artificial nodule, and the truth.

    Attributes:
        spec: of the nodule.
        spacing: mm along (z, y, x).
        kind: as it was measured.
        attached: whether something had to be cut off.
        noise_hu: of the lung around.
        measured, truth: longest and perpendicular axial diameter (mm), their mean, volume (mm³),
            mean diameter of the solid part (NaN without one).
    """

    spec: CropSpec
    spacing: tuple[float, float, float]
    kind: NoduleKind
    attached: bool
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
    """Make a nodule and measure it; None where no voxel shows it, or the image tells no outline."""
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
    kind, solid = nodule_kind(crop.hu[outline.box], outline.mask, crop.spacing), np.nan
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
        image.noise_hu,
        (both.longest_mm, both.across_mm, mean, image.volume_mm3, solid),
        (crop.longest_mm, crop.across_mm, crop.mean_mm, crop.volume_mm3, truth_solid),
    )


def measure_trials(specs: Iterable[CropSpec], processes: int) -> Iterator[Trial | None]:
    """Measure many nodules, in processes of their own."""
    with Pool(processes) as pool:
        yield from pool.imap(measure_trial, specs, chunksize=4)
