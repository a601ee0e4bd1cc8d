"""The section Cancer risk: clinical data, published models and guidelines, and a trained model."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

import qt
import slicer
from slicer.i18n import tr as _

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.json_files import parse_json
from CTLungScreeningSlicer.panel.packages import ensure_packages
from CTLungScreeningSlicer.panel.section import Section
from CTLungScreeningSlicer.panel.widgets import ModelChooser, on_click, show_text, shown_errors
from LungNoduleSegLib.nodules.table import Nodule, Verdict
from LungNoduleSegLib.options import SUSPICION_MODEL
from LungNoduleSegLib.risk.assessment import Assessment, ScanRisk, influential_facts, scan_text
from LungNoduleSegLib.risk.clinical_data import ClinicalData, UnfitFactsError
from LungNoduleSegLib.risk.facts import LABELS, NoduleFacts, Origin, PatientFacts
from LungNoduleSegLib.risk.prediction import UNEXPLAINED
from LungNoduleSegSlicer.panel.nodule_table import same_nodule
from LungNoduleSegSlicer.panel.risk_results import (
    ClinicalDataForm,
    Known,
    RiskResults,
    fill_contributions,
    in_words,
    require_number,
)
from LungNoduleSegSlicer.panel.segment_section import TITLE
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes

COUNT = "count"
"""A fact of nodules that is entered with those of the patient: it holds for the scan."""

WARNINGS = 3
"""Maximum number of warnings of a trained model that are shown."""

_HINTS = {name: kind for name, kind in get_type_hints(NoduleFacts).items() if name in LABELS}
_PATIENT = get_type_hints(PatientFacts) | {COUNT: _HINTS[COUNT]}
_NODULE = [name for name in _HINTS if name != COUNT]
_GROUPS = {
    "Size": ("longest_mm", "perpendicular_mm", "volume_mm3", "solid_component_mm"),
    "Appearance": (
        *("kind", "count_alike", "benign_pattern", "spiculation", "smooth_juxtapleural"),
        *("cyst", "suspicious_features", "infection", "pet_uptake", "proven_benign"),
    ),
    "Location": ("upper_lobe", "airway"),
}
"""Facts of a nodule that go together; all others compare it with earlier examinations."""


class RiskSection(Section):
    """The facts of the patient and one nodule, and the results; they follow each change at once.

    Attributes:
        model: chooses a trained classifier.
        patient: the form of the patient's facts.
        nodule: that of the nodule's facts.
    """

    def __init__(self, ui: Any, logic: LungNoduleSegLogic, requirements: Path) -> None:
        """Build the section; `requirements` are installed when a model is first chosen."""
        super().__init__()
        self._ui, self._logic, self._requirements = ui, logic, requirements
        self._results: ResultNodes | None = None
        self._risk: ScanRisk | None = None
        self._numbers: list[int] = []
        self._number: int | None = None
        self._chosen: Nodule | None = None
        self.shown = RiskResults(ui.riskResults.layout())
        self.patient = ClinicalDataForm(ui.patientFacts.layout(), {"": _PATIENT}, self._enter)
        self.nodule = ClinicalDataForm(ui.noduleFacts.layout(), _grouped(), self._enter)
        filters = _("Risk models (*.ubj *.skops)")
        self.model = ModelChooser(ui.riskModel, [SUSPICION_MODEL], self._about_model, filters)
        self.model.changed.connect(lambda file: self._show_prediction())
        header = ui.contributionTable.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        ui.contributionTable.selectionMode = qt.QAbstractItemView.NoSelection
        ui.riskNodule.activated.connect(lambda *_: self._choose_row())
        on_click(ui.predictRiskButton, self._predict)
        on_click(ui.copyRiskButton, self.copy)
        on_click(ui.clearFactsButton, self._clear)
        ui.riskSection.contentsCollapsed.connect(lambda *_: self._refresh())
        self._refresh()

    def set_results(self, results: ResultNodes | None) -> None:
        """Show the risk of a scan."""
        if results != self._results:
            self._chosen = None
        self._results = results
        show_text(self._ui.factProblem, "")
        self._refresh()

    def choose(self, number: int) -> None:
        """Show a nodule that is not rejected; later, if it is new or the section is folded."""
        for one in self._logic.review.nodules(self._results) if self._results else ():
            if one.nodule.id == number and one.verdict is not Verdict.REJECTED:
                self._chosen = one.nodule
        if number in self._numbers:
            self._number = number
            self._show_nodule()

    def copy(self) -> None:
        """Copy facts and results of all nodules to the clipboard as text."""
        if self._risk is not None:
            qt.QApplication.clipboard().setText(scan_text(self._risk))

    def _refresh(self) -> None:
        """Evaluate everything, unless the section is folded."""
        ui = self._ui
        if ui.riskSection.collapsed:
            return
        self._risk, problem, unfit = None, "", None
        if self._results is None:
            problem = _("Find the nodules first: press Apply.")
        else:
            try:
                self._risk = self._logic.risk.evaluate(self._results)
            except UnfitFactsError as reason:
                problem, unfit = str(reason), reason.number
            except InputError as reason:
                problem = str(reason)
            else:
                if not self._risk.assessments:
                    problem = _("There are no nodules, or all of them are rejected.")
        show_text(ui.riskProblem, problem)
        # Also where entries no longer fit what is measured now: they can be corrected.
        for widget in (ui.riskNodule, ui.patientFacts, ui.noduleFacts):
            widget.enabled = not problem or unfit is not None
        ui.copyRiskButton.enabled = not problem
        ui.clearFactsButton.enabled = self._results is not None
        titles = {} if unfit is None else {unfit: str(unfit)}
        for one in self._risk.longest_first if self._risk else []:
            if one.nodule.id is not None:
                titles[one.nodule.id] = nodule_title(one)
        self._numbers = list(titles)
        ui.riskNodule.clear()
        for title in titles.values():
            ui.riskNodule.addItem(title)
        self._find_chosen()
        show_text(ui.riskNotes, "\n".join(self._risk.notes) if self._risk else "")
        self._show_nodule()
        self._show_prediction()

    def _find_chosen(self) -> None:
        """Find the number that the chosen nodule has now; if it is gone, take the first nodule."""
        rows = self._logic.review.nodules(self._results) if self._results and self._numbers else ()
        here = [one for one in rows if one.nodule.id in self._numbers]
        same = same_nodule(self._chosen, here) if self._chosen else None
        self._number = same.nodule.id if same else next(iter(self._numbers), None)
        for one in here:
            if one.nodule.id == self._number:
                self._chosen = one.nodule

    def _choose_row(self) -> None:
        self.choose(self._numbers[self._ui.riskNodule.currentIndex])

    def _show_nodule(self) -> None:
        ui = self._ui
        number = self._number
        if ui.riskSection.collapsed:
            return
        one = None if self._risk is None or number is None else self._risk.of(number)
        ui.riskResults.visible = one is not None
        if one is None:
            self.shown.show(None)
            show_text(ui.riskMissing, "")
        if self._results is None or number is None:
            self.patient.show({}, {})
            self.nodule.show({}, {})
            return
        ui.riskNodule.currentIndex = self._numbers.index(number)
        measured = next(m for m in self._logic.risk.measuredFacts(self._results) if m.id == number)
        known = {
            name: Known(in_words(getattr(measured, name), name), measured.origins[name])
            for name in (*_NODULE, COUNT)
            if getattr(measured, name) is not None
            # A corrected size makes some unknown.
            and (one is None or getattr(one.nodule, name) is not None)
        }
        entered = self._logic.risk.enteredFacts(self._results)
        from_header = asdict(self._logic.risk.headerFacts(self._results))
        of_patient = {
            name: Known(in_words(value, name), _("DICOM"))
            for name, value in from_header.items()
            if value is not None
        }
        self.patient.show(of_patient | known, asdict(entered.patient) | dict(entered.shared))
        self.nodule.show(known, _entered_for(entered, number, one))
        if one is None:
            return
        self.shown.show(one, self._risk.prediction if self._risk else None)
        influential = influential_facts(one)
        self.patient.mark(influential)
        self.nodule.mark(influential)
        missing = _("Enter the data in bold to complete the results.")
        show_text(ui.riskMissing, missing if one.missing else _("Data in bold affect the results."))

    def _show_prediction(self) -> None:
        ui = self._ui
        prediction = self._risk.prediction if self._risk else None
        ui.predictRiskButton.enabled = self._risk is not None and self.model.file is not None
        lines = []
        if prediction is not None and prediction.probability is not None:
            lines.append(
                _("{percent:.1f} % {target} ({algorithm}, {file}).").format(
                    percent=100 * prediction.probability,
                    target=prediction.target,
                    algorithm=prediction.algorithm,
                    file=prediction.model,
                )
            )
            lines += [] if prediction.contributions else [_(UNEXPLAINED)]
        if prediction is not None:
            lines += prediction.warnings[:WARNINGS]
            more = len(prediction.warnings) - WARNINGS
            lines += [_("… and {count} more; see the tooltip.").format(count=more)] * (more > 0)
        show_text(ui.predictionLabel, "\n".join(lines))
        ui.predictionLabel.toolTip = "\n".join(
            (prediction and prediction.warnings) or [_("Prediction for the whole scan.")]
        )
        ui.contributionTable.visible = bool(prediction and prediction.contributions)
        if prediction is not None:
            fill_contributions(ui.contributionTable, prediction)

    def _enter(self, name: str, value: Any) -> None:
        if self._results is None:
            return
        try:
            require_number(name, value)
            self._logic.risk.setFact(self._results, name, value, self._number)
        except InputError as problem:
            show_text(self._ui.factProblem, str(problem))
            return
        self.changed.emit()

    def _clear(self) -> None:
        if self._results is not None:
            self._logic.risk.clearFacts(self._results)
            self.changed.emit()

    def _predict(self) -> None:
        if self._results is None or self.model.file is None:
            return
        if not ensure_packages(self._requirements, TITLE):
            return
        with shown_errors(), slicer.util.WaitCursor():
            self._logic.classifier.predict(self._results, self.model.file)
        self.changed.emit()

    def _about_model(self, file: Path) -> tuple[str, str]:
        if file == SUSPICION_MODEL:  # shown before the packages that read it are installed
            card = parse_json(file.with_suffix(".json").read_bytes())
            return _("Radiologists’ suspicion (LIDC)"), str(card["about"])
        if not ensure_packages(self._requirements, TITLE):
            raise InputError(_("Risk models need Python packages that are not installed."))
        from LungNoduleSegLib.risk.risk_models import load_risk_model  # noqa: PLC0415

        model = load_risk_model(file).card
        scores = ", ".join(f"{name.replace('_', ' ')} {v:.3g}" for name, v in model.scores.items())
        about = _("{count} features; on scans it was not trained on: {scores}").format(
            count=len(model.features), scores=scores
        )
        return f"{model.algorithm.label} ({file.name})", f"{about}\n\n{file}"


def _grouped() -> dict[str, dict[str, Any]]:
    """Return the types of the facts of a nodule by group."""
    groups = {
        _(heading): {name: _HINTS[name] for name in names if name in _HINTS}
        for heading, names in _GROUPS.items()
    }
    rest = [name for name in _NODULE if not any(name in group for group in groups.values())]
    return groups | {_("Earlier examinations"): {name: _HINTS[name] for name in rest}}


def nodule_title(one: Assessment) -> str:
    """Name a nodule by its number, size and type, with its category if there is one."""
    facts = one.nodule
    sizes = [
        f"{size:.1f}" for size in (facts.longest_mm, facts.perpendicular_mm) if size is not None
    ]
    parts = [f"{' × '.join(sizes)} mm" if sizes else "", str(facts.kind or "")]
    guideline = one.follow_up
    parts += [f"{guideline.guideline}: {guideline.category}"] if guideline.category else []
    return f"{facts.id}: {', '.join(part for part in parts if part)}"


def _entered_for(entered: ClinicalData, number: int, one: Assessment | None) -> Mapping[str, Any]:
    """Return the entered facts of a nodule, and those of all that it does not override."""
    shared = {
        name: value
        for name, value in entered.shared.items()
        if one is None or one.nodule.origins.get(name) is Origin.GIVEN
    }
    return shared | dict(entered.nodules.get(number, {}))
