"""Align two chest CTs of one patient by their lungs.

Position and depth of breath differ between two scans. Each lung is aligned separately: first by its
centre and extent along the patient's axes (or only by the upper or lower end, where a scan cuts the
lung off), then by an affine registration of its content.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import AxialView, crop_to, onto_grid
from CTLungScreeningLib.hu import AIR_HU
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG
from LungNoduleSegLib.nodules.table import Side

SPACING_MM = 3.0
"""Voxel size for the registration, which resolves the lungs and larger vessels, not nodules."""

TISSUE_HU = -200.0
"""Density assigned to everything outside the lungs, so that only the lungs are aligned."""

ALIKE = 0.7
"""Correlation of two aligned lungs below which they are not taken for the same (our own choice).
One patient reaches 0.91 or more (phantoms; LIDC-IDRI-0012, deformed as by breathing out, 0.94), two
patients 0.57 at most (phantoms; LIDC-IDRI-0001 and 0012, 0.32), parts of the chest without a common
slice 0.29. Lungs of any of them overlap well after an affine alignment."""

LABELS = {Side.RIGHT: RIGHT_LUNG, Side.LEFT: LEFT_LUNG}


@dataclass(frozen=True)
class Alignment:
    """Mapping of points between two scans.

    Attributes:
        to_current: for each lung the transform from the prior to the current scan, LPS mm.
        overlap: for each lung the Dice coefficient of the transformed prior and the current lung,
            within the field of view of the current scan.
        likeness: for each lung the correlation of HU of the two scans where both show it, without
            its surface, from −1 to 1; 0 if there is no such place.
    """

    to_current: Mapping[Side, sitk.Transform]
    overlap: Mapping[Side, float]
    likeness: Mapping[Side, float]

    def agrees(self, side: Side) -> bool:
        """Whether a lung is in both scans and looks the same, so that the alignment holds."""
        return self.likeness.get(side, 0.0) >= ALIKE

    def current_point(
        self, side: Side, point: tuple[float, float, float]
    ) -> tuple[float, float, float]:
        """Map a point of the prior scan, in or near the lung `side`, to the current scan."""
        x, y, z = self.to_current[side].TransformPoint(point)
        return x, y, z

    def prior_point(
        self, side: Side, point: tuple[float, float, float]
    ) -> tuple[float, float, float]:
        """Map a point of the current scan to the prior scan."""
        x, y, z = self.to_current[side].GetInverse().TransformPoint(point)
        return x, y, z


def align(
    prior_hu: sitk.Image, prior_lungs: sitk.Image, current_hu: sitk.Image, current_lungs: sitk.Image
) -> Alignment:
    """Align each lung of the prior scan with that of the current one; deterministic.

    Args:
        prior_hu: HU, any orientation, LPS mm.
        prior_lungs: `RIGHT_LUNG`, `LEFT_LUNG`, on any grid.
        current_hu: HU of the other scan, on any grid.
        current_lungs: its lungs.

    Raises:
        InputError: if the two scans have no lung in common.
    """
    prior, current = _coarse(prior_hu, prior_lungs), _coarse(current_hu, current_lungs)
    both = [side for side in LABELS if prior.has(side) and current.has(side)]
    if not both:
        raise InputError("The two scans have no lung in common: choose scans of the same chest.")
    transforms, overlap, likeness = {}, {}, {}
    for side in both:
        label = LABELS[side]
        starts = _by_extent(prior.points(label), current.points(label))
        transforms[side] = _registered(prior, current, label, starts)
        overlap[side] = _dice(prior, current, label, transforms[side])
        likeness[side] = _likeness(prior, current, label, transforms[side])
    for side in set(LABELS) - set(both):
        transforms[side] = transforms[both[0]]
    return Alignment(transforms, overlap, likeness)


@dataclass(frozen=True)
class _LungGrid:
    """HU and lungs of one scan on one coarse axial grid."""

    hu: sitk.Image
    lungs: sitk.Image

    def has(self, side: Side) -> bool:
        return bool((sitk.GetArrayViewFromImage(self.lungs) == LABELS[side]).any())

    def points(self, label: int) -> NDArray[np.float64]:
        """LPS mm (n, 3) of the voxels of a lung; the grid is nearly axial."""
        indices = np.argwhere(sitk.GetArrayViewFromImage(self.lungs) == label)[:, ::-1]
        directions = np.reshape(self.lungs.GetDirection(), (3, 3)) * self.lungs.GetSpacing()
        return indices @ directions.T + self.lungs.GetOrigin()

    def content(self, label: int) -> sitk.Image:
        """The content of one lung, float32; everything else is tissue."""
        inside = self.lungs == label
        clipped = sitk.Clamp(self.hu, sitk.sitkFloat32, AIR_HU, TISSUE_HU)
        return sitk.Mask(clipped, inside, TISSUE_HU)


def _coarse(hu: sitk.Image, lungs: sitk.Image) -> _LungGrid:
    axial = AxialView.of(hu, AIR_HU).image
    lungs = onto_grid(lungs, axial)
    if not sitk.GetArrayViewFromImage(lungs).any():
        raise InputError("One of the two scans shows no lung: choose a chest CT.")
    lungs, hu = crop_to(lungs, axial)
    spacing = np.array(hu.GetSpacing())
    coarse = np.maximum(spacing, SPACING_MM)
    size = np.maximum(np.ceil(np.array(hu.GetSize()) * spacing / coarse), 1).astype(int)
    grid = {
        "size": size.tolist(),
        "outputOrigin": hu.GetOrigin(),
        "outputSpacing": coarse.tolist(),
        "outputDirection": hu.GetDirection(),
    }
    smooth = sitk.SmoothingRecursiveGaussian(hu, np.maximum(coarse / 2, 1e-3).tolist())
    return _LungGrid(
        sitk.Resample(smooth, **grid, defaultPixelValue=AIR_HU),
        sitk.Resample(lungs, **grid, interpolator=sitk.sitkNearestNeighbor),
    )


def _by_extent(
    prior: NDArray[np.float64], current: NDArray[np.float64]
) -> list[sitk.AffineTransform]:
    """Match the centre and the extent of a lung along each axis of the patient, in three ways.

    The extent is that of the central 96 % of the voxels, as the outermost ones are unreliable. The
    first way matches both ends of the lung; the others, for a lung that a scan cuts off, match the
    upper or the lower end without scaling.
    """
    low, high = np.quantile(prior, (0.02, 0.98), axis=0)
    to_low, to_high = np.quantile(current, (0.02, 0.98), axis=0)
    scale = np.clip((to_high - to_low) / np.maximum(high - low, 1), 0.6, 1.6)
    middle, to_middle = (low + high) / 2, (to_low + to_high) / 2
    ways = [(scale, middle, to_middle)]
    for end, to_end in ((high, to_high), (low, to_low)):
        ways.append(
            (np.ones(3), np.array([*middle[:2], end[2]]), np.array([*to_middle[:2], to_end[2]]))
        )
    found = []
    for stretch, here, there in ways:
        transform = sitk.AffineTransform(3)
        transform.SetMatrix(np.diag(stretch).ravel().tolist())
        transform.SetCenter(here.tolist())
        transform.SetTranslation((there - here).tolist())
        found.append(transform)
    return found


def _registered(
    prior: _LungGrid, current: _LungGrid, label: int, starts: Sequence[sitk.AffineTransform]
) -> sitk.AffineTransform:
    """Refine the best of some affine transforms by correlation inside the lung."""
    fixed, moving = prior.content(label), current.content(label)
    around = sitk.BinaryDilate(prior.lungs == label, [3, 3, 3])
    box = sitk.LabelShapeStatisticsImageFilter()
    box.Execute(around)
    bounds = box.GetBoundingBox(1)
    fixed, around = (
        sitk.RegionOfInterest(image, bounds[3:], bounds[:3]) for image in (fixed, around)
    )
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # sums over several threads are not reproducible
    method.SetMetricAsCorrelation()
    method.SetMetricFixedMask(around)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=0.02, numberOfIterations=60, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([3, 1])
    method.SetSmoothingSigmasPerLevel([4, 0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()

    def metric(transform: sitk.Transform) -> float:
        method.SetInitialTransform(transform, inPlace=False)
        try:
            return float(method.MetricEvaluate(fixed, moving))
        except RuntimeError:  # too little of the lung is in both scans
            return 0.0

    start = min(starts, key=metric)
    method.SetInitialTransform(start, inPlace=False)
    try:
        composite = sitk.CompositeTransform(method.Execute(fixed, moving))
    except RuntimeError:
        return start
    return min((sitk.AffineTransform(composite.GetNthTransform(0)), start), key=metric)


def _dice(prior: _LungGrid, current: _LungGrid, label: int, to_current: sitk.Transform) -> float:
    """Overlap of the prior lung with the current one resampled to its grid."""
    outside = 255
    moved = sitk.GetArrayFromImage(
        sitk.Resample(current.lungs, prior.lungs, to_current, sitk.sitkNearestNeighbor, outside)
    )
    one = (sitk.GetArrayViewFromImage(prior.lungs) == label) & (moved != outside)
    other = moved == label
    return float(2 * np.count_nonzero(one & other) / max(one.sum() + other.sum(), 1))


def _likeness(
    prior: _LungGrid, current: _LungGrid, label: int, to_current: sitk.Transform
) -> float:
    """Correlation of HU of the prior lung with the current one resampled to its grid.

    Without the outermost voxels, as the surfaces of any two aligned lungs are alike.
    """
    here, inside = (sitk.BinaryErode(scan.lungs == label, [1, 1, 1]) for scan in (prior, current))
    grid = prior.hu, to_current
    moved = sitk.Resample(current.content(label), *grid, sitk.sitkLinear, TISSUE_HU)
    there = sitk.Resample(inside, *grid, sitk.sitkNearestNeighbor, 0)
    both = sitk.GetArrayFromImage(sitk.And(here, there)) > 0
    one, other = (sitk.GetArrayFromImage(image)[both] for image in (prior.content(label), moved))
    if not both.any() or one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])
