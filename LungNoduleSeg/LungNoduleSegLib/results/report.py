"""The report of a run: one self-contained HTML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from jinja2 import Environment, PackageLoader, StrictUndefined

from CTLungScreeningLib.files import new_file, refuse_existing
from CTLungScreeningLib.geometry import AxialView, crop_to, onto_grid
from CTLungScreeningLib.hu import AIR_HU, LUNG_WINDOW
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_scan import CTScan, SeriesInfo
from LungNoduleSegLib.lungs.labels import lung_volumes_ml
from LungNoduleSegLib.nodules.finding import NoduleFindings
from LungNoduleSegLib.nodules.table import COLUMNS, PLUS_MINUS, Nodule, mean_axial_mm
from LungNoduleSegLib.results.pictures import COLOURS, Picture, PictureMaker
from LungNoduleSegLib.results.reading import RISK, RunResult, read_run, risk_of
from LungNoduleSegLib.risk.assessment import DISCLAIMER, Assessment, ScanRisk, assess_scan
from LungNoduleSegLib.risk.facts import LABELS, NoduleFacts, PatientFacts, fact_text
from LungNoduleSegLib.risk.guidelines import GuidelineResult
from LungNoduleSegLib.risk.prediction import UNEXPLAINED, strongest

TABLE = (
    "id",
    "side",
    "lobe",
    "kind",
    "diameter_mm",
    "perpendicular_mm",
    "mean_diameter_mm",
    "volume_mm3",
    "mean_hu",
    "pleura_mm",
    "slice",
    "x",
    "y",
    "z",
    "probability",
)
"""Columns of the table in the report; `nodules.csv` holds all."""

RULES = {
    "min_probability": "below the confidence threshold",
    "min_diameter_mm": "too small",
    "min_lung_fraction": "outside the lungs",
    "max_elongation": "shaped like a vessel",
}
"""Why each rule of `NoduleRules` rejects a candidate."""


@dataclass(frozen=True)
class _Card:
    """One nodule in the report."""

    nodule: Nodule
    shown: str
    context: Picture
    enlarged: Picture


@dataclass(frozen=True)
class _Row:
    """One nodule in the overview table."""

    id: int
    place: str
    kind: str
    mean_mm: str
    volume_mm3: str
    change: str
    category: str
    follow_up: str


def write_report_of_run(folder: Path, path: Path, progress: ProgressCallback = silent) -> None:
    """Write the report of a run once more, as it is now.

    Args:
        folder: of the run.
        path: the new file.
        progress: of the reading.

    Raises:
        InputError: as `read_run` and `risk_of` do, or if `path` exists.
    """
    refuse_existing(path.parent, [path.name])
    write_report_again(read_run(folder, progress), path)


def write_report_again(run: RunResult, path: Path) -> None:
    """Write the report of a run that was read back as a new HTML file.

    Raises:
        InputError: as `risk_of` does, or if `path` exists.
    """
    about, scan = run.record["input"], run.scan
    if "name" in about:  # written by Slicer, with the scan's file elsewhere
        series = about["series"] and SeriesInfo(**about["series"])
        scan = replace(scan, source=Path(about["name"]), series=series)
        about = about | {"source": about["name"]}
    shown = {name: value for name, value in run.record.items() if name not in (RISK, "nodules")}
    axial = AxialView.of(scan.image, AIR_HU).image
    lungs, hu = crop_to(onto_grid(run.lungs, axial), axial)
    findings = NoduleFindings(onto_grid(run.labels, hu), run.nodules, ())
    risk = risk_of(run)
    write_report(path, scan, hu, lungs, findings, shown | {"input": about}, risk)


def write_report(
    path: Path,
    scan: CTScan,
    hu: sitk.Image,
    lungs: sitk.Image,
    findings: NoduleFindings,
    provenance: Mapping[str, Any],
    risk: ScanRisk | None = None,
) -> None:
    """Write the report of one scan as a new HTML file without any external address.

    Args:
        path: the new file.
        scan: the scan as read; its grid defines slice numbers, its header identifies it.
        hu: axial HU image, cropped to the chest.
        lungs: 1 in the right and 2 in the left lung, on the grid of `hu`.
        findings: nodules on the same grid.
        provenance: the content of `run.json`, shown as it is.
        risk: results of models and guidelines; None to compute them without clinical data.

    Raises:
        InputError: if `path` exists.
    """
    if risk is None:
        risk = ScanRisk(PatientFacts(), assess_scan(findings.nodules, lungs))
    lobes = any(one.lobe for one in findings.nodules)
    maker = PictureMaker(hu, lungs, findings)
    levels = [(_shown(hu, scan, k), picture) for k, picture in maker.levels()]
    write_page(
        path,
        "report.html.jinja",
        scan=scan,
        facts=_facts(scan),
        notes=provenance.get("input", {}).get("notes", scan.notes),
        volumes=lung_volumes_ml(lungs),
        frontal=maker.frontal(),
        levels=levels,
        cards=[_card(maker, nodule, hu, scan) for nodule in findings.nodules],
        nodules=findings.nodules,
        rows=[_row(one, findings.nodules) for one in risk.assessments],
        examination=None if risk.patient.screening is False else risk.examination,
        rejected={RULES[rule]: n for rule, n in findings.rejected_by_rule.items()},
        risk=risk_section(risk),
        columns=COLUMNS,
        table=[name for name in TABLE if name != "lobe" or lobes],
        provenance=provenance,
    )


def _row(one: Assessment, nodules: Sequence[Nodule]) -> _Row:
    """Summarize an assessment for the overview table."""
    facts, guideline = one.nodule, one.follow_up
    nodule = next((row for row in nodules if row.id == facts.id), None)
    lobe = {True: "upper lobe", False: "not the upper lobe", None: ""}
    origin = facts.origins.get("upper_lobe")
    place = lobe[facts.upper_lobe] + (f" ({origin})" if origin else "")
    if nodule is not None:
        named = nodule.lobe is not None and nodule.lobe.is_upper == facts.upper_lobe
        place = nodule.place if named or not place else f"{nodule.side}, {place}"
    mean = volume = "–"
    if facts.longest_mm is not None and facts.perpendicular_mm is not None:
        mean = f"{mean_axial_mm(facts.longest_mm, facts.perpendicular_mm):.1f}"
    if facts.volume_mm3 is not None:
        volume = fact_text("volume_mm3", facts.volume_mm3)
    follow_up = guideline.management or guideline.not_for
    return _Row(
        facts.id or 0,
        place,
        str(facts.type or facts.kind or "–"),
        mean,
        volume,
        _change(facts),
        f"{guideline.guideline}: {_category(guideline)}",
        follow_up or f"missing: {', '.join(guideline.missing)}",
    )


def _category(result: GuidelineResult) -> str:
    return result.category or result.provisional or "–"


def _change(facts: NoduleFacts) -> str:
    text = "–" if facts.status is None else str(facts.status)
    if facts.previous_mean_mm is not None:
        text += f", {facts.previous_mean_mm:.1f} mm before"
    if facts.doubling_days is not None:
        text += f", doubling in {fact_text('doubling_days', facts.doubling_days)} days"
    return text


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write a new HTML file.

    Args:
        path: the new file.
        template: the name of one in `Resources`.
        values: what it shows, beside the colours of nodules, the window of pictures and the time.

    Raises:
        InputError: if `path` exists.
    """
    environment = Environment(
        loader=PackageLoader("LungNoduleSegLib", "Resources"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["value"] = _value
    environment.filters["known_facts"] = _known_facts
    environment.filters["words"] = lambda key: str(key).replace("_", " ")
    environment.tests["listed"] = lambda value: (
        isinstance(value, Sequence) and not isinstance(value, str)
    )
    page = environment.get_template(template).render(
        values,
        colours=COLOURS,
        window=LUNG_WINDOW,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )
    with new_file(path) as temporary:
        temporary.write_bytes(page.encode("utf-8", "backslashreplace"))


def _value(nodule: Nodule, name: str) -> str:
    """Format a measurement with its significant digits."""
    value = getattr(nodule, name)
    if value is None:
        return "–"
    half = PLUS_MINUS.get(name)
    if half and getattr(nodule, half) is not None:
        return f"{_number(value, name)} ± {_number(getattr(nodule, half), name)}"
    return _number(value, name)


def _number(value: Any, name: str) -> str:
    if isinstance(value, float):
        digits = 2 if "probability" in name else 0 if name.endswith(("_hu", "_mm3")) else 1
        return f"{value + 0.0:.{digits}f}"
    return str(value)


def _facts(scan: CTScan) -> dict[str, str]:
    """Identification and geometry of the scan."""
    image, series = scan.image, scan.series
    size, spacing = image.GetSize(), image.GetSpacing()
    facts = {"Source": scan.source.name}
    if series is not None:
        date = series.study_date
        iso = f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else date
        facts |= {
            "Patient ID": series.patient_id,
            "Study date": iso,
            "Series": series.description,
            "Series instance UID": series.series_instance_uid,
        }
    facts["Size"] = f"{size[0]} × {size[1]} × {size[2]} voxels"
    facts["Spacing"] = f"{spacing[0]:.3g} × {spacing[1]:.3g} × {spacing[2]:.3g} mm"
    return {name: value or "unknown" for name, value in facts.items()}


def risk_section(risk: ScanRisk) -> dict[str, Any]:
    """Return the context of `risk.html.jinja`, the longest nodule first."""
    return {
        "assessments": risk.longest_first,
        "patient": _known_facts(risk.patient),
        "prediction": risk.prediction,
        "moved_by": strongest(risk.prediction) if risk.prediction else [],
        "unexplained": UNEXPLAINED,
        "notes": risk.notes,
        "disclaimer": DISCLAIMER,
    }


def _known_facts(facts: NoduleFacts | PatientFacts) -> dict[str, str]:
    """The known facts by label; those of a nodule with their origins."""
    known = {}
    for field in fields(facts):
        value = getattr(facts, field.name)
        if field.name not in LABELS or value is None:
            continue
        text = fact_text(field.name, value)
        if isinstance(facts, NoduleFacts):
            text += f" ({facts.origins[field.name]})"
        known[LABELS[field.name]] = text
    return known


def _card(maker: PictureMaker, nodule: Nodule, hu: sitk.Image, scan: CTScan) -> _Card:
    measured = maker.diameters(nodule.id)
    shown = _shown(hu, scan, measured.slice)
    what = f"nodule {nodule.id}, {nodule.diameter_mm:.1f} mm, {nodule.kind}, {nodule.place}"
    return _Card(
        nodule,
        shown,
        maker.context(measured, f"Axial slice with a box around {what}"),
        maker.enlarged(measured, f"Enlarged: outline and diameters of {what}"),
    )


def _shown(hu: sitk.Image, scan: CTScan, k: int) -> str:
    """Name an axial slice by its z and, if it is one of the input's, its slice number."""
    middle = hu.TransformIndexToPhysicalPoint((hu.GetWidth() // 2, hu.GetHeight() // 2, k))
    height = f"z {middle[2]:.1f} mm"
    axes = (np.reshape(image.GetDirection(), (3, 3))[:, 2] for image in (hu, scan.image))
    if abs(np.dot(*axes)) < 0.9999:
        return height
    return f"slice {scan.image.TransformPhysicalPointToIndex(middle)[2]}, {height}"
