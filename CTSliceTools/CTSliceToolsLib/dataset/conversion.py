"""Convert DICOM slices with normalized locations to `.npz` files, and divide these for training."""

import hashlib
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from CTLungScreeningLib.errors import DAMAGE, InputError, counted
from CTLungScreeningLib.files import (
    make_folders,
    new_file,
    refuse_links,
    refuse_links_below,
    remove_leftovers,
    rename_new,
    require_unpacked,
    visible_files,
)
from CTLungScreeningLib.json_files import is_number, read_object
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.staging import only_writer_in, staging_folder
from CTLungScreeningLib.workers import each
from CTSliceToolsLib.dataset.annotation import ANNOTATION, read_slice_file
from CTSliceToolsLib.dataset.normalization import COMBINED_LOCATIONS
from CTSliceToolsLib.slice_image import SIZE

NPZ = "*.npz"

PIXELS, LOCATION, SERIES = "pixels", "norm_loc", "series_instance_UID"
"""The tutorial's keys (Building a CT Slice Localizer With Keras, 2019)."""


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
            InputError: if the file exists.
            OSError: if it cannot be written.
        """
        content: dict[str, Any] = {
            PIXELS: self.pixels,
            LOCATION: np.float64(self.location),
            SERIES: np.str_(self.series_instance_uid),
        }
        with new_file(file) as temporary:
            np.savez(temporary, **content)


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
        require_unpacked(file)
        with np.load(file, allow_pickle=False) as content:
            return [content[key] for key in keys]
    except DAMAGE as error:
        raise InputError(
            f"{file} is damaged or not a slice that convert made: move it away and make it again."
        ) from error


_WORTH_A_PROCESS = 400
"""Number of slices from which starting a process pays off."""


@dataclass(frozen=True)
class Conversion:
    """The outcome: numbers of files made and kept, a sentence for each failure, and notes."""

    made: int
    kept: int
    failed: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Task:
    source: Path
    target: Path
    location: float

    def __str__(self) -> str:
        return str(self.source)


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
        InputError: if there are no locations, no slice can be converted, a folder in the output is
            a link, or the output has files of slices that are not in the dataset or have another
            location there; then nothing is converted.
        OSError: if a slice cannot be written, as on a full disk.
    """
    combined = dataset / COMBINED_LOCATIONS
    locations = read_locations(combined)
    notes = []
    written = combined.stat().st_mtime
    annotations = (file for file in visible_files(dataset, ANNOTATION) if file.is_file())
    if any(file.stat().st_mtime > written for file in annotations):
        notes.append(
            f"{dataset} has annotations newer than its locations: if you changed them, run "
            "normalize again."
        )
    tasks = [
        _Task(dataset / name, output / npz, locations[name])
        for name, npz in _npz_names(locations).items()
    ]
    made, failed = 0, []
    work = partial(_convert_slice, three_channels=three_channels)
    with only_writer_in(output, "converting"):
        for folder in sorted({task.target.parent for task in tasks}):
            refuse_links_below(output, folder)
            remove_leftovers(folder)
        _refuse_others(output, {task.target: {task.location} for task in tasks}, dataset)
        for result in each(work, tasks, "Converting", progress, _WORTH_A_PROCESS):
            if isinstance(result, InputError):
                failed.append(str(result))
            else:
                made += result
        if len(failed) == len(tasks):
            raise InputError(failed[0])
    kept = len(tasks) - made - len(failed)
    return Conversion(made, kept, tuple(failed), tuple(notes))


def _refuse_others(
    folder: Path, expected: Mapping[Path, Collection[float | None]], source: Path
) -> None:
    """Refuse files that a training would take, of slices withdrawn or annotated anew since.

    Args:
        folder: of the files.
        expected: file → the locations that it may have.
        source: names what they are made of.
    """
    there = visible_files(folder, NPZ)
    for others, what in (
        ([file for file in there if file not in expected], "that {} does not have"),
        (
            [file for file in there if _location(file) not in (*expected.get(file, ()), None)],
            "that have another location in {} now",
        ),
    ):
        if others:
            raise InputError(
                f"{folder} has {counted(len(others), 'file')} of slices {what.format(source)}, "
                f"such as {others[0].relative_to(folder)}, and training would use them: move them "
                "away or choose another folder."
            )


def _location(file: Path) -> float | None:
    """The location of a slice; None where the file is damaged, which is said elsewhere."""
    try:
        return float(_read(file, LOCATION)[0])
    except (InputError, TypeError, ValueError):
        return None


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
        if not is_number(location):
            raise InputError(f"{file} has no number for {name}: run normalize again.")
    if not locations:
        raise InputError(f"{file} names no slices: run normalize again.")
    return locations


def _stays_inside(name: str) -> bool:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    return bool(posix.name) and not (posix.is_absolute() or windows.anchor or ".." in windows.parts)


def _npz_names(names: Collection[str]) -> dict[str, str]:
    """`a/10.npz` for `a/10.dcm`; the suffix is appended to other names, to keep them unique.

    So it is to `a/10.dcm` beside a slice `a/10`, or `a/10.DCM`.
    """
    short = {name: name[:-4] for name in names if name.lower().endswith(".dcm")}
    counts = Counter([*names, *short.values()])
    return {
        name: (short[name] if name in short and counts[short[name]] == 1 else name) + ".npz"
        for name in names
    }


def _convert_slice(task: _Task, three_channels: bool) -> bool:
    """Convert one slice; returns False if it already exists.

    Raises:
        InputError: if it cannot be read, or one with other channels is in its place.
    """
    shape = (SIZE, SIZE, 3) if three_channels else (SIZE, SIZE)
    if task.target.exists():
        there = read_labelled_slice(task.target)
        if there.pixels.shape != shape:
            raise InputError(
                f"{task.target} was made with another number of channels: choose another output "
                "folder."
            )
        return False
    source = read_slice_file(task.source)
    picture = source.picture()
    if three_channels:
        picture = np.repeat(picture[..., None], 3, axis=2)
    LabelledSlice(picture, task.location, source.series_instance_uid).write(task.target)
    return True


class Part(StrEnum):
    """A part of the dataset, and the name of its folder."""

    TRAINING = "training"
    VALIDATION = "validation"
    TESTING = "testing"


@dataclass(frozen=True)
class Partition:
    """The outcome.

    Attributes:
        slices: number of slices in each part.
        series: number of series in each part.
        kept: number of slices that already existed.
        failed: a sentence for each file that was left out.
    """

    slices: Mapping[Part, int]
    series: Mapping[Part, int]
    kept: int
    failed: tuple[str, ...]


def part_of(series_instance_uid: str) -> Part:
    """Return the part of a series, reproducibly.

    The tutorial's rule (Building a CT Slice Localizer With Keras, 2019): the SHA-256 of the Series
    Instance UID modulo 10; 0 to 6 is training, 7 and 8 validation, 9 testing.
    """
    digest = hashlib.sha256(series_instance_uid.encode("utf-8")).hexdigest()
    remainder = int(digest, 16) % 10
    if remainder < 7:
        return Part.TRAINING
    return Part.VALIDATION if remainder < 9 else Part.TESTING


def partition(
    source: Path, output: Path, hard_links: bool = False, progress: ProgressCallback = silent
) -> Partition:
    """Copy or link all `.npz` slices below a folder into folders of the three parts.

    Args:
        source: searched with its subfolders; not changed.
        output: gets a folder for each `Part`, with `<series>_<name>.npz`, where `<series>` is the
            Series Instance UID with `_` for each dot. Existing files are kept.
        hard_links: link the files instead of copying, to save space.
        progress: callback, in the stage "Partitioning".

    Returns:
        The outcome, including files that were left out.

    Raises:
        InputError: if there are no slices or none can be used, or if a part has files of other
            slices, or of the same with other locations; then nothing is added to them.
    """
    if not source.is_dir():
        raise InputError(f"{source} is not a folder: name the folder that convert wrote.")
    if output.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{output} is inside {source}: choose a folder outside it.")
    files = visible_files(source, NPZ)
    if not files:
        raise InputError(f"{source} has no .npz files: name the folder that convert wrote.")
    slices = dict.fromkeys(Part, 0)
    series: dict[Part, set[str]] = {part: set() for part in Part}
    kept, failed = 0, []
    with staging_folder(output, "partitioning") as staging:
        refuse_links(*(output / part for part in Part))
        uids: dict[Path, str] = {}
        for file in files:
            try:
                uids[file] = read_series_uid(file)
            except InputError as error:
                failed.append(str(error))
        targets = {file: output / part_of(uid) / _name(uid, file) for file, uid in uids.items()}
        if targets:
            _refuse_others_in_parts(output, targets, source)
        for done, (file, target) in enumerate(targets.items()):
            progress("Partitioning", done, len(targets))
            part = part_of(uids[file])
            try:
                make_folders(output, target.parent)
                there = _is_there(file, target)
            except InputError as error:
                failed.append(str(error))
                continue
            if not there:
                _put(file, target, hard_links, staging)
            kept += there
            slices[part] += 1
            series[part].add(uids[file])
        progress("Partitioning", len(targets), len(targets))
    if len(failed) == len(files):
        raise InputError(failed[0])
    return Partition(
        slices, {part: len(uids) for part, uids in series.items()}, kept, tuple(failed)
    )


def _refuse_others_in_parts(output: Path, targets: Mapping[Path, Path], source: Path) -> None:
    expected: dict[Path, set[float | None]] = {target: set() for target in targets.values()}
    for file, target in targets.items():
        expected[target].add(_location(file))
    for part in Part:
        _refuse_others(output / part, expected, source)


def _name(uid: str, file: Path) -> str:
    return f"{re.sub(r'[^0-9A-Za-z-]', '_', uid)}_{file.name}"


def _is_there(file: Path, target: Path) -> bool:
    """Whether a file is at its target already; raises `InputError` if another slice is."""
    if not target.exists():
        return False
    if not target.samefile(file) and target.read_bytes() != file.read_bytes():
        raise InputError(
            f"{target} is another slice than {file}: use an empty folder, and check that each "
            "series is in one folder only."
        )
    return True


def _put(file: Path, target: Path, hard_link: bool, staging: Path) -> None:
    """Copy or link a file; raises `InputError` if it cannot be made, as on a full disk."""
    try:
        if hard_link:
            os.link(file.resolve(), target)
        else:
            rename_new(Path(shutil.copy2(file, staging / target.name)), target)
    except OSError as error:
        raise InputError(
            f"{target} cannot be made ({error.strerror}): "
            f"{'try copies, ' * hard_link}free space or choose another folder."
        ) from error


def partition_files(data: Path, part: Part) -> list[Path]:
    """List the `.npz` files of one partition, in the order of their names.

    Raises:
        InputError: if there are none.
    """
    files = visible_files(data / part, NPZ)
    if not files:
        raise InputError(
            f"{data / part} has no .npz files: name the folder that `ct-slice-tools "
            "partition` made, of enough series that each part gets some."
        )
    return files


def read_picture(file: Path) -> tuple[NDArray[np.uint8], float]:
    """Read picture, (`SIZE`, `SIZE`), and normalized location from one `.npz` of `convert`.

    Of three channels, which are alike, the first is taken.

    Raises:
        InputError: if it is damaged, or not such a file.
    """
    labelled = read_labelled_slice(file)
    pixels, location = labelled.pixels, labelled.location
    if pixels.ndim == 3:
        pixels = pixels[..., 0]
    if pixels.shape != (SIZE, SIZE) or not math.isfinite(location):
        raise InputError(
            f"{file} holds pixels of shape {labelled.pixels.shape} at location {location}, not "
            f"{SIZE} × {SIZE} at a finite one: convert it again."
        )
    return pixels, location
