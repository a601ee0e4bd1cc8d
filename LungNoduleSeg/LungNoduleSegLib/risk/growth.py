"""Growth: the nodules of two scans of one patient matched, and what changed between them."""

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import SimpleITK as sitk
from scipy.optimize import linear_sum_assignment

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.nodules.table import Nodule, Side
from LungNoduleSegLib.risk.alignment import LABELS, Alignment, align
from LungNoduleSegLib.risk.facts import Status, lung_heights
from LungNoduleSegLib.risk.lung_rads import change_by_lung_rads, lung_rads_mean_mm

GATE_MM = 20.0
"""Nodules farther apart than this, once the lungs are aligned, are two nodules (our own choice:
alignment leaves a few mm in the middle of a lung and up to a centimetre at the diaphragm)."""

VOLUME_VARIABILITY = 0.25
"""A smaller change of volume is within the error of measurement: van Klaveren et al., N Engl J
Med 2009;361:2221-2229 (NELSON); Callister et al., Thorax 2015;70 Suppl 2 (BTS guideline)."""

DAYS_PER_MONTH = 365.25 / 12

LARGE_SPACING_RATIO = 1.5
"""Slices thicker than this in comparison make volumes hard to compare (our own choice)."""

POOR_OVERLAP = 0.8
"""Dice coefficient of an aligned lung below which the matches are to be checked (our own choice;
two phantoms of one patient reach 0.97)."""


class Change(StrEnum):
    """What became of a nodule."""

    GROWN = "grown"
    SHRUNK = "shrunk"
    UNCHANGED = "within variability"
    NEW = "new"
    VANISHED = "not found again"
    NOT_SHOWN_BEFORE = "outside the prior scan"
    NOT_SHOWN_NOW = "outside the current scan"


@dataclass(frozen=True)
class ChestScan:
    """One of the two scans.

    Attributes:
        name: what people call it.
        hu: CT, any orientation, LPS mm.
        lungs: `RIGHT_LUNG`, `LEFT_LUNG`, on any grid.
        nodules: the rows of its table.
        date: of the study, None if not known.
        patient_id: of the DICOM header, "" if not known.
    """

    name: str
    hu: sitk.Image
    lungs: sitk.Image
    nodules: tuple[Nodule, ...]
    date: datetime.date | None = None
    patient_id: str = ""


@dataclass(frozen=True)
class NoduleGrowth:
    """One nodule at two times; `GROWTH_COLUMNS` of `growth_table` says what each number is.

    Attributes:
        prior: the nodule in the prior scan, None if it is new.
        current: the nodule in the current scan, None if it was not found again.
        change: by volume, see `VOLUME_VARIABILITY`.
        prior_point: where it lies, or would lie, in the prior scan, LPS mm.
        current_point: likewise in the current scan.
        apart_mm: distance of the two once the lungs are aligned.
        doubling_days: volume doubling time of a grown nodule, None if not known.
        lung_rads: the change by Lung-RADS v2022, None if not known.
    """

    prior: Nodule | None
    current: Nodule | None
    change: Change
    prior_point: tuple[float, float, float]
    current_point: tuple[float, float, float]
    apart_mm: float | None = None
    doubling_days: float | None = None
    lung_rads: Status | None = None

    @property
    def diameter_change_mm(self) -> float | None:
        """Change of the mean of the two axial diameters."""
        if self.prior is None or self.current is None:
            return None
        return mean_mm(self.current) - mean_mm(self.prior)

    @property
    def volume_change(self) -> float | None:
        """Change of the volume as a share of the prior one; 0.25 is a quarter more."""
        if self.prior is None or self.current is None:
            return None
        return self.current.volume_mm3 / self.prior.volume_mm3 - 1


@dataclass(frozen=True)
class Growth:
    """All nodules of two scans: what is in the current scan by its ids, then what is not."""

    prior: ChestScan
    current: ChestScan
    days: int | None
    alignment: Alignment
    nodules: tuple[NoduleGrowth, ...]
    notes: tuple[str, ...]

    @property
    def levels(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Heights of the current scan, and the same levels of the prior one, LPS z in mm.

        The lowest and the highest of the lungs, along the middle of each; both lungs count alike.
        The alignment is affine, so what lies between is found by going straight.
        """
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.Execute(sitk.Cast(self.current.lungs, sitk.sitkUInt8))
        extents = lung_heights(self.current.lungs)
        low = min(extent[0] for extent in extents.values())
        high = max(extent[1] for extent in extents.values())
        there = [
            [self.alignment.prior_point(side, (x, y, z))[2] for z in (low, high)]
            for side in extents
            for x, y, _ in [shape.GetCentroid(LABELS[side])]
        ]
        below, above = np.mean(there, axis=0).tolist()
        return (low, high), (below, above)


def mean_mm(nodule: Nodule) -> float:
    """Mean of the two axial diameters of a nodule, as Lung-RADS v2022 rounds it."""
    return lung_rads_mean_mm(nodule.diameter_mm, nodule.perpendicular_mm)


def doubling_days(prior_mm3: float, current_mm3: float, days: float) -> float:
    """Volume doubling time in days: days · ln 2 / ln(current / prior); negative for a loss.

    Exponential growth, after Schwartz, Cancer 1961;14:1272-1294.

    Args:
        prior_mm3: volume in the prior scan, above 0.
        current_mm3: volume in the current scan, above 0 and another.
        days: between the two scans, above 0.
    """
    return days * math.log(2) / math.log(current_mm3 / prior_mm3)


def compare_scans(prior: ChestScan, current: ChestScan, days: int | None = None) -> Growth:
    """Match the nodules of two scans of one patient and measure what changed.

    Args:
        prior: the earlier scan.
        current: the later scan.
        days: between the two; None: from their dates.

    Raises:
        InputError: if a scan shows no lung, or the prior scan is later than the current one.
    """
    interval, notes = _interval(prior, current, days)
    alignment = align(prior.hu, prior.lungs, current.hu, current.lungs)
    pairs = match(prior.nodules, current.nodules, alignment)
    found = [_matched(was, now, apart, interval, alignment) for was, now, apart in pairs]
    old, new = {was.id for was, _, _ in pairs}, {now.id for _, now, _ in pairs}
    found += [_new(one, prior, alignment) for one in current.nodules if one.id not in new]
    found.sort(key=lambda one: one.current.id if one.current else 0)
    found += [_gone(one, current, alignment) for one in prior.nodules if one.id not in old]
    notes += _doubts(prior, current, alignment)
    return Growth(prior, current, interval, alignment, tuple(found), tuple(notes))


def match(
    prior: Sequence[Nodule],
    current: Sequence[Nodule],
    alignment: Alignment,
    gate_mm: float = GATE_MM,
) -> list[tuple[Nodule, Nodule, float]]:
    """Pair nodules one to one so that the squares of all distances together are the least.

    Squares, because what alignment leaves is alike for neighbours: rather two moderate distances
    than a short and a long one. Only nodules of the same lung within `gate_mm` are paired; leaving
    two unpaired costs as much as a pair at the gate.

    Returns:
        Prior nodule, current nodule, distance in mm.
    """
    n, m = len(prior), len(current)
    if not n or not m:
        return []
    moved = np.array([alignment.current_point(one.side, (one.x, one.y, one.z)) for one in prior])
    there = np.array([(one.x, one.y, one.z) for one in current])
    apart = np.linalg.norm(moved[:, None] - there[None], axis=2)
    same_side = np.array([[a.side == b.side for b in current] for a in prior])
    allowed = same_side & (apart <= gate_mm)
    cost = np.full((n + m, n + m), gate_mm**2 / 2)
    cost[:n, :m] = np.where(allowed, apart**2, 1e9)
    cost[n:, m:] = 0.0
    rows, columns = linear_sum_assignment(cost)
    return [
        (prior[i], current[j], float(apart[i, j]))
        for i, j in zip(rows, columns, strict=True)
        if i < n and j < m and allowed[i, j]
    ]


def study_date(text: str) -> datetime.date | None:
    """Read a DICOM date (YYYYMMDD); None if it is none."""
    try:
        return datetime.datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None


def _interval(
    prior: ChestScan, current: ChestScan, days: int | None
) -> tuple[int | None, list[str]]:
    """Days between the scans, or None and a sentence that says why."""
    if days is not None:
        if days < 1:
            raise InputError(f"{days} days between the scans are not possible: give 1 or more.")
        return days, []
    undated = [scan.name for scan in (prior, current) if scan.date is None]
    if prior.date is None or current.date is None:
        return None, [
            f"No doubling time, as {' and '.join(undated)} "
            f"{'has' if len(undated) == 1 else 'have'} no study date: give the days "
            "between the scans."
        ]
    between = (current.date - prior.date).days
    if between < 0:
        raise InputError(
            f"The prior scan {prior.name} ({prior.date}) is later than the current scan "
            f"{current.name} ({current.date}): swap the two, or give the days between "
            "them if a date is wrong."
        )
    if between == 0:
        return None, [
            f"No doubling time, as both scans are dated {prior.date}: give the days between "
            "them if the dates were changed."
        ]
    return between, []


def _matched(
    was: Nodule, now: Nodule, apart: float, days: int | None, alignment: Alignment
) -> NoduleGrowth:
    ratio = now.volume_mm3 / was.volume_mm3
    if ratio >= 1 + VOLUME_VARIABILITY:
        change = Change.GROWN
    elif ratio <= 1 - VOLUME_VARIABILITY:
        change = Change.SHRUNK
    else:
        change = Change.UNCHANGED
    return NoduleGrowth(
        was,
        now,
        change,
        (was.x, was.y, was.z),
        (now.x, now.y, now.z),
        apart_mm=round(apart, 1),
        doubling_days=(
            doubling_days(was.volume_mm3, now.volume_mm3, days)
            if days is not None and change is Change.GROWN
            else None
        ),
        lung_rads=(
            None
            if days is None
            else change_by_lung_rads(mean_mm(was), mean_mm(now), days / DAYS_PER_MONTH)
        ),
    )


def _new(now: Nodule, prior: ChestScan, alignment: Alignment) -> NoduleGrowth:
    here = (now.x, now.y, now.z)
    before = alignment.prior_point(now.side, here)
    if not shows(prior.hu, before):
        return NoduleGrowth(None, now, Change.NOT_SHOWN_BEFORE, before, here)
    return NoduleGrowth(None, now, Change.NEW, before, here, lung_rads=Status.NEW)


def _gone(was: Nodule, current: ChestScan, alignment: Alignment) -> NoduleGrowth:
    there = (was.x, was.y, was.z)
    after = alignment.current_point(was.side, there)
    change = Change.VANISHED if shows(current.hu, after) else Change.NOT_SHOWN_NOW
    return NoduleGrowth(was, None, change, there, after)


def shows(image: sitk.Image, point: tuple[float, float, float]) -> bool:
    """Tell whether a point (LPS mm) lies in an image."""
    index = np.array(image.TransformPhysicalPointToContinuousIndex(point))
    return bool(((index >= -0.5) & (index <= np.array(image.GetSize()) - 0.5)).all())


def _doubts(prior: ChestScan, current: ChestScan, alignment: Alignment) -> list[str]:
    """What a reader has to know before the numbers are trusted."""
    notes = []
    if prior.patient_id and current.patient_id and prior.patient_id != current.patient_id:
        notes.append(
            f"The scans have different patient IDs, {prior.patient_id} and {current.patient_id}."
        )
    was, now = (max(scan.hu.GetSpacing()) for scan in (prior, current))
    if max(was, now) > LARGE_SPACING_RATIO * min(was, now):
        notes.append(
            f"The slices lie {was:.2g} mm apart in the prior and {now:.2g} mm in the current "
            "scan: the volumes are hard to compare."
        )
    for side in Side:
        overlap = alignment.overlap.get(side)
        if overlap is None:
            notes.append(f"The {side} lung is not in both scans; its nodules may be mismatched.")
        elif overlap < POOR_OVERLAP:
            notes.append(
                f"The {side} lungs of the two scans overlap poorly after alignment "
                f"({100 * overlap:.0f} %): check the pairs by eye."
            )
    return notes
