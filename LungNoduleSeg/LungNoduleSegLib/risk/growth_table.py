"""Tables of growth: nodules in two scans, and through all scans of one patient."""

from math import inf
from pathlib import Path

from CTLungScreeningLib import csv_files
from LungNoduleSegLib.nodules.table import Column
from LungNoduleSegLib.risk.growth import NoduleGrowth, deviation, mean_mm
from LungNoduleSegLib.risk.growth_rate import Change, GrowthRate, volume_interval
from LungNoduleSegLib.risk.timeline import Timeline, Track, lung_rads_status

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
