"""Compute the normalized locations of all slices of a dataset from annotated ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import visible_files
from CTLungScreeningLib.json_files import replace_object
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_scan import check_hu
from CTLungScreeningLib.reading.dicom_headers import Frame
from CTLungScreeningLib.reading.dicom_pixels import is_calibrated, read_hu
from CTLungScreeningLib.workers import each
from CTSliceToolsLib.dataset.annotation import (
    ANNOTATION,
    Annotation,
    SliceFile,
    read_annotation,
    read_slice_files,
)
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME

SERIES_LOCATIONS = "normalized_locations.json"
"""File in the folder of each annotated series: file name → normalized location, from the head."""

COMBINED_LOCATIONS = "combined_normalized_locations.json"
"""File in the folder of the dataset: path below it, with `/` → normalized location."""

_WORTH_A_PROCESS = 20
"""Number of series from which starting a process pays off."""

_DIGITS = 6
"""Digits of locations in files, a resolution of about a hundredth of a millimetre."""


@dataclass(frozen=True)
class SeriesLocations:
    """The slices of one series: file name → normalized location, from head to feet.

    `left_out` has a sentence for each other DICOM file of the folder, copies included.
    """

    folder: Path
    locations: Mapping[str, float]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Normalization:
    """The outcome for a dataset.

    Attributes:
        locations: path below the dataset, with `/` → normalized location.
        series: number of their series.
        refused: a sentence for each series that cannot be used, or whose annotation cannot.
        left_out: a sentence for each other DICOM file in the folders of these series.
    """

    locations: Mapping[str, float]
    series: int
    refused: tuple[str, ...]
    left_out: tuple[str, ...]


def normalized_locations(annotation: Annotation, z_mm: ArrayLike) -> NDArray[np.float64]:
    """Return the normalized location at each LPS z in mm.

    Linear interpolation between annotated slices, and extrapolation with the slope of the two
    nearest annotated slices; it can be below 0 above the head.

    Raises:
        InputError: if fewer than two landmarks are annotated.
    """
    if len(annotation.z_mm) < 2:
        raise InputError(
            f"{annotation.source} has {len(annotation.z_mm) or 'no'} landmark"
            f"{'s' * (not annotation.z_mm)}: annotate at least two."
        )
    # Slow to import, and not needed by the processes of convert.
    from scipy.interpolate import make_interp_spline  # noqa: PLC0415

    known = sorted((z, LANDMARK_BY_NAME[name].location) for name, z in annotation.z_mm.items())
    line = make_interp_spline(*zip(*known, strict=True), k=1)
    return np.asarray(line(np.asarray(z_mm, float)))


def normalize_series(folder: Path) -> SeriesLocations:
    """Compute the normalized location of each slice of an annotated series.

    Args:
        folder: with the slices and their annotation. Slices of other series, copies of slices,
            localizers and damaged files in it are left out.

    Raises:
        InputError: if the annotation cannot be used, or the series is not CT in HU.
    """
    slices, left_out = read_slice_files(folder)
    annotation = read_annotation(
        folder / ANNOTATION, {name: one.z_mm for name, one in slices.items()}
    )
    annotated = {slices[str(name)].series_instance_uid for name in annotation.slices.values()}
    if len(annotated) > 1:
        raise InputError(
            f"{annotation.source} names files of several series: annotate each in its own folder."
        )
    own = {name: one for name, one in slices.items() if one.series_instance_uid in annotated}
    kept_as = _copies(own, annotation)
    names = sorted(dict.fromkeys(kept_as.values()), key=lambda name: own[name].z_mm)
    found = normalized_locations(annotation, [own[name].z_mm for name in names])
    _require_hu(folder, [own[name].frame for name in names])
    order = np.argsort(found, kind="stable")
    return SeriesLocations(
        folder,
        {names[index]: round(float(found[index]), _DIGITS) for index in order},
        left_out
        + tuple(f"{folder / name} belongs to another series." for name in slices if name not in own)
        + tuple(
            f"{folder / name} is a copy of {kept}."
            for name, kept in kept_as.items()
            if name != kept
        ),
    )


def _copies(slices: Mapping[str, SliceFile], annotation: Annotation) -> dict[str, str]:
    """The name that each file's slice is kept as: of copies an annotated one, else the first.

    Copies have one SOPInstanceUID and one place; some scanners give slices at other places the same
    identifier.
    """
    keys = {
        name: (one.frame.sop_instance_uid or name, *one.frame.position)
        for name, one in slices.items()
    }
    kept: dict[object, str] = {}
    for name in (*map(str, annotation.slices.values()), *slices):
        kept.setdefault(keys[name], name)
    return {name: kept[key] for name, key in keys.items()}


def _require_hu(folder: Path, frames: Sequence[Frame]) -> None:
    """Refuse what reading the scan refuses; pixels are read only if the header leaves it open."""
    if not is_calibrated(frames):
        check_hu(str(folder), read_hu([one for one in frames if one.shape == frames[0].shape]))


def normalize(dataset: Path, progress: ProgressCallback = silent) -> Normalization:
    """Compute and write the normalized locations of all annotated series below a folder.

    Writes `SERIES_LOCATIONS` for each series and `COMBINED_LOCATIONS` for all, replacing only such
    files of an earlier run. Series that cannot be used are listed in the result.

    Raises:
        InputError: if there are no annotated series or none can be used.
    """
    if not dataset.is_dir():
        raise InputError(f"{dataset} is not a folder: name the folder of the dataset.")
    folders = sorted(file.parent for file in visible_files(dataset, ANNOTATION))
    if not folders:
        raise InputError(f"{dataset} has no {ANNOTATION}: annotate at least one series first.")
    locations: dict[str, float] = {}
    refused: list[str] = []
    left_out: list[str] = []
    for result in each(normalize_series, folders, "Normalizing", progress, _WORTH_A_PROCESS):
        try:
            if isinstance(result, InputError):
                raise result
            replace_object(result.folder / SERIES_LOCATIONS, result.locations, _are_locations)
        except InputError as error:
            refused.append(str(error))
            continue
        below = result.folder.relative_to(dataset)
        locations |= {(below / name).as_posix(): at for name, at in result.locations.items()}
        left_out += result.left_out
    combined = dataset / COMBINED_LOCATIONS
    if not locations:
        kept = f" {combined} is still that of an earlier run: do not convert it."
        raise InputError(refused[0] + kept * combined.exists())
    replace_object(combined, locations, _are_locations)
    return Normalization(locations, len(folders) - len(refused), tuple(refused), tuple(left_out))


def _are_locations(content: Mapping[str, Any]) -> bool:
    return all(type(value) in (int, float) for value in content.values())
