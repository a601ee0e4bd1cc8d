"""Fleischner 2017: size and type classes with the follow-up they recommend.

Source:
    MacMahon et al., Radiology 2017;284:228-243, table 1. `docs/published-models.md` says against
    what the classes were checked.

It takes the mean of the longest and the perpendicular diameter on one slice, to 1 mm; for
part-solid nodules the mean diameter of the solid component counts too. Where no diameter is known,
or as a second opinion, it takes the volume.
"""

from dataclasses import replace

from LungNoduleSegLib.nodules.table import rounded
from LungNoduleSegLib.risk.facts import (
    LABELS,
    NoduleFacts,
    NoduleKind,
    PatientFacts,
    PriorCancer,
    Status,
)
from LungNoduleSegLib.risk.guidelines import (
    GuidelineResult,
    MissingFactsError,
    NoClassError,
    ask,
    diameters,
)


def fleischner_mean_mm(longest_mm: float, perpendicular_mm: float) -> float:
    """Mean of two diameters (mm) as Fleischner 2017 has it: to the nearest millimetre."""
    return float(rounded((longest_mm + perpendicular_mm) / 2, "1"))


VOLUMES_MM3 = (100, 250)
"""The volumes that the table sets beside 6 and 8 mm."""

_FLEISCHNER = ("Fleischner 2017", "MacMahon et al., Radiology 2017;284:228-243, table 1")
_FLEISCHNER_SCOPE = (
    "Nodules found by chance in people of 35 years or more without known cancer or "
    "immunosuppression; not for screening."
)

_NONE = ("No routine follow-up.", None)
_MOST_SUSPICIOUS = "Further management by the most suspicious nodule."


def fleischner(nodule: NoduleFacts, patient: PatientFacts) -> GuidelineResult:
    """Class a nodule by the Fleischner Society's guideline of 2017."""
    try:
        category, (management, months) = _fleischner(nodule, patient)
    except MissingFactsError as missing:
        names = tuple(LABELS[name] for name in missing.args)
        return GuidelineResult(*_FLEISCHNER, _FLEISCHNER_SCOPE, missing=names)
    except NoClassError as none:
        return GuidelineResult(*_FLEISCHNER, _FLEISCHNER_SCOPE, not_for=str(none))
    return GuidelineResult(
        *_FLEISCHNER,
        _FLEISCHNER_SCOPE,
        category=category,
        reason="size, type and number",
        management=management,
        months=months,
        notes=tuple(_fleischner_notes(nodule, patient)),
    )


def _fleischner_notes(nodule: NoduleFacts, patient: PatientFacts) -> list[str]:
    notes = []
    if patient.age is not None and patient.age < 35:
        notes.append("The guideline is made for people of 35 years or more.")
    if patient.prior_cancer not in (None, PriorCancer.NONE):
        notes.append("The guideline is not made for people with a known cancer.")
    if patient.immunosuppressed:
        notes.append("The guideline is not made for people with immunosuppression.")
    if patient.screening:
        notes.append("The guideline is not made for screening CT; Lung-RADS is.")
    if nodule.status not in (None, Status.BASELINE, Status.NEW):
        notes.append("Intervals count from the first CT on which the nodule was seen.")
    if nodule.longest_mm is not None and nodule.volume_mm3 is not None:
        alone = _size(replace(nodule, longest_mm=None, perpendicular_mm=None))
        if alone != _size(nodule):
            notes.append(f"By its volume of {nodule.volume_mm3:.0f} mm³ it is of another size.")
    if nodule.smooth_juxtapleural:
        notes.append("A typical intrapulmonary lymph node needs no follow-up, even above 6 mm.")
    return notes


def _fleischner(
    nodule: NoduleFacts, patient: PatientFacts
) -> tuple[str, tuple[str, tuple[int, int] | None]]:
    kind = nodule.type
    if kind is NoduleKind.CALCIFIED:
        raise NoClassError(
            "The guideline is not made for nodules with a benign pattern of calcification or fat."
        )
    sizes = ("longest_mm", "perpendicular_mm")
    by_volume = nodule.volume_mm3 is not None and nodule.longest_mm is None
    asked = [*ask(nodule, *(() if by_volume else sizes), "count"), *nodule.missing_type()]
    if kind is NoduleKind.SOLID:
        asked += ask(patient, "high_risk")
    if asked or nodule.count is None:
        raise MissingFactsError(*asked)
    small, large = _size(nodule)
    multiple = nodule.count > 1
    number = "multiple" if multiple else "single"
    if kind is NoduleKind.SOLID:
        size = "below 6 mm" if small else "above 8 mm" if large else "6 to 8 mm"
        risk = "high risk" if patient.high_risk else "low risk"
        return f"{number} solid, {size}, {risk}", _solid_follow_up(
            small, large, multiple, bool(patient.high_risk)
        )
    size = "below 6 mm" if small else "6 mm or more"
    category = f"{number} {kind}, {size}"
    if multiple:
        return category, _multiple_subsolid(small)
    if small:
        return category, _NONE
    if kind is NoduleKind.NON_SOLID:
        return category, (
            "CT at 6 to 12 months to confirm that it persists, then every 2 years until 5 years.",
            (6, 12),
        )
    return category, _single_part_solid(nodule.solid_component_mm)


def _size(nodule: NoduleFacts) -> tuple[bool, bool]:
    """Tell whether a nodule is below 6 mm, and above 8 mm, or the volumes beside these."""
    if nodule.longest_mm is not None:
        mean = fleischner_mean_mm(*diameters(nodule))
        return mean < 6, mean > 8
    low, high = VOLUMES_MM3
    volume = nodule.volume_mm3 or 0
    return volume < low, volume > high


def _solid_follow_up(
    small: bool, large: bool, multiple: bool, high: bool
) -> tuple[str, tuple[int, int] | None]:
    if small:
        return ("Optional CT at 12 months.", (12, 12)) if high else _NONE
    if large and not multiple:
        return "Consider CT at 3 months, PET/CT or tissue sampling.", (3, 3)
    first = (3, 6) if multiple else (6, 12)
    second = "then at 18 to 24 months" if high else "then consider CT at 18 to 24 months"
    text = f"CT at {first[0]} to {first[1]} months, {second}."
    return (f"{text} {_MOST_SUSPICIOUS}" if multiple else text), first


def _multiple_subsolid(small: bool) -> tuple[str, tuple[int, int]]:
    if small:
        return "CT at 3 to 6 months; if stable, consider CT at 2 and 4 years.", (3, 6)
    return f"CT at 3 to 6 months. {_MOST_SUSPICIOUS}", (3, 6)


def _single_part_solid(component_mm: float | None) -> tuple[str, tuple[int, int]]:
    confirm = "CT at 3 to 6 months to confirm that it persists"
    small = "annual CT for 5 years if unchanged and the solid component stays below 6 mm"
    large = "a persistent solid component of 6 mm or more is highly suspicious"
    if component_mm is None:
        return f"{confirm}; {small}; {large}.", (3, 6)
    if rounded(component_mm, "1") < 6:
        return f"{confirm}; {small}.", (3, 6)
    return f"{confirm}; {large}: consider PET/CT, biopsy or resection.", (3, 6)
