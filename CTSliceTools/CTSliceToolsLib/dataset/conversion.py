"""Convert DICOM slices with normalized locations to `.npz` files for training."""

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import new_file, read_object, remove_leftovers
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.staging import only_writer
from CTLungScreeningLib.workers import each
from CTSliceToolsLib.dataset.annotation import read_slice_file
from CTSliceToolsLib.dataset.normalization import COMBINED_LOCATIONS
from CTSliceToolsLib.slice_image import SIZE

PIXELS, LOCATION, SERIES = "pixels", "norm_loc", "series_instance_UID"
"""The tutorial's keys (Building a CT Slice Localizer With Keras, 2019)."""

_DAMAGED = (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, NotImplementedError)
"""Errors of NumPy for a file that is not an `.npz`, is damaged or has Python objects."""


@dataclass(frozen=True)
class LabelledSlice:
    """One slice for training.

    Attributes:
        pixels: uint8, (256, 256) from `slice_image.slice_image`, or repeated as (256, 256, 3).
        location: normalized.
        series_instance_uid: of its series.
    """

    pixels: NDArray[np.uint8]
    location: float
    series_instance_uid: str

    def write(self, file: Path) -> None:
        """Write it as a new file, uncompressed because training reads it many times.

        Raises:
            InputError: if the file exists or cannot be written.
        """
        content: dict[str, Any] = {
            PIXELS: self.pixels,
            LOCATION: np.float64(self.location),
            SERIES: np.str_(self.series_instance_uid),
        }
        try:
            with new_file(file) as temporary:
                np.savez(temporary, **content)
        except OSError as error:
            raise InputError(
                f"{file} cannot be written ({error.strerror}): free space or choose another folder."
            ) from error


def read_labelled_slice(file: Path) -> LabelledSlice:
    """Read a slice that `LabelledSlice.write` wrote.

    Raises:
        InputError: if the file is missing, damaged or of another kind.
    """
    pixels, location, series = _read(file, PIXELS, LOCATION, SERIES)
    if pixels.dtype != np.uint8 or location.shape or series.shape:
        raise InputError(f"{file} is not a slice that convert made: move it away.")
    return LabelledSlice(pixels, float(location), str(series))


def read_series_uid(file: Path) -> str:
    """Read only the series of a slice.

    Raises:
        InputError: see `read_labelled_slice`.
    """
    (series,) = _read(file, SERIES)
    return str(series)


def _read(file: Path, *keys: str) -> list[NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as content:
            return [content[key] for key in keys]
    except (*_DAMAGED, AttributeError, TypeError) as error:
        raise InputError(
            f"{file} is damaged or not a slice that convert made: move it away and make it again."
        ) from error


_WORTH_A_PROCESS = 400
"""Number of slices from which starting a process pays off."""


@dataclass(frozen=True)
class Conversion:
    """The outcome: numbers of files made and kept, and a sentence for each failure."""

    made: int
    kept: int
    failed: tuple[str, ...]


@dataclass(frozen=True)
class _Task:
    source: Path
    target: Path
    location: float


def convert(
    dataset: Path, output: Path, three_channels: bool = False, progress: ProgressCallback = silent
) -> Conversion:
    """Convert the slices of a dataset with locations from `normalization.normalize`.

    Args:
        dataset: the folder with `COMBINED_LOCATIONS`.
        output: gets the folders of the dataset with `10.npz` for `10.dcm`. Existing files are kept,
            so an interrupted run continues where it stopped.
        three_channels: repeat the image as (256, 256, 3), for networks with three input channels.
        progress: callback, in the stage "Converting".

    Returns:
        The outcome, including files that could not be converted.

    Raises:
        InputError: if there are no locations or no slice can be converted.
    """
    tasks = [
        _Task(dataset / name, output / _npz_name(name), location)
        for name, location in read_locations(dataset / COMBINED_LOCATIONS).items()
    ]
    made, failed = 0, []
    work = partial(_convert_slice, three_channels=three_channels)
    with only_writer(output, "converting"):
        for folder in {task.target.parent for task in tasks}:
            remove_leftovers(folder)
        for result in each(work, tasks, "Converting", progress, _WORTH_A_PROCESS):
            if isinstance(result, InputError):
                failed.append(str(result))
            else:
                made += result
    if len(failed) == len(tasks):
        raise InputError(failed[0])
    return Conversion(made, len(tasks) - made - len(failed), tuple(failed))


def read_locations(file: Path) -> Mapping[str, float]:
    """Read the combined locations: path below the file's folder → normalized location.

    Raises:
        InputError: if the file is missing, damaged or empty, or a path leads outside the folder.
    """
    if not file.exists():
        raise InputError(f"{file} does not exist: run normalize on {file.parent} first.")
    locations = read_object(file)
    for name, location in locations.items():
        if not _stays_inside(name):
            raise InputError(f"{file} names “{name}”, which is not a path below its folder.")
        if not _is_number(location):
            raise InputError(f"{file} has no number for {name}: run normalize again.")
    if not locations:
        raise InputError(f"{file} names no slices: run normalize again.")
    return locations


def _stays_inside(name: str) -> bool:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    return bool(posix.name) and not (
        posix.is_absolute() or windows.is_absolute() or windows.drive or ".." in windows.parts
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _npz_name(name: str) -> str:
    """`a/10.npz` for `a/10.dcm`; the suffix is appended to other names, to keep them unique."""
    return (name[:-4] if name.lower().endswith(".dcm") else name) + ".npz"


def _convert_slice(task: _Task, three_channels: bool) -> bool:
    """Convert one slice; returns False if it already exists.

    Raises:
        InputError: if it cannot be read, or another slice is in its place.
    """
    shape = (SIZE, SIZE, 3) if three_channels else (SIZE, SIZE)
    if task.target.exists():
        there = read_labelled_slice(task.target)
        if there.pixels.shape != shape or there.location != task.location:
            raise InputError(
                f"{task.target} was made with another location or number of channels: choose "
                "another output folder."
            )
        return False
    source = read_slice_file(task.source)
    picture = source.picture()
    if three_channels:
        picture = np.repeat(picture[..., None], 3, axis=2)
    LabelledSlice(picture, task.location, source.series_instance_uid).write(task.target)
    return True
