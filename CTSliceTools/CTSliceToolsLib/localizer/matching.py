"""Find the same level of the body in files, in a scan or in another scan.

The network errs alike where two scans show alike anatomy, above all in a follow-up. So the raw
locations of both, as curves over z, are laid over each other: first the one shift that suits all
slices best, then small shifts of each part. How well the curves agree decides how much they count
against the levels that the two fits give.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import AxialView, ScanAlignment
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTSliceToolsLib.dataset.annotation import read_slice_file
from CTSliceToolsLib.dataset.conversion import read_labelled_slice
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME, LANDMARKS
from CTSliceToolsLib.localizer.prediction import (
    DEFAULT_MODEL,
    UNKNOWN_MM,
    Model,
    ScanPrediction,
    SliceLocation,
    predict_locations,
)
from CTSliceToolsLib.localizer.scan_fit import TWO_SIDED_95

if TYPE_CHECKING:
    from CTSliceToolsLib.localizer.prediction import ScanPrediction


GRID_MM = 3.0
SLAB_MM = 24.0
"""Extent above and below the level that is registered with the other scan."""

SEARCH_MM = 24.0
STEP_MM = 4.0
"""Range of the search for a level around the expected one, and its first step."""

LEAST_SHARED_MM = 20.0
"""Both scans show at least so much of the registered slab: a few neighbouring slices look alike."""

WINDOW_HU = (-300.0, 300.0)
"""With it, organs and bone count for more than the edge of the body."""

SAMPLED = 0.1
"""Share of the voxels that are compared."""

REFINED = 3
"""Number of the best starts that are refined."""

LEAST_CORRELATION = 0.9
"""Slabs of one patient agree more than this: 0.95 and more in the scans of ../shared/data, 0.75 at
most between two patients."""


@dataclass(frozen=True)
class RigidMatch:
    """The position of the slab around a level in another scan.

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
    """Register the slab of another scan around a level with a scan, near the expected level.

    The slab is moved and turned as a whole, from several starts along z, to where its HU correlate
    best. Near an end of the scan it is taken from further inside, so that both scans show it.

    Args:
        image: the scan to look in, HU.
        z_mm: LPS z in mm where the level is expected there.
        other: the scan that shows the level, HU.
        other_z_mm: LPS z of the level in it.

    Returns:
        The place, or None where the scans do not overlap enough.
    """
    scan, other_scan = (AxialView.of(one, AIR_HU).image for one in (image, other))
    low, high = _ends(scan)
    if not low - SLAB_MM <= z_mm <= high + SLAB_MM:
        return None
    inward = float(np.clip(z_mm, low + SLAB_MM, high - SLAB_MM)) - z_mm
    fixed = _slab(other_scan, other_z_mm + inward, SLAB_MM)
    moving = _slab(scan, z_mm + inward, SLAB_MM + SEARCH_MM)
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
        if _shared_mm(fixed, moving, transform) >= LEAST_SHARED_MM
    ]
    near = [match for match in matches if abs(match.z_mm - z_mm) <= SEARCH_MM + STEP_MM]
    return max(near, key=lambda match: match.correlation, default=None)


def _ends(axial: sitk.Image) -> tuple[float, float]:
    """LPS z of the lowest and the highest slice."""
    low = axial.GetOrigin()[2]
    return low, low + (axial.GetDepth() - 1) * axial.GetSpacing()[2]


def _shared_mm(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> float:
    """Extent along z of what a slab shows of another, once it is moved there."""
    low, high = (transform.TransformPoint((*_centre(fixed), z))[2] for z in _ends(fixed))
    there = _ends(moving)
    return min(high, there[1]) - max(low, there[0])


def _slab(axial: sitk.Image, z_mm: float, reach_mm: float) -> sitk.Image | None:
    """The axial slices within a distance of a level on a grid of `GRID_MM`, windowed."""
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
    warn = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # that they do not overlap
    try:
        return float(np.sqrt(max(0.0, -method.MetricEvaluate(fixed, moving))))
    except RuntimeError:
        return -1.0
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warn)


def _refine(fixed: sitk.Image, moving: sitk.Image, start: sitk.Transform) -> sitk.Transform:
    method = _registration(fixed, moving)
    method.SetInitialTransform(sitk.Euler3DTransform(start), inPlace=False)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.1, 60, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    try:
        return method.Execute(fixed, moving)
    except RuntimeError:
        return start


Floats = NDArray[np.float64]

_FIT_SD_MM = 15.0
"""Standard deviation between the fits of two scans.

Fits with anchors are more certain than this, and than the curves, and are not changed.
"""

_PART_MM = 40.0
_PART_SD_MM = 6.0
"""Parts of this length may be shifted by so much against their neighbours: breath, posture."""

_CORRELATION_MM = 20.0
"""Slices closer than this err alike, and count together as one."""

_LEAST_RAW_SD = 0.002
"""Curves of locations agree no better than this, in units of the location."""

_LEAST_OVERLAP_MM = 60.0
"""Minimum overlap; with less, the curves add nothing to the fits."""


def align_scans(scan: "ScanPrediction", other: "ScanPrediction") -> ScanAlignment:
    """Align two scans by the locations of their slices."""
    # Not at the top: it takes half a second, and panels are opened with this.
    from scipy.optimize import least_squares  # noqa: PLC0415

    z, raw = _curve(scan)
    other_z, other_raw = _curve(other)
    by_fits = scan.fit.z_at(other.fit.location_at(other_z))
    rigid = other_z + np.median(by_fits - other_z)
    spacing = float(np.mean(np.diff(other_z)))
    uncertain = scan.fit.uncertainty_at(by_fits), other.fit.uncertainty_at(other_z)
    if 0 < np.median(np.hypot(*uncertain)) / TWO_SIDED_95 < _FIT_SD_MM:
        return ScanAlignment(by_fits, other_z)
    shifts = np.arange(-3 * _FIT_SD_MM, 3 * _FIT_SD_MM + 1)

    def differences(there: Floats) -> Floats:
        """Return the differences of the locations, 0 if only one of the scans covers them."""
        inside = (there >= z[0]) & (there <= z[-1])
        return np.where(inside, np.interp(there, z, raw) - other_raw, 0)

    def cost_and_deviation(guess: Floats, shift: float) -> tuple[float, float]:
        there = guess + shift
        overlap = float(np.sum((there >= z[0]) & (there <= z[-1])) * spacing)
        if overlap < _LEAST_OVERLAP_MM:
            return np.inf, np.inf
        square = float(np.sum(differences(there) ** 2)) * spacing / overlap + _LEAST_RAW_SD**2
        agreement = overlap / _CORRELATION_MM * np.log(square)
        return agreement + (shift / _FIT_SD_MM) ** 2, np.sqrt(square)

    tried = [
        (*cost_and_deviation(guess, shift), guess + shift)
        for guess in (by_fits, rigid)
        for shift in shifts
    ]
    cost, deviation, start = min(tried, key=lambda one: one[0])
    if not np.isfinite(cost):
        return ScanAlignment(by_fits, other_z)
    weight = np.sqrt(min(spacing / _CORRELATION_MM, 1)) / deviation
    parts = np.linspace(
        other_z[0], other_z[-1], max(2, round(float(np.ptp(other_z)) / _PART_MM) + 1)
    )

    def residuals(moves: Floats) -> Floats:
        there = start + np.interp(other_z, parts, moves)
        prior = (moves / _FIT_SD_MM, np.diff(moves) / _PART_SD_MM)
        return np.concatenate([weight * differences(there), *prior])

    moves = least_squares(residuals, np.zeros(len(parts)), loss="soft_l1").x
    found = start + np.interp(other_z, parts, moves)
    return ScanAlignment(_increasing(found, spacing), other_z)


def _curve(scan: "ScanPrediction") -> tuple[Floats, Floats]:
    return (
        np.array([one.z_mm for one in scan.slices]),
        np.array([one.raw for one in scan.slices]),
    )


def _increasing(z_mm: Floats, spacing: float) -> Floats:
    """Make the levels monotone."""
    ramp = np.arange(len(z_mm)) * spacing * 0.1
    return np.maximum.accumulate(z_mm - ramp) + ramp


CHECKED_MM = 30.0
"""Levels so far apart are compared; between them a follow-up moves steadily."""

LEAST_CHECKED = 2
"""Levels that are needed to say that two scans are of one patient."""

FILES_AT_ONCE = 64
"""It bounds the memory, whatever the number of files."""

TOLERANCE = 0.01
"""Tolerance of the normalized location: 10 to 20 mm."""


class FileMatch(NamedTuple):
    """A file that shows the level looked for: its path, its picture and where it seems to lie."""

    path: Path
    pixels: NDArray[np.uint8]
    location: float


@dataclass(frozen=True)
class Level:
    """A level of the body in a scan, between its slices.

    Attributes:
        location: normalized.
        z_mm: LPS z in mm.
        position: number of the slice, from 0 at the feet, with its fraction: 12.5 lies in the
            middle between slices 12 and 13; outside the scan it is below 0 or beyond the last.
        in_view: whether the scan's field of view holds it.
        uncertainty_mm: the level lies within so much of `z_mm` with 95 % probability; infinite
            where it cannot be told, and the other numbers then mean nothing.
    """

    location: float
    z_mm: float
    position: float
    in_view: bool
    uncertainty_mm: float

    @property
    def known(self) -> bool:
        """Whether it could be located."""
        return bool(np.isfinite(self.uncertainty_mm))


@dataclass(frozen=True)
class SliceMatch:
    """A slice near a level.

    Attributes:
        slice: which it is.
        error: its normalized location minus that of the level.
        offset_mm: its LPS z minus that of the level, in mm.
    """

    slice: SliceLocation
    error: float
    offset_mm: float


def location_of(key: float | str) -> float:
    """Return the normalized location that a number or the name of a landmark stands for.

    Raises:
        InputError: if there is no such landmark.
    """
    if not isinstance(key, str):
        return float(key)
    for landmark in LANDMARKS:
        if landmark.name.casefold() == key.strip().casefold():
            return landmark.location
    raise InputError(f"There is no landmark “{key}”: use one of {', '.join(LANDMARK_BY_NAME)}.")


def match_files(
    image_paths: Iterable[Path],
    key: float | str,
    tolerance: float = TOLERANCE,
    model: Model = DEFAULT_MODEL,
    progress: ProgressCallback = silent,
) -> list[FileMatch]:
    """Find the files whose slices lie at a level, each slice judged by itself.

    Args:
        image_paths: axial DICOM slices, or `.npz` files that `convert` made.
        key: the normalized location, or the name of a landmark.
        tolerance: how far from it a slice may be predicted to lie.
        model: the localizer.
        progress: counts the files, in the stage "Matching".

    Returns:
        The matches, in the order of `image_paths`.

    Raises:
        InputError: if a file cannot be read, there is no such landmark, or the model cannot be
            used.
    """
    location = location_of(key)
    paths = [Path(path) for path in image_paths]
    found = []
    for start in range(0, len(paths), FILES_AT_ONCE):
        progress("Matching", start, len(paths))
        batch = paths[start : start + FILES_AT_ONCE]
        pictures = [_picture(path) for path in batch]
        predicted = predict_locations(np.stack(pictures), model)
        found += [
            FileMatch(path, picture, float(here))
            for path, picture, here in zip(batch, pictures, predicted, strict=True)
            if abs(here - location) <= tolerance
        ]
    progress("Matching", len(paths), len(paths))
    return found


def find_level(prediction: ScanPrediction, key: float | str) -> Level:
    """Find the level of a normalized location or a landmark in a scan.

    Raises:
        InputError: if there is no such landmark.
    """
    location = location_of(key)
    z_mm = float(prediction.fit.z_at(location))
    return _level(prediction, z_mm, _uncertainty(prediction, z_mm))


def find_same_level(
    prediction: ScanPrediction,
    other: ScanPrediction,
    z_mm: float,
    image: sitk.Image | None = None,
    other_image: sitk.Image | None = None,
) -> Level:
    """Find the level that another scan, of the same patient or not, shows at LPS `z_mm`.

    Its location is that in the scan that is searched. If both volumes are passed and look like
    one patient's there, the level is found on their voxels.
    """
    here = align_scans(prediction, other).z_at(z_mm)
    checked = None
    if image is not None and other_image is not None:
        match = check_level(image, here, other_image, z_mm)
        if match is not None and match.same_patient:
            here, checked = match.z_mm, np.array([z_mm])
    return _level(prediction, here, matched_uncertainty(prediction, here, other, z_mm, checked))


def check_alignment(
    alignment: ScanAlignment,
    image: sitk.Image,
    other_image: sitk.Image,
    progress: ProgressCallback = silent,
) -> ScanAlignment | None:
    """Correct an alignment by the voxels of both scans, where they look like one patient's.

    Args:
        alignment: what the predictions of both say.
        image: the one scan, HU.
        other_image: the other, HU.
        progress: counts the levels that are compared, `CHECKED_MM` apart, in the stage "Comparing".

    Returns:
        The levels that were found on the voxels; None if the scans are not of one patient.
    """
    ends = alignment.other_mm[0], alignment.other_mm[-1]
    shared = np.linspace(*ends, max(2, round((ends[1] - ends[0]) / CHECKED_MM) + 1))
    found = []
    for done, other_z in enumerate(shared.tolist()):
        progress("Comparing", done, len(shared))
        match = check_level(image, alignment.z_at(other_z), other_image, other_z)
        if match is not None:
            found.append((match, other_z))
    progress("Comparing", len(shared), len(shared))
    same = [(match.z_mm, other_z) for match, other_z in found if match.same_patient]
    if len(same) < LEAST_CHECKED or len(same) <= len(found) / 2:
        return None
    z_mm, other_mm = np.array(same).T
    rising = np.concatenate([[True], z_mm[1:] > np.maximum.accumulate(z_mm)[:-1]])
    return ScanAlignment(z_mm[rising], other_mm[rising])


def matched_uncertainty(
    prediction: ScanPrediction,
    z_mm: float,
    other: ScanPrediction,
    other_z_mm: float,
    checked_mm: Floats | None = None,
) -> float:
    """Return half the 95 % interval, in mm, of a level found in two scans.

    It is that of their fits, unless the level is near one found on the voxels; infinite where one
    of the fits cannot locate it.

    Args:
        prediction: the one scan.
        z_mm: LPS z of the level there in mm.
        other: the other scan.
        other_z_mm: LPS z of the level in it.
        checked_mm: LPS z of the levels of `other` that were found on the voxels.
    """
    if checked_mm is not None and np.abs(checked_mm - other_z_mm).min() <= CHECKED_MM:
        return GRID_MM
    return float(np.hypot(_uncertainty(prediction, z_mm), _uncertainty(other, other_z_mm)))


def match_slices(
    prediction: ScanPrediction, level: Level, tolerance: float = TOLERANCE
) -> list[SliceMatch]:
    """Return the slices of a scan within a tolerance of a level, the nearest first."""
    matches = [
        SliceMatch(one, one.location - level.location, one.z_mm - level.z_mm)
        for one in prediction.slices
        if abs(one.location - level.location) <= tolerance
    ]
    return sorted(matches, key=lambda match: abs(match.offset_mm))


def _uncertainty(prediction: ScanPrediction, z_mm: float) -> float:
    """Half the 95 % interval of a level in mm; infinite where that is as good as unknown."""
    off = float(prediction.fit.uncertainty_at(z_mm))
    return off if off <= UNKNOWN_MM else np.inf


def _level(prediction: ScanPrediction, z_mm: float, uncertainty_mm: float) -> Level:
    low, high = prediction.field_of_view
    slice_mm = (high - low) / len(prediction.slices)
    position = (z_mm - prediction.slices[0].z_mm) / slice_mm
    location = float(prediction.fit.location_at(z_mm))
    return Level(location, z_mm, position, low <= z_mm <= high, uncertainty_mm)


def _picture(path: Path) -> NDArray[np.uint8]:
    if path.suffix.lower() == ".npz":
        pixels = read_labelled_slice(path).pixels
        return pixels if pixels.ndim == 2 else pixels[..., 0]
    return read_slice_file(path).picture()
