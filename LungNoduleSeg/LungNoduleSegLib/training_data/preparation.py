"""Prepare annotated scans of any data set as a store of training data."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import folder_name, replace_text
from CTLungScreeningLib.geometry import AxialView, crop_to
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.progress import ProgressCallback
from CTLungScreeningLib.reading.ct_reading import IndexedScan
from CTLungScreeningLib.reading.volume_files import volume_stem
from CTLungScreeningLib.staging import only_writer_in
from CTLungScreeningLib.workers import each
from LungNoduleSegLib.lungs.segmentation import segment_lungs
from LungNoduleSegLib.options import ExampleChoice
from LungNoduleSegLib.training_data.store import (
    SCANS,
    StoredNodule,
    StoredScan,
    open_store,
    read_stored_scan,
    write_scan,
)

ERRORS = "errors.csv"
_SCANS_WORTH_A_PROCESS = 3


@dataclass(frozen=True)
class PreparationOutcome:
    """The outcome of a preparation.

    Attributes:
        added: names of scans.
        kept: names of scans that already existed.
        without: number of scans without annotated nodules, which were left out.
        failed: a sentence for each scan that could not be prepared, by name.
        examples: number of examples in the store.
        notes: sentences on the scans, their folder and the list of their patients, by their names.
    """

    added: tuple[str, ...]
    kept: tuple[str, ...]
    without: int
    failed: Mapping[str, str]
    examples: int
    notes: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Marks:
    """Nodules on an axial grid.

    Attributes:
        labels: their numbers; without `details`, from 1 in their order.
        centres: (n, 3), LPS mm.
        diameters: (n,), mm.
        details: further fields of `StoredNodule` for each, including `number`.
    """

    labels: sitk.Image
    centres: NDArray[np.float64]
    diameters: NDArray[np.float64]
    details: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, eq=False)
class Case:
    """A scan to prepare.

    Attributes:
        scan: the scan on disk.
        patient: its patient; None to use the DICOM header.
        mark: marks the nodules, from the scan as read and its axial view, on the latter; returns
            None to leave out a scan without nodules.
    """

    scan: IndexedScan
    patient: str | None
    mark: Callable[[sitk.Image, sitk.Image], Marks | None]


def scan_name(scan: IndexedScan) -> str:
    """Name of a scan: its UID, or the name of its file without the suffix."""
    if scan.uid:
        return scan.uid
    return volume_stem(Path(scan.files[0]).name)


def prepare_cases(
    cases: Sequence[Case],
    output: Path,
    choice: ExampleChoice,
    settings: Mapping[str, Any],
    without: int,
    failed: dict[str, str],
    progress: ProgressCallback,
) -> PreparationOutcome:
    """Add the missing scans to a store; failures are listed in `errors.csv` and in the result.

    Args:
        cases: scans to prepare.
        output: the store.
        choice: of training examples.
        settings: further settings that must match to continue a store.
        without: number of scans left out so far.
        failed: scans that failed so far.
        progress: counts the scans, in the stage "Scans".

    Raises:
        InputError: if the output is not a store, or every scan failed.
        OSError: if a scan cannot be written, as on a full disk.
    """
    with only_writer_in(output, "preparing"):
        open_store(output, {**vars(choice), **settings})
        folders = [output / SCANS / folder_name(scan_name(case.scan)) for case in cases]
        there = [folder for folder in folders if folder.exists()]
        missing = [
            (case, folder)
            for case, folder in zip(cases, folders, strict=True)
            if folder not in there
        ]
        results = each(
            partial(_prepare_one, choice), missing, "Scans", progress, _SCANS_WORTH_A_PROCESS
        )
        added = []
        for (case, folder), result in zip(missing, results, strict=True):
            if isinstance(result, InputError):
                failed[case.scan.name] = str(result)
            elif result:
                added.append(folder)
            else:
                without += 1
        _write_errors(output / ERRORS, failed)
        if failed and not added and not there:
            raise InputError(f"{next(iter(failed.values()))} See {output / ERRORS} for all.")
        stored = {folder: read_stored_scan(folder) for folder in (*there, *added)}
        return PreparationOutcome(
            tuple(stored[folder].name for folder in added),
            tuple(stored[folder].name for folder in there),
            without,
            failed,
            sum(len(scan.slices) for scan in stored.values()),
            {scan.name: scan.notes for scan in stored.values() if scan.notes},
        )


def _prepare_one(choice: ExampleChoice, task: tuple[Case, Path]) -> bool:
    """Prepare one scan; returns False if it was left out for lack of nodules.

    Raises:
        InputError: for any problem of the scan, so that the other scans continue.
        OSError: if it cannot be written, as on a full disk, where the others could not either.
    """
    case, folder = task
    prepared = _prepared(choice, case, folder)
    if prepared is None:
        return False
    write_scan(*prepared)
    return True


def _prepared(
    choice: ExampleChoice, case: Case, folder: Path
) -> tuple[StoredScan, tuple[sitk.Image, sitk.Image, sitk.Image]] | None:
    """Read one scan and find its lungs and examples: what is written; None without nodules."""
    try:
        read = case.scan.read()
        view = AxialView.of(read.image, AIR_HU)
        marks = case.mark(read.image, view.image)
        if marks is None:
            return None
        lungs, hu, labels = crop_to(
            segment_lungs(view.image, choice.lungs), view.image, marks.labels
        )
        name = scan_name(case.scan)
        patient = case.patient or (read.series.patient_id if read.series else "") or name
        nodules = _stored_nodules(marks, labels, lungs, choice.largest_only)
        slices = _example_slices(nodules, lungs, choice.neighbours)
        there = np.unique(sitk.GetArrayViewFromImage(marks.labels))
        notes = (*read.notes, *_notes(nodules, there))
        source = str(case.scan.folder / case.scan.files[0])
        scan = StoredScan(folder, name, patient, source, nodules, slices, notes)
        return scan, (hu, lungs, labels)
    except (InputError, MemoryError):
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(
            f"{case.scan.name}: {type(error).__name__}: {error} ({Path(where.filename).name}, "
            f"line {where.lineno})."
        ) from error


def _stored_nodules(
    marks: Marks, labels: sitk.Image, lungs: sitk.Image, largest_only: bool
) -> tuple[StoredNodule, ...]:
    """Describe each nodule for the store; `labels` are cropped to the lungs."""
    whole = np.bincount(sitk.GetArrayViewFromImage(marks.labels).ravel())
    inside = np.bincount(
        sitk.GetArrayViewFromImage(labels)[sitk.GetArrayViewFromImage(lungs) > 0],
        minlength=len(whole),
    )
    largest = int(np.argmax(marks.diameters)) if len(marks.diameters) else 0
    nodules = []
    for n, (centre, diameter) in enumerate(zip(marks.centres, marks.diameters, strict=True)):
        detail = dict(marks.details[n]) if marks.details else {"number": n + 1}
        number = detail["number"]
        voxels = whole[number] if number < len(whole) else 0
        x, y, z = (round(float(value), 3) for value in centre)
        nodules.append(
            StoredNodule(
                x=x,
                y=y,
                z=z,
                diameter_mm=round(float(diameter), 3),
                in_lungs=round(float(inside[number] / voxels), 3) if voxels else 0.0,
                example=not largest_only or n == largest,
                **detail,
            )
        )
    return tuple(nodules)


def _example_slices(
    nodules: Sequence[StoredNodule], lungs: sitk.Image, neighbours: int
) -> tuple[int, ...]:
    """Slices with lung around the centres of the example nodules within the lungs."""
    held = sitk.GetArrayViewFromImage(lungs).any(axis=(1, 2))
    wanted: set[int] = set()
    for nodule in nodules:
        if nodule.example and nodule.in_lungs > 0:
            k = lungs.TransformPhysicalPointToIndex((nodule.x, nodule.y, nodule.z))[2]
            wanted.update(range(k - neighbours, k + neighbours + 1))
    return tuple(k for k in sorted(wanted) if 0 <= k < len(held) and held[k])


def _notes(nodules: Sequence[StoredNodule], there: NDArray[np.uint16]) -> list[str]:
    """Name the nodules that lie outside the lungs, and those without a label `there`."""
    notes = []
    for nodule in nodules:
        name = f"Nodule {nodule.number} of {nodule.diameter_mm:.1f} mm"
        if nodule.number not in there:
            notes.append(f"{name} lies within another nodule or outside the scan.")
        elif nodule.in_lungs < 0.5:
            where = "outside" if nodule.in_lungs == 0 else "mostly outside"
            notes.append(f"{name} lies {where} the segmented lungs.")
    return notes


def _write_errors(file: Path, failed: Mapping[str, str]) -> None:
    """Rewrite the list of failures."""
    if not failed and not file.exists():
        return
    replace_text(file, csv_files.table_text(("scan", "error"), failed.items(), "\n"))
