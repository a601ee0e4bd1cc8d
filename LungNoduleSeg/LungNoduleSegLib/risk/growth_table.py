"""All scans of one patient: each nodule's track through every date, and tables of growth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf
from pathlib import Path

import numpy as np

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.nodules.table import Column, Nodule, NoduleKind
from LungNoduleSegLib.risk.facts import Status
from LungNoduleSegLib.risk.growth import (
    GATE_MM,
    ChestScan,
    Growth,
    NoduleGrowth,
    Point,
    across,
    compare_scans,
    deviation,
    mean_mm,
)
from LungNoduleSegLib.risk.growth_rate import Change, GrowthRate, latest_growth, volume_interval


@dataclass(frozen=True)
class Track:
    """One nodule through all scans.

    Attributes:
        nodules: in each scan, None where it was not found.
        points: its actual or expected position in each scan, LPS mm.
        steps: the change from each scan to the next, None where it is in neither; after scans
            that missed it, the change since the last one that shows it.
        change: over the dates of `rate`; for a nodule with a single measurement, the reason.
        rate: growth rate per day over the latest comparable dates, see `latest_growth`; None for
            fewer than two, or without study dates.
        rated: numbers of the scans, from 0, that `rate` was fitted to.
    """

    nodules: tuple[Nodule | None, ...]
    points: tuple[Point, ...]
    steps: tuple[NoduleGrowth | None, ...]
    change: Change
    rate: GrowthRate | None = None
    rated: tuple[int, ...] = ()

    @property
    def last(self) -> Nodule:
        """The nodule in the last scan that shows it."""
        return next(one for one in reversed(self.nodules) if one is not None)

    @property
    def name(self) -> str:
        """Its display name, with the number in the last scan that shows it."""
        where = "" if self.nodules[-1] else f" of scan {len(self.nodules) - self._missing}"
        return f"Nodule {self.last.id}{where}, {self.last.side} lung"

    @property
    def _missing(self) -> int:
        return next(n for n, one in enumerate(reversed(self.nodules)) if one is not None)


@dataclass(frozen=True)
class Timeline:
    """All nodules of all scans: those of the last scan by their ids, then those that are gone.

    Attributes:
        scans: from the earliest to the latest.
        days: of each scan since the first, None if dates are missing.
        steps: each scan compared with the next.
        tracks: of every nodule.
    """

    scans: tuple[ChestScan, ...]
    days: tuple[int, ...] | None
    steps: tuple[Growth, ...]
    tracks: tuple[Track, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Reasons to be careful with the numbers, each once."""
        scans = [note for step in self.steps for note in step.notes]
        steps = [step for track in self.tracks for step in track.steps if step]
        return tuple(dict.fromkeys([*scans, *(note for step in steps for note in step.notes)]))


def follow(
    scans: Sequence[ChestScan], days: int | None = None, progress: ProgressCallback = silent
) -> Timeline:
    """Follow every nodule through the scans of one patient.

    Each scan is compared with the next. A nodule that is missing in scans in between is followed
    across them.

    Args:
        scans: two or more, from the earliest to the latest.
        days: between two scans; None to compute them from their dates.
        progress: callback.

    Raises:
        InputError: as `compare_scans`, or if `days` is set for more than two scans.
    """
    check_days(len(scans), days)
    steps = []
    for number, (prior, current) in enumerate(pairwise(scans)):
        progress("Growth", number, len(scans) - 1)
        steps.append(compare_scans(prior, current, days))
    progress("Growth", len(scans) - 1, len(scans) - 1)
    since = _since_first([step.days for step in steps])
    chains = _chains(steps)
    tracks = [_track(chain, steps, since) for chain in chains]
    there = sorted((one for one in tracks if one.nodules[-1]), key=lambda one: one.last.id)
    gone = [one for one in tracks if not one.nodules[-1]]
    dated = len(since) == len(scans)
    return Timeline(
        tuple(scans), tuple(since.values()) if dated else None, tuple(steps), (*there, *gone)
    )


def _since_first(intervals: Sequence[int | None]) -> dict[int, int]:
    """Days of the latest scans with known intervals, by number, since the first of them."""
    first = max((n + 1 for n, days in enumerate(intervals) if days is None), default=0)
    days = np.cumsum([0, *(days or 0 for days in intervals[first:])]).tolist()
    return dict(enumerate(days, first))


def check_days(scans: int, days: int | None) -> None:
    """Check the number of scans.

    Raises:
        InputError: if there are fewer than two, or more and `days` is set.
    """
    if scans < 2:
        raise InputError("Growth needs at least two scans of one patient: name more.")
    if days is not None and scans > 2:
        raise InputError(
            "Days can be set for two scans only: leave out the days, or the earlier scans."
        )


def lung_rads_status(track: Track) -> Status | None:
    """Classify a track by Lung-RADS v2022; None where a reader has to decide.

    The last step counts. A solid or part-solid nodule that grows measurably over three or more
    comparable dates, but in no step by as much as Lung-RADS requires, is slowly growing, unless it
    is smaller than on the scan before.
    """
    steps = [one for one in track.steps if one and one.current]
    last = steps[-1] if track.nodules[-1] else None
    status = last.lung_rads if last else None
    slow = (
        last is not None
        and track.last.kind in (NoduleKind.SOLID, NoduleKind.PART_SOLID)
        and track.change is Change.GROWN
        and len(track.rated) > 2
        and all(one.lung_rads is not Status.GROWING for one in steps)
        and all(one.lung_rads is Status.STABLE for one in steps[1 - len(track.rated) :])
        and (last.volume_change or 0) >= 0
    )
    return Status.SLOWLY_GROWING if slow else status


def _chains(steps: Sequence[Growth]) -> list[dict[int, NoduleGrowth]]:
    """Link the steps of each nodule from scan to scan; steps are keyed by their numbers."""
    chains: list[dict[int, NoduleGrowth]] = []
    for number, step in enumerate(steps):
        lost = [chain for chain in chains if chain[max(chain)].change in _LOST]
        again = _found_again(lost, number, steps)
        for one in step.nodules:
            chain, apart = again.get(id(one)) or (_continued(chains, number, one), 0.0)
            if chain is None:
                chains.append({number: one})
            elif one.prior is None:
                last = max(chain)
                chain[number] = across(chain[last], one, steps[last : number + 1], apart)
            else:
                chain[number] = one
    return chains


_LOST = (Change.VANISHED, Change.NOT_SHOWN_NOW)


def _continued(
    chains: Sequence[dict[int, NoduleGrowth]], number: int, one: NoduleGrowth
) -> dict[int, NoduleGrowth] | None:
    """Find the chain that ends with the prior nodule of a step."""
    if one.prior is None:
        return None
    before = (chain for chain in chains if number - 1 in chain)
    return next((chain for chain in before if chain[number - 1].current is one.prior), None)


def _found_again(
    lost: Sequence[dict[int, NoduleGrowth]], number: int, steps: Sequence[Growth]
) -> dict[int, tuple[dict[int, NoduleGrowth], float]]:
    """Pair nodules that seem new with chains of lost ones, the nearest first.

    Returns:
        By the `id` of the step, its chain and the distance in mm from the expected place.
    """
    near = []
    for n, chain in enumerate(lost):
        last = max(chain)
        was = chain[last]
        assert was.prior is not None
        point = was.current_point
        for step in steps[last + 1 : number]:
            point = step.alignment.current_point(was.prior.side, point)
        near += [
            (float(np.linalg.norm(np.subtract(point, one.prior_point))), n, id(one))
            for one in steps[number].nodules
            if one.change in (Change.NEW, Change.NOT_SHOWN_BEFORE)
            if one.current and one.current.side == was.prior.side
        ]
    found: dict[int, tuple[dict[int, NoduleGrowth], float]] = {}
    taken = set()
    for apart, n, one in sorted(near):
        if apart <= GATE_MM and n not in taken and one not in found:
            taken.add(n)
            found[one] = lost[n], apart
    return found


def _track(
    chain: dict[int, NoduleGrowth], steps: Sequence[Growth], days: Mapping[int, int]
) -> Track:
    count = len(steps) + 1
    nodules: list[Nodule | None] = [None] * count
    points: list[Point | None] = [None] * count
    for number, one in chain.items():
        nodules[number] = None if one.missed else one.prior
        nodules[number + 1] = one.current
        points[number] = points[number] or one.prior_point
        points[number + 1] = one.current_point
    first = min(chain)
    side = next(one for one in nodules if one is not None).side
    for number in range(first, 0, -1):
        here = points[number]
        assert here is not None
        points[number - 1] = steps[number - 1].alignment.prior_point(side, here)
    for number in range(first, count - 1):
        here = points[number]
        assert here is not None
        points[number + 1] = points[number + 1] or steps[number].alignment.current_point(side, here)
    scans = (steps[0].prior, *(step.current for step in steps))
    track = Track(
        tuple(nodules),
        tuple(point for point in points if point is not None),
        tuple(chain.get(number) for number in range(len(steps))),
        next(one.change for _, one in sorted(chain.items(), reverse=True)),
    )
    return _rated(track, scans, days)


def _rated(track: Track, scans: Sequence[ChestScan], days: Mapping[int, int]) -> Track:
    """Fit the growth to the latest comparable dates; before a merger, all are one volume."""
    volumes = {n: one.volume_mm3 for n, one in enumerate(track.nodules) if one is not None}
    broken = (Change.NOT_COMPARABLE, Change.MERGED, Change.SPLIT)
    start = 0
    for n, step in enumerate(track.steps):
        if step and step.change in broken:
            start = n + 1
        elif step and step.others:
            start, volumes[n] = n, step.prior_volume
    used = [n for n in volumes if n >= start and n in days]
    gone = track.nodules[-1] is None
    if len(used) < 2 or gone:
        if gone and track.change not in (Change.MERGED, Change.NOT_SHOWN_NOW):
            shown = scans[-1].shows(track.points[-1])
            return replace(track, change=Change.VANISHED if shown else Change.NOT_SHOWN_NOW)
        return track
    used_nodules = [one for n in used if (one := track.nodules[n]) is not None]
    rate, first = latest_growth(
        [days[n] for n in used],
        [volumes[n] for n in used],
        [deviation(one, scans[n]) for n, one in zip(used, used_nodules, strict=True)],
    )
    return replace(track, change=rate.change, rate=rate, rated=tuple(used[first:]))


GROWTH_COLUMNS = {
    "change": Column(
        "Change",
        "",
        "grown or shrunk: the volume changed by more than its uncertainty; no measurable change: "
        "by less; measured in another way: the volumes are not comparable; new, not found again, "
        "merged, split off, or outside one of the scans",
    ),
    "prior_id": Column("Prior", "", "Number of the nodule in the prior scan"),
    "current_id": Column("Current", "", "Number of the nodule in the current scan"),
    "side": Column("Lung", "", "The patient's right or left lung"),
    "prior_kind": Column("Prior type", "", "Type in the prior scan"),
    "current_kind": Column("Current type", "", "Type in the current scan"),
    "prior_mean_mm": Column(
        "Prior diameter",
        "mm",
        "Mean of the two axial diameters in the prior scan; for a nodule that it missed, the prior "
        "values and the interval are those of the last scan that shows it",
    ),
    "current_mean_mm": Column(
        "Current diameter", "mm", "Mean of the two axial diameters in the current scan"
    ),
    "diameter_change_mm": Column(
        "Diameter change", "mm", "Change of the mean diameter; up to 1.5 mm is within variability"
    ),
    "prior_solid_mm": Column(
        "Prior solid part", "mm", "Mean diameter of the solid part in the prior scan"
    ),
    "current_solid_mm": Column(
        "Current solid part", "mm", "Mean diameter of the solid part in the current scan"
    ),
    "prior_volume_mm3": Column("Prior volume", "mm³", "Volume in the prior scan"),
    "current_volume_mm3": Column("Current volume", "mm³", "Volume in the current scan"),
    "volume_change_percent": Column("Volume change", "%", "Of the prior volume"),
    "days": Column("Interval", "days", "Between the two scans"),
    "doubling_days": Column(
        "Doubling time",
        "days",
        "Volume doubling time of a grown nodule (Schwartz, Cancer 1961;14:1272)",
    ),
    "doubling_low_days": Column(
        "Shortest",
        "days",
        "Lower end of the 95 % interval of the doubling time, or of 97.5 % without early scans",
    ),
    "doubling_high_days": Column(
        "Longest",
        "days",
        "Upper end of the same interval; empty if there may be no growth",
    ),
    "lung_rads_change": Column(
        "Lung-RADS",
        "",
        "Change by Lung-RADS v2022: growing if the mean diameter of the nodule or of its solid "
        "part rose by more than 1.5 mm within 12 months; empty where a reader has to say",
    ),
    "apart_mm": Column("Apart", "mm", "Distance of the pair after the lungs are aligned"),
} | {
    f"{scan}_{axis}": Column(
        f"{scan.capitalize()} {axis}", "mm", f"Actual or expected position in the {scan} scan, LPS"
    )
    for scan in ("prior", "current")
    for axis in "xyz"
}
"""All columns in order, for the CSV file, the page and the MRML table."""

TIMELINE_COLUMNS = {
    "track": Column("Track", "", "The same number is the same nodule at another date"),
    "scan": Column("Scan", "", "Name of the run or the volume"),
    "date": Column("Date", "", "Of the study"),
    "days": Column("Days", "days", "Since the first scan"),
    "id": Column("ID", "", "Number of the nodule in this scan; empty where it was not found"),
    "side": GROWTH_COLUMNS["side"],
    "kind": Column("Type", "", "Type in this scan"),
    "mean_mm": Column("Diameter", "mm", "Mean of the two axial diameters"),
    "volume_mm3": Column("Volume", "mm³", "Volume in this scan"),
    "volume_low_mm3": Column("From", "mm³", "Lower end of the 95 % interval of the volume"),
    "volume_high_mm3": Column("To", "mm³", "Upper end of the 95 % interval of the volume"),
    "change": Column("Change", "", "Change over all dates"),
    "doubling_days": GROWTH_COLUMNS["doubling_days"],
    "doubling_low_days": GROWTH_COLUMNS["doubling_low_days"],
    "doubling_high_days": GROWTH_COLUMNS["doubling_high_days"],
    "x": Column("x", "mm", "Actual or expected position in this scan, LPS"),
    "y": Column("y", "mm", "Actual or expected position in this scan, LPS"),
    "z": Column("z", "mm", "Actual or expected position in this scan, LPS"),
}
"""All columns of the table of all dates."""

Row = dict[str, str | int | float | None]


def growth_row(one: NoduleGrowth, days: int | None) -> Row:
    """Return the values of `GROWTH_COLUMNS` for one nodule."""
    prior, current = one.prior, one.current
    either = current or prior
    share = one.volume_change
    return {
        "change": str(one.change),
        "prior_id": prior.id if prior and not one.missed else None,
        "current_id": current.id if current else None,
        "side": str(either.side) if either else None,
        "prior_kind": str(prior.kind) if prior else None,
        "current_kind": str(current.kind) if current else None,
        "prior_mean_mm": mean_mm(prior) if prior else None,
        "current_mean_mm": mean_mm(current) if current else None,
        "diameter_change_mm": _rounded(one.diameter_change_mm, 1),
        "prior_solid_mm": prior.solid_mm if prior else None,
        "current_solid_mm": current.solid_mm if current else None,
        "prior_volume_mm3": prior.volume_mm3 if prior else None,
        "current_volume_mm3": current.volume_mm3 if current else None,
        "volume_change_percent": _rounded(None if share is None else 100 * share, 1),
        "days": days,
        **_doubling(one.rate if days else None),
        "lung_rads_change": str(one.lung_rads) if one.lung_rads else None,
        "apart_mm": one.apart_mm,
        **_point("prior", one.prior_point),
        **_point("current", one.current_point),
    }


def growth_rows(timeline: Timeline) -> list[Row]:
    """Return the rows of the last step of a timeline.

    With more than two scans, the change, its Lung-RADS status and the doubling time are those over
    all dates.
    """
    days = timeline.steps[-1].days
    found = [(one, one.steps[-1]) for one in timeline.tracks]
    return [
        growth_row(step, step.days if step.missed else days)
        | (_over_all_dates(one) if len(timeline.steps) > 1 else {})
        for one, step in found
        if step is not None
    ]


def _over_all_dates(track: Track) -> Row:
    status = lung_rads_status(track)
    return {
        "change": str(track.change),
        "lung_rads_change": str(status) if status else None,
        **_doubling(track.rate),
    }


def _doubling(rate: GrowthRate | None) -> Row:
    """Doubling time with its interval; only the lower end for a nodule without growth."""
    low, high = rate.doubling_interval if rate else (inf, inf)
    grown = rate is not None and rate.change is Change.GROWN
    return {
        "doubling_days": _rounded(rate.doubling_days, 1) if grown and rate else None,
        "doubling_low_days": _rounded(low, 1) if low < inf else None,
        "doubling_high_days": _rounded(high, 1) if high < inf else None,
    }


def timeline_rows(timeline: Timeline) -> list[Row]:
    """Return a row for each nodule at each date."""
    rows: list[Row] = []
    for number, track in enumerate(timeline.tracks, start=1):
        for n, (scan, one) in enumerate(zip(timeline.scans, track.nodules, strict=True)):
            low, high = (
                volume_interval(one.volume_mm3, deviation(one, scan)) if one else (None, None)
            )
            rows.append(
                {
                    "track": number,
                    "scan": scan.name,
                    "date": str(scan.date) if scan.date else None,
                    "days": timeline.days[n] if timeline.days else None,
                    "id": one.id if one else None,
                    "side": str(track.last.side),
                    "kind": str(one.kind) if one else None,
                    "mean_mm": mean_mm(one) if one else None,
                    "volume_mm3": one.volume_mm3 if one else None,
                    "volume_low_mm3": _rounded(low, 1),
                    "volume_high_mm3": _rounded(high, 1),
                    "change": str(track.change),
                    **_doubling(track.rate),
                    **{axis: round(mm, 1) for axis, mm in zip("xyz", track.points[n], strict=True)},
                }
            )
    return rows


def write_growth_csv(path: Path, timeline: Timeline) -> None:
    """Write the last step as a new UTF-8 CSV file, one row per nodule.

    Raises:
        InputError: if `path` exists.
    """
    _write(path, list(GROWTH_COLUMNS), growth_rows(timeline))


def write_timeline_csv(path: Path, timeline: Timeline) -> None:
    """Write every nodule at every date as a new UTF-8 CSV file.

    Raises:
        InputError: if `path` exists.
    """
    _write(path, list(TIMELINE_COLUMNS), timeline_rows(timeline))


def _write(path: Path, columns: list[str], rows: list[Row]) -> None:
    csv_files.write_table(path, columns, ([row.get(name) for name in columns] for row in rows))


def _point(scan: str, point: tuple[float, float, float]) -> Row:
    return {f"{scan}_{axis}": _rounded(mm, 1) for axis, mm in zip("xyz", point, strict=True)}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
