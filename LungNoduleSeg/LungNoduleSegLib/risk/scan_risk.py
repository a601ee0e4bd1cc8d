"""The risk of a scan as a whole: the patient, every nodule, and the user's trained model."""

from dataclasses import dataclass

from LungNoduleSegLib.risk import prediction
from LungNoduleSegLib.risk.assessment import DISCLAIMER, Assessment, patient_lines, result_lines
from LungNoduleSegLib.risk.examination import class_examination
from LungNoduleSegLib.risk.facts import PatientFacts
from LungNoduleSegLib.risk.guidelines import GuidelineResult
from LungNoduleSegLib.risk.prediction import RiskPrediction


@dataclass(frozen=True)
class ScanRisk:
    """What models and guidelines make of a scan.

    Attributes:
        patient: facts that were told, or that the scan's header holds.
        assessments: of every nodule, in the order of the table.
        prediction: of a trained model, None if none was asked.
        notes: a sentence for each doubt, such as a comparison that is out of date.
    """

    patient: PatientFacts
    assessments: tuple[Assessment, ...]
    prediction: RiskPrediction | None = None
    notes: tuple[str, ...] = ()

    @property
    def longest_first(self) -> list[Assessment]:
        """The assessments, the longest nodule first."""
        return sorted(self.assessments, key=lambda one: -(one.nodule.longest_mm or 0))

    @property
    def examination(self) -> GuidelineResult:
        """Lung-RADS of the examination: by its most suspicious nodule."""
        return class_examination([one.guidelines[0] for one in self.assessments], self.patient)

    def of(self, number: int) -> Assessment | None:
        """Give the assessment of a nodule, None if there is no such nodule."""
        return next((one for one in self.assessments if one.nodule.id == number), None)


def examination_text(result: GuidelineResult) -> str:
    """Write the category of the examination, or what it still lacks."""
    title = f"Examination, {result.guideline}"
    if result.category:
        return f"{title}: {result.category}\n  {result.reason}\n  {result.management}"
    why = result.not_for or f"missing: {', '.join(result.missing)}"
    return f"{title}: {f'{result.reason}; ' if result.reason else ''}{why}"


def to_text(risk: ScanRisk) -> str:
    """Write the risk for people: the patient, the longest nodule first, then the trained model."""
    parts = [examination_text(risk.examination), "\n".join(patient_lines(risk.patient))]
    parts += ["\n".join(result_lines(one)) for one in risk.longest_first]
    if not risk.assessments:
        parts.append("No nodule was found.")
    if risk.prediction is not None:
        parts.append(f"Trained model\n{prediction.to_text(risk.prediction)}")
    parts += [f"Note: {note}" for note in risk.notes]
    return "\n\n".join([*parts, DISCLAIMER]) + "\n"
