"""Write the results of a run as DICOM SEG and SR."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import SimpleITK as sitk
from pydicom import Dataset

from CTLungScreeningLib.files import new_file, refuse_existing
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.nodules.table import Nodule
from LungNoduleSegLib.results.dicom_report import make_key_images, make_report
from LungNoduleSegLib.results.dicom_segmentation import Algorithms, make_segmentation
from LungNoduleSegLib.results.dicom_source import DicomSource, read_dicom_source
from LungNoduleSegLib.results.names import (
    DICOM_KEY_IMAGES,
    DICOM_NAMES,
    DICOM_REPORT,
    DICOM_SEGMENTATION,
    RECORD,
)
from LungNoduleSegLib.results.reading import read_run
from LungNoduleSegLib.risk.assessment import assess_scan
from LungNoduleSegLib.risk.clinical_data import parse_facts
from LungNoduleSegLib.risk.scan_risk import ScanRisk


def write_dicom(
    folder: Path,
    source: DicomSource,
    lungs: sitk.Image,
    labels: sitk.Image,
    nodules: Sequence[Nodule],
    record: Mapping[str, Any],
    risk: ScanRisk | None = None,
    labelmap: bool = False,
) -> None:
    """Write `segmentation.dcm`, `measurements.dcm` and `key-images.dcm` in the source's study.

    Without a nodule there are no key images.

    Args:
        folder: made if missing.
        source: the series that was segmented.
        lungs: 1 right, 2 left, on the grid of the scan.
        labels: ids of the nodules on the same grid.
        nodules: those to write.
        record: what made them, the contents of `run.json`.
        risk: what models and guidelines make of them, for the report; None: they are left out.
        labelmap: see `make_segmentation`.

    Raises:
        InputError: if one of the files exists, or nodules, record or series cannot be used.
    """
    refuse_existing(folder, (*DICOM_NAMES, DICOM_KEY_IMAGES))
    algorithms = Algorithms.of(record)
    segmentation = make_segmentation(source, lungs, labels, nodules, algorithms, labelmap)
    report = make_report(source, segmentation, lungs, nodules, algorithms, risk)
    files: dict[str, Dataset] = {DICOM_SEGMENTATION: segmentation, DICOM_REPORT: report}
    if nodules:
        files[DICOM_KEY_IMAGES] = make_key_images(source, nodules, algorithms)
    for name, made in files.items():
        with new_file(folder / name) as temporary:
            made.save_as(temporary)


def write_dicom_of_run(
    folder: Path, progress: ProgressCallback = silent, labelmap: bool = False
) -> None:
    """Add the DICOM files to the results of a run that was made without them.

    The report's risk is made of the clinical data that the run was given.

    Raises:
        InputError: as `read_run`, `read_dicom_source` and `write_dicom` do.
    """
    refuse_existing(folder, (*DICOM_NAMES, DICOM_KEY_IMAGES))
    run = read_run(folder, progress)
    told = parse_facts(run.record["parameters"].get("facts", {}), f"{folder / RECORD}")
    risk = ScanRisk(told.patient, assess_scan(run.nodules, run.lungs, told))
    source = read_dicom_source(run.scan)
    write_dicom(
        folder, source, run.lungs, run.labels, run.nodules, run.record, risk, labelmap=labelmap
    )
