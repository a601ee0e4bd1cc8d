"""The report: what it says, what it shows where, and that it stays on its own."""

import base64
import html
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.hu import LUNG_WINDOW
from CTLungScreeningLib.reading.ct_scan import CTScan, SeriesInfo
from LungNoduleSegLib.nodules.finding import NoduleFindings, NoduleRules, find_nodules
from LungNoduleSegLib.nodules.table import mean_axial_mm
from LungNoduleSegLib.results.dicom_report import examination_group
from LungNoduleSegLib.results.pictures import PictureMaker
from LungNoduleSegLib.results.report import write_report
from LungNoduleSegLib.risk.assessment import DISCLAIMER, ScanRisk, assess_scan, scan_text
from LungNoduleSegLib.risk.clinical_data import ClinicalData
from LungNoduleSegLib.risk.facts import PatientFacts, Sex, Status, measured_facts
from LungNoduleSegLib.risk.prediction import Contribution, RiskPrediction
from LungNoduleSegLib.risk.published_models import MODELS, evaluate

HOSTILE = '<script>alert("x")</script>'
NOTICE = "Research use only — not a medical device"
PROVENANCE = {
    "model": {"name": "nodule-unet", "sha256": "0123abcd" * 8},
    "parameters": {"rules": {"threshold": 0.5, "max_elongation": None}},
    "input": {"sop_instance_uids": [f"1.2.{i}" for i in range(40)]},
    "timing_s": {"Lungs": 1.25},
}


class Tags(HTMLParser):
    """Lists every element with its attributes and checks that all are closed."""

    EMPTY = frozenset({"meta", "input", "image", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


class Case:
    """A small chest: right lung at small x, a nodule in each lung, and what was found in it."""

    def __init__(self, *, nodules: bool = True, axes: str = "LPS") -> None:
        z, y, x = np.indices((30, 60, 80))
        lungs = np.zeros(z.shape, np.uint8)
        inside = (z > 2) & (z < 27) & (y > 8) & (y < 50)
        lungs[inside & (x > 5) & (x < 36)] = 1
        lungs[inside & (x > 44) & (x < 75)] = 2
        hu = np.where(lungs > 0, -850, 40).astype(np.int16)
        probability = np.zeros(z.shape, np.float32)
        for centre, radius, odds in (((18, 30, 20), 5, 0.95), ((10, 20, 60), 3.5, 0.8)):
            shift = np.stack([(z - centre[0]) * 2, y - centre[1], x - centre[2]])
            if nodules:
                ball = np.linalg.norm(shift, axis=0) <= radius
                hu[ball], probability[ball] = 30, odds
        probability[20, 40, 50] = 0.6
        self.hu, self.lungs = self._image(hu), self._image(lungs)
        image = sitk.DICOMOrient(self.hu, axes)
        self.scan = CTScan(
            image,
            Path("/data/scan <one>"),
            SeriesInfo("P1", "1.2", "1.2.3", "1.2.4", HOSTILE, "20240229"),
            notes=("Two slices & a gap",),
        )
        self.findings: NoduleFindings = find_nodules(
            self._image(probability), self.hu, self.lungs, NoduleRules(), image
        )

    def _image(self, array: np.ndarray[Any, Any]) -> sitk.Image:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((1.0, 1.0, 2.0))
        image.SetOrigin((-40.0, -30.0, 100.0))
        return image

    def report(self, folder: Path) -> str:
        path = folder / "report.html"
        write_report(path, self.scan, self.hu, self.lungs, self.findings, PROVENANCE)
        return path.read_text(encoding="utf-8")


def words(page: str) -> str:
    return " ".join(" ".join(Tags(page).text).split())


def test_it_says_what_was_found_and_how(tmp_path: Path) -> None:
    case = Case()
    page = case.report(tmp_path)
    text = words(page)
    first = case.findings.nodules[0]
    assert page.count(NOTICE) == 1
    assert "2 nodules found" in text
    assert f"{first.diameter_mm:.1f} × {first.perpendicular_mm:.1f} mm, solid, right lung" in text
    assert "Centre LPS -20.0, 0.0, 136.0 mm" in text
    assert "Centre RAS 20.0, -0.0, 136.0 mm" in text or "Centre RAS 20.0, 0.0, 136.0 mm" in text
    assert "Candidates dropped by the rules: 1 too small." in text
    assert "2024-02-29" in text
    assert "Two slices & a gap" in text
    assert "0123abcd" * 8 in text
    assert "max elongation none" in text
    assert "40 entries" in text
    assert f"mean {first.mean_hu:.0f} HU, SD {first.std_hu:.0f} (" in text
    right, left = (
        np.count_nonzero(sitk.GetArrayViewFromImage(case.lungs) == side) * 2 / 1000
        for side in (1, 2)
    )
    assert f"Right {right:.0f} ml, left {left:.0f} ml" in text


def test_it_is_accessible_and_reaches_nowhere(tmp_path: Path) -> None:
    page = Case().report(tmp_path)
    tags = Tags(page)
    assert page.lstrip().startswith("<!DOCTYPE html>")
    assert tags.all("html") == [{"lang": "en"}]
    assert not {"script", "link", "iframe", "object"} & {name for name, _ in tags.elements}
    assert HOSTILE not in page
    assert not re.search(r"https?:|//[a-z]", re.sub(r'data:image/png;base64,[^"]+', "", page))
    assert all(image["href"].startswith("data:image/png;base64,") for image in tags.all("image"))  # type: ignore[union-attr]
    pictures = tags.all("svg")
    assert len(pictures) == len(tags.all("image")) > 7
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)
    ids = [a["id"] for _, a in tags.elements if "id" in a]
    assert len(ids) == len(set(ids))
    references = [a["href"][1:] for a in tags.all("a")]  # type: ignore[index]
    references += [a["aria-labelledby"] for _, a in tags.elements if "aria-labelledby" in a]
    references += [a["for"] for a in tags.all("label")]
    assert references
    assert set(references) <= set(ids)


def test_nothing_found_is_said(tmp_path: Path) -> None:
    text = words(Case(nodules=False).report(tmp_path))
    assert "No nodule was found." in text
    assert "The table is empty" in text


@pytest.mark.parametrize(
    ("screening", "said"),
    [
        (None, "Lung-RADS v2022 of the examination: undetermined . Missing: screening CT."),
        (True, "Lung-RADS v2022 of the examination: 1 (no lung nodule)."),
        (False, ""),
    ],
)
def test_a_scan_without_a_nodule_is_classed_only_if_it_is_a_screening_ct(
    tmp_path: Path, screening: bool | None, said: str
) -> None:
    """The report and the DICOM report agree."""
    case = Case(nodules=False)
    risk = ScanRisk(PatientFacts(screening=screening), ())
    page = tmp_path / "report.html"
    write_report(page, *(case.scan, case.hu, case.lungs, case.findings, PROVENANCE, risk))
    text = words(page.read_text(encoding="utf-8"))
    assert (said in text) if said else ("Lung-RADS" not in text)
    assert (examination_group(risk) is not None) == bool(screening)


def test_slices_are_numbered_as_in_the_input(tmp_path: Path) -> None:
    page = words(Case(axes="LPI").report(tmp_path))
    assert "Longest diameter: slice 11, z 136.0 mm" in page
    sagittal = Case(axes="PSR").report(tmp_path / "sagittal")
    assert "Longest diameter: z 136.0 mm" in words(sagittal)


def test_no_slice_is_named_where_oblique_ones_were_resampled(tmp_path: Path) -> None:
    case = Case()
    turned = sitk.Image(case.scan.image)
    sine, cosine = np.sin(np.radians(20)), np.cos(np.radians(20))
    turned.SetDirection([1, 0, 0, 0, cosine, -sine, 0, sine, cosine])
    case.scan = replace(case.scan, image=turned)
    page = words(case.report(tmp_path))
    assert "Longest diameter: z 136.0 mm" in page
    assert not re.search(r"[Ss]lice \d+, z", page)


def test_pictures_show_the_slice_with_lines_in_place() -> None:
    case = Case()
    maker = PictureMaker(case.hu, case.lungs, case.findings)
    measured = maker.diameters(1)
    assert measured.slice == 18
    context, enlarged = maker.context(measured, "c"), maker.enlarged(measured, "e")
    stored = Image.open(io.BytesIO(base64.b64decode(context.uri.split(",")[1])))
    expected = LUNG_WINDOW.to_uint8(sitk.GetArrayViewFromImage(case.hu)[18])
    assert np.array_equal(np.asarray(stored), expected), "patient's right on the left"
    assert (context.left, context.top, context.width, context.height) == (-0.5, -0.5, 80, 60)
    (outline,) = (line.points for line in enlarged.lines if line.kind == "nodule")
    assert outline.mean(axis=0) == pytest.approx([20, 30], abs=0.3)
    assert np.linalg.norm(outline - [20, 30], axis=1) == pytest.approx(5, abs=0.75)
    (box,) = (line.points for line in context.lines)
    assert box.min(axis=0) == pytest.approx([enlarged.left, enlarged.top])
    assert np.ptp(box, axis=0) == pytest.approx([enlarged.width, enlarged.height])


def test_the_frontal_view_stands_upright_and_numbers_the_nodules() -> None:
    case = Case()
    frontal = PictureMaker(case.hu, case.lungs, case.findings).frontal()
    assert [label.text for label in frontal.labels] == ["1", "2"]
    rings = [line.points for line in frontal.lines if line.kind == "nodule"]
    centres = [(ring.max(axis=0) + ring.min(axis=0)) / 2 for ring in rings]
    assert centres[0] == pytest.approx([20, (29 - 18) * 2], abs=0.1)
    assert centres[1] == pytest.approx([60, (29 - 10) * 2], abs=0.1)
    assert frontal.height == 60


def test_a_report_overwrites_nothing(tmp_path: Path) -> None:
    case = Case()
    case.report(tmp_path)
    with pytest.raises(InputError, match=r"report\.html"):
        case.report(tmp_path)


def test_thirty_nodules_stay_small(tmp_path: Path) -> None:
    case = Case()
    rng = np.random.default_rng(0)
    hu = rng.normal(-850, 60, (60, 330, 420)).astype(np.int16)
    lungs = np.ones(hu.shape, np.uint8)
    lungs[0] = 0
    probability = np.zeros(hu.shape, np.float32)
    for i in range(30):
        y, x = divmod(i, 6)
        probability[28:33, 30 + 60 * y : 42 + 60 * y, 30 + 60 * x : 40 + 60 * x] = 0.9
    image = case._image(hu)
    mask = case._image(lungs)
    findings = find_nodules(case._image(probability), image, mask, NoduleRules(), image)
    assert len(findings.nodules) == 30
    path = tmp_path / "many.html"
    write_report(path, case.scan, image, mask, findings, PROVENANCE)
    assert path.stat().st_size < 5_000_000


def test_risk_gives_no_number_while_a_fact_is_missing(tmp_path: Path) -> None:
    text = words(Case().report(tmp_path))
    assert "Risk by published models and guidelines" in text
    assert "No fact about the patient was given." in text
    assert re.search(r"Longest diameter in mm 10\.\d \(measured\)", text)
    assert "Mayo No number; missing: age in years" in text
    assert "Lung-RADS v2022 4A if this is the first CT; missing: change since" in text
    assert "probability of cancer" not in text
    assert text.count("Research use only") == 1
    assert "Risk by published models" not in words(Case(nodules=False).report(tmp_path / "none"))


def test_risk_uses_the_facts_of_the_patient_largest_nodule_first(tmp_path: Path) -> None:
    case = Case()
    path = tmp_path / "told.html"
    patient = PatientFacts(
        age=64, sex=Sex.FEMALE, family_history=False, emphysema=True, high_risk=True
    )
    given = ClinicalData(patient, {"status": Status.BASELINE})
    risk = ScanRisk(patient, assess_scan(case.findings.nodules, case.lungs, given))
    write_report(path, case.scan, case.hu, case.lungs, case.findings, PROVENANCE, risk)
    page = path.read_text(encoding="utf-8")
    text = words(page)
    assert "Emphysema on CT yes" in text
    assert "multiple solid, above 8 mm, high risk" in text
    assert "Change since the previous CT baseline (given)" in text
    assert re.search(r"Lung-RADS v2022 4A \(baseline solid nodule", text)
    (lower,) = (one for one in measured_facts(case.findings.nodules, case.lungs) if one.id == 2)
    assert lower.upper_lobe is False
    expected = evaluate(MODELS[0], lower, patient)
    assert expected.probability is not None
    assert f"{100 * expected.probability:.1f} % probability of cancer" in text
    order = re.findall(r"<summary>Nodule (\d)", page)
    assert order == ["1", "2"]
    assert text.index("Upper lobe location no (guessed)") > text.index("Nodule 2: 7.1")
    assert "Trained model" not in text


def test_a_trained_model_and_doubts_are_in_the_report(tmp_path: Path) -> None:
    case = Case()
    added = (Contribution("largest_volume_mm3", 14137.17, 0.81),)
    predicted = RiskPrediction("x.ubj", "XGBoost", "CT", 0.423, -1.5, added, ("Odd size.",))
    assessed = assess_scan(case.findings.nodules, case.lungs)
    risk = ScanRisk(PatientFacts(), assessed, predicted, ("Compare again.",))
    path = tmp_path / "model.html"
    write_report(path, case.scan, case.hu, case.lungs, case.findings, PROVENANCE, risk)
    text = words(path.read_text(encoding="utf-8"))
    assert "42.3 % probability of cancer (XGBoost, x.ubj). Odd size." in text
    assert "+0.810 largest_volume_mm3 = 14137 mm³" in text
    assert "Compare again." in text
    copied = scan_text(risk)
    assert "CT: 42.3 % probability of cancer (XGBoost, x.ubj)" in copied
    assert copied.count("Patient") == copied.count(DISCLAIMER) == 1
    assert copied.index("Nodule 1") < copied.index("Nodule 2") < copied.index("Trained model")
    forest = replace(predicted, contributions=(), constant=None)
    write_report(
        tmp_path / "forest.html",
        *(case.scan, case.hu, case.lungs, case.findings, PROVENANCE),
        replace(risk, prediction=forest),
    )
    assert "A random forest does not explain" in words((tmp_path / "forest.html").read_text())
    none = replace(forest, probability=None)
    write_report(
        tmp_path / "none.html",
        *(case.scan, case.hu, case.lungs, case.findings, PROVENANCE),
        replace(risk, prediction=none),
    )
    section = words((tmp_path / "none.html").read_text()).split("Trained model")[1]
    assert "Odd size." in section
    assert "probability of cancer" not in section.split("Sources")[0]
    assert "random forest" not in section


def without_tags(part: str) -> str:
    """The words of a part of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", part)).split())


def test_the_first_screen_answers_what_a_radiologist_asks(tmp_path: Path) -> None:
    """Category of the examination, then a row a nodule, before the first picture."""
    case = Case()
    patient = PatientFacts(screening=True, other_finding=True)
    shared = {"status": Status.BASELINE}
    given = ClinicalData(patient, shared, {1: {"status": Status.GROWING, "doubling_days": 210.0}})
    risk = ScanRisk(patient, assess_scan(case.findings.nodules, case.lungs, given))
    write_report(
        tmp_path / "first.html",
        *(case.scan, case.hu, case.lungs, case.findings, PROVENANCE, risk),
    )
    page = (tmp_path / "first.html").read_text(encoding="utf-8")
    first = without_tags(page[page.index("<main>") : page.index("<image")])
    examination = risk.examination
    assert examination.category.endswith("S")
    assert f"of the examination: {examination.category} ({examination.reason})" in first
    table = without_tags(page[page.index('<table class="glance"') : page.index("</table>")])
    for one in case.findings.nodules:
        mean = mean_axial_mm(one.diameter_mm, one.perpendicular_mm)
        found = risk.of(one.id)
        assert found is not None
        assert f"{mean:.1f} {one.volume_mm3:.0f}" in table
        assert found.guidelines[0].management in table
    assert "growing, doubling in 210 days" in table
    found_by_chance = PatientFacts(screening=False, high_risk=True)
    by_chance = ScanRisk(
        found_by_chance,
        assess_scan(case.findings.nodules, case.lungs, replace(given, patient=found_by_chance)),
    )
    write_report(
        tmp_path / "chance.html",
        *(case.scan, case.hu, case.lungs, case.findings, PROVENANCE, by_chance),
    )
    page = (tmp_path / "chance.html").read_text(encoding="utf-8")
    assert "Fleischner 2017" in page[page.index('class="glance"') : page.index("</table>")]
    assert "Lung-RADS" not in page[page.index("<main>") : page.index("</table>")]
    undecided = ScanRisk(PatientFacts(), assess_scan(case.findings.nodules, case.lungs))
    write_report(
        tmp_path / "undecided.html",
        *(case.scan, case.hu, case.lungs, case.findings, PROVENANCE, undecided),
    )
    said = words((tmp_path / "undecided.html").read_text(encoding="utf-8"))
    assert "of the examination: undetermined ; 4A if this is the first CT" in said
