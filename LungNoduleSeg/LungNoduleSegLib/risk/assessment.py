"""All published models and guidelines, for one nodule and for a whole scan."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, get_args, get_type_hints

import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.nodules.table import Nodule
from LungNoduleSegLib.risk import prediction
from LungNoduleSegLib.risk.clinical_data import (
    NO_CLINICAL_DATA,
    ClinicalData,
    Values,
    add_prior_facts,
    parse_facts,
    parse_nodule,
)
from LungNoduleSegLib.risk.facts import (
    LABELS,
    NoduleFacts,
    Origin,
    PatientFacts,
    fact_text,
    measured_facts,
)
from LungNoduleSegLib.risk.guidelines import GuidelineResult, bts, fleischner, nelson
from LungNoduleSegLib.risk.lung_rads import classify_examination, lung_rads
from LungNoduleSegLib.risk.prediction import RiskPrediction
from LungNoduleSegLib.risk.published_models import MODELS, ModelResult, evaluate

DISCLAIMER = (
    "For research and teaching. The numbers are those of published models for groups of people; "
    "they are not a diagnosis."
)

_USUAL_NUMBERS = (1, 5, 10, 30, 60)
"""Values tried for an unknown number: years, mm or a count."""


@dataclass(frozen=True)
class Assessment:
    """The facts of a nodule and the result of every model and guideline; JSON-serializable."""

    nodule: NoduleFacts
    patient: PatientFacts
    models: tuple[ModelResult, ...]
    guidelines: tuple[GuidelineResult, ...]

    @property
    def follow_up(self) -> GuidelineResult:
        """The guideline for this kind of CT: Lung-RADS, or Fleischner if not for screening."""
        lung_rads, fleischner, *_ = self.guidelines
        return fleischner if self.patient.screening is False else lung_rads

    @property
    def missing(self) -> tuple[str, ...]:
        """Labels of the facts that some model or guideline still needs, each once."""
        results: tuple[ModelResult | GuidelineResult, ...] = (*self.models, *self.guidelines)
        return tuple(dict.fromkeys(name for result in results for name in result.missing))


def assess(nodule: NoduleFacts, patient: PatientFacts, compared: bool = False) -> Assessment:
    """Evaluate every published model and guideline for one nodule; see `lung_rads`."""
    others = (rule(nodule, patient) for rule in (fleischner, bts, nelson))
    return Assessment(
        nodule,
        patient,
        tuple(evaluate(model, nodule, patient) for model in MODELS),
        (lung_rads(nodule, patient, compared), *others),
    )


def assess_examination(
    nodules: Sequence[NoduleFacts], patient: PatientFacts, compared: bool = False
) -> tuple[Assessment, ...]:
    """Evaluate every published model and guideline for all nodules of one CT.

    Args:
        nodules: facts of each.
        patient: facts of the patient.
        compared: whether the CT is compared with an earlier one, if the facts do not say so.
    """
    compared = compared or any(one.compared for one in nodules)
    return tuple(assess(one, patient, compared) for one in nodules)


def influential_facts(one: Assessment) -> frozenset[str]:
    """Return the names of the facts that affect the results.

    These are the missing facts, and every fact for which another value would change a probability,
    a category or a recommendation. Numbers are tried at half and twice their value, unknown ones
    at a few typical values.
    """
    names = {label: name for name, label in LABELS.items()}
    found = {names[label] for label in one.missing if label in names}
    before = _outcome(one)
    for facts in (one.nodule, one.patient):
        for name, kind in get_type_hints(type(facts)).items():
            if name in LABELS and name not in found:
                others = _other_values(getattr(facts, name), get_args(kind)[0])
                if any(_with(one, facts, name, value) not in (None, before) for value in others):
                    found.add(name)
    return frozenset(found)


def _other_values(value: Any, kind: Any) -> tuple[Any, ...]:
    if kind is bool:
        return (True, False)
    if issubclass(kind, StrEnum):
        return tuple(kind)
    numbers = _USUAL_NUMBERS if value is None else (value / 2, value * 2)
    return tuple(kind(number) for number in numbers)


def _with(one: Assessment, facts: object, name: str, value: Any) -> Any:
    """Return the outcome with another value of a fact, None if the value is impossible."""
    try:
        if facts is one.nodule:
            other = one.nodule.overridden(Origin.GIVEN, **{name: value})  # and all else as it is
            return _outcome(assess(other, one.patient))
        return _outcome(assess(one.nodule, replace(one.patient, **{name: value})))
    except InputError:
        return None


def _outcome(one: Assessment) -> tuple[Any, ...]:
    probabilities = (result.probability for result in one.models)
    return (*probabilities, *((result.category, result.management) for result in one.guidelines))


def assess_scan(
    nodules: Iterable[Nodule],
    lungs: sitk.Image | None = None,
    clinical_data: ClinicalData = NO_CLINICAL_DATA,
    prior: Mapping[int, Values] = MappingProxyType({}),
    where: str = "The scan",
) -> tuple[Assessment, ...]:
    """Assess every nodule of a scan, in the order of the table.

    Clinical data override the growth table, which overrides measurements.

    Args:
        nodules: rows of the nodule table.
        lungs: see `measured_facts`.
        clinical_data: entered by a person.
        prior: from a growth table, see `prior_facts`.
        where: names the scan in errors.

    Raises:
        InputError: if a fact is impossible or of a nodule that does not exist.
    """
    facts = add_prior_facts(measured_facts(nodules, lungs), prior, where)
    corrected = clinical_data.correct(facts, where)
    return assess_examination(corrected, clinical_data.patient, bool(prior))


def to_text(assessment: Assessment) -> str:
    """Format an assessment as text: the facts with their origins, then every result."""
    nodule, patient = nodule_lines(assessment.nodule), patient_lines(assessment.patient)
    return "\n".join([*nodule, *patient, *_results(assessment), "", DISCLAIMER, ""])


def patient_lines(patient: PatientFacts) -> list[str]:
    """Format the facts of a patient."""
    return ["Patient", *(_facts(patient) or ["  no clinical data"])]


def nodule_lines(nodule: NoduleFacts) -> list[str]:
    """Format the facts of a nodule with their origins."""
    return ["Nodule" if nodule.id is None else f"Nodule {nodule.id}", *_facts(nodule)]


def result_lines(assessment: Assessment) -> list[str]:
    """Format the facts of a nodule and every result, without the patient's facts."""
    return [*nodule_lines(assessment.nodule), *_results(assessment)]


def _results(assessment: Assessment) -> list[str]:
    lines = []
    for model in assessment.models:
        lines += ["", *_model(model)]
    for guideline in assessment.guidelines:
        lines += ["", *_guideline(guideline)]
    return lines


def _facts(facts: NoduleFacts | PatientFacts) -> list[str]:
    lines = []
    for f in fields(facts):
        value = getattr(facts, f.name)
        if f.name in LABELS and value is not None:
            origins = facts.origins if isinstance(facts, NoduleFacts) else {}
            origin = origins.get(f.name, Origin.GIVEN)
            lines.append(f"  {LABELS[f.name]}: {fact_text(f.name, value)} ({origin})")
    return lines


def _model(result: ModelResult) -> list[str]:
    if result.probability is None:
        return [f"{result.model}: {_why_not(result)}", f"  {result.source}"]
    lines = [
        f"{result.model}: {100 * result.probability:.1f} % probability of cancer",
        f"  {result.source}. {result.scope}",
        f"  log odds: {result.constant:+.4f} constant",
    ]
    lines += [f"    {term.log_odds:+.4f} {term.label}" for term in result.contributions]
    return lines + [f"  Warning: {warning}" for warning in result.warnings]


def _guideline(result: GuidelineResult) -> list[str]:
    if not result.category:
        return [f"{result.guideline}: {_why_not(result)}", f"  {result.source}"]
    lines = [
        f"{result.guideline}: {result.category}",
        f"  {result.reason}",
        f"  {result.management}",
        f"  {result.source}. {result.scope}",
    ]
    return lines + [f"  Note: {note}" for note in result.notes]


def _why_not(result: ModelResult | GuidelineResult) -> str:
    if result.not_for:
        return result.not_for
    provisional = result.provisional if isinstance(result, GuidelineResult) else ""
    return "; ".join(filter(None, (provisional, f"missing: {', '.join(result.missing)}")))


@dataclass(frozen=True)
class ScanRisk:
    """The results of models and guidelines for a scan.

    Attributes:
        patient: facts that were entered, or read from the scan's header.
        assessments: of every nodule, in the order of the table.
        prediction: of a trained model, None without one.
        notes: warnings, one sentence each, such as an outdated comparison.
        compared: whether the CT was compared with an earlier one, if the facts do not say so.
    """

    patient: PatientFacts
    assessments: tuple[Assessment, ...]
    prediction: RiskPrediction | None = None
    notes: tuple[str, ...] = ()
    compared: bool = False

    @property
    def longest_first(self) -> list[Assessment]:
        """The assessments, the longest nodule first."""
        return sorted(self.assessments, key=lambda one: -(one.nodule.longest_mm or 0))

    @property
    def examination(self) -> GuidelineResult:
        """Lung-RADS category of the examination, that of its most suspicious nodule."""
        return classify_examination([one.guidelines[0] for one in self.assessments], self.patient)

    def to_dict(self) -> dict[str, Any]:
        """Return facts, prediction and notes as JSON data for `parse_scan_risk`."""
        return {
            "patient": asdict(self.patient),
            "nodules": [asdict(one.nodule) for one in self.assessments],
            "prediction": self.prediction and asdict(self.prediction),
            "notes": list(self.notes),
            "compared": self.compared,
        }

    def of(self, number: int) -> Assessment | None:
        """Return the assessment of a nodule, None if it does not exist."""
        return next((one for one in self.assessments if one.nodule.id == number), None)


def parse_scan_risk(record: Mapping[str, Any], where: str) -> ScanRisk:
    """Evaluate models and guidelines again by what `ScanRisk.to_dict` gave.

    Raises:
        InputError: naming `where` and the fact that cannot be used.
    """
    patient = parse_facts(record["patient"], where).patient
    nodules = [parse_nodule(one, where) for one in record["nodules"]]
    predicted = record["prediction"]
    compared = record.get("compared") is True
    return ScanRisk(
        patient,
        assess_examination(nodules, patient, compared),
        predicted and prediction.read_prediction(predicted),
        tuple(record["notes"]),
        compared,
    )


def examination_text(result: GuidelineResult) -> str:
    """Format the category of the examination, or the facts it still lacks."""
    title = f"Examination, {result.guideline}"
    if result.category:
        return f"{title}: {result.category}\n  {result.reason}\n  {result.management}"
    return f"{title}: {f'{result.reason}; ' if result.reason else ''}{_why_not(result)}"


def scan_text(risk: ScanRisk) -> str:
    """Format the risk as text: patient, nodules from the longest, trained model."""
    parts = [examination_text(risk.examination), "\n".join(patient_lines(risk.patient))]
    parts += ["\n".join(result_lines(one)) for one in risk.longest_first]
    if not risk.assessments:
        parts.append("No nodule was found.")
    if risk.prediction is not None:
        parts.append(f"Trained model\n{prediction.to_text(risk.prediction)}")
    parts += [f"Note: {note}" for note in risk.notes]
    return "\n\n".join([*parts, DISCLAIMER]) + "\n"
