"""What a comparison of two runs leaves behind: a table and a page with the pairs side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import new_file, refuse_existing
from CTLungScreeningLib.geometry.axial import AxialView
from CTLungScreeningLib.hu import AIR_HU, LUNG_WINDOW
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.nodules.finding import NoduleFindings
from LungNoduleSegLib.nodules.table import Nodule
from LungNoduleSegLib.results.names import GROWTH_PAGE, GROWTH_TABLE, TABLE
from LungNoduleSegLib.results.pictures import COLOURS, Picture, PictureMaker
from LungNoduleSegLib.results.reading import RunResult, read_run
from LungNoduleSegLib.results.report import risk_section, template
from LungNoduleSegLib.risk.assessment import Assessment, assess_scan
from LungNoduleSegLib.risk.clinical_data import NO_CLINICAL_DATA, ClinicalData, prior_facts
from LungNoduleSegLib.risk.growth import (
    ChestScan,
    Growth,
    NoduleGrowth,
    compare_scans,
    study_date,
)
from LungNoduleSegLib.risk.growth_table import GROWTH_COLUMNS, growth_row, write_growth_csv
from LungNoduleSegLib.risk.scan_risk import ScanRisk


@dataclass(frozen=True)
class _Pair:
    """What the page shows of one nodule at two times."""

    row: Mapping[str, str]
    title: str
    prior: Picture
    prior_caption: str
    current: Picture
    current_caption: str


def compare_runs(
    prior: Path,
    current: Path,
    output: Path,
    days: int | None = None,
    given: ClinicalData = NO_CLINICAL_DATA,
    progress: ProgressCallback = silent,
) -> Growth:
    """Compare the results of two runs and write `growth.csv` and `growth.html` into a folder.

    Args:
        prior: folder of the run on the earlier scan.
        current: folder of the run on the later scan.
        output: folder for the results, made if missing; nothing in it is overwritten.
        days: between the scans; None: from their study dates.
        given: what was told of the patient and of nodules of the current scan.
        progress: callback, see `CTLungScreeningLib.progress`.

    Raises:
        InputError: if a folder cannot be used, or the scans are of one run or in the wrong order.
    """
    refuse_existing(output, [GROWTH_TABLE, GROWTH_PAGE])
    if prior.resolve() == current.resolve():
        raise InputError(f"{prior} was given twice: name the runs on two scans of one patient.")
    runs = []
    for done, folder in enumerate((prior, current)):
        progress("Reading", done, 2)
        runs.append(read_run(folder, progress))
    progress("Growth", 0, 1)
    was, now = (_chest(run, folder) for run, folder in zip(runs, (prior, current), strict=True))
    growth = compare_scans(was, now, days)
    assessed = assess_growth(growth, given, str(current / TABLE))
    risk = risk_section(ScanRisk(given.patient, assessed))
    write_growth_csv(output / GROWTH_TABLE, growth)
    write_growth_page(output / GROWTH_PAGE, growth, runs[0].labels, runs[1].labels, risk)
    progress("Growth", 1, 1)
    return growth


def _chest(run: RunResult, folder: Path) -> ChestScan:
    found = run.record["input"]
    series = found["series"] or {}
    return ChestScan(
        found.get("name", folder.name),
        run.scan.image,
        run.lungs,
        run.nodules,
        study_date(series.get("study_date", "")),
        series.get("patient_id", ""),
    )


def assess_growth(
    growth: Growth, given: ClinicalData = NO_CLINICAL_DATA, where: str = "The current scan"
) -> tuple[Assessment, ...]:
    """Assess every nodule of the current scan with what changed since the prior one.

    Raises:
        InputError: naming `where`, if something was told of a nodule that is not there.
    """
    rows = [growth_row(one, growth.days) for one in growth.nodules]
    current = growth.current
    return assess_scan(current.nodules, current.lungs, given, prior_facts(rows), where)


def write_growth_page(
    path: Path,
    growth: Growth,
    prior_labels: sitk.Image,
    current_labels: sitk.Image,
    risk: Mapping[str, Any],
) -> None:
    """Write a new HTML file: the table, and each nodule in both scans at the same scale.

    Args:
        path: the new file.
        growth: what changed.
        prior_labels: ids of the nodules of the prior scan, on any grid.
        current_labels: likewise of the current scan.
        risk: what `risk_section` gave for the current scan.

    Raises:
        InputError: if `path` exists.
    """
    makers = [
        _maker(scan, labels)
        for scan, labels in ((growth.prior, prior_labels), (growth.current, current_labels))
    ]
    page = template("growth.html.jinja").render(
        growth=growth,
        columns=GROWTH_COLUMNS,
        pairs=[_pair(one, growth, *makers) for one in growth.nodules],
        risk=risk,
        colours=COLOURS,
        window=LUNG_WINDOW,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )
    with new_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _maker(scan: ChestScan, labels: sitk.Image) -> PictureMaker:
    hu = AxialView.of(scan.hu, AIR_HU).image
    lungs, nodules = (
        sitk.Resample(image, hu, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        for image in (scan.lungs, labels)
    )
    return PictureMaker(hu, lungs, NoduleFindings(nodules, scan.nodules, ()))


def _pair(one: NoduleGrowth, growth: Growth, prior: PictureMaker, current: PictureMaker) -> _Pair:
    seen = [nodule for nodule in (one.prior, one.current) if nodule]
    half = max(18.0, *(1.1 * nodule.diameter_mm for nodule in seen))
    was, now = _caption(one.prior), _caption(one.current)
    return _Pair(
        {name: shown(value) for name, value in growth_row(one, growth.days).items()},
        f"{_name(one)}: {one.change}",
        prior.square(
            one.prior_point, half, f"Prior scan: {was}", one.prior.id if one.prior else None
        ),
        was,
        current.square(
            one.current_point, half, f"Current scan: {now}", one.current.id if one.current else None
        ),
        now,
    )


def _name(one: NoduleGrowth) -> str:
    if one.current:
        return f"Nodule {one.current.id}, {one.current.side} lung"
    return f"Prior nodule {one.prior.id}, {one.prior.side} lung" if one.prior else ""


def sentence(one: NoduleGrowth) -> str:
    """Say in one line what became of a nodule."""
    text = f"{_name(one)}: {one.change}"
    if one.volume_change is not None:
        text += f", volume {100 * one.volume_change:+.0f} %"
    if one.doubling_days is not None:
        text += f", doubling time {one.doubling_days:.0f} days"
    return text


def _caption(nodule: Nodule | None) -> str:
    if nodule is None:
        return "the same place in the lung, no nodule found"
    return (
        f"nodule {nodule.id}, {nodule.diameter_mm:.1f} × {nodule.perpendicular_mm:.1f} mm, "
        f"{nodule.volume_mm3:.0f} mm³, {nodule.kind}"
    )


def shown(value: str | int | float | None) -> str:
    """Format a value of the table for people."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"
    return str(value)
