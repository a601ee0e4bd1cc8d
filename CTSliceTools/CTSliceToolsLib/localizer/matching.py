"""Find the same level of the body in files, in a scan or in another scan."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTSliceToolsLib.dataset.labelled_slice import read_labelled_slice
from CTSliceToolsLib.dataset.slice_file import read_slice_file
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME, LANDMARKS
from CTSliceToolsLib.localizer.prediction import (
    DEFAULT_MODEL,
    Model,
    ScanPrediction,
    SliceLocation,
    predict_locations,
)
from CTSliceToolsLib.localizer.rigid_check import check_level
from CTSliceToolsLib.localizer.scan_alignment import align_scans

FILES_AT_ONCE = 64
"""It bounds the memory, whatever the number of files."""

TOLERANCE = 0.01
"""Of the normalized location: 10 to 20 mm."""


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
    """

    location: float
    z_mm: float
    position: float
    in_view: bool


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
    """Give the normalized location that a number or the name of a landmark stands for.

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
    """Find a level, given as a normalized location or by its landmark, in a scan.

    Raises:
        InputError: if there is no such landmark.
    """
    location = location_of(key)
    return _level(prediction, location, float(prediction.fit.z_at(location)))


def find_same_level(
    prediction: ScanPrediction,
    other: ScanPrediction,
    z_mm: float,
    image: sitk.Image | None = None,
    other_image: sitk.Image | None = None,
) -> Level:
    """Find the level that another scan, of the same patient or not, shows at LPS `z_mm`.

    Its location is that in the scan it is looked for in. Where both volumes are given and look like
    one patient's there, the level is found on their voxels.
    """
    here = align_scans(prediction, other).z_at(z_mm)
    if image is not None and other_image is not None:
        checked = check_level(image, here, other_image, z_mm)
        if checked is not None and checked.same_patient:
            here = checked.z_mm
    return _level(prediction, float(prediction.fit.location_at(here)), here)


def match_slices(
    prediction: ScanPrediction, level: Level, tolerance: float = TOLERANCE
) -> list[SliceMatch]:
    """Give the slices of a scan within a tolerance of a level, the nearest first."""
    matches = [
        SliceMatch(one, one.location - level.location, one.z_mm - level.z_mm)
        for one in prediction.slices
        if abs(one.location - level.location) <= tolerance
    ]
    return sorted(matches, key=lambda match: abs(match.offset_mm))


def _level(prediction: ScanPrediction, location: float, z_mm: float) -> Level:
    low, high = prediction.field_of_view
    slice_mm = (high - low) / len(prediction.slices)
    position = (z_mm - prediction.slices[0].z_mm) / slice_mm
    return Level(location, z_mm, position, low <= z_mm <= high)


def _picture(path: Path) -> NDArray[np.uint8]:
    if path.suffix.lower() == ".npz":
        pixels = read_labelled_slice(path).pixels
        return pixels if pixels.ndim == 2 else pixels[..., 0]
    return read_slice_file(path).picture()
