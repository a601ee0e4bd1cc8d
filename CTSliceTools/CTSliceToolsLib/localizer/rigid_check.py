"""The level of one scan in another of the same patient, checked on the voxels themselves."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from CTLungScreeningLib.geometry.axial import AxialView
from CTLungScreeningLib.hu import AIR_HU

GRID_MM = 3.0
SLAB_MM = 24.0
"""What lies so far above and below the level is laid over the other scan."""

SEARCH_MM = 24.0
STEP_MM = 4.0
"""How far from where it is expected the level is looked for, and how finely at first."""

WINDOW_HU = (-300.0, 300.0)
"""Organs and bone count for more than the edge of the body so."""

SAMPLED = 0.1
"""Share of the voxels that are compared."""

REFINED = 3
"""The best of the starts go on from there."""

LEAST_CORRELATION = 0.9
"""Slabs of one patient agree more than this: 0.95 and more in the scans of ../shared/data, 0.75 at
most between two patients."""


@dataclass(frozen=True)
class RigidMatch:
    """Where the slab around a level lies in another scan.

    Attributes:
        z_mm: LPS z of the level there in mm.
        correlation: of the HU of both slabs, −1…1.
    """

    z_mm: float
    correlation: float

    @property
    def same_patient(self) -> bool:
        """Whether the slabs agree as well as those of one patient do."""
        return self.correlation >= LEAST_CORRELATION


def check_level(
    image: sitk.Image, z_mm: float, other: sitk.Image, other_z_mm: float
) -> RigidMatch | None:
    """Lay the slab of another scan around a level over a scan, near where it is expected.

    The slab is moved and turned as a whole, from several starts along z, to where its HU correlate
    best.

    Args:
        image: the scan to look in, HU.
        z_mm: LPS z in mm where the level is expected there.
        other: the scan that shows the level, HU.
        other_z_mm: LPS z of the level in it.

    Returns:
        The place, or None where the scans do not overlap enough.
    """
    fixed = _slab(other, other_z_mm, SLAB_MM)
    moving = _slab(image, z_mm, SLAB_MM + SEARCH_MM)
    if fixed is None or moving is None:
        return None
    shift = _centre(moving) - _centre(fixed)
    centre = (*_centre(fixed), other_z_mm)
    starts = []
    for up in np.arange(-SEARCH_MM, SEARCH_MM + 1, STEP_MM):
        start = sitk.Euler3DTransform()
        start.SetCenter(centre)
        start.SetTranslation((*shift, z_mm + up - other_z_mm))
        starts.append(start)
    starts.sort(key=lambda start: -_correlation(fixed, moving, start))
    found = [_refine(fixed, moving, start) for start in starts[:REFINED]]
    matches = [
        RigidMatch(transform.TransformPoint(centre)[2], _correlation(fixed, moving, transform))
        for transform in found
    ]
    near = [match for match in matches if abs(match.z_mm - z_mm) <= SEARCH_MM + STEP_MM]
    return max(near, key=lambda match: match.correlation, default=None)


def _slab(image: sitk.Image, z_mm: float, reach_mm: float) -> sitk.Image | None:
    """The axial slices within a distance of a level on a grid of `GRID_MM`, windowed."""
    axial = AxialView.of(image, AIR_HU).image
    origin, spacing = np.array(axial.GetOrigin()), np.array(axial.GetSpacing())
    last = origin + (np.array(axial.GetSize()) - 1) * spacing
    low, high = max(z_mm - reach_mm, origin[2]), min(z_mm + reach_mm, last[2])
    if high - low < SLAB_MM:
        return None
    first = np.array([origin[0], origin[1], low])
    size = np.maximum(1, ((np.array([last[0], last[1], high]) - first) / GRID_MM).astype(int) + 1)
    slab = sitk.Resample(
        axial,
        size.tolist(),
        sitk.Transform(),
        sitk.sitkLinear,
        first.tolist(),
        (GRID_MM,) * 3,
        np.eye(3).ravel().tolist(),
        AIR_HU,
        sitk.sitkFloat32,
    )
    return sitk.Clamp(slab, sitk.sitkFloat32, *WINDOW_HU)


def _centre(slab: sitk.Image) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """LPS x and y of the middle of the body."""
    tissue = sitk.GetArrayViewFromImage(slab) > WINDOW_HU[0]
    columns, rows = tissue.sum((0, 1)), tissue.sum((0, 2))
    index = [float(line @ np.arange(len(line)) / max(line.sum(), 1)) for line in (columns, rows)]
    return np.array(slab.GetOrigin()[:2]) + np.array(index) * GRID_MM


def _registration(fixed: sitk.Image, moving: sitk.Image) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(sitk.ImageRegistrationMethod.REGULAR)
    method.SetMetricSamplingPercentage(SAMPLED, 1)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _correlation(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> float:
    """Correlation of both where they overlap; −1 if they do not."""
    method = _registration(fixed, moving)
    method.SetInitialTransform(transform)
    try:
        return float(np.sqrt(max(0.0, -method.MetricEvaluate(fixed, moving))))
    except RuntimeError:
        return -1.0


def _refine(fixed: sitk.Image, moving: sitk.Image, start: sitk.Transform) -> sitk.Transform:
    method = _registration(fixed, moving)
    method.SetInitialTransform(sitk.Euler3DTransform(start), inPlace=False)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.1, 60, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    try:
        return method.Execute(fixed, moving)
    except RuntimeError:
        return start
