"""The LUNA16 challenge's scoring step by step, slow and literal, to hold the fast one against.

It follows the published description (Setio et al., Medical Image Analysis 2017;42:1) and what the
challenge's script is known to do, with plain loops and scikit-learn's `roc_curve`.
"""

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import roc_curve

POINTS = [0.125, 0.25, 0.5, 1, 2, 4, 8]
Entry = tuple[str, bool, float | None]
"""Scan, whether a nodule, and the probability; None for a nodule that no mark found."""


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def read_uids(path: Path) -> list[str]:
    with path.open(newline="") as stream:
        return [row[0] for row in csv.reader(stream) if row]


def entries(
    submission: list[dict[str, str]],
    annotations: list[dict[str, str]],
    excluded: list[dict[str, str]],
    uids: list[str],
    max_marks: int,
) -> tuple[list[Entry], dict[str, int]]:
    """What enters the FROC analysis, and the tally of the rest."""
    result: list[Entry] = []
    tally = {"candidates": 0, "excluded": 0, "double": 0}
    for uid in uids:
        marks = dict(enumerate(row for row in submission if row["seriesuid"] == uid))
        if 0 < max_marks < len(marks):
            ranked = sorted((float(mark["probability"]) for mark in marks.values()), reverse=True)
            marks = {
                key: mark
                for key, mark in marks.items()
                if float(mark["probability"]) > ranked[max_marks]
            }
        tally["candidates"] += len(marks)
        left = set(marks)
        for included, table in ((True, annotations), (False, excluded)):
            for finding in table:
                if finding["seriesuid"] != uid:
                    continue
                diameter = float(finding["diameter_mm"])
                if diameter < 0:
                    diameter = 10.0
                best: float | None = None
                count = 0
                for key, mark in marks.items():
                    squares = [
                        (float(finding[axis]) - float(mark[axis])) ** 2.0
                        for axis in ("coordX", "coordY", "coordZ")
                    ]
                    if sum(squares) < (diameter / 2.0) ** 2.0:
                        count += 1
                        if included:
                            best = max(
                                float(mark["probability"]), -np.inf if best is None else best
                            )
                        elif key in left:
                            tally["excluded"] += 1
                        left.discard(key)
                if included:
                    result.append((uid, True, best))
                    tally["double"] += max(count - 1, 0)
        result += [(uid, False, float(marks[key]["probability"])) for key in left]
    return result, tally


def curve(listed: list[Entry], scans: int) -> tuple[Any, Any]:
    """False positives a scan and sensitivity."""
    scored = [(nodule, p) for _, nodule, p in listed if p is not None]
    found = sum(nodule for nodule, _ in scored)
    lesions = sum(nodule for _, nodule, _ in listed)
    if not scored:
        return np.zeros(1), np.zeros(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        fpr, tpr, _ = roc_curve([float(nodule) for nodule, _ in scored], [p for _, p in scored])
    if found == len(scored):
        fpr = np.zeros(len(fpr))
    if not found:
        tpr = np.zeros(len(tpr))
    return fpr * (len(scored) - found) / scans, tpr * found / lesions


def sensitivities(listed: list[Entry], scans: int) -> list[float]:
    """At the seven operating points."""
    return np.interp(POINTS, *curve(listed, scans)).tolist()


def bootstrap(
    listed: list[Entry], uids: list[str], resamples: int, seed: int
) -> tuple[Any, Any, Any]:
    """Mean, lower and upper limit of the curve at 10,000 points, one resample after the other."""
    per_scan: dict[str, list[Entry]] = {uid: [] for uid in uids}
    for entry in listed:
        per_scan[entry[0]].append(entry)
    drawn = np.random.default_rng(seed).integers(len(uids), size=(resamples, len(uids)))
    grid = np.linspace(0.125, 8, num=10000)
    curves = []
    for chosen in drawn:
        sample = [entry for scan in chosen for entry in per_scan[uids[scan]]]
        if any(nodule for _, nodule, _ in sample):
            curves.append(np.interp(grid, *curve(sample, len(uids))))
    ordered = np.sort(np.array(curves, "float32"), axis=0)
    tail = (1.0 - 0.95) / 2.0
    low, high = ordered[int(tail * len(ordered))], ordered[int((1.0 - tail) * len(ordered))]
    return ordered.mean(axis=0), low, high
