"""All scans of one patient: each nodule's track through every date."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.nodules.table import Nodule, NoduleKind
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
)
from LungNoduleSegLib.risk.growth_rate import Change, GrowthRate, latest_growth
from LungNoduleSegLib.risk.lung_rads import nodule_change_by_lung_rads


@dataclass(frozen=True)
class Track:
    """One nodule through all scans.

    Attributes:
        nodules: in each scan, None where it was not found.
        points: its actual or expected position in each scan, LPS mm.
        steps: the change from each scan to the next, None where it is in neither; after scans
            that missed it, the change since the last one that shows it. Growing by Lung-RADS means
            since any comparable scan of the twelve months before, see `_by_lung_rads`.
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
    comparable dates, but within no twelve months by as much as Lung-RADS requires, is slowly
    growing, unless it is smaller than on the scan before.
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
                was = chain[last].prior
                assert was is not None
                chain[number] = across(was, one, steps[last : number + 1], apart)
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
    changes = {
        number: _by_lung_rads(chain, nodules, number, steps) if one.current else one
        for number, one in chain.items()
    }
    track = Track(
        tuple(nodules),
        tuple(point for point in points if point is not None),
        tuple(changes.get(number) for number in range(len(steps))),
        next(one.change for _, one in sorted(chain.items(), reverse=True)),
    )
    return _rated(track, scans, days)


def _by_lung_rads(
    chain: Mapping[int, NoduleGrowth],
    nodules: Sequence[Nodule | None],
    number: int,
    steps: Sequence[Growth],
) -> NoduleGrowth:
    """Compare a nodule by Lung-RADS with all scans before, up to its last merger or doubt.

    It is growing if it grew since any of them, unless it shrank since a later one.

    Returns:
        The step to the scan that shows it; a note names an earlier scan that it grew since.
    """
    now, apart = chain[number], 0.0
    assert now.current is not None
    for first in range(number, min(chain) - 1, -1):
        step, was = chain.get(first), nodules[first]
        if step and (step.prior is None or step.others):
            break
        if step and step.current:
            apart = max(apart, step.apart_mm or 0.0)
        since = was and across(was, now, steps[first : number + 1], apart)
        if since and since.lung_rads is Status.GROWING and was is not now.prior:
            note = (
                f"Nodule {now.current.id} of {steps[number].current.name} counts as growing for "
                f"Lung-RADS since {steps[first].prior.name}, not since the scan before."
            )
            return replace(now, lung_rads=Status.GROWING, notes=(*now.notes, note))
        if since and (since.lung_rads is Status.GROWING or _shrank(since)):
            break
    return now


def _shrank(step: NoduleGrowth) -> bool:
    """Whether a nodule is measurably smaller, or by more than Lung-RADS requires of growth."""
    if step.prior is None or step.current is None or step.rate is None:
        return False
    reverse = nodule_change_by_lung_rads(step.current, step.prior, 0)
    return step.change is Change.SHRUNK or reverse is Status.GROWING


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
