"""Errors of localizers on annotated scans, by slice and by landmark."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME
from CTSliceToolsLib.localizer.anchors import examine
from CTSliceToolsLib.localizer.labelled_scans import LabelledScan, ScanSource
from CTSliceToolsLib.localizer.prediction import Model, open_model, predict_locations
from CTSliceToolsLib.localizer.scan_fit import fit_scan

Floats = NDArray[np.float64]

RANGE = 0.05
"""Width of a range of locations in tables and bar plots."""

TOLERANCES = (0.01, 0.02, 0.05)
"""Of the location; the first is that of the tutorial's `match_files`."""

TOLERANCES_MM = (5.0, 10.0, 15.0, 20.0, 30.0)


class Way(StrEnum):
    """How a location was found: each slice by itself, or all slices of its scan together."""

    RAW = "raw"
    CONSISTENT = "scan-consistent"


@dataclass(frozen=True)
class ScanErrors:
    """One scan under one model, in one way; slices outside locations 0…1 are left out.

    Attributes:
        scan: its name.
        way: how the locations were found.
        measured: see `LabelledScan`.
        z_mm: LPS z of the slices in mm, (n,).
        truth: their true locations, (n,).
        predicted: those the model gives them, (n,).
        error_mm: how far the level of the predicted location lies above the slice, by the scan's
            landmarks, in mm, (n,).
        landmark_mm: the same of each landmark in the field of view, by name: of its level where a
            slice by itself is judged; for a scan-consistent prediction how far above its level the
            landmark was put.
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
    """One model on all scans.

    Attributes:
        model: its name, different for each model.
        scans: each in every way that it can be judged in.
    """

    model: str
    scans: tuple[ScanErrors, ...]

    def of(self, way: Way) -> list[ScanErrors]:
        """Give the scans that were judged in one way."""
        return [scan for scan in self.scans if scan.way is way]


@dataclass(frozen=True)
class Pooled:
    """The slices of several scans: true locations and absolute errors, each (n,)."""

    truth: Floats
    error: Floats
    error_mm: Floats


def pooled(scans: Sequence[ScanErrors]) -> Pooled:
    """Put the slices of scans together; at least one scan."""
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
        on_problem: told of each scan that cannot be used; the others are.

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
        name: float(scan.z_at(np.interp(z, scan.z_mm[order], raw[order])) - z)
        for name, z in seen.items()
    }
    judged = [errors(Way.RAW, raw, by_slice)]
    if scan.measured:
        fit = fit_scan(scan.z_mm, raw, examine(scan.pictures, scan.z_mm).anchors)
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
    """Number the names that are given twice."""
    return [name if names.count(name) == 1 else f"{name} ({n})" for n, name in enumerate(names, 1)]
