"""Training data from the scans and annotations of the LUNA16 challenge."""

from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.geometry import image_like
from CTLungScreeningLib.model_card import file_sha256
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_reading import IndexedScan, index_scans
from CTLungScreeningLib.reading.volume_files import is_label_map
from LungNoduleSegLib.evaluation.luna_files import Places, read_findings, read_patients
from LungNoduleSegLib.options import ExampleChoice, LunaOptions
from LungNoduleSegLib.training_data.preparation import (
    Case,
    Marks,
    PreparationOutcome,
    prepare_cases,
    scan_name,
)


def sphere_labels(
    grid: sitk.Image, centres: NDArray[np.float64], radii: NDArray[np.float64]
) -> sitk.Image:
    """Mark the voxels whose centres lie in spheres.

    A sphere without a voxel centre is marked by the voxel nearest to its own centre, so that no
    nodule within the grid is lost. Where spheres overlap, the first keeps its voxels.

    Args:
        grid: an image of any orientation and spacing, flipped axes included.
        centres: (n, 3), LPS mm.
        radii: (n,), mm, inclusive.

    Returns:
        uint16 on the grid: the number of the sphere, from 1, or 0.
    """
    shape = np.array(grid.GetSize()[::-1])
    spacing = np.array(grid.GetSpacing()[::-1])
    labels = np.zeros(shape, np.uint16)
    for number, (centre, radius) in enumerate(zip(centres, radii, strict=True), 1):
        # The axes are orthonormal: distances along them, in mm, are distances in the world.
        index = np.array(grid.TransformPhysicalPointToContinuousIndex(centre.tolist())[::-1])
        first = np.clip(np.ceil(index - radius / spacing), 0, shape).astype(int)
        last = np.clip(np.floor(index + radius / spacing) + 1, 0, shape).astype(int)
        box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        offsets = np.ogrid[box]
        squares = [((o - i) * mm) ** 2 for o, i, mm in zip(offsets, index, spacing, strict=True)]
        inside = sum(squares) <= radius**2
        nearest = np.rint(index).astype(int)
        if not inside.any() and np.all((nearest >= 0) & (nearest < shape)):
            box = tuple(slice(i, i + 1) for i in nearest)
            inside = np.ones((1, 1, 1), bool)
        part = labels[box]
        part[inside & (part == 0)] = number
    return image_like(labels, grid)


def prepare_luna(
    luna: Path,
    annotations: Path,
    output: Path,
    choice: ExampleChoice | None = None,
    *,
    tutorial_masks: bool = LunaOptions.tutorial_masks,
    empty_scans: bool = LunaOptions.empty_scans,
    patients: Path | None = LunaOptions.patients,
    progress: ProgressCallback = silent,
) -> PreparationOutcome:
    """Prepare the scans of LUNA16; a repeated call continues with missing scans.

    Args:
        luna: folder with the scans, in any nesting, named by their SeriesInstanceUID; label maps
            and the store may lie there too.
        annotations: CSV with seriesuid, coordX, coordY, coordZ (LPS mm) and diameter_mm.
        output: the store.
        choice: of training examples.
        tutorial_masks: spheres whose radius is the nodule's diameter, as in the tutorial, instead
            of half of it.
        empty_scans: keep scans without a nodule too.
        patients: CSV with seriesuid and patient_id; each scan that is not in it is a patient.
        progress: callback, in the stages "Searching" and "Scans".

    Raises:
        InputError: if there is nothing to prepare, or the output is not a store.
    """
    choice = choice or ExampleChoice()
    left_out: list[str] = []
    scans = _scans_by_name(luna, output, left_out, progress)
    findings = read_findings(annotations, tuple(scans))
    patient_of = read_patients(patients) if patients else {}
    cases, failed = [], {}
    for name, (scan, *others) in scans.items():
        rows = findings.series == name
        if not rows.any() and not empty_scans:
            continue
        if others:
            files = " and ".join(str(one.folder / one.files[0]) for one in (scan, *others))
            failed[name] = f"{files} have the same name: keep one, or rename the others."
        else:
            places = Places(findings.series[rows], findings.position[rows], findings.value[rows])
            mark = partial(_mark_spheres, places, 1.0 if tutorial_masks else 0.5)
            cases.append(Case(scan, patient_of.get(name, name), mark))
    if not cases and not failed:
        raise InputError(
            f"{annotations} names no scan in {luna}: name the files there by its column seriesuid."
        )
    settings = {
        "annotations": file_sha256(annotations),
        "tutorial_masks": tutorial_masks,
        "patients": file_sha256(patients) if patients else None,
    }
    without = len(scans) - len(cases) - len(failed)
    outcome = prepare_cases(cases, output, choice, settings, without, failed, progress)
    unlisted = sum(scan_name(case.scan) not in patient_of for case in cases)
    notes = {str(luna): tuple(left_out)} if left_out else {}
    if patients and unlisted:
        note = f"It does not list {counted(unlisted, 'scan')}: each counts as a patient of its own."
        notes[patients.name] = (note,)
    return replace(outcome, notes={**notes, **outcome.notes})


def _scans_by_name(
    luna: Path, output: Path, notes: list[str], progress: ProgressCallback
) -> dict[str, list[IndexedScan]]:
    """Find the scans, without the store and LUNA16's masks of the lungs, named as the scans are."""
    scans: dict[str, list[IndexedScan]] = defaultdict(list)
    label_maps = 0
    store = output.resolve()
    store_here = luna.resolve() in store.parents
    for scan in index_scans(luna, progress, notes=notes):
        file = scan.folder / scan.files[0]
        if store_here and store in file.resolve().parents:
            continue
        if not scan.uid and is_label_map(file):
            label_maps += 1
        else:
            scans[scan_name(scan)].append(scan)
    if label_maps:
        notes.append(f"Label maps (8-bit volumes) left out: {label_maps}.")
    return scans


def _mark_spheres(places: Places, radius: float, _: sitk.Image, axial: sitk.Image) -> Marks:
    if np.any(places.value <= 0):
        raise InputError(f"{places.series[0]} has a nodule without a diameter: correct the CSV.")
    labels = sphere_labels(axial, places.position, places.value * radius)
    return Marks(labels, places.position, places.value)
