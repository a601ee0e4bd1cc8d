"""Results on small DICOM series, written as DICOM and read back by programs of others."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk
from highdicom import sr
from highdicom._standard_utils import (
    check_required_attributes,
    get_iod_module_map,
    get_sop_class_iod_map,
)
from numpy.typing import NDArray
from pydicom import Dataset

from CTLungScreeningLib.reading.ct_scan import CTScan
from LungNoduleSegLib.nodules.table import Nodule, NoduleKind, Side
from LungNoduleSegLib.results.dicom_source import read_dicom_source
from LungNoduleSegLib.results.writing import write_dicom
from mrml_grids import masks, nodule_row

RECORD: dict[str, Any] = {
    "software": {"CTLungScreening": "1.2.3"},
    "model": {"name": "a-unet", "file": "a.keras", "sha256": "0123abcd" * 8},
    "parameters": {"lung_method": "volume", "rules": {"threshold": 0.5, "max_elongation": None}},
}


def segments(file: Path) -> list[tuple[str, NDArray[np.float64]]]:
    """Each segment's name and its voxels (n, 3) in LPS mm, as highdicom puts them into a volume."""
    read = hd.seg.segread(file)
    found = []
    for number in read.segment_numbers:
        volume = read.get_volume(segment_numbers=[number])
        where = np.argwhere(volume.array[..., 0])
        label = read.get_segment_description(number).segment_label
        found.append((label, where @ volume.affine[:3, :3].T + volume.affine[:3, 3]))
    return found


def results_on(
    scan: CTScan, ids: Sequence[int] = (1, 3)
) -> tuple[sitk.Image, sitk.Image, list[Nodule]]:
    """Make lungs, nodules and their rows on a small scan: 1 right and solid, 3 left, by hand."""
    lungs, labels = masks(scan.image, tuple(ids))
    rows = [nodule_row(labels, one) for one in ids]
    for index, row in enumerate(rows):
        if row.id == 3:
            rows[index] = replace(row, side=Side.LEFT, kind=NoduleKind.NON_SOLID, probability=None)
    return lungs, labels, rows


def written(folder: Path, scan: CTScan, ids: Sequence[int] = (1, 3)) -> Path:
    """Write the results of `results_on` as DICOM."""
    write_dicom(folder, read_dicom_source(scan), *results_on(scan, ids), RECORD)
    return folder


def check_modules(dataset: Dataset) -> None:
    """Fail unless all that highdicom's tables require in the mandatory modules is there.

    They do not know that a functional group may be shared or of each frame, nor which of a report's
    content items an attribute is for.
    """
    iod = get_sop_class_iod_map()[dataset.SOPClassUID]
    for module in get_iod_module_map()[iod]:
        if module["usage"] == "M" and not module["key"].endswith(
            ("functional-groups", "sr-document-content")
        ):
            check_required_attributes(dataset, module["key"])


def validated(file: Path) -> list[str]:
    """Faults that dicom3tools' validator finds; it is no Python package, so it may be missing."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy of dicom3tools is not installed")
    done = subprocess.run([program, file], capture_output=True, text=True, check=False)
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


def dcmqi(program: str, *arguments: str | Path) -> None:
    """Run a program of dcmqi, which is built on DCMTK and shares nothing with highdicom."""
    pytest.importorskip("dcmqi", reason="dcmqi is not installed")
    code = f"import dcmqi; dcmqi.{program}()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


VOLUME = ("IBSI", "YEKZ")
"""Code of the volume of voxels in a report."""

SHOWN_VOLUME = ("SCT", "118565006")
"""Code of the volume that the image shows, with the voxels at the edge counted by their share."""


def groups(file: Path) -> list[Any]:
    """The measured regions of a report."""
    return sr.srread(file).content.get_volumetric_roi_measurement_groups()


def measures(group: Any) -> dict[tuple[str, str], tuple[float, str]]:
    """Value and unit of each measure of a region, by its code."""
    return {
        (one.name.scheme_designator, one.name.value): (one.value, one.unit.value)
        for one in group.get_measurements()
    }
