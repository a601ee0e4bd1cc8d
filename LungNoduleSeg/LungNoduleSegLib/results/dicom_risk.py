"""What models and guidelines make of nodules, as content of a DICOM measurement report.

Concepts are DICOM's own where it has them: assessment category, probability of cancer, recommended
follow-up interval, border shape (CID 6119), difference in size (CID 6134), lobe (CID 6126 and
6170). The others, names of published models and their classes, are private and declared in the
report's Coding Scheme Identification Sequence.
"""

import re
from dataclasses import fields

import highdicom as hd
from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes

from LungNoduleSegLib.risk.assessment import Assessment
from LungNoduleSegLib.risk.facts import LABELS, NoduleFacts, PatientFacts, Status
from LungNoduleSegLib.risk.guidelines import GuidelineResult
from LungNoduleSegLib.risk.logistic_model import ModelResult
from LungNoduleSegLib.risk.scan_risk import ScanRisk

SCHEME = "99CTLUNGSCREEN"
"""Of our private codes; 16 characters at most."""

_CHANGES = {
    Status.STABLE: codes.SCT.NoSignificantChangesInTheFinding,
    Status.GROWING: codes.SCT.IncreaseInSize,
    Status.SLOWLY_GROWING: codes.SCT.IncreaseInSize,
}


def private(meaning: str, name: str = "") -> sr.CodedConcept:
    """Make a private concept; its value is made of its name, or else of its meaning."""
    value = re.sub(r"[^A-Za-z0-9]+", "_", name or meaning).strip("_")
    return sr.CodedConcept(value[:64], SCHEME, meaning[:64])


def declare_scheme(report: sr.ComprehensiveSR) -> None:
    """Say in a report whose the private codes are."""
    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "CTLungScreening: published nodule models and guidelines"
    item.CodingSchemeResponsibleOrganization = "CTLungScreening"
    report.CodingSchemeIdentificationSequence = [item]


def lobe_of(one: Assessment | None) -> sr.CodedConcept | None:
    """Give the upper lobe, if the nodule is known or guessed to lie in one."""
    if one is None or not one.nodule.upper_lobe:
        return None
    return codes.SCT.UpperLobeOfLung


def risk_measurements(one: Assessment, patient: PatientFacts) -> list[sr.Measurement]:
    """Give the probability of cancer by each model that has one, with its inputs, and growth."""
    found = [
        sr.Measurement(
            codes.DCM.ProbabilityOfCancer,
            round(100 * result.probability, 4),
            codes.UCUM.Percent,
            method=private(result.model),
            algorithm_id=sr.AlgorithmIdentification(
                name=result.model[:64],
                version=result.source[:64],
                parameters=_inputs(result, one.nodule, patient),
            ),
        )
        for result in one.models
        if result.probability is not None
    ]
    days = one.nodule.doubling_days
    if days is not None:
        doubling = private("Volume doubling time")
        found.append(sr.Measurement(doubling, round(days, 1), codes.UCUM.Day))
    return found


def risk_evaluations(one: Assessment) -> list[sr.QualitativeEvaluation]:
    """Give border shape, change, and the class in every guideline that has one."""
    found = []
    if one.nodule.spiculation:
        found.append(sr.QualitativeEvaluation(codes.DCM.BorderShape, codes.DCM.Spiculated))
    change = _CHANGES.get(one.nodule.status) if one.nodule.status else None
    if change is not None:
        found.append(sr.QualitativeEvaluation(private("Change since the previous CT"), change))
    for result in one.guidelines:
        if result.category:
            found.append(_category(result))
    return found


def examination_group(risk: ScanRisk) -> sr.MeasurementsAndQualitativeEvaluations | None:
    """Report the category of the examination; None while there is none."""
    result = risk.examination
    if not result.category:
        return None
    interval = []
    if result.months is not None:
        concept = codes.DCM.RecommendedFollowUpInterval
        interval = [sr.Measurement(concept, result.months[0], codes.UCUM.Month)]
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(hd.UID(), "Examination"),
        finding_type=private("Examination as a whole"),
        measurements=interval,
        qualitative_evaluations=[_category(result)],
    )


def _category(result: GuidelineResult) -> sr.QualitativeEvaluation:
    """Lung-RADS under DICOM's assessment category, other guidelines under their own names."""
    is_rads = result.guideline.startswith("Lung-RADS")
    name = codes.DCM.AssessmentCategory if is_rads else private(result.guideline)
    meaning = f"{result.guideline}: {result.category}"
    return sr.QualitativeEvaluation(name, private(meaning))


def _inputs(result: ModelResult, nodule: NoduleFacts, patient: PatientFacts) -> list[str]:
    """List what a model went by, as `label = value`."""
    known = {LABELS[f.name]: getattr(patient, f.name) for f in fields(patient)}
    known |= {
        label: getattr(nodule, name) for name, label in LABELS.items() if hasattr(nodule, name)
    }
    return [
        f"{term.label} = {known[term.label]}" if term.label in known else term.label
        for term in result.contributions
    ]
