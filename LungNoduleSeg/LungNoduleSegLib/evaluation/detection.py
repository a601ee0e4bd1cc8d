"""Detection scores as in the LUNA16 challenge."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import counted
from CTLungScreeningLib.files import new_file
from LungNoduleSegLib.evaluation.froc import (
    CONFIDENCE,
    GRID,
    OPERATING_POINTS,
    Band,
    FrocCurve,
    Marks,
    Spread,
    bootstrap_band,
    froc_curve,
)
from LungNoduleSegLib.evaluation.luna_files import (
    DIAMETER,
    POSITION,
    PROBABILITY,
    SERIES,
    Places,
    Truth,
)
from LungNoduleSegLib.evaluation.subgroups import TrueNodule
from LungNoduleSegLib.options import DetectionOptions

UNKNOWN_DIAMETER_MM = 10.0
"""Diameter for findings with a negative, that is unknown, diameter in the challenge's files."""


@dataclass(frozen=True)
class Matching:
    """Marks matched with findings.

    Attributes:
        marks: the input of the FROC curve.
        nodule_probability: (nodules,) highest probability of a mark on the nodule, in the order of
            the truth; minus infinity without a mark.
        candidates: number of marks considered.
        over_limit: number of marks ignored because their scan has too many.
        on_excluded: number of marks on excluded findings only.
        repeated: number of further marks on a nodule.
    """

    marks: Marks
    nodule_probability: NDArray[np.float64]
    candidates: int
    over_limit: int
    on_excluded: int
    repeated: int


@dataclass(frozen=True)
class DetectionScore:
    """The detection score of a system.

    Attributes:
        matching: marks matched with findings.
        curve: the FROC curve.
        band: bootstrap confidence band, or None.
    """

    matching: Matching
    curve: FrocCurve
    band: Band | None

    @property
    def sensitivity(self) -> NDArray[np.float64]:
        """At each of `OPERATING_POINTS`."""
        return self.curve.sensitivity_at(OPERATING_POINTS)

    @property
    def cpm(self) -> float:
        """Mean sensitivity at `OPERATING_POINTS`, the competition performance metric."""
        return float(self.sensitivity.mean())

    @property
    def threshold_at_one(self) -> float:
        """The lowest threshold with at most one false positive per scan; may be infinite."""
        return float(self.curve.threshold_at((1.0,))[0])

    def to_dict(self) -> dict[str, Any]:
        """Everything except the curve, for a JSON file."""
        marks, thresholds = self.matching.marks, self.curve.threshold_at(OPERATING_POINTS)
        found, nodules = int(marks.found.sum()), int(marks.nodules.sum())
        result: dict[str, Any] = {
            "cpm": self.cpm,
            "false_positives_per_scan": list(OPERATING_POINTS),
            "sensitivity": self.sensitivity.tolist(),
            "threshold": [float(t) if np.isfinite(t) else None for t in thresholds],
            "scans": len(marks.nodules),
            "nodules": nodules,
            "found": found,
            "missed": nodules - found,
            "candidates": self.matching.candidates,
            "false_positives": len(marks.found) - found,
            "ignored_on_excluded_findings": self.matching.on_excluded,
            "ignored_as_second_marks_on_a_nodule": self.matching.repeated,
            "left_out_over_the_limit_a_scan": self.matching.over_limit,
        }
        if self.band is not None:
            result["bootstrap"] = {
                "confidence": CONFIDENCE,
                "cpm": {name: value[0] for name, value in asdict(self.band.cpm).items()},
                "sensitivity": asdict(self.band.points),
            }
        return result

    def to_text(self) -> str:
        """Format the scores as text."""
        totals = self.to_dict()
        lines = [
            f"CPM {totals['cpm']:.4f}{_limits(self.band.cpm, 0) if self.band else ''}",
            "False positives/scan     Sensitivity",
        ]
        for i, (point, sensitivity) in enumerate(
            zip(OPERATING_POINTS, self.sensitivity, strict=True)
        ):
            limits = _limits(self.band.points, i) if self.band else ""
            lines.append(f"{point:22g}   {sensitivity:.4f}{limits}")
        lines.append(
            f"{totals['found']} of {counted(totals['nodules'], 'nodule')} found in "
            f"{counted(totals['scans'], 'scan')}; "
            f"{counted(totals['candidates'], 'mark')} considered, "
            f"{counted(totals['false_positives'], 'false positive')}, "
            f"{totals['ignored_on_excluded_findings']} ignored on excluded findings, "
            f"{totals['ignored_as_second_marks_on_a_nodule']} as second marks on a nodule, "
            f"{totals['left_out_over_the_limit_a_scan']} over the limit per scan."
        )
        return "\n".join(lines)


def _limits(spread: Spread, i: int) -> str:
    return f" ({spread.lower[i]:.4f} to {spread.upper[i]:.4f})"


def score_detection(
    marks: Places,
    truth: Truth,
    max_marks: int = DetectionOptions.max_marks,
    resamples: int = DetectionOptions.resamples,
    seed: int = DetectionOptions.seed,
) -> DetectionScore:
    """Score marks as in the challenge (Setio et al., Medical Image Analysis 2017;42:1).

    A mark within the radius of a nodule's centre detects it; the most probable mark of a nodule
    counts, others on it are ignored, as are marks on excluded findings only. All other marks are
    false positives.

    Args:
        marks: of the system; `value` is the probability.
        truth: with at least one nodule; marks and findings in other scans are ignored.
        max_marks: limit per scan, see `match_marks`; 0 for all.
        resamples: of the scans for confidence limits; 0 for none.
        seed: of the resamples.
    """
    matching = match_marks(marks, truth, max_marks)
    band = bootstrap_band(matching.marks, resamples, seed)
    return DetectionScore(matching, froc_curve(matching.marks), band)


def match_marks(
    marks: Places, truth: Truth, max_marks: int = DetectionOptions.max_marks
) -> Matching:
    """Match marks with findings.

    In a scan with more than `max_marks`, only marks more probable than the first one over the limit
    are kept, hence fewer than `max_marks` in case of ties.
    """
    per_scan = zip(
        *(_rows_by_scan(of.series, truth.scans) for of in (marks, truth.nodules, truth.excluded)),
        strict=True,
    )
    nodule_probability = np.full(len(truth.nodules.series), -np.inf)
    nodule_scan = np.zeros(len(truth.nodules.series), np.intp)
    nodules = np.zeros(len(truth.scans), np.intp)
    false: list[NDArray[np.intp]] = []
    candidates = over_limit = on_excluded = repeated = 0
    for scan, (listed, nodule, excluded) in enumerate(per_scan):
        mark = _most_probable(listed, marks.value, max_marks)
        hits = _hits(marks, mark, truth.nodules, nodule)
        found, ignored = hits.any(axis=1), _hits(marks, mark, truth.excluded, excluded).any(axis=1)
        probability = np.where(hits, marks.value[mark, None], -np.inf)
        nodule_probability[nodule] = probability.max(axis=0, initial=-np.inf)
        nodule_scan[nodule], nodules[scan] = scan, len(nodule)
        false.append(mark[~found & ~ignored])
        candidates += len(mark)
        over_limit += len(listed) - len(mark)
        on_excluded += int((ignored & ~found).sum())
        repeated += int((hits.sum(axis=0) - 1).clip(0).sum())
    hit = np.isfinite(nodule_probability)
    false_scan = np.repeat(np.arange(len(false)), [len(rows) for rows in false])
    rows = np.concatenate(false)
    return Matching(
        Marks(
            np.concatenate([nodule_probability[hit], marks.value[rows]]),
            np.arange(hit.sum() + len(rows)) < hit.sum(),
            np.concatenate([nodule_scan[hit], false_scan]),
            nodules,
        ),
        nodule_probability,
        candidates,
        over_limit,
        on_excluded,
        repeated,
    )


def true_nodules(
    score: DetectionScore, truth: Truth, dice: Sequence[float | None] = ()
) -> tuple[TrueNodule, ...]:
    """Return each nodule of the truth with what is known of it and of its detection.

    Args:
        score: of the marks.
        truth: that they were scored by.
        dice: of each nodule, if there are masks.
    """
    nodules = truth.nodules.value.tolist()
    unknown = (None,) * len(nodules)
    columns = (truth.textures or unknown, truth.places or unknown)
    found = score.matching.nodule_probability.tolist()
    return tuple(
        TrueNodule(*row) for row in zip(nodules, *columns, found, dice or unknown, strict=True)
    )


def write_curve(path: Path, score: DetectionScore) -> None:
    """Write sensitivity, threshold and confidence limits along `GRID` as CSV.

    Raises:
        InputError: if `path` exists.
    """
    columns = {
        "false_positives_per_scan": GRID,
        "sensitivity": score.curve.sensitivity_at(GRID),
        "threshold": score.curve.threshold_at(GRID),
    }
    if score.band is not None:
        columns |= asdict(score.band.curve)
    with new_file(path) as temporary:
        rows = np.stack(list(columns.values()), axis=1)
        np.savetxt(temporary, rows, "%.9g", ",", header=",".join(columns), comments="")


def write_nodules(path: Path, score: DetectionScore, truth: Truth) -> None:
    """Write each nodule with its detection probability as CSV, empty for missed nodules.

    Raises:
        InputError: if `path` exists.
    """
    rows = (
        (series, *position, diameter, probability if np.isfinite(probability) else "")
        for series, position, diameter, probability in zip(
            truth.nodules.series.tolist(),
            truth.nodules.position.tolist(),
            truth.nodules.value.tolist(),
            score.matching.nodule_probability.tolist(),
            strict=True,
        )
    )
    csv_files.write_table(path, (SERIES, *POSITION, DIAMETER, PROBABILITY), rows)


def _rows_by_scan(series: NDArray[np.str_], scans: Sequence[str]) -> list[NDArray[np.intp]]:
    """Rows of each scan in their original order, without those of other scans."""
    number = {uid: n for n, uid in enumerate(scans)}
    owner = np.array([number.get(uid, -1) for uid in series.tolist()], np.intp)
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(len(scans) + 1))
    return [order[start:stop] for start, stop in pairwise(bounds)]


def _most_probable(
    rows: NDArray[np.intp], probability: NDArray[np.float64], limit: int
) -> NDArray[np.intp]:
    if not 0 < limit < len(rows):
        return rows
    first_beyond = np.sort(probability[rows])[::-1][limit]
    return rows[probability[rows] > first_beyond]


def _hits(
    marks: Places, mark: NDArray[np.intp], findings: Places, finding: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Whether each mark lies on each finding of one scan, (marks, findings)."""
    x, y, z = (
        findings.position[finding, axis] - marks.position[mark, axis, None] for axis in range(3)
    )
    diameter = findings.value[finding]
    radius = np.where(diameter < 0, UNKNOWN_DIAMETER_MM, diameter) / 2
    return x * x + y * y + z * z < radius * radius
