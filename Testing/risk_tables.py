"""Results of runs, feature tables and labels for the tests of the risk classifiers."""

import csv
import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from LungNoduleSegLib.nodules.measures import measure_labels
from LungNoduleSegLib.nodules.table import write_nodules_csv
from LungNoduleSegLib.risk.features import IDENTIFIERS, SCAN_FEATURES

INFORMATIVE = "largest_diameter_mm"
PATIENTS, SCANS = 60, 90


def image(array: NDArray[np.generic], spacing: tuple[float, ...] = (1, 1, 1)) -> sitk.Image:
    result = sitk.GetImageFromArray(array)
    result.SetSpacing(spacing)
    return result


def two_squares() -> NDArray[np.uint8]:
    """Slice 1: 3×3 pixels about row 5, column 10; slice 2: 5×5 about row 15, column 6."""
    mask = np.zeros((4, 20, 20), np.uint8)
    mask[1, 4:7, 9:12] = 1
    mask[2, 13:18, 4:9] = 1
    return mask


def write_run(folder: Path, patient: str = "P1", nodules: int = 2, uid: str = "1.2.3") -> None:
    """The files of a run that features are taken from, measured by the real code."""
    labels = np.zeros((20, 40, 40), np.uint16)
    if nodules:
        labels[8:12, 8:16, 8:16] = 1
    if nodules > 1:
        labels[4:6, 27:30, 27:30] = 2
    lungs = np.zeros(labels.shape, np.uint8)
    lungs[2:18, 4:36, 4:19] = 1
    lungs[2:18, 4:36, 21:36] = 2
    hu = np.where(labels > 0, 20, -850).astype(np.int16)
    spacing = (1.0, 1.0, 2.0)
    label_image, lung_image, hu_image = (image(a, spacing) for a in (labels, lungs, hu))
    rows = measure_labels(label_image, hu_image, lung_image, label_image)
    folder.mkdir(parents=True)
    sitk.WriteImage(label_image, folder / "nodules.nii.gz")
    sitk.WriteImage(lung_image, folder / "lungs.nii.gz")
    write_nodules_csv(folder / "nodules.csv", rows)
    series = {"patient_id": patient, "series_instance_uid": uid}
    (folder / "run.json").write_text(json.dumps({"input": {"series": series}}))


def cohort() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Rows of features and labels: independent noise but for one feature, half decisive."""
    rng = np.random.default_rng(4)
    x = rng.normal(10, 2, (SCANS, len(SCAN_FEATURES)))
    column = list(SCAN_FEATURES).index(INFORMATIVE)
    label = (np.arange(PATIENTS) % 3 == 0).astype(int)
    features = []
    for i in range(SCANS):
        owner = i % PATIENTS
        x[i, column] += 5 * label[owner]
        cells = {name: f"{v:.6g}" for name, v in zip(SCAN_FEATURES, x[i], strict=True)}
        identifiers = dict(zip(IDENTIFIERS, (f"s{i}", f"p{owner}", "", "run"), strict=True))
        features.append(identifiers | cells)
    labels = [{"patient_id": f"p{i}", "label": str(label[i])} for i in range(PATIENTS)]
    return features, labels


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path
