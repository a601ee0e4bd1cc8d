"""Errors of localizers on scans with known locations, by slice and by landmark."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import make_interp_spline

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import visible_files
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.ct_scan import SliceSource
from CTSliceToolsLib.dataset.annotation import (
    ANNOTATION,
    Annotation,
    read_annotation,
    read_slice_file,
)
from CTSliceToolsLib.dataset.conversion import Part, partition_files, read_picture, read_series_uid
from CTSliceToolsLib.dataset.normalization import normalized_locations
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME, LANDMARKS, LOCATIONS
from CTSliceToolsLib.localizer.anchors import Anatomy, examine
from CTSliceToolsLib.localizer.prediction import Model, fit_slices, open_model, predict_locations
from CTSliceToolsLib.localizer.scan_fit import usual_heights
from CTSliceToolsLib.localizer.scan_pictures import ScanPictures

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
            the top of the head at 0, as slices of `convert` have none.
        anatomies: of `ScanPictures`; empty to examine the pictures.
    """

    name: str
    pictures: NDArray[np.uint8]
    z_mm: Floats
    locations: Floats
    landmark_z_mm: Mapping[str, float]
    measured: bool = True
    anatomies: tuple[Anatomy, ...] = ()

    def z_at(self, location: ArrayLike) -> Floats:
        """Return LPS z in mm of a location, of any shape.

        It is linear between the landmarks; past the first and the last it goes on with the slope
        next to it.
        """
        names = sorted(self.landmark_z_mm, key=lambda name: LANDMARK_BY_NAME[name].location)
        known = [LANDMARK_BY_NAME[name].location for name in names]
        line = make_interp_spline(known, [self.landmark_z_mm[name] for name in names], k=1)
        return np.asarray(line(np.asarray(location, float)))


def labelled_scan(
    name: str,
    image: sitk.Image,
    landmark_z_mm: Mapping[str, float],
    slices: Sequence[SliceSource] = (),
) -> LabelledScan:
    """Make a labelled scan of a volume.

    Args:
        name: for messages, tables and plots.
        image: HU, any orientation.
        landmark_z_mm: LPS z in mm of at least two landmarks by name.
        slices: as of `CTScan`.

    Raises:
        InputError: if there are fewer, or their order contradicts anatomy.
    """
    seen = ScanPictures.of(image, slices)
    annotation = Annotation(name, dict.fromkeys(landmark_z_mm, ""), landmark_z_mm)
    return LabelledScan(
        name,
        seen.pictures,
        seen.z_mm,
        normalized_locations(annotation, seen.z_mm),
        landmark_z_mm,
        anatomies=tuple(seen.anatomies()),
    )


def scan_sources(data: Path, progress: ProgressCallback = silent) -> list[ScanSource]:
    """Find what a localizer can be tested on: the testing part of a dataset, or annotated series.

    Args:
        data: folder of `partition`, or one with annotated DICOM series below it.
        progress: callback, counts the slices of the testing part.

    Raises:
        InputError: if there is nothing.
    """
    tested = (data / Part.TESTING).is_dir()
    annotations = [] if tested else visible_files(data, ANNOTATION)
    if not annotations and any((data / part).is_dir() for part in Part):
        return _partitioned(partition_files(data, Part.TESTING), progress)
    if not annotations:
        raise InputError(
            f"{data} has neither a folder {Part.TESTING} nor an {ANNOTATION} below it: give the "
            "folder that `ct-slice-tools partition` made, or annotated series."
        )
    return [partial(_read_annotated, file.parent, data) for file in annotations]


def _read_annotated(folder: Path, data: Path) -> LabelledScan:
    annotation = read_annotation(folder / ANNOTATION)
    if len(annotation.z_mm) < 2:
        raise InputError(f"{annotation.source} annotates too little: annotate two landmarks.")
    first = next(iter(annotation.slices.values()))
    uid = read_slice_file(folder / str(first)).series_instance_uid
    name = folder.relative_to(data).as_posix() if folder != data else folder.name
    scan = read_ct(folder, uid)
    return labelled_scan(name, scan.image, annotation.z_mm, scan.slices)


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


RANGE = 0.05
"""Width of a range of locations in tables and bar plots."""

TOLERANCES = (0.01, 0.02, 0.05)
"""Tolerances of the location; the first is that of the tutorial's `match_files`."""

TOLERANCES_MM = (5.0, 10.0, 15.0, 20.0, 30.0)


class Way(StrEnum):
    """Method of localization: each slice by itself, or all slices of a scan together."""

    RAW = "raw"
    CONSISTENT = "scan-consistent"


@dataclass(frozen=True)
class ScanErrors:
    """Errors of one model on one scan by one method; slices outside locations 0…1 are left out.

    Attributes:
        scan: its name.
        way: how the locations were found.
        measured: see `LabelledScan`.
        z_mm: LPS z of the slices in mm, (n,).
        truth: their true locations, (n,).
        predicted: those the model gives them, (n,).
        error_mm: how far too high the slices were put: how far the level of the predicted location
            lies above the slice, by the scan's landmarks, in mm, (n,).
        landmark_mm: how far too high each landmark in the field of view was put, by name. Where
            each slice is judged by itself, a landmark is put as far too low as the slice at its
            level too high.
    """

    scan: str
    way: Way
    measured: bool
    z_mm: Floats
    truth: Floats
    predicted: Floats
    error_mm: Floats
    landmark_mm: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """Errors of one model on all scans.

    Attributes:
        model: its name, different for each model.
        scans: each in every way that it can be judged in.
    """

    model: str
    scans: tuple[ScanErrors, ...]

    def of(self, way: Way) -> list[ScanErrors]:
        """Return the scans that were judged in one way."""
        return [scan for scan in self.scans if scan.way is way]


@dataclass(frozen=True)
class Pooled:
    """The slices of several scans: true locations and absolute errors, each (n,)."""

    truth: Floats
    error: Floats
    error_mm: Floats


def pooled(scans: Sequence[ScanErrors]) -> Pooled:
    """Pool the slices of at least one scan."""
    truth = np.concatenate([scan.truth for scan in scans])
    predicted = np.concatenate([scan.predicted for scan in scans])
    error_mm = np.concatenate([scan.error_mm for scan in scans])
    return Pooled(truth, np.abs(predicted - truth), np.abs(error_mm))


def evaluate(
    models: Sequence[Model],
    sources: Sequence[ScanSource],
    progress: ProgressCallback = silent,
    on_problem: Callable[[str], None] = lambda sentence: None,
) -> list[Evaluation]:
    """Try localizers on labelled scans, one scan in memory at a time.

    Args:
        models: at least one.
        sources: of `labelled_scans.scan_sources`, at least one.
        progress: counts the scans, in the stage "Evaluating".
        on_problem: called with a sentence for each scan that cannot be used and is left out.

    Raises:
        InputError: if a model or none of the scans can be used.
    """
    opened = [open_model(model) for model in models]
    found: list[list[ScanErrors]] = [[] for _ in models]
    problem = ""
    for done, source in enumerate(sources):
        progress("Evaluating", done, len(sources))
        try:
            scan = source()
        except InputError as error:
            problem = str(error)
            on_problem(problem)
            continue

        def alive(*_: object, done: int = done) -> None:
            progress("Evaluating", done, len(sources))

        for (network, _), errors in zip(opened, found, strict=True):
            errors.extend(judge(scan, predict_locations(scan.pictures, network, alive)))
    progress("Evaluating", len(sources), len(sources))
    if not any(len(scan.truth) for errors in found for scan in errors):
        raise InputError(f"No scan could be used. {problem}".rstrip())
    names = _distinct([used.name for _, used in opened])
    return [Evaluation(name, tuple(errors)) for name, errors in zip(names, found, strict=True)]


def judge(scan: LabelledScan, raw: Floats) -> list[ScanErrors]:
    """Compare what a network gives the slices of a scan with the truth.

    The scan-consistent way needs the slices' own z, so it is left out where that was not measured.

    Args:
        scan: the truth.
        raw: normalized locations of its slices, (n,).
    """
    within = (scan.locations >= 0) & (scan.locations <= 1)
    half = np.ptp(scan.z_mm) / max(len(scan.z_mm) - 1, 1) / 2
    seen = {
        name: z
        for name, z in scan.landmark_z_mm.items()
        if scan.z_mm.min() - half <= z <= scan.z_mm.max() + half
    }
    order = np.argsort(scan.z_mm)

    def errors(way: Way, predicted: Floats, landmark_mm: dict[str, float]) -> ScanErrors:
        z, truth, predicted = (each[within] for each in (scan.z_mm, scan.locations, predicted))
        error_mm = scan.z_at(predicted) - z
        return ScanErrors(scan.name, way, scan.measured, z, truth, predicted, error_mm, landmark_mm)

    by_slice = {
        name: float(z - scan.z_at(np.interp(z, scan.z_mm[order], raw[order])))
        for name, z in seen.items()
    }
    judged = [errors(Way.RAW, raw, by_slice)]
    if scan.measured:
        anatomies = scan.anatomies or [examine(scan.pictures, scan.z_mm)]
        fit = fit_slices(anatomies, scan.z_mm, raw)
        put = {
            name: float(fit.z_at(LANDMARK_BY_NAME[name].location) - z) for name, z in seen.items()
        }
        judged.append(errors(Way.CONSISTENT, fit.location_at(scan.z_mm), put))
    return judged


def landmark_errors(scans: Iterable[ScanErrors]) -> dict[str, Floats]:
    """Collect the absolute errors in mm of each landmark over scans, from head to feet."""
    found: dict[str, list[float]] = {name: [] for name in LANDMARK_BY_NAME}
    for scan in scans:
        for name, error in scan.landmark_mm.items():
            found[name].append(abs(error))
    return {name: np.array(errors) for name, errors in found.items() if errors}


def ranges(truth: Floats) -> list[tuple[float, float]]:
    """List the ranges of locations, `RANGE` wide, up to the one that the largest true one is in."""
    last = int(np.floor(truth.max() / RANGE + 1e-9)) if len(truth) else 0
    return [(RANGE * n, RANGE * (n + 1)) for n in range(last + 1)]


def _distinct(names: Sequence[str]) -> list[str]:
    """Number the names that occur twice."""
    return [name if names.count(name) == 1 else f"{name} ({n})" for n, name in enumerate(names, 1)]
