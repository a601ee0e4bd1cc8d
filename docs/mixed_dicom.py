"""A heap of DICOM files of several patients, made from the real scans of ../shared/data.

    python docs/mixed_dicom.py ../shared/data HEAP LANDMARKS

HEAP gets all files in one folder under meaningless names, and a text file among them; LANDMARKS one
JSON file a scan with the z of its landmarks, as a person would have read them.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

from CTLungScreeningLib.reading.ct_reading import read_ct
from LungNoduleSegLib.phantom.dicom import SeriesText, write_dicom_series

VOLUMES = {
    "CMB-CRC-MSB-01068.nrrd": ("CMB-CRC-MSB-01068", "Chest"),
    "ACRIN-FLT-Breast_001_headchest.nrrd": ("ACRIN-FLT-Breast_001", "Head to chest"),
    "ACRIN-FLT-Breast_001_abdopelvis.nrrd": ("ACRIN-FLT-Breast_001", "Abdomen and pelvis"),
    "pyCERR_HN_pt1.nrrd": ("pyCERR HN/1", "Head and neck"),
    "TotalSegmentator_example.nii.gz": ("TotalSegmentator", "Abdomen and pelvis"),
}
"""Patient ID and series description of the scans that are not DICOM."""


def main() -> None:
    """Write the heap."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("heap", type=Path)
    parser.add_argument("landmarks", type=Path)
    options = parser.parse_args()
    files = list((options.data / "LIDC-IDRI-0001").iterdir())
    series = options.heap / "series"
    for name, (patient, description) in VOLUMES.items():
        text = SeriesText(f"{patient}^", patient, description)
        files += write_dicom_series(
            read_ct(options.data / name).image, series / name, text, circle=False
        )
    for n, index in enumerate(np.random.default_rng(0).permutation(len(files))):
        file = files[index]
        shutil.copyfile(file, options.heap / f"{n:06}{'.txt' if file.suffix == '.xml' else ''}")
    shutil.rmtree(series)
    options.landmarks.mkdir()
    heights = json.loads((options.data / "landmarks.json").read_text(encoding="utf-8"))
    for scan, landmarks in heights.items():
        (options.landmarks / f"{scan.split('.')[0]}.json").write_text(
            json.dumps({"landmarks": landmarks}, indent=1), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
