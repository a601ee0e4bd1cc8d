"""Divide slices into training, validation and testing by series."""

import hashlib
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import make_folders, rename_new
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.staging import staging_folder
from CTSliceToolsLib.dataset.conversion import read_labelled_slice, read_series_uid
from CTSliceToolsLib.slice_image import SIZE


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
        InputError: if there are no slices or none can be used.
    """
    if not source.is_dir():
        raise InputError(f"{source} is not a folder: name the folder that convert wrote.")
    if output.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{output} is inside {source}: choose a folder outside it.")
    files = sorted(file for file in source.rglob("*.npz") if not file.name.startswith("."))
    if not files:
        raise InputError(f"{source} has no .npz files: name the folder that convert wrote.")
    slices = dict.fromkeys(Part, 0)
    series: dict[Part, set[str]] = {part: set() for part in Part}
    kept, failed = 0, []
    with staging_folder(output, "partitioning") as staging:
        for part in Part:
            make_folders(output, output / part)
        for done, file in enumerate(files):
            progress("Partitioning", done, len(files))
            try:
                uid = read_series_uid(file)
                part = part_of(uid)
                kept += not _put(file, output / part / _name(uid, file), hard_links, staging)
            except InputError as error:
                failed.append(str(error))
                continue
            slices[part] += 1
            series[part].add(uid)
        progress("Partitioning", len(files), len(files))
    if len(failed) == len(files):
        raise InputError(failed[0])
    return Partition(
        slices, {part: len(uids) for part, uids in series.items()}, kept, tuple(failed)
    )


def _name(uid: str, file: Path) -> str:
    return f"{re.sub(r'[^0-9A-Za-z-]', '_', uid)}_{file.name}"


def _put(file: Path, target: Path, hard_link: bool, staging: Path) -> bool:
    """Copy or link a file; returns False if it already exists.

    Raises:
        InputError: if another slice has the name, or the file cannot be written.
    """
    if target.exists():
        if not target.samefile(file) and target.read_bytes() != file.read_bytes():
            raise InputError(
                f"{target} is another slice than {file}: use an empty folder, and check that each "
                "series is in one folder only."
            )
        return False
    try:
        if hard_link:
            os.link(file, target)
        else:
            rename_new(Path(shutil.copy2(file, staging / target.name)), target)
    except OSError as error:
        raise InputError(
            f"{target} cannot be made ({error.strerror}): "
            f"{'try copies, ' * hard_link}free space or choose another folder."
        ) from error
    return True


def partition_files(data: Path, part: Part) -> list[Path]:
    """List the `.npz` files of one partition, in the order of their names.

    Raises:
        InputError: if there are none.
    """
    files = sorted((data / part).rglob("*.npz"))
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
