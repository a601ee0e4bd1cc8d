"""Read the results of a run back from its files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import parse_json
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTLungScreeningLib.reading.volume_files import read_labels
from LungNoduleSegLib.nodules.table import Nodule, read_nodules_csv

LUNGS = "lungs.nii.gz"
NODULES = "nodules.nii.gz"
TABLE = "nodules.csv"
SEGMENTATION = "segmentation.seg.nrrd"
REPORT = "report.html"
RECORD = "run.json"
SCENE = "scene.mrb"
PROBABILITY = "probability.nrrd"
DICOM_SEGMENTATION = "segmentation.dcm"
DICOM_REPORT = "measurements.dcm"
DICOM_KEY_IMAGES = "key-images.dcm"

GROWTH_TABLE = "growth.csv"
TIMELINE_TABLE = "timeline.csv"
GROWTH_PAGE = "growth.html"
"""What a comparison of runs leaves behind."""

DICOM_NAMES = (DICOM_SEGMENTATION, DICOM_REPORT)
"""Always written; `DICOM_KEY_IMAGES` only where there is a nodule."""


def result_names(scene: bool, dicom: bool = False, probability: bool = False) -> list[str]:
    """Names of all files of a run: those that are always there, and those that are asked for."""
    files = [LUNGS, NODULES, TABLE, SEGMENTATION, REPORT, RECORD]
    return [*files, *[SCENE] * scene, *DICOM_NAMES * dicom, *[PROBABILITY] * probability]


@dataclass(frozen=True)
class RunResult:
    """The results of a run with the scan they are from.

    Attributes:
        scan: read again from where it lay.
        lungs: 1 right, 2 left, on the scan's grid.
        labels: ids of the nodules on the same grid.
        nodules: the rows of the table.
        record: the contents of `run.json`.
    """

    scan: CTScan
    lungs: sitk.Image
    labels: sitk.Image
    nodules: tuple[Nodule, ...]
    record: dict[str, Any]


def is_run(folder: Path) -> bool:
    """Tell whether a folder holds the results of a run."""
    return (folder / RECORD).is_file()


def read_run(folder: Path, progress: ProgressCallback = silent) -> RunResult:
    """Read masks and table of a run, and the scan it names.

    Raises:
        InputError: naming the file that is missing, damaged or does not fit the others.
    """
    record, source, series = _record(folder / RECORD)
    if not source.exists():
        raise InputError(
            f"{folder / RECORD} says that the scan is at {source}, but it is not there any more: "
            "put it back, or run the scan again."
        )
    scan = read_ct(source, series, progress)
    lungs, labels = _labels(folder / LUNGS), _labels(folder / NODULES)
    for name, image in ((LUNGS, lungs), (NODULES, labels)):
        if not _same_grid(image, scan.image):
            raise InputError(f"{folder / name} does not fit the scan {source}: run the scan again.")
    return RunResult(scan, lungs, labels, read_nodules_csv(folder / TABLE), record)


def _same_grid(one: sitk.Image, other: sitk.Image) -> bool:
    """Whether two images have the same voxels, to a hundredth of a voxel."""
    last = [size - 1 for size in other.GetSize()]
    corners = ([0, 0, 0], last, [last[0], 0, 0], [0, last[1], 0])
    return one.GetSize() == other.GetSize() and all(
        np.allclose(
            one.TransformPhysicalPointToContinuousIndex(
                other.TransformIndexToPhysicalPoint(corner)
            ),
            corner,
            atol=0.01,
        )
        for corner in corners
    )


def _record(file: Path) -> tuple[dict[str, Any], Path, str | None]:
    """The record of a run, where its scan lies, and its SeriesInstanceUID."""
    try:
        record: dict[str, Any] = parse_json(file.read_text(encoding="utf-8"))
        found = record["input"]
        series = found["series"]
        uid = series["series_instance_uid"] if series else None
        return record, Path(found["source"]), uid
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no record of a run: run the scan again.") from error


def _labels(file: Path) -> sitk.Image:
    try:
        return read_labels(file)
    except InputError as error:
        raise InputError(f"{file} is missing or damaged: run the scan again.") from error
