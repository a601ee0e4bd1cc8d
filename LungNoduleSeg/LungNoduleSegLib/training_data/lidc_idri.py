"""The scans and outlines of LIDC-IDRI, prepared to learn from."""

from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.scan_index import index_scans
from LungNoduleSegLib.nodules.measures import sphere_diameter
from LungNoduleSegLib.training_data.consensus import consensus_labels, consensus_nodules
from LungNoduleSegLib.training_data.lidc_xml import ScanReadings, find_lidc_xml, read_lidc_xml
from LungNoduleSegLib.training_data.preparation import (
    Case,
    ExampleChoice,
    Marks,
    PreparationOutcome,
    prepare_cases,
)


def prepare_lidc(
    folder: Path,
    output: Path,
    agreement: int = 3,
    choice: ExampleChoice | None = None,
    *,
    empty_scans: bool = False,
    progress: ProgressCallback = silent,
) -> PreparationOutcome:
    """Prepare the scans of LIDC-IDRI; called again, it goes on with those that are missing.

    Args:
        folder: DICOM files and XML files, in any nesting.
        output: the store.
        agreement: how many of the four radiologists have to have outlined a voxel.
        choice: what becomes examples.
        empty_scans: keep scans without such a voxel too.
        progress: callback, in the stages "Searching" and "Scans".

    Raises:
        InputError: if there is nothing to prepare, or the output is something else.
    """
    choice = choice or ExampleChoice()
    scans = {scan.uid: scan for scan in index_scans(folder, progress) if scan.uid}
    cases: dict[str, Case] = {}
    failed: dict[str, str] = {}
    for file in find_lidc_xml(folder):
        try:
            readings = read_lidc_xml(file)
        except InputError as error:
            failed[file.name] = str(error)
            continue
        uid = readings.series_instance_uid
        if uid not in scans:
            failed[uid] = f"{file} reads series {uid}, which is not in {folder}: get the scan too."
        elif uid in cases:
            failed[file.name] = f"{file} reads series {uid}, as another file does: keep one."
        else:
            mark = partial(_mark_consensus, readings, agreement, empty_scans)
            cases[uid] = Case(scans[uid], None, mark)
    if not cases and not failed:
        raise InputError(
            f"{folder} holds no XML file of LIDC-IDRI's radiologists: give the folder with the "
            "scans and the XML files."
        )
    without = len(scans) - len(cases)
    return prepare_cases(
        list(cases.values()), output, choice, {"agreement": agreement}, without, failed, progress
    )


def _mark_consensus(
    readings: ScanReadings,
    agreement: int,
    empty_scans: bool,
    image: sitk.Image,
    axial: sitk.Image,
) -> Marks | None:
    nodules = consensus_nodules(readings, image)
    own = consensus_labels(nodules, image, agreement)
    marked = sitk.LabelShapeStatisticsImageFilter()
    marked.Execute(own)
    agreed = [number for number in range(1, len(nodules) + 1) if marked.HasLabel(number)]
    if not agreed and not empty_scans:
        return None
    labels = sitk.Resample(own, axial, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    volumes = [marked.GetPhysicalSize(number) for number in agreed]
    return Marks(
        labels,
        np.array([marked.GetCentroid(number) for number in agreed]).reshape(-1, 3),
        sphere_diameter(np.array(volumes)),
        [
            {
                "number": number,
                "readers": nodules[number - 1].readers,
                "ratings": nodules[number - 1].ratings,
            }
            for number in agreed
        ],
    )
