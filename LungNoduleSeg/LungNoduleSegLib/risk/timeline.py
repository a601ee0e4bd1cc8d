"""All scans of one patient: each nodule's track through every date, and how fast it grows."""

from collections.abc import Sequence
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
    compare_scans,
    deviation,
    shows,
)
from LungNoduleSegLib.risk.growth_rate import Change, GrowthRate, growth_rate


@dataclass(frozen=True)
class Track:
    """One nodule through all scans.

    Attributes:
        nodules: in each scan, None where it was not found.
        points: where it lies, or would lie, in each scan, LPS mm.
        steps: what changed from each scan to the next, None where it is in neither.
        change: over all dates; of a nodule that is measured but once, why.
        rate: of growth per day over all dates at which it was measured in the same way; None
            where those are fewer than two, or days are not known.
    """

    nodules: tuple[Nodule | None, ...]
    points: tuple[Point, ...]
    steps: tuple[NoduleGrowth | None, ...]
    change: Change
    rate: GrowthRate | None = None

    @property
    def last(self) -> Nodule:
        """The nodule in the last scan that shows it."""
        return next(one for one in reversed(self.nodules) if one is not None)

    @property
    def name(self) -> str:
        """What people call it: by its number in the last scan, or in the last that shows it."""
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
        days: of each scan since the first, None where dates are missing.
        steps: each scan compared with the next.
        tracks: of every nodule.
    """

    scans: tuple[ChestScan, ...]
    days: tuple[int, ...] | None
    steps: tuple[Growth, ...]
    tracks: tuple[Track, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader has to know before the numbers are trusted, each once."""
        return tuple(dict.fromkeys(note for step in self.steps for note in step.notes))


def follow(
    scans: Sequence[ChestScan], days: int | None = None, progress: ProgressCallback = silent
) -> Timeline:
    """Follow every nodule through the scans of one patient.

    Each scan is compared with the next. A nodule that one scan between two others does not show,
    but whose place it does, is followed across it.

    Args:
        scans: two or more, from the earliest to the latest.
        days: between two scans; None: from their dates.
        progress: progress.

    Raises:
        InputError: as `compare_scans`; or if `days` is given for more than two scans.
    """
    if len(scans) < 2:
        raise InputError("Growth needs at least two scans of one patient: give more.")
    if days is not None and len(scans) > 2:
        raise InputError("One number of days is for two scans: give more scans study dates.")
    steps = []
    for number, (prior, current) in enumerate(pairwise(scans)):
        progress("Growth", number, len(scans) - 1)
        steps.append(compare_scans(prior, current, days))
    progress("Growth", len(scans) - 1, len(scans) - 1)
    since = None
    if all(step.days is not None for step in steps):
        since = tuple(int(n) for n in np.cumsum([0, *(step.days or 0 for step in steps)]))
    chains = _chains(steps)
    tracks = [_track(chain, steps, since) for chain in chains]
    there = sorted((one for one in tracks if one.nodules[-1]), key=lambda one: one.last.id)
    gone = [one for one in tracks if not one.nodules[-1]]
    return Timeline(tuple(scans), since, tuple(steps), (*there, *gone))


def lung_rads_status(track: Track) -> Status | None:
    """Class what a track tells by Lung-RADS v2022, None where a reader has to say.

    The last step counts. A solid or part-solid nodule that grows measurably over three scans or
    more, but by no step as fast as Lung-RADS asks for, grows slowly.
    """
    status = track.steps[-1].lung_rads if track.steps[-1] else None
    slow = (
        track.last.kind in (NoduleKind.SOLID, NoduleKind.PART_SOLID)
        and track.change is Change.GROWN
        and sum(one is not None for one in track.nodules) > 2
    )
    return Status.SLOWLY_GROWING if slow and status in (None, Status.STABLE) else status


def _chains(steps: Sequence[Growth]) -> list[dict[int, NoduleGrowth]]:
    """Join what changed from scan to scan: for each nodule, its steps by their numbers."""
    chains: list[dict[int, NoduleGrowth]] = []
    for number, step in enumerate(steps):
        for one in step.nodules:
            chain = _continued(chains, number, one)
            if chain is None:
                chains.append({number: one})
            else:
                chain[number] = one
    return chains


def _continued(
    chains: Sequence[dict[int, NoduleGrowth]], number: int, one: NoduleGrowth
) -> dict[int, NoduleGrowth] | None:
    """Find the chain that a step goes on: by its prior nodule, or across a scan without it."""
    before = [(chain, chain[number - 1]) for chain in chains if number - 1 in chain]
    if one.prior is not None:
        same = (chain for chain, was in before if was.current is one.prior)
        return next(same, None)
    if one.current is None or one.change is Change.SPLIT:
        return None
    near = [
        (float(np.linalg.norm(np.subtract(was.current_point, one.prior_point))), n, chain)
        for n, (chain, was) in enumerate(before)
        if was.change is Change.VANISHED and was.prior and was.prior.side == one.current.side
    ]
    apart, _, chain = min(near, default=(GATE_MM + 1, 0, None))
    return chain if apart <= GATE_MM else None


def _track(
    chain: dict[int, NoduleGrowth], steps: Sequence[Growth], days: Sequence[int] | None
) -> Track:
    count = len(steps) + 1
    nodules: list[Nodule | None] = [None] * count
    points: list[Point | None] = [None] * count
    for number, one in chain.items():
        nodules[number] = nodules[number] or one.prior
        nodules[number + 1] = one.current
        points[number] = points[number] or one.prior_point
        points[number + 1] = one.current_point
    first, last = min(chain), max(chain) + 1
    side = next(one for one in nodules if one is not None).side
    for number in range(first, 0, -1):
        here = points[number]
        assert here is not None
        points[number - 1] = steps[number - 1].alignment.prior_point(side, here)
    for number in range(last, count - 1):
        here = points[number]
        assert here is not None
        points[number + 1] = steps[number].alignment.current_point(side, here)
    scans = (steps[0].prior, *(step.current for step in steps))
    track = Track(
        tuple(nodules),
        tuple(point for point in points if point is not None),
        tuple(chain.get(number) for number in range(len(steps))),
        next(one.change for _, one in sorted(chain.items(), reverse=True)),
    )
    return _rated(track, scans, days)


def _rated(track: Track, scans: Sequence[ChestScan], days: Sequence[int] | None) -> Track:
    """Fit the growth over the dates since the nodule was last measured in another way."""
    found = [n for n, one in enumerate(track.nodules) if one is not None]
    broken = (Change.NOT_COMPARABLE, Change.MERGED, Change.SPLIT)
    start = max(
        (n for n, one in enumerate(track.steps) if one and one.change in broken), default=-1
    )
    used = [n for n in found if n > start]
    gone = track.nodules[-1] is None
    if len(used) < 2 or days is None or gone:
        if gone and track.change not in (Change.MERGED, Change.NOT_SHOWN_NOW):
            shown = shows(scans[-1].hu, track.points[-1])
            return replace(track, change=Change.VANISHED if shown else Change.NOT_SHOWN_NOW)
        return track
    used_nodules = [one for n in used if (one := track.nodules[n]) is not None]
    rate = growth_rate(
        [days[n] for n in used],
        [one.volume_mm3 for one in used_nodules],
        [deviation(one, scans[n]) for n, one in zip(used, used_nodules, strict=True)],
    )
    return replace(track, change=rate.change, rate=rate)
