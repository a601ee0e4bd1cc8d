"""DICOM slices with normalized locations, converted to `.npz` files for training."""

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
"""What NumPy raises on a file that is no `.npz`, is damaged or holds Python objects."""


@dataclass(frozen=True)
class LabelledSlice:
    """One slice to learn from.

    Attributes:
        pixels: uint8, (256, 256) as of `slice_image.slice_image`, or (256, 256, 3), three times
            the same.
        location: normalized.
        series_instance_uid: of the series it is from.
    """

    pixels: NDArray[np.uint8]
    location: float
    series_instance_uid: str

    def write(self, file: Path) -> None:
        """Write it as a new file, not compressed, as training reads it many times.

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
                f"{file} cannot be written ({error.strerror}): make room or choose another folder."
            ) from error


def read_labelled_slice(file: Path) -> LabelledSlice:
    """Read a slice that `LabelledSlice.write` has written.

    Raises:
        InputError: if the file is missing, damaged or anything else.
    """
    pixels, location, series = _read(file, PIXELS, LOCATION, SERIES)
    if pixels.dtype != np.uint8 or location.shape or series.shape:
        raise InputError(f"{file} is no slice that convert makes: move it away.")
    return LabelledSlice(pixels, float(location), str(series))


def read_series_uid(file: Path) -> str:
    """Read only which series a slice is from.

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
            f"{file} is damaged or no slice that convert makes: move it away and make it again."
        ) from error


_WORTH_A_PROCESS = 400
"""Slices that take several times as long as a process takes to start."""


@dataclass(frozen=True)
class Conversion:
    """The outcome: how many files were made, how many were there, a sentence for each failure."""

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
    """Convert the slices of a dataset that `normalization.normalize` has given locations.

    Args:
        dataset: the folder that holds `COMBINED_LOCATIONS`.
        output: gets the folders of the dataset with `10.npz` for `10.dcm`. What is there already
            is kept, so a run that was cut short goes on where it ended; nothing is overwritten.
        three_channels: store the picture three times, as (256, 256, 3), for a network without a
            layer that does so.
        progress: callback, in the stage "Converting".

    Returns:
        The outcome; a file that cannot be converted is named in it and stops no other.

    Raises:
        InputError: if there are no locations or no slice at all can be converted.
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
        InputError: if the file is missing or damaged, names nothing, or a path leads elsewhere.
    """
    if not file.exists():
        raise InputError(f"{file} does not exist: run normalize on {file.parent} first.")
    locations = read_object(file)
    for name, location in locations.items():
        if not _stays_inside(name):
            raise InputError(f"{file} names “{name}”, which is no path below its folder.")
        if not _is_number(location):
            raise InputError(f"{file} gives no number for {name}: run normalize again.")
    if not locations:
        raise InputError(f"{file} names no slice: run normalize again.")
    return locations


def _stays_inside(name: str) -> bool:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    return bool(posix.name) and not (
        posix.is_absolute() or windows.is_absolute() or windows.drive or ".." in windows.parts
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _npz_name(name: str) -> str:
    """`a/10.npz` for `a/10.dcm`; any other name gets the suffix in addition, to stay unique."""
    return (name[:-4] if name.lower().endswith(".dcm") else name) + ".npz"


def _convert_slice(task: _Task, three_channels: bool) -> bool:
    """Convert one slice; returns whether it had to be made.

    Raises:
        InputError: if it cannot be read, or another slice is in its place.
    """
    shape = (SIZE, SIZE, 3) if three_channels else (SIZE, SIZE)
    if task.target.exists():
        there = read_labelled_slice(task.target)
        if there.pixels.shape != shape or there.location != task.location:
            raise InputError(
                f"{task.target} was made with another location or another form: "
                "choose another output folder."
            )
        return False
    source = read_slice_file(task.source)
    picture = source.picture()
    if three_channels:
        picture = np.repeat(picture[..., None], 3, axis=2)
    LabelledSlice(picture, task.location, source.series_instance_uid).write(task.target)
    return True
