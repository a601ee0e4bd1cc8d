"""Write the results of a run as DICOM SEG and SR."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CTLungScreeningLib.files import new_file, refuse_existing
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.nodules.table import Nodule
from LungNoduleSegLib.results.dicom_report import make_report
from LungNoduleSegLib.results.dicom_segmentation import Algorithms, make_segmentation
from LungNoduleSegLib.results.dicom_source import DicomSource, read_dicom_source
from LungNoduleSegLib.results.names import DICOM_NAMES, DICOM_REPORT, DICOM_SEGMENTATION
from LungNoduleSegLib.results.reading import read_run


def write_dicom(
    folder: Path,
    source: DicomSource,
    lungs: sitk.Image,
    labels: sitk.Image,
    nodules: Sequence[Nodule],
    record: Mapping[str, Any],
) -> None:
    """Write `segmentation.dcm` and `measurements.dcm` in the study of the source.

    Args:
        folder: made if missing.
        source: the series that was segmented.
        lungs: 1 right, 2 left, on the grid of the scan.
        labels: ids of the nodules on the same grid.
        nodules: those to write.
        record: what made them, the contents of `run.json`.

    Raises:
        InputError: if one of the files exists, or nodules, record or series cannot be used.
    """
    refuse_existing(folder, DICOM_NAMES)
    algorithms = Algorithms.of(record)
    segmentation = make_segmentation(source, lungs, labels, nodules, algorithms)
    report = make_report(source, segmentation, lungs, nodules, algorithms)
    for name, made in ((DICOM_SEGMENTATION, segmentation), (DICOM_REPORT, report)):
        with new_file(folder / name) as temporary:
            made.save_as(temporary)


def write_dicom_of_run(folder: Path, progress: ProgressCallback = silent) -> None:
    """Add the DICOM files to the results of a run that was made without them.

    Raises:
        InputError: as `read_run`, `read_dicom_source` and `write_dicom` do.
    """
    refuse_existing(folder, DICOM_NAMES)
    run = read_run(folder, progress)
    write_dicom(folder, read_dicom_source(run.scan), run.lungs, run.labels, run.nodules, run.record)
