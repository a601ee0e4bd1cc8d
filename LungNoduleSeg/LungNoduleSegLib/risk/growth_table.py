"""The table of growth: one row a nodule at two times, its columns, and the CSV file."""

import csv
from pathlib import Path

from CTLungScreeningLib.files import new_file
from LungNoduleSegLib.nodules.table import Column
from LungNoduleSegLib.risk.growth import Growth, NoduleGrowth, mean_mm

GROWTH_COLUMNS = {
    "change": Column(
        "Change",
        "",
        "grown or shrunk: the volume changed by 25 % or more; within variability: by less; new, "
        "not found again, or outside one of the scans",
    ),
    "prior_id": Column("Prior", "", "Number of the nodule in the prior scan"),
    "current_id": Column("Current", "", "Number of the nodule in the current scan"),
    "side": Column("Lung", "", "The patient's right or left lung"),
    "prior_kind": Column("Prior type", "", "Type in the prior scan"),
    "current_kind": Column("Current type", "", "Type in the current scan"),
    "prior_mean_mm": Column(
        "Prior diameter", "mm", "Mean of the two axial diameters in the prior scan"
    ),
    "current_mean_mm": Column(
        "Current diameter", "mm", "Mean of the two axial diameters in the current scan"
    ),
    "diameter_change_mm": Column(
        "Diameter change", "mm", "Change of the mean diameter; up to 1.5 mm is within variability"
    ),
    "prior_volume_mm3": Column("Prior volume", "mm³", "Volume in the prior scan"),
    "current_volume_mm3": Column("Current volume", "mm³", "Volume in the current scan"),
    "volume_change_percent": Column(
        "Volume change", "%", "Of the prior volume; less than 25 % is within variability"
    ),
    "days": Column("Interval", "days", "Between the two scans"),
    "doubling_days": Column(
        "Doubling time",
        "days",
        "Volume doubling time of a grown nodule (Schwartz, Cancer 1961;14:1272)",
    ),
    "lung_rads_change": Column(
        "Lung-RADS",
        "",
        "Change by Lung-RADS v2022: growing if the mean diameter rose by more than 1.5 mm within "
        "12 months",
    ),
    "apart_mm": Column("Apart", "mm", "Distance of the pair once the lungs are aligned"),
} | {
    f"{scan}_{axis}": Column(
        f"{scan.capitalize()} {axis}", "mm", f"Where it lies, or would lie, in the {scan} scan, LPS"
    )
    for scan in ("prior", "current")
    for axis in "xyz"
}
"""Every column, in its order, for the CSV file, the page and the MRML table."""

Row = dict[str, str | int | float | None]


def growth_row(one: NoduleGrowth, days: int | None) -> Row:
    """Give the values of the columns for one nodule; None where there is none."""
    prior, current = one.prior, one.current
    either = current or prior
    share = one.volume_change
    return {
        "change": str(one.change),
        "prior_id": prior.id if prior else None,
        "current_id": current.id if current else None,
        "side": str(either.side) if either else None,
        "prior_kind": str(prior.kind) if prior else None,
        "current_kind": str(current.kind) if current else None,
        "prior_mean_mm": mean_mm(prior) if prior else None,
        "current_mean_mm": mean_mm(current) if current else None,
        "diameter_change_mm": _rounded(one.diameter_change_mm, 1),
        "prior_volume_mm3": prior.volume_mm3 if prior else None,
        "current_volume_mm3": current.volume_mm3 if current else None,
        "volume_change_percent": _rounded(None if share is None else 100 * share, 1),
        "days": days,
        "doubling_days": _rounded(one.doubling_days, 1),
        "lung_rads_change": str(one.lung_rads) if one.lung_rads else None,
        "apart_mm": one.apart_mm,
        **_point("prior", one.prior_point),
        **_point("current", one.current_point),
    }


def write_growth_csv(path: Path, growth: Growth) -> None:
    """Write a new UTF-8 CSV file with a header line, one row a nodule; empty: no value.

    Raises:
        InputError: if `path` exists.
    """
    with (
        new_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, list(GROWTH_COLUMNS))
        writer.writeheader()
        writer.writerows(growth_row(one, growth.days) for one in growth.nodules)


def _point(scan: str, point: tuple[float, float, float]) -> Row:
    return {f"{scan}_{axis}": _rounded(mm, 1) for axis, mm in zip("xyz", point, strict=True)}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
