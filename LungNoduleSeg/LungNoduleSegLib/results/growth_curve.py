"""The volumes of one nodule against time, as shapes for a page: points, intervals, and the fit."""

import math
from dataclasses import dataclass

from LungNoduleSegLib.risk.growth import deviation
from LungNoduleSegLib.risk.growth_rate import volume_interval
from LungNoduleSegLib.risk.timeline import Timeline, Track

WIDTH, HEIGHT = 220.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 38.0, 10.0, 10.0, 26.0


@dataclass(frozen=True)
class Mark:
    """A volume: where it and the ends of its 95 % interval are drawn, and what it says."""

    x: float
    y: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Curve:
    """A plot in a box of `width` by `height`; volumes on a logarithmic axis.

    Attributes:
        marks: the volumes.
        line: SVG path of the fitted growth, "" without one.
        days: ticks of the time axis.
        volumes: ticks of the volume axis.
    """

    marks: tuple[Mark, ...]
    line: str
    days: tuple[Tick, ...]
    volumes: tuple[Tick, ...]
    width: float = WIDTH
    height: float = HEIGHT


def curve_of(track: Track, timeline: Timeline) -> Curve | None:
    """Draw a nodule that was measured at two dates or more; None for the others.

    Where days are not known the scans are drawn one step apart.
    """
    found = [(n, one) for n, one in enumerate(track.nodules) if one is not None]
    if len(found) < 2:
        return None
    times = [float(day) for day in timeline.days or range(len(timeline.scans))]
    intervals = [
        volume_interval(one.volume_mm3, deviation(one, timeline.scans[n])) for n, one in found
    ]
    axes = _Axes(
        times[-1],
        math.log(0.9 * min(low for low, _ in intervals)),
        math.log(1.1 * max(high for _, high in intervals)),
    )
    marks = tuple(
        Mark(
            axes.x(times[n]),
            axes.y(one.volume_mm3),
            axes.y(low),
            axes.y(high),
            f"{timeline.scans[n].date or timeline.scans[n].name}: {one.volume_mm3:.0f} mm³ "
            f"(95 %: {low:.0f} to {high:.0f})",
        )
        for (n, one), (low, high) in zip(found, intervals, strict=True)
    )
    line = ""
    if track.rate is not None:
        ends = [(day, track.rate.volume(day)) for day in (times[found[0][0]], times[-1])]
        line = "M" + "L".join(f"{axes.x(day):.1f},{axes.y(volume):.1f}" for day, volume in ends)
    unit = "days" if timeline.days else "scans"
    days = tuple(Tick(axes.x(day), f"{day:.0f} {unit}" if day else "0") for day in (0.0, times[-1]))
    return Curve(marks, line, days, axes.volume_ticks())


@dataclass(frozen=True)
class _Axes:
    """Time from 0 to `end`, and the logarithm of the volume from `low` to `high`."""

    end: float
    low: float
    high: float

    def x(self, day: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * day / self.end

    def y(self, volume: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high - math.log(volume)) / (
            self.high - self.low
        )

    def volume_ticks(self) -> tuple[Tick, ...]:
        """Label the lowest and the highest volume of two digits that fit in."""
        step = 10 ** math.floor(math.log10(math.exp(self.low)))
        inside = [
            factor * power
            for power in (step, 10 * step, 100 * step)
            for factor in range(1, 10)
            if self.low <= math.log(factor * power) <= self.high
        ]
        return tuple(
            Tick(self.y(one), f"{one:g}") for one in dict.fromkeys(inside[:1] + inside[-1:])
        )
