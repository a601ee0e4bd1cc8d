"""Attenuation of a nodule: HU statistics, type, and the solid component."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from LungNoduleSegLib.nodules.table import NoduleKind

SOLID_HU = -300
"""Above it a voxel is solid, below it ground glass: the threshold at which software told
part-solid from non-solid nodules best in Scholten et al., Eur Radiol 2015;25:488-496."""

LUNG_HU = -600
"""Aerated lung lies below it, whatever the breath; nodules are compared with the lung nearby."""

SOFT_HU = 50
"""Soft tissue; a denser, calcified core does not move the edge inwards."""

LEAST_CONTRAST_HU = 100
"""A nodule is denser than the lung around it by this at least."""

MIN_SOLID_FRACTION = 0.06
"""Less solid volume than this share makes a nodule non-solid: the cut-off found for -300 HU in
102 subsolid nodules (Zhongguo Fei Ai Za Zhi, threshold segmentation of pulmonary subsolid
nodules on CT images)."""

MIN_GROUND_GLASS_FRACTION = 0.2
"""Ground glass that makes a nodule with a solid part part-solid (our own choice)."""

EDGE_BLUR_MM = 1.5
"""Half-way values this near to solid tissue are its blurred edge, not ground glass."""

CALCIUM_HU = 200
"""Above it a voxel is calcified. Siegelman et al., AJR 1980;135:1-13, found at most 147 HU in
malignant nodules without calcium and 164 HU or more in calcified ones."""

CALCIUM_NOISE = 1.5
"""So many standard deviations of the lung around lie between `CALCIUM_HU` and the limit, as noise
and sharp kernels lift voxels: what told development nodules of LIDC-IDRI best, docs/accuracy.md."""

MIN_CALCIUM_FRACTION = 0.1
"""Calcified volume that makes the nodule calcified (our own choice)."""


@dataclass(frozen=True)
class Attenuation:
    """Statistics of the HU of a nodule's voxels.

    Percentiles lie between two voxels where they fall between them; the deviation is that of all
    voxels, not of a sample, as the Image Biomarker Standardisation Initiative defines them.
    """

    mean: float
    std: float
    min: float
    p10: float
    median: float
    p90: float
    max: float

    @classmethod
    def of(cls, hu: NDArray[Any]) -> "Attenuation":
        """Describe the HU (n,) of the voxels of a nodule."""
        low, p10, median, p90, high = np.percentile(hu, (0, 10, 50, 90, 100))
        return cls(
            mean=float(hu.mean(dtype=np.float64)),
            std=float(hu.std(dtype=np.float64)),
            min=float(low),
            p10=float(p10),
            median=float(median),
            p90=float(p90),
            max=float(high),
        )


def lung_noise(hu: NDArray[Any]) -> float:
    """Robust standard deviation of the HU that are those of aerated lung; 0 if none are."""
    air = hu[hu < LUNG_HU]
    return 1.4826 * float(np.median(np.abs(air - np.median(air)))) if air.size else 0.0


def nodule_kind(
    hu: NDArray[Any], mask: NDArray[np.bool_], spacing: NDArray[np.float64], noise_hu: float
) -> NoduleKind:
    """Classify a nodule by the HU of its voxels.

    Calcified: at least `MIN_CALCIUM_FRACTION` of its volume above `CALCIUM_HU` by `CALCIUM_NOISE`
    times the noise. Non-solid: less than `MIN_SOLID_FRACTION` above `SOLID_HU`. Part-solid: at
    least `MIN_GROUND_GLASS_FRACTION` below `SOLID_HU` and farther from the solid part than its
    blurred edge, which reaches `EDGE_BLUR_MM` and at least one voxel. Solid: all others. Sources
    are given with the constants.

    Args:
        hu: (z, y, x) HU.
        mask: the nodule's voxels, same shape.
        spacing: mm along (z, y, x).
        noise_hu: of the lung around, see `lung_noise`.
    """
    inside = hu[mask]
    if np.mean(inside > CALCIUM_HU + CALCIUM_NOISE * noise_hu) >= MIN_CALCIUM_FRACTION:
        return NoduleKind.CALCIFIED
    if np.mean(inside > SOLID_HU) < MIN_SOLID_FRACTION:
        return NoduleKind.NON_SOLID
    solid = mask & (hu > SOLID_HU)
    reach = np.maximum(spacing, EDGE_BLUR_MM)
    from_solid = ndimage.distance_transform_edt(~solid, sampling=spacing / reach)
    ground_glass = from_solid[mask] > 1 + 1e-6
    if np.mean(ground_glass) >= MIN_GROUND_GLASS_FRACTION:
        return NoduleKind.PART_SOLID
    return NoduleKind.SOLID


def solid_part(hu: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find the solid part of a nodule: its largest piece above `SOLID_HU`, pieces joined by faces.

    Args:
        hu: (z, y, x) HU.
        mask: the nodule's voxels, same shape; some lie above `SOLID_HU`.
    """
    pieces, _ = ndimage.label(mask & (hu > SOLID_HU))
    largest = np.bincount(pieces.ravel())[1:].argmax() + 1
    return np.asarray(pieces == largest)
