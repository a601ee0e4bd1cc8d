"""Normalized locations of all slices of a dataset, from its annotated ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import replace_object
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.workers import each
from CTSliceToolsLib.dataset.annotation import (
    ANNOTATION,
    Annotation,
    read_annotation,
    read_slice_files,
)
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME

SERIES_LOCATIONS = "normalized_locations.json"
"""In the folder of each annotated series: file name → normalized location, from head to feet."""

COMBINED_LOCATIONS = "combined_normalized_locations.json"
"""In the folder of the dataset: path below it, with `/` → normalized location."""

_WORTH_A_PROCESS = 20
"""Series that take several times as long as a process takes to start."""

_DIGITS = 6
"""Of a location in the files: a step of one is about a hundredth of a millimetre."""


@dataclass(frozen=True)
class SeriesLocations:
    """The slices of one series: file name → normalized location, from head to feet.

    `left_out` has a sentence for each other DICOM file of the folder.
    """

    folder: Path
    locations: Mapping[str, float]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Normalization:
    """The outcome for a dataset.

    Attributes:
        locations: path below the dataset, with `/` → normalized location.
        series: how many series they are of.
        refused: a sentence for each series whose annotation cannot be used.
        left_out: a sentence for each DICOM file in the other series that is no slice of it.
    """

    locations: Mapping[str, float]
    series: int
    refused: tuple[str, ...]
    left_out: tuple[str, ...]


def normalized_locations(annotation: Annotation, z_mm: ArrayLike) -> NDArray[np.float64]:
    """Give the normalized location at each LPS z in mm.

    It is linear in z between two annotated slices. Past the first and the last it goes on with the
    slope between the two annotated slices next to it; so it can be less than 0 above the head.

    Raises:
        InputError: if fewer than two landmarks are annotated.
    """
    if len(annotation.z_mm) < 2:
        raise InputError(
            f"{annotation.source} annotates {len(annotation.z_mm) or 'no'} landmark"
            f"{'s' * (not annotation.z_mm)}: annotate at least two."
        )
    # Slow to import, and the processes of convert have no need of it.
    from scipy.interpolate import make_interp_spline  # noqa: PLC0415

    known = sorted((z, LANDMARK_BY_NAME[name].location) for name, z in annotation.z_mm.items())
    line = make_interp_spline(*zip(*known, strict=True), k=1)
    return np.asarray(line(np.asarray(z_mm, float)))


def normalize_series(folder: Path) -> SeriesLocations:
    """Find the normalized location of each slice of an annotated series.

    Args:
        folder: holds the slices and their annotation. Slices of other series in it, localizers and
            damaged files are left out.

    Raises:
        InputError: if the annotation cannot be used.
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
    names = [name for name, one in slices.items() if one.series_instance_uid in annotated]
    found = normalized_locations(annotation, [slices[name].z_mm for name in names])
    order = np.argsort(found, kind="stable")
    return SeriesLocations(
        folder,
        {names[index]: round(float(found[index]), _DIGITS) for index in order},
        left_out
        + tuple(
            f"{folder / name} belongs to another series."
            for name, one in slices.items()
            if one.series_instance_uid not in annotated
        ),
    )


def normalize(dataset: Path, progress: ProgressCallback = silent) -> Normalization:
    """Find the normalized locations of all annotated series below a folder and write them.

    Writes `SERIES_LOCATIONS` for each series and `COMBINED_LOCATIONS` for all. Those of an earlier
    run are replaced; a file of these names that holds anything else is not. A series whose
    annotation cannot be used is named in the result and stops no other.

    Raises:
        InputError: if there is no annotated series or none that can be used.
    """
    if not dataset.is_dir():
        raise InputError(f"{dataset} is not a folder: give the folder of the dataset.")
    folders = sorted(file.parent for file in dataset.rglob(ANNOTATION))
    if not folders:
        raise InputError(f"{dataset} holds no {ANNOTATION}: annotate at least one series first.")
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
    if not locations:
        raise InputError(refused[0])
    replace_object(dataset / COMBINED_LOCATIONS, locations, _are_locations)
    return Normalization(locations, len(folders) - len(refused), tuple(refused), tuple(left_out))


def _are_locations(content: Mapping[str, Any]) -> bool:
    return all(type(value) in (int, float) for value in content.values())
