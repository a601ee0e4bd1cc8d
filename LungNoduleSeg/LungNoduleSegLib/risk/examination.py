"""Lung-RADS v2022 of a whole examination, by its most suspicious nodule."""

from collections.abc import Sequence
from dataclasses import replace

from LungNoduleSegLib.risk.facts import Incomplete, LungRads, PatientFacts
from LungNoduleSegLib.risk.guidelines import GuidelineResult
from LungNoduleSegLib.risk.lung_rads import LUNG_RADS, classed

ORDER = (
    LungRads.NEGATIVE,
    LungRads.BENIGN,
    LungRads.PROBABLY_BENIGN,
    LungRads.INCOMPLETE,
    LungRads.SUSPICIOUS,
    LungRads.VERY_SUSPICIOUS,
    LungRads.VERY_SUSPICIOUS_FEATURES,
)
"""From the least to the most suspicious. Lung-RADS gives 0 no place; findings that suggest an
infection stand where their follow-up of 1 to 3 months does, between 3 and 4A (our own reading)."""


def class_examination(results: Sequence[GuidelineResult], patient: PatientFacts) -> GuidelineResult:
    """Class an examination by Lung-RADS v2022: by its most suspicious nodule.

    Args:
        results: of `lung_rads` for every nodule; none: no nodule was found.
        patient: says whether the examination is complete, and whether there is another significant
            finding, which adds the modifier S.

    Returns:
        The category, "S" after it for the modifier. While a nodule lacks facts there is none, and
        the reason says which category it is at least.
    """
    found_categories = [one for one in results if one.category]
    most = max(found_categories, key=lambda one: ORDER.index(LungRads(one.category)), default=None)
    at_least = f"at least {most.category} by the nodules that could be classed" if most else ""
    if patient.incomplete not in (None, Incomplete.NO):
        found = classed(LungRads.INCOMPLETE, str(patient.incomplete), [at_least] * bool(at_least))
        if patient.incomplete is Incomplete.AWAITING_PRIOR:
            found = replace(found, management="Comparison with the prior chest CT.", months=None)
        else:
            found = replace(found, management="Additional CT images are needed.", months=None)
    elif missing := dict.fromkeys(name for one in results for name in one.missing):
        return GuidelineResult(*LUNG_RADS, reason=at_least, missing=tuple(missing))
    elif refused := [one.not_for for one in results if one.not_for]:
        if most is None or ORDER.index(LungRads(most.category)) < ORDER.index(LungRads.SUSPICIOUS):
            return GuidelineResult(*LUNG_RADS, not_for=refused[0])
        found = replace(most, notes=(*most.notes, *refused))
    else:
        found = most or classed(LungRads.NEGATIVE, "no lung nodule", [])
    if patient.other_finding:
        note = "S: a significant finding other than lung cancer, to be managed on its own."
        found = replace(found, category=f"{found.category}S", notes=(*found.notes, note))
    return found
