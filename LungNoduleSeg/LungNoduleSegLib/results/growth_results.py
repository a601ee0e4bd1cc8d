"""Write a comparison of one patient's runs: tables, growth curves and an HTML page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import refuse_existing
from CTLungScreeningLib.geometry import AxialView, cut_out, imaged_box, onto_grid
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTLungScreeningLib.staging import whole_output
from LungNoduleSegLib.nodules.finding import NoduleFindings
from LungNoduleSegLib.nodules.measures import cut_off
from LungNoduleSegLib.nodules.table import Nodule
from LungNoduleSegLib.results.pictures import Picture, PictureMaker
from LungNoduleSegLib.results.reading import (
    GROWTH_PAGE,
    GROWTH_TABLE,
    TABLE,
    TIMELINE_TABLE,
    RunResult,
    identity,
    is_run,
    read_run,
)
from LungNoduleSegLib.results.report import risk_section, write_page
from LungNoduleSegLib.risk.assessment import Assessment, ScanRisk, assess_scan
from LungNoduleSegLib.risk.clinical_data import NO_CLINICAL_DATA, ClinicalData, prior_facts
from LungNoduleSegLib.risk.growth import ChestScan, days_between, deviation, method_of, study_date
from LungNoduleSegLib.risk.growth_rate import Change, GrowthRate, volume_interval
from LungNoduleSegLib.risk.growth_table import (
    GROWTH_COLUMNS,
    Row,
    growth_rows,
    write_growth_csv,
    write_timeline_csv,
)
from LungNoduleSegLib.risk.timeline import Timeline, Track, check_days, follow

WIDTH, HEIGHT = 220.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 38.0, 10.0, 10.0, 26.0


@dataclass(frozen=True)
class Curve:
    """The volumes of a nodule, and where they lie on a plot with a logarithmic axis.

    Attributes:
        points: of each measurement the time, the volume (mm³), the ends of its 95 % interval, and
            a tooltip.
        line: time and volume at the ends of the fitted growth; empty if it is not known.
        end: the time of the last scan, that of the first being 0.
        unit: of times, days or scans.
    """

    points: Sequence[tuple[float, float, float, float, str]]
    line: Sequence[tuple[float, float]]
    end: float
    unit: str
    width: float = WIDTH
    height: float = HEIGHT

    def x(self, time: float) -> float:
        """Position of a time."""
        return LEFT + (WIDTH - LEFT - RIGHT) * time / self.end

    def y(self, volume: float) -> float:
        """Position of a volume."""
        low, high = self._range
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - math.log(volume)) / (high - low)

    @property
    def ticks(self) -> list[float]:
        """The lowest and the highest round volume in range."""
        low, high = self._range
        step = 10 ** math.floor(math.log10(math.exp(low)))
        round_ones = (factor * step * 10**power for power in range(3) for factor in range(1, 10))
        inside = [one for one in round_ones if low <= math.log(one) <= high]
        return list(dict.fromkeys(inside[:1] + inside[-1:]))

    @cached_property
    def _range(self) -> tuple[float, float]:
        """The logarithms of the volumes at the ends of the axis."""
        lows, highs = [one[2] for one in self.points], [one[3] for one in self.points]
        return math.log(0.9 * min(lows)), math.log(1.1 * max(highs))


def curve_of(track: Track, timeline: Timeline) -> Curve | None:
    """Plot a nodule with at least two measurements; None for others.

    Without dates, scans are drawn at equal distances.
    """
    times = timeline.days or range(len(timeline.scans))
    points = []
    for time, scan, one in zip(times, timeline.scans, track.nodules, strict=True):
        if one is not None:
            low, high = volume_interval(one.volume_mm3, deviation(one, scan))
            text = (
                f"{scan.date or scan.name}: {one.volume_mm3:.0f} mm³ "
                f"(95 %: {low:.0f} to {high:.0f})"
            )
            points.append((time, one.volume_mm3, low, high, text))
    if len(points) < 2:
        return None
    line = []
    if track.rate is not None and timeline.days is not None:
        line = [(day, track.rate.volume(day)) for day in (times[track.rated[0]], times[-1])]
    return Curve(points, line, times[-1], "days" if timeline.days else "scans")


FILES = (GROWTH_TABLE, TIMELINE_TABLE, GROWTH_PAGE)


@dataclass(frozen=True)
class _Shown:
    """One nodule on the page: pictures of every scan, and a plot of its volumes."""

    title: str
    sentence: str
    row: Mapping[str, str]
    pictures: tuple[tuple[Picture, str], ...]
    curve: Curve | None


def compare_runs(
    runs: Sequence[Path | RunResult],
    output: Path,
    days: int | None = None,
    clinical_data: ClinicalData = NO_CLINICAL_DATA,
    progress: ProgressCallback = silent,
) -> Timeline:
    """Compare the results of two or more runs on one patient, and write `FILES` into a folder.

    `growth.csv` has the changes between the last two scans, `timeline.csv` every nodule at every
    date, `growth.html` shows both.

    Args:
        runs: their folders, or what was read from them, from the earliest to the latest scan.
        output: folder for the results, made if missing; no file is overwritten.
        days: between two scans; None to compute them from their study dates.
        clinical_data: of the patient and the nodules of the last scan.
        progress: callback.

    Raises:
        InputError: if a folder cannot be used, a run is repeated, or the scans are in the wrong
            order.
    """
    refuse_existing(output, FILES)
    folders = [run.folder if isinstance(run, RunResult) else run for run in runs]
    _refuse_repeated(folders, [folder.resolve() for folder in folders])
    check_days(len(runs), days)
    found = []
    for done, run in enumerate(runs):
        progress("Reading", done, len(runs))
        found.append(run if isinstance(run, RunResult) else read_run(run, progress))
    _refuse_repeated(folders, [identity(run.scan) for run in found])
    timeline = follow([_chest(run) for run in found], days, progress)
    assessments = assess_growth(timeline, clinical_data, str(folders[-1] / TABLE))
    risk = ScanRisk(clinical_data.patient, assessments)
    with whole_output(output) as folder:
        write_growth_csv(folder / GROWTH_TABLE, timeline)
        write_timeline_csv(folder / TIMELINE_TABLE, timeline)
        page = folder / GROWTH_PAGE
        write_growth_page(page, timeline, [run.labels for run in found], risk_section(risk))
    return timeline


def read_sources(
    sources: Sequence[Path], days: int | None = None, progress: ProgressCallback = silent
) -> list[RunResult | CTScan]:
    """Read runs and scans, and check that they can be compared before the scans are segmented.

    Arguments and errors are those of `compare_runs`.
    """
    _refuse_repeated(sources, [source.resolve() for source in sources])
    check_days(len(sources), days)
    found = [
        read_run(one, progress) if is_run(one) else read_ct(one, progress=progress)
        for one in sources
    ]
    scans = [one.scan if isinstance(one, RunResult) else one for one in found]
    _refuse_repeated(sources, [identity(scan) for scan in scans])
    dated = [
        (source.name, study_date(scan.series.study_date if scan.series else ""))
        for source, scan in zip(sources, scans, strict=True)
    ]
    for prior, current in pairwise(dated):
        days_between(prior, current, days)
    return found


def _refuse_repeated(sources: Sequence[Path], scans: Sequence[object]) -> None:
    for number, scan in enumerate(scans):
        if scan in scans[:number]:
            first = sources[scans.index(scan)]
            also = "was named twice" if first == sources[number] else f"is {sources[number]}, too"
            raise InputError(f"{first} {also}: name different scans of one patient.")


def _chest(run: RunResult) -> ChestScan:
    found = run.record["input"]
    series = found["series"] or {}
    imaged = imaged_box(run.scan.image)
    return ChestScan(
        found.get("name", run.folder.name),
        run.scan.image,
        run.lungs,
        run.nodules,
        study_date(series.get("study_date") or ""),
        series.get("patient_id") or "",
        method_of(run.record),
        frozenset(cut_off(cut_out(run.labels, imaged))),
    )


def assess_growth(
    timeline: Timeline,
    clinical_data: ClinicalData = NO_CLINICAL_DATA,
    where: str = "The last scan",
) -> tuple[Assessment, ...]:
    """Assess every nodule of the last scan, including its growth.

    Raises:
        InputError: naming `where`, if clinical data belong to a nodule that does not exist.
    """
    current = timeline.scans[-1]
    prior = prior_facts(growth_rows(timeline))
    return assess_scan(current.nodules, current.lungs, clinical_data, prior, where)


def write_growth_page(
    path: Path, timeline: Timeline, labels: Sequence[sitk.Image], risk: Mapping[str, Any]
) -> None:
    """Write a new HTML file with the table, and each nodule at each date at the same scale.

    Args:
        path: the new file.
        timeline: of all scans.
        labels: nodule ids of each scan, on any grid.
        risk: `risk_section` of the last scan.

    Raises:
        InputError: if `path` exists.
    """
    makers = [_maker(scan, image) for scan, image in zip(timeline.scans, labels, strict=True)]
    rows = growth_rows(timeline)
    by_last = {row["current_id"]: row for row in rows if row["current_id"] is not None}
    write_page(
        path,
        "growth.html.jinja",
        timeline=timeline,
        columns=GROWTH_COLUMNS,
        rows=[{name: shown(value) for name, value in row.items()} for row in rows],
        tracks=[
            _shown(one, timeline, makers, by_last.get(one.last.id, {}) if one.nodules[-1] else {})
            for one in timeline.tracks
        ],
        risk=risk,
    )


def _maker(scan: ChestScan, labels: sitk.Image) -> PictureMaker:
    hu = AxialView.of(scan.hu, AIR_HU).image
    lungs, nodules = (onto_grid(image, hu) for image in (scan.lungs, labels))
    return PictureMaker(hu, lungs, NoduleFindings(nodules, scan.nodules, ()))


def _shown(
    track: Track,
    timeline: Timeline,
    makers: Sequence[PictureMaker],
    row: Row,
) -> _Shown:
    half = max(18.0, *(1.1 * one.diameter_mm for one in track.nodules if one))
    pictures = []
    for scan, maker, one, point in zip(
        timeline.scans, makers, track.nodules, track.points, strict=True
    ):
        caption = f"{scan.date or scan.name}: {_caption(one)}"
        pictures.append((maker.square(point, half, caption, one.id if one else None), caption))
    return _Shown(
        f"{track.name}: {track.change}",
        track_sentence(track),
        {name: shown(value) for name, value in row.items()},
        tuple(pictures),
        curve_of(track, timeline),
    )


def track_sentence(track: Track) -> str:
    """Describe the change of a nodule over all dates in one line."""
    text = f"{track.name}: {track.change}"
    last = track.steps[-1]
    if last is not None and last.part_of is not None:
        text += f" {'into' if last.change is Change.MERGED else 'from'} nodule {last.part_of.id}"
    if last is not None and last.others:
        text += f", with {_listed(last.others)} merged into it"
    if last is not None and last.volume_change is not None:
        since = "it was last found" if last.missed else "the last scan"
        text += f", volume {100 * last.volume_change:+.0f} % since {since}"
    if 0 < len(track.rated) < sum(one is not None for one in track.nodules):
        text += f", growth over the last {len(track.rated)} scans that show it"
    return f"{text}{rate_words(track.rate)}"


def rate_words(rate: GrowthRate | None) -> str:
    """Format the doubling time with its interval, or the shortest possible one."""
    if rate is None:
        return ""
    low, high = rate.doubling_interval
    if rate.change is Change.GROWN:
        interval = f"{rate.percent:g} %: {low:.0f} to {high:.0f}"
        return f", doubling time {rate.doubling_days:.0f} days ({interval})"
    if rate.change is Change.UNCHANGED:
        return f", doubling time {low:.0f} days or more" if low < float("inf") else ""
    return ""


def _listed(nodules: Sequence[Nodule]) -> str:
    return "nodule " + " and ".join(f"{one.id}" for one in nodules)


def _caption(nodule: Nodule | None) -> str:
    if nodule is None:
        return "no nodule found here"
    return (
        f"nodule {nodule.id}, {nodule.diameter_mm:.1f} × {nodule.perpendicular_mm:.1f} mm, "
        f"{nodule.volume_mm3:.0f} mm³, {nodule.kind}"
    )


def shown(value: str | int | float | None) -> str:
    """Format a value of the table."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"
    return str(value)
