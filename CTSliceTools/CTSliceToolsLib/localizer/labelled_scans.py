"""Scans with known locations, for evaluating a localizer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import make_interp_spline

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTSliceToolsLib.dataset.annotation import ANNOTATION, Annotation, read_annotation
from CTSliceToolsLib.dataset.labelled_slice import read_series_uid
from CTSliceToolsLib.dataset.normalization import normalized_locations
from CTSliceToolsLib.dataset.partition import Part
from CTSliceToolsLib.dataset.slice_file import read_slice_file
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME, LANDMARKS, LOCATIONS
from CTSliceToolsLib.localizer.scan_fit import usual_heights
from CTSliceToolsLib.localizer.slice_batches import partition_files, read_picture
from CTSliceToolsLib.slice_image import slice_images

Floats = NDArray[np.float64]
ScanSource = Callable[[], "LabelledScan"]
"""Reads a scan when it is called, so that one at a time is in memory; may raise `InputError`."""


@dataclass(frozen=True)
class LabelledScan:
    """One scan with the true locations of its slices.

    Attributes:
        name: for tables and plots.
        pictures: slice images, uint8 (n, `SIZE`, `SIZE`).
        z_mm: LPS z of the slices in mm, (n,).
        locations: their true normalized locations, (n,).
        landmark_z_mm: LPS z in mm of at least two landmarks by name.
        measured: whether z is the scan's own; else it is that of an adult of usual proportions with
            the top of the head at 0, as slices of `convert` do not tell theirs.
    """

    name: str
    pictures: NDArray[np.uint8]
    z_mm: Floats
    locations: Floats
    landmark_z_mm: Mapping[str, float]
    measured: bool = True

    def z_at(self, location: ArrayLike) -> Floats:
        """Give LPS z in mm of a location, of any shape.

        It is linear between the landmarks; past the first and the last it goes on with the slope
        next to it.
        """
        names = sorted(self.landmark_z_mm, key=lambda name: LANDMARK_BY_NAME[name].location)
        known = [LANDMARK_BY_NAME[name].location for name in names]
        line = make_interp_spline(known, [self.landmark_z_mm[name] for name in names], k=1)
        return np.asarray(line(np.asarray(location, float)))


def labelled_scan(name: str, image: sitk.Image, landmark_z_mm: Mapping[str, float]) -> LabelledScan:
    """Make a labelled scan of a volume.

    Args:
        name: for messages, tables and plots.
        image: HU, any orientation.
        landmark_z_mm: LPS z in mm of at least two landmarks by name.

    Raises:
        InputError: if there are fewer, or their order contradicts anatomy.
    """
    pictures, z_mm = slice_images(image)
    annotation = Annotation(name, dict.fromkeys(landmark_z_mm, ""), landmark_z_mm)
    locations = normalized_locations(annotation, z_mm)
    return LabelledScan(name, pictures, z_mm, locations, landmark_z_mm)


def scan_sources(data: Path, progress: ProgressCallback = silent) -> list[ScanSource]:
    """Find what a localizer can be tested on: the testing part of a dataset, or annotated series.

    Args:
        data: folder of `partition`, or one with annotated DICOM series below it.
        progress: told of the slices of the testing part that were looked at.

    Raises:
        InputError: if there is nothing.
    """
    if (data / Part.TESTING).is_dir():
        return _partitioned(partition_files(data, Part.TESTING), progress)
    folders = sorted(file.parent for file in data.rglob(ANNOTATION))
    if not folders:
        raise InputError(
            f"{data} has neither a folder {Part.TESTING} nor an {ANNOTATION} below it: give the "
            "folder that `ct-slice-tools partition` made, or annotated series."
        )
    return [partial(_read_annotated, folder, data) for folder in folders]


def _read_annotated(folder: Path, data: Path) -> LabelledScan:
    annotation = read_annotation(folder / ANNOTATION)
    if len(annotation.z_mm) < 2:
        raise InputError(f"{annotation.source} annotates too little: annotate two landmarks.")
    first = next(iter(annotation.slices.values()))
    uid = read_slice_file(folder / str(first)).series_instance_uid
    name = folder.relative_to(data).as_posix() if folder != data else folder.name
    return labelled_scan(name, read_ct(folder, uid).image, annotation.z_mm)


def _partitioned(files: list[Path], progress: ProgressCallback) -> list[ScanSource]:
    by_series: dict[str, list[Path]] = {}
    for done, file in enumerate(files, 1):
        by_series.setdefault(read_series_uid(file), []).append(file)
        progress("Searching", done, len(files))
    return [partial(_read_slices, uid, of_series) for uid, of_series in by_series.items()]


def _read_slices(uid: str, files: list[Path]) -> LabelledScan:
    slices = sorted((read_picture(file) for file in files), key=lambda one: -one[1])
    locations = np.array([location for _, location in slices])
    names = [landmark.name for landmark in LANDMARKS]
    usual = dict(zip(names, usual_heights().tolist(), strict=True))
    z_mm = np.asarray(make_interp_spline(LOCATIONS, list(usual.values()), k=1)(locations))
    return LabelledScan(
        uid, np.stack([pixels for pixels, _ in slices]), z_mm, locations, usual, measured=False
    )
