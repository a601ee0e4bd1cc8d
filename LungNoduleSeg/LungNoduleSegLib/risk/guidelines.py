"""Lung-RADS v2022 and Fleischner 2017: size and type classes with the follow-up they recommend.

Sources:
    American College of Radiology, Lung-RADS v2022, November 2022; Christensen et al., J Am Coll
    Radiol 2024;21:473-488. MacMahon et al., Radiology 2017;284:228-243, table 1.
    `docs/published-models.md` says against what the classes were checked.

Both take the mean of the longest and the perpendicular diameter on one slice: Lung-RADS to
0.1 mm, Fleischner to 1 mm. For part-solid nodules the mean diameter of the solid component counts
too. Atypical pulmonary cysts and the modifier S of Lung-RADS are not classified.
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from LungNoduleSegLib.risk.facts import (
    LABELS,
    Airway,
    LungRads,
    NoduleFacts,
    NoduleKind,
    PatientFacts,
    PriorCancer,
    Status,
)

GROWTH_MM = 1.5
"""Lung-RADS v2022: growth is a rise of the mean diameter by more than this within 12 months."""


@dataclass(frozen=True)
class GuidelineResult:
    """A class with its management, or why there is none.

    Exactly one of `category`, `missing` (what is still asked for, by name) and `not_for` (a
    sentence: the guideline has no class for this nodule) is filled. `months` is the interval to
    the next CT where the guideline names one.
    """

    guideline: str
    source: str
    scope: str
    category: str = ""
    reason: str = ""
    management: str = ""
    months: tuple[int, int] | None = None
    missing: tuple[str, ...] = ()
    not_for: str = ""
    notes: tuple[str, ...] = ()


class _MissingFactsError(Exception):
    """Facts a rule needs are not known; their names."""


class _NoClassError(Exception):
    """The guideline has no class for the nodule."""


def lung_rads_mean_mm(longest_mm: float, perpendicular_mm: float) -> float:
    """Mean of two diameters (mm) as Lung-RADS v2022 has it: both, then the mean, to 0.1 mm."""
    both = _rounded(longest_mm, "0.1") + _rounded(perpendicular_mm, "0.1")
    return float(_rounded(both / 2, "0.1"))


def fleischner_mean_mm(longest_mm: float, perpendicular_mm: float) -> float:
    """Mean of two diameters (mm) as Fleischner 2017 has it: to the nearest millimetre."""
    return float(_rounded((longest_mm + perpendicular_mm) / 2, "1"))


def change_by_lung_rads(previous_mm: float, now_mm: float, months: float) -> Status | None:
    """Class a change of the mean diameter between two scans, by Lung-RADS v2022.

    Args:
        previous_mm: mean diameter on the previous scan.
        now_mm: mean diameter now.
        months: time between the two scans.

    Returns:
        STABLE (or smaller) or GROWING; None where the scans lie more than 12 months apart and the
        rise exceeds 1.5 mm, as the rule speaks of 12 months: a reader has to say.
    """
    rise = _rounded(now_mm, "0.1") - _rounded(previous_mm, "0.1")
    if rise <= Decimal(str(GROWTH_MM)):
        return Status.STABLE
    return Status.GROWING if months <= 12 else None


def _rounded(value: float | Decimal, step: str) -> Decimal:
    return Decimal(str(round(value, 6))).quantize(Decimal(step), ROUND_HALF_UP)


def _ask(facts: NoduleFacts | PatientFacts, *names: str) -> list[str]:
    return [name for name in names if getattr(facts, name) is None]


def _diameters(nodule: NoduleFacts) -> tuple[float, float]:
    if nodule.longest_mm is None or nodule.perpendicular_mm is None:
        raise _MissingFactsError(*_ask(nodule, "longest_mm", "perpendicular_mm"))
    return nodule.longest_mm, nodule.perpendicular_mm


# Lung-RADS v2022

_LUNG_RADS = ("Lung-RADS v2022", "American College of Radiology, Lung-RADS v2022, November 2022")
_LUNG_RADS_SCOPE = "Low-dose CT made for lung cancer screening; counted from the date of this CT."

_DIAGNOSTICS = (
    "Referral for clinical evaluation; diagnostic chest CT with or without contrast; PET/CT may be "
    "considered for a solid nodule or component of 8 mm or more; tissue sampling. The choice "
    "depends on the evaluation, the patient's preference and the probability of cancer."
)
_MANAGEMENT: dict[LungRads, tuple[str, tuple[int, int] | None]] = {
    LungRads.INCOMPLETE: ("Low-dose CT in 1 to 3 months.", (1, 3)),
    LungRads.NEGATIVE: ("Screening low-dose CT in 12 months.", (12, 12)),
    LungRads.BENIGN: ("Screening low-dose CT in 12 months.", (12, 12)),
    LungRads.PROBABLY_BENIGN: ("Low-dose CT in 6 months.", (6, 6)),
    LungRads.SUSPICIOUS: (
        "Low-dose CT in 3 months; PET/CT may be considered for a solid nodule or component of "
        "8 mm or more.",
        (3, 3),
    ),
    LungRads.VERY_SUSPICIOUS: (_DIAGNOSTICS, None),
    LungRads.VERY_SUSPICIOUS_FEATURES: (_DIAGNOSTICS, None),
}

_EXCEPTIONS = ("smooth_juxtapleural", "airway", "suspicious_features", "infection")
"""Facts that Lung-RADS takes as absent until somebody says otherwise."""


def lung_rads(nodule: NoduleFacts, patient: PatientFacts) -> GuidelineResult:
    """Class a nodule by Lung-RADS v2022; the scan takes the class of its most suspicious nodule."""
    try:
        category, reason = _lung_rads(nodule)
    except _MissingFactsError as missing:
        names = tuple(LABELS[name] for name in missing.args)
        return GuidelineResult(*_LUNG_RADS, _LUNG_RADS_SCOPE, missing=names)
    except _NoClassError as none:
        return GuidelineResult(*_LUNG_RADS, _LUNG_RADS_SCOPE, not_for=str(none))
    if category in _RAISED and (nodule.suspicious_features or nodule.spiculation):
        category, reason = LungRads.VERY_SUSPICIOUS_FEATURES, f"{reason}, with suspicious features"
    management, months = _MANAGEMENT[category]
    notes = []
    if patient.screening is False:
        notes.append("Lung-RADS is made for screening CT; this one was made for another reason.")
    if category is not LungRads.NEGATIVE and (
        unsaid := [LABELS[name] for name in _EXCEPTIONS if getattr(nodule, name) is None]
    ):
        notes.append(f"Taken as absent, as nothing was said: {'; '.join(unsaid)}.")
    return GuidelineResult(
        *_LUNG_RADS,
        _LUNG_RADS_SCOPE,
        category=str(category),
        reason=reason,
        management=management,
        months=months,
        notes=tuple(notes),
    )


_RAISED = (LungRads.PROBABLY_BENIGN, LungRads.SUSPICIOUS, LungRads.VERY_SUSPICIOUS)
"""Categories that suspicious features turn into 4X."""


def _lung_rads(nodule: NoduleFacts) -> tuple[LungRads, str]:
    if nodule.benign_pattern:
        return LungRads.NEGATIVE, "benign pattern of calcification, or fat"
    if nodule.infection:
        return LungRads.INCOMPLETE, "findings that suggest infection or inflammation"
    in_airway = nodule.airway not in (None, Airway.NONE)
    asked = _ask(nodule, "status")
    if not in_airway:
        asked += [*_ask(nodule, "longest_mm", "perpendicular_mm"), *nodule.missing_type()]
    if asked or nodule.status is None:
        raise _MissingFactsError(*asked)
    return _airway(nodule, nodule.status) if in_airway else _by_type(nodule, nodule.status)


def _by_type(nodule: NoduleFacts, status: Status) -> tuple[LungRads, str]:
    kind = nodule.type
    mean = lung_rads_mean_mm(*_diameters(nodule))
    if kind is NoduleKind.NON_SOLID:
        return _non_solid(status, mean)
    first_seen = status in (Status.BASELINE, Status.NEW)
    if nodule.smooth_juxtapleural and kind is NoduleKind.SOLID and first_seen and mean < 10:
        return LungRads.BENIGN, f"{status} smooth solid juxtapleural nodule below 10 mm"
    if status is Status.SLOWLY_GROWING:
        return LungRads.VERY_SUSPICIOUS, f"{kind} nodule that grows slowly over several CTs"
    if status is Status.STABLE:
        return _stable(nodule, mean)
    if kind is NoduleKind.SOLID:
        return _solid(status, mean)
    return _part_solid(nodule, status, mean)


def _airway(nodule: NoduleFacts, status: Status) -> tuple[LungRads, str]:
    reason = f"{status} nodule in an airway, {nodule.airway}"
    if nodule.airway is Airway.SUBSEGMENTAL:
        if status in (Status.GROWING, Status.SLOWLY_GROWING):
            raise _NoClassError("Lung-RADS v2022 names no class for a growing subsegmental nodule.")
        return LungRads.BENIGN, reason
    first_seen = status in (Status.BASELINE, Status.NEW)
    return LungRads.SUSPICIOUS if first_seen else LungRads.VERY_SUSPICIOUS, reason


def _non_solid(status: Status, mean: float) -> tuple[LungRads, str]:
    if mean < 30:
        return LungRads.BENIGN, f"{status} non-solid nodule below 30 mm"
    if status in (Status.STABLE, Status.SLOWLY_GROWING):
        return LungRads.BENIGN, f"{status} non-solid nodule of 30 mm or more"
    if status is Status.GROWING:
        raise _NoClassError(
            "Lung-RADS v2022 names no class for a non-solid nodule of 30 mm or more that grows "
            "faster than slowly."
        )
    return LungRads.PROBABLY_BENIGN, f"{status} non-solid nodule of 30 mm or more"


_SOLID_LIMITS = {Status.BASELINE: (6, 8, 15), Status.NEW: (4, 6, 8), Status.GROWING: (0, 0, 8)}
"""Mean diameters (mm) from which a solid nodule is of category 3, 4A and 4B."""

_BY_LIMITS = (
    LungRads.BENIGN,
    LungRads.PROBABLY_BENIGN,
    LungRads.SUSPICIOUS,
    LungRads.VERY_SUSPICIOUS,
)


def _solid(status: Status, mean: float) -> tuple[LungRads, str]:
    passed = sum(mean >= limit for limit in _SOLID_LIMITS[status])
    return _BY_LIMITS[passed], f"{status} solid nodule, {mean:g} mm"


def _part_solid(nodule: NoduleFacts, status: Status, mean: float) -> tuple[LungRads, str]:
    reason = f"{status} part-solid nodule, {mean:g} mm"
    if mean < 6 and status is Status.BASELINE:
        return LungRads.BENIGN, reason
    if mean < 6 and status is Status.NEW:
        return LungRads.PROBABLY_BENIGN, reason
    if nodule.solid_component_mm is None:
        raise _MissingFactsError("solid_component_mm")
    solid = float(_rounded(nodule.solid_component_mm, "0.1"))
    limits = (0, 6, 8) if status is Status.BASELINE else (0, 0, 4)
    passed = sum(solid >= limit for limit in limits)
    return _BY_LIMITS[passed], f"{reason}, solid component {solid:g} mm"


_STEPS = {
    LungRads.SUSPICIOUS: LungRads.PROBABLY_BENIGN,
    LungRads.VERY_SUSPICIOUS: LungRads.VERY_SUSPICIOUS,
    LungRads.VERY_SUSPICIOUS_FEATURES: LungRads.VERY_SUSPICIOUS_FEATURES,
}
"""From the category before to that of a stable nodule; the others lead to category 2. 4B and 4X
stay until a work-up has shown that the nodule is benign."""


def _stable(nodule: NoduleFacts, mean: float) -> tuple[LungRads, str]:
    """Stepped management; but a solid nodule that crossed a size limit goes by its size."""
    before = nodule.previous_category
    if before is None or before is LungRads.INCOMPLETE:
        raise _MissingFactsError("previous_category")
    stepped = _STEPS.get(before, LungRads.BENIGN)
    if nodule.previous_mean_mm is not None and nodule.type is NoduleKind.SOLID:
        was, _ = _solid(Status.BASELINE, float(_rounded(nodule.previous_mean_mm, "0.1")))
        now, _ = _solid(Status.BASELINE, mean)
        if now > was and now > stepped:
            return now, f"solid nodule that crossed a size limit, now {mean:g} mm"
    return stepped, f"stable {nodule.type} nodule, {before} before"


# Fleischner 2017

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
    except _MissingFactsError as missing:
        names = tuple(LABELS[name] for name in missing.args)
        return GuidelineResult(*_FLEISCHNER, _FLEISCHNER_SCOPE, missing=names)
    except _NoClassError as none:
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
    if nodule.smooth_juxtapleural:
        notes.append("A typical intrapulmonary lymph node needs no follow-up, even above 6 mm.")
    return notes


def _fleischner(
    nodule: NoduleFacts, patient: PatientFacts
) -> tuple[str, tuple[str, tuple[int, int] | None]]:
    kind = nodule.type
    if kind is NoduleKind.CALCIFIED:
        raise _NoClassError(
            "The guideline is not made for nodules with a benign pattern of calcification or fat."
        )
    asked = [*_ask(nodule, "longest_mm", "perpendicular_mm", "count"), *nodule.missing_type()]
    if kind is NoduleKind.SOLID:
        asked += _ask(patient, "high_risk")
    if asked or nodule.count is None:
        raise _MissingFactsError(*asked)
    mean = fleischner_mean_mm(*_diameters(nodule))
    multiple = nodule.count > 1
    number = "multiple" if multiple else "single"
    if kind is NoduleKind.SOLID:
        size = "below 6 mm" if mean < 6 else "6 to 8 mm" if mean <= 8 else "above 8 mm"
        risk = "high risk" if patient.high_risk else "low risk"
        return f"{number} solid, {size}, {risk}", _solid_follow_up(
            mean, multiple, bool(patient.high_risk)
        )
    size = "below 6 mm" if mean < 6 else "6 mm or more"
    category = f"{number} {kind}, {size}"
    if multiple:
        return category, _multiple_subsolid(mean)
    if mean < 6:
        return category, _NONE
    if kind is NoduleKind.NON_SOLID:
        return category, (
            "CT at 6 to 12 months to confirm that it persists, then every 2 years until 5 years.",
            (6, 12),
        )
    return category, _single_part_solid(nodule.solid_component_mm)


def _solid_follow_up(mean: float, multiple: bool, high: bool) -> tuple[str, tuple[int, int] | None]:
    if mean < 6:
        return ("Optional CT at 12 months.", (12, 12)) if high else _NONE
    if mean > 8 and not multiple:
        return "Consider CT at 3 months, PET/CT or tissue sampling.", (3, 3)
    first = (3, 6) if multiple else (6, 12)
    second = "then at 18 to 24 months" if high else "then consider CT at 18 to 24 months"
    text = f"CT at {first[0]} to {first[1]} months, {second}."
    return (f"{text} {_MOST_SUSPICIOUS}" if multiple else text), first


def _multiple_subsolid(mean: float) -> tuple[str, tuple[int, int]]:
    if mean < 6:
        return "CT at 3 to 6 months; if stable, consider CT at 2 and 4 years.", (3, 6)
    return f"CT at 3 to 6 months. {_MOST_SUSPICIOUS}", (3, 6)


def _single_part_solid(component_mm: float | None) -> tuple[str, tuple[int, int]]:
    confirm = "CT at 3 to 6 months to confirm that it persists"
    small = "annual CT for 5 years if unchanged and the solid component stays below 6 mm"
    large = "a persistent solid component of 6 mm or more is highly suspicious"
    if component_mm is None:
        return f"{confirm}; {small}; {large}.", (3, 6)
    if _rounded(component_mm, "1") < 6:
        return f"{confirm}; {small}.", (3, 6)
    return f"{confirm}; {large}: consider PET/CT, biopsy or resection.", (3, 6)
