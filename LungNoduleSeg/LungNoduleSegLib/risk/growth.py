"""Growth: match the nodules of two scans of one patient and compare them."""

import datetime
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import Box, imaged_box
from LungNoduleSegLib.nodules.table import Nodule, Side, mean_axial_mm
from LungNoduleSegLib.risk.alignment import LABELS, Alignment, align
from LungNoduleSegLib.risk.facts import Status, lung_heights
from LungNoduleSegLib.risk.growth_rate import (
    REPEATABILITY,
    TWICE,
    Z95,
    Change,
    GrowthRate,
    growth_rate,
    volume_deviation,
)
from LungNoduleSegLib.risk.lung_rads import nodule_change_by_lung_rads

Point = tuple[float, float, float]

GATE_MM = 20.0
"""Largest distance of a pair after alignment (our own choice: the alignment error is a few mm in
the middle of a lung and up to a centimetre at the diaphragm)."""

ALIGNMENT_MM = 2.0
"""Alignment error by which a nodule may lie outside the one that it merged into (our choice)."""

LARGE_SPACING_RATIO = 1.5
"""Ratio of slice distances above which volumes are hard to compare (our own choice)."""

FAR_MM = 8.0
"""Distance of a pair after alignment above which the two may be different nodules (our own choice:
more than the alignment error nearly everywhere)."""


@dataclass(frozen=True)
class ChestScan:
    """One of the compared scans.

    Attributes:
        name: its display name.
        hu: CT, any orientation, LPS mm.
        lungs: `RIGHT_LUNG`, `LEFT_LUNG`, on any grid.
        nodules: the rows of its table.
        date: of the study, None if unknown.
        patient_id: from the DICOM header, "" if unknown.
        method: how its nodules were found and outlined, see `method_of`.
        cut: numbers of the nodules that reach the end of the scan.
    """

    name: str
    hu: sitk.Image
    lungs: sitk.Image
    nodules: tuple[Nodule, ...]
    date: datetime.date | None = None
    patient_id: str = ""
    method: Mapping[str, str] = field(default_factory=dict)
    cut: frozenset[int] = frozenset()

    @cached_property
    def imaged(self) -> Box:
        """The part of `hu` (z, y, x) that is not blank, see `imaged_box`."""
        return imaged_box(self.hu)

    def shows(self, point: Point) -> bool:
        """Whether a point (LPS mm) lies in the scan."""
        index = self.hu.TransformPhysicalPointToContinuousIndex(point)[::-1]
        return all(
            one.start - 0.5 <= k <= one.stop - 0.5
            for k, one in zip(index, self.imaged, strict=True)
        )


@dataclass(frozen=True)
class NoduleGrowth:
    """One nodule in two scans; `GROWTH_COLUMNS` of `growth_table` describes each number.

    Attributes:
        prior: the nodule in the prior scan, None if it is new; see `missed`.
        current: the nodule in the current scan, None if it was not found again.
        change: see `Change`; grown and shrunk mean a volume change beyond its uncertainty.
        prior_point: its actual or expected position in the prior scan, LPS mm.
        current_point: likewise in the current scan.
        apart_mm: distance of the two after alignment.
        rate: growth rate, None without two comparable volumes; per day where the interval is known.
        days: between the two scans, None if unknown.
        lung_rads: the change by Lung-RADS v2022, None if unknown or if the two may not be the same.
        others: nodules of the prior scan that merged into `current`.
        part_of: the nodule of the other scan that it merged into or split from.
        missed: whether the prior scan does not show it, but an earlier one; then `prior` is from
            the last that does.
        notes: reasons to be careful with it.
    """

    prior: Nodule | None
    current: Nodule | None
    change: Change
    prior_point: Point
    current_point: Point
    apart_mm: float | None = None
    rate: GrowthRate | None = None
    days: int | None = None
    lung_rads: Status | None = None
    others: tuple[Nodule, ...] = ()
    part_of: Nodule | None = None
    missed: bool = False
    notes: tuple[str, ...] = ()

    @property
    def doubling_days(self) -> float | None:
        """Volume doubling time of a grown nodule, None for others or without an interval."""
        grown = self.change is Change.GROWN and self.rate is not None and self.days is not None
        return self.rate.doubling_days if grown and self.rate else None

    @property
    def diameter_change_mm(self) -> float | None:
        """Change of the mean axial diameter; None if the two are not comparable, or merged."""
        if self.prior is None or self.current is None or self.rate is None or self.others:
            return None
        return mean_mm(self.current) - mean_mm(self.prior)

    @property
    def volume_change(self) -> float | None:
        """Relative change of the volume; None if the two are not comparable."""
        if self.current is None or self.rate is None:
            return None
        return self.current.volume_mm3 / self.prior_volume - 1

    @property
    def prior_volume(self) -> float:
        """Volume (mm³) in the prior scan, including nodules that merged since."""
        return sum(one.volume_mm3 for one in (self.prior, *self.others) if one is not None)


@dataclass(frozen=True)
class Growth:
    """All nodules of two scans: those of the current scan by id, then those that are gone."""

    prior: ChestScan
    current: ChestScan
    days: int | None
    alignment: Alignment
    nodules: tuple[NoduleGrowth, ...]
    notes: tuple[str, ...]

    @property
    def levels(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Lowest and highest level of the lungs, in the current and the prior scan, LPS z in mm.

        Measured along the middle of each lung and averaged. The alignment is affine, so levels in
        between are interpolated linearly.
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
    return mean_axial_mm(nodule.diameter_mm, nodule.perpendicular_mm)


def compare_scans(prior: ChestScan, current: ChestScan, days: int | None = None) -> Growth:
    """Match the nodules of two scans of one patient and measure what changed.

    Args:
        prior: the earlier scan.
        current: the later scan.
        days: between the two; None to compute them from their dates.

    Raises:
        InputError: if a scan shows no lung, or the prior scan is later than the current one.
    """
    interval, notes = days_between((prior.name, prior.date), (current.name, current.date), days)
    alignment = align(prior.hu, prior.lungs, current.hu, current.lungs)
    pairs = match(prior.nodules, current.nodules, alignment)
    old, new = {was.id: now for was, now, _ in pairs}, {now.id: was for was, now, _ in pairs}
    lost = [_gone(one, current, alignment) for one in prior.nodules if one.id not in old]
    gained = [_new(one, prior, current, alignment) for one in current.nodules if one.id not in new]
    lost = [_merged(one, [now for _, now, _ in pairs]) for one in lost]
    gained = [_split(one, [was for was, _, _ in pairs]) for one in gained]
    found = gained
    for was, now, apart in pairs:
        others = tuple(one.prior for one in lost if one.part_of is now and one.prior)
        split = any(one.part_of is was for one in gained)
        pair = NoduleGrowth(
            was,
            now,
            Change.NOT_COMPARABLE,
            (was.x, was.y, was.z),
            (now.x, now.y, now.z),
            apart_mm=round(apart, 1),
            days=interval,
            others=others,
        )
        sure = alignment.agrees(now.side)
        found.append(pair if split else _measured(pair, prior, current, sure))
    found.sort(key=lambda one: one.current.id if one.current else 0)
    notes += [*_warnings(prior, current, alignment), *method_differences(prior, current)]
    return Growth(prior, current, interval, alignment, (*found, *lost), tuple(notes))


def across(
    was: Nodule, now: NoduleGrowth, steps: Sequence[Growth], apart_mm: float
) -> NoduleGrowth:
    """Compare a nodule with itself several scans before.

    Args:
        was: the nodule in the prior scan of the first step.
        now: of the last step.
        steps: the comparisons of each scan with the next.
        apart_mm: distance of the nodule from where it is expected.
    """
    assert now.current is not None
    days = [step.days for step in steps if step.days]
    sure = all(step.alignment.agrees(now.current.side) for step in steps)
    pair = replace(
        now,
        prior=was,
        change=Change.NOT_COMPARABLE,
        apart_mm=round(apart_mm, 1),
        days=sum(days) if len(days) == len(steps) else None,
        lung_rads=None,
        missed=True,
    )
    return _measured(pair, steps[0].prior, steps[-1].current, sure)


def method_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings in the content of `run.json` that affect nodule volumes."""
    model = record.get("model") or {}
    parameters = record.get("parameters") or {}
    rules = parameters.get("rules") or {}
    partners = ("second_opinion", "classifier")
    hashes = {name: model.get(f"{name}_sha256") for name in partners}
    found = {
        "model": model.get("name") and f"{model['name']} ({str(model.get('sha256'))[:8]})",
        **{name.replace("_", " "): one and str(one)[:8] for name, one in hashes.items()},
        "threshold": rules.get("threshold"),
        "volume measurement": parameters.get("volume_measurement"),
    }
    return {name: f"{value}" for name, value in found.items() if value is not None}


def method_differences(prior: ChestScan, current: ChestScan) -> list[str]:
    """Return a sentence for each setting in which two runs differ."""
    missed = ", and nodules that seem new may have been missed before"
    return [
        f"The {name} was {prior.method.get(name, 'not recorded')} for {prior.name} and "
        f"{current.method.get(name, 'not recorded')} for {current.name}: volumes are not "
        f"compared{missed * _finds_more(name, prior, current)}. Run both scans with the same "
        "settings."
        for name in _different(prior, current)
    ]


def _different(prior: ChestScan, current: ChestScan) -> list[str]:
    """Return the names of the settings in which two runs differ."""
    names = dict.fromkeys((*prior.method, *current.method))
    return [name for name in names if prior.method.get(name) != current.method.get(name)]


def _finds_more(name: str, prior: ChestScan, current: ChestScan) -> bool:
    """Whether by a setting in which two runs differ the current one may find more nodules."""
    was, now = prior.method.get(name), current.method.get(name)
    if name == "threshold" and was and now:
        return float(was) > float(now)
    return name != "volume measurement"


def outlined_alike(one: Nodule, other: Nodule) -> bool:
    """Whether both outlines were made in the same way: from the image, a network or by hand.

    In tables without that column, a nodule without a probability was outlined by hand.
    """
    if one.outline is None or other.outline is None:
        return (one.probability is None) == (other.probability is None)
    return one.outline is other.outline


def deviation(nodule: Nodule, scan: ChestScan) -> float:
    """Standard deviation of ln(volume) of a nodule of a scan.

    Taken from its measurement, if the table has it, but at least the repeatability between two
    scans, which differ in breath and position, and `TWICE` on thick slices.
    """
    spacing = scan.hu.GetSpacing()
    if nodule.volume_pm_mm3 is None:
        return volume_deviation(nodule.volume_mm3, spacing)
    own = math.log1p(nodule.volume_pm_mm3 / nodule.volume_mm3) / Z95
    return max(own, TWICE if mean_mm(nodule) < 2 * max(spacing) else REPEATABILITY)


def match(
    prior: Sequence[Nodule],
    current: Sequence[Nodule],
    alignment: Alignment,
    gate_mm: float = GATE_MM,
) -> list[tuple[Nodule, Nodule, float]]:
    """Pair nodules one to one with the least sum of squared distances.

    Squares, because alignment errors of neighbours are alike: two moderate distances are likelier
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
    # Not at the top: it takes half a second, and panels are opened with this.
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415

    rows, columns = linear_sum_assignment(cost)
    return [
        (prior[i], current[j], float(apart[i, j]))
        for i, j in zip(rows, columns, strict=True)
        if i < n and j < m and allowed[i, j]
    ]


def study_date(text: str) -> datetime.date | None:
    """Parse a DICOM date (YYYYMMDD); None if invalid."""
    try:
        return datetime.datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None


def days_between(
    prior: tuple[str, datetime.date | None],
    current: tuple[str, datetime.date | None],
    days: int | None,
) -> tuple[int | None, list[str]]:
    """Return the days between two scans, given by name and date, or None with the reason.

    Raises:
        InputError: if `days` is below 1, or the prior scan is later than the current one.
    """
    if days is not None:
        if days < 1:
            raise InputError(f"{days} days between the scans are not possible: enter 1 or more.")
        return days, []
    (before, first), (after, last) = prior, current
    if first is None or last is None:
        undated = [name for name, date in (prior, current) if date is None]
        return None, [
            f"No doubling time, as {' and '.join(undated)} "
            f"{'has' if len(undated) == 1 else 'have'} no study date: enter the days "
            "between the scans if there are only two; more need study dates."
        ]
    between = (last - first).days
    if between < 0:
        raise InputError(
            f"The prior scan {before} ({first}) is later than the current scan "
            f"{after} ({last}): swap the two, or enter the days between "
            "them if a date is wrong."
        )
    if between == 0:
        return None, [
            f"No doubling time, as both scans are dated {first}: enter the days between "
            "them if the dates were changed and there are only two; more need study dates."
        ]
    return between, []


def _measured(pair: NoduleGrowth, prior: ChestScan, current: ChestScan, sure: bool) -> NoduleGrowth:
    """Fill in the notes of a pair, and its change if the volumes are comparable.

    Args:
        pair: a nodule in both scans.
        prior: the scan of its prior nodule.
        current: the scan of its current nodule.
        sure: whether the lungs of the two are aligned.
    """
    was, now, days = pair.prior, pair.current, pair.days
    assert was is not None
    assert now is not None
    before = (was, *pair.others)
    parts = [
        f"Nodule {one.id} of {scan.name} reaches the end of the scan: its volume is not compared."
        for scan, nodules in ((prior, before), (current, (now,)))
        for one in nodules
        if one.id in scan.cut
    ]
    far = pair.apart_mm is not None and pair.apart_mm > FAR_MM
    doubts = [
        f"Nodule {now.id} of {current.name} lies {pair.apart_mm:.0f} mm from where nodule {was.id} "
        f"of {prior.name} is expected: check by eye that they are the same."
    ] * far
    pair = replace(pair, notes=(*parts, *doubts))
    alike = all(outlined_alike(one, now) for one in before)
    if parts or not alike or _different(prior, current):
        return pair
    rate = growth_rate(
        (0, days or 1),
        (pair.prior_volume, now.volume_mm3),
        (deviation(was, prior), deviation(now, current)),
    )
    status = None
    if days and sure and not (far or pair.others):
        status = nodule_change_by_lung_rads(was, now, days)
    return replace(pair, change=rate.change, rate=rate, lung_rads=status)


def _new(now: Nodule, prior: ChestScan, current: ChestScan, alignment: Alignment) -> NoduleGrowth:
    here = (now.x, now.y, now.z)
    before = alignment.prior_point(now.side, here)
    if not prior.shows(before):
        return NoduleGrowth(None, now, Change.NOT_SHOWN_BEFORE, before, here)
    by_hand = now.probability is None and all(one.probability is not None for one in prior.nodules)
    notes = (
        f"Nodule {now.id} of {current.name} was added by hand, but none of {prior.name} was: check "
        "by eye whether it is new.",
    ) * by_hand
    missed = any(_finds_more(name, prior, current) for name in _different(prior, current))
    status = Status.NEW if alignment.agrees(now.side) and not (by_hand or missed) else None
    return NoduleGrowth(None, now, Change.NEW, before, here, lung_rads=status, notes=notes)


def _gone(was: Nodule, current: ChestScan, alignment: Alignment) -> NoduleGrowth:
    there = (was.x, was.y, was.z)
    after = alignment.current_point(was.side, there)
    change = Change.VANISHED if current.shows(after) else Change.NOT_SHOWN_NOW
    return NoduleGrowth(was, None, change, there, after)


def _merged(one: NoduleGrowth, current: Iterable[Nodule]) -> NoduleGrowth:
    """Mark a vanished nodule as merged if it lies within a current one."""
    into = _within(one.current_point, current) if one.change is Change.VANISHED else None
    return replace(one, change=Change.MERGED, part_of=into) if into else one


def _split(one: NoduleGrowth, prior: Iterable[Nodule]) -> NoduleGrowth:
    """Mark a new nodule as split off if it lies within a prior one."""
    off = _within(one.prior_point, prior) if one.change is Change.NEW else None
    if off is None:
        return one
    return replace(one, change=Change.SPLIT, part_of=off, lung_rads=None, notes=())


def _within(point: Point, nodules: Iterable[Nodule]) -> Nodule | None:
    """Return the nodule in which a point lies: in an ellipsoid as high as its volume makes it."""
    for one in nodules:
        across = one.diameter_mm
        height = one.volume_mm3 / (math.pi / 6 * across * one.perpendicular_mm)
        radii = np.array([across, across, max(across, height)]) / 2 + ALIGNMENT_MM
        if np.linalg.norm(np.subtract(point, (one.x, one.y, one.z)) / radii) < 1:
            return one
    return None


def _warnings(prior: ChestScan, current: ChestScan, alignment: Alignment) -> list[str]:
    """Reasons to be careful with the numbers."""
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
        if side not in alignment.likeness:
            notes.append(f"The {side} lung is not in both scans; its nodules may be mismatched.")
        elif not alignment.agrees(side):
            notes.append(
                f"The {side} lungs of {prior.name} and {current.name} do not look alike "
                f"(correlation {alignment.likeness[side]:.2f}), so no Lung-RADS change is derived "
                "from them: check that both scans show the same patient and part of the chest."
            )
    return notes
