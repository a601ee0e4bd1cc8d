"""The scans and annotations of the LUNA16 challenge, prepared to learn from."""

from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.model_card import file_sha256
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.scan_index import index_scans
from LungNoduleSegLib.evaluation.luna_files import Places, read_findings, read_patients
from LungNoduleSegLib.training_data.preparation import (
    Case,
    ExampleChoice,
    Marks,
    PreparationOutcome,
    prepare_cases,
    scan_name,
)
from LungNoduleSegLib.training_data.spheres import sphere_labels


def prepare_luna(
    luna: Path,
    annotations: Path,
    output: Path,
    choice: ExampleChoice | None = None,
    *,
    tutorial_masks: bool = False,
    empty_scans: bool = False,
    patients: Path | None = None,
    progress: ProgressCallback = silent,
) -> PreparationOutcome:
    """Prepare the scans of LUNA16; called again, it goes on with those that are missing.

    Args:
        luna: folder with the scans, in any nesting, named by their SeriesInstanceUID.
        annotations: CSV with seriesuid, coordX, coordY, coordZ (LPS mm) and diameter_mm.
        output: the store.
        choice: what becomes examples.
        tutorial_masks: spheres whose radius is the nodule's diameter, as in the tutorial, in place
            of half of it.
        empty_scans: keep scans without a nodule too.
        patients: CSV with seriesuid and patient_id; without it each scan is a patient.
        progress: callback, in the stages "Searching" and "Scans".

    Raises:
        InputError: if there is nothing to prepare, or the output is something else.
    """
    choice = choice or ExampleChoice()
    scans = {scan_name(scan): scan for scan in index_scans(luna, progress)}
    findings = read_findings(annotations, tuple(scans))
    patient_of = read_patients(patients) if patients else {}
    cases = []
    for name, scan in scans.items():
        rows = findings.series == name
        if rows.any() or empty_scans:
            places = Places(findings.series[rows], findings.position[rows], findings.value[rows])
            mark = partial(_mark_spheres, places, 1.0 if tutorial_masks else 0.5)
            cases.append(Case(scan, patient_of.get(name, name), mark))
    if not cases:
        raise InputError(
            f"{annotations} names no scan of {luna}: the files there have to be called as its "
            "seriesuid says."
        )
    settings = {
        "annotations": file_sha256(annotations),
        "tutorial_masks": tutorial_masks,
        "patients": file_sha256(patients) if patients else None,
    }
    return prepare_cases(cases, output, choice, settings, len(scans) - len(cases), {}, progress)


def _mark_spheres(places: Places, radius: float, _: sitk.Image, axial: sitk.Image) -> Marks:
    if np.any(places.value <= 0):
        raise InputError(f"{places.series[0]} has a nodule without a diameter: correct the CSV.")
    labels = sphere_labels(axial, places.position, places.value * radius)
    return Marks(labels, places.position, places.value)
