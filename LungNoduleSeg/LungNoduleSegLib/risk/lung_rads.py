"""Lung-RADS v2022: size and type classes with the follow-up they recommend.

Sources:
    American College of Radiology, Lung-RADS v2022, November 2022; Christensen et al., J Am Coll
    Radiol 2024;21:473-488. `docs/published-models.md` says against what the classes were checked.

It takes the mean of the longest and the perpendicular diameter on one slice, to 0.1 mm; for
part-solid nodules the mean diameter of the solid component counts too. Atypical pulmonary cysts and
the modifier S are not classified.
"""

from decimal import Decimal

from LungNoduleSegLib.risk.facts import (
    LABELS,
    Airway,
    LungRads,
    NoduleFacts,
    NoduleKind,
    PatientFacts,
    Status,
)
from LungNoduleSegLib.risk.guidelines import (
    GuidelineResult,
    MissingFactsError,
    NoClassError,
    ask,
    diameters,
    rounded,
)

GROWTH_MM = 1.5
"""Lung-RADS v2022: growth is a rise of the mean diameter by more than this within 12 months."""


def lung_rads_mean_mm(longest_mm: float, perpendicular_mm: float) -> float:
    """Mean of two diameters (mm) as Lung-RADS v2022 has it: both, then the mean, to 0.1 mm."""
    both = rounded(longest_mm, "0.1") + rounded(perpendicular_mm, "0.1")
    return float(rounded(both / 2, "0.1"))


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
    rise = rounded(now_mm, "0.1") - rounded(previous_mm, "0.1")
    if rise <= Decimal(str(GROWTH_MM)):
        return Status.STABLE
    return Status.GROWING if months <= 12 else None


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
    except MissingFactsError as missing:
        names = tuple(LABELS[name] for name in missing.args)
        return GuidelineResult(*_LUNG_RADS, _LUNG_RADS_SCOPE, missing=names)
    except NoClassError as none:
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
    asked = ask(nodule, "status")
    if not in_airway:
        asked += [*ask(nodule, "longest_mm", "perpendicular_mm"), *nodule.missing_type()]
    if asked or nodule.status is None:
        raise MissingFactsError(*asked)
    return _airway(nodule, nodule.status) if in_airway else _by_type(nodule, nodule.status)


def _by_type(nodule: NoduleFacts, status: Status) -> tuple[LungRads, str]:
    kind = nodule.type
    mean = lung_rads_mean_mm(*diameters(nodule))
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
            raise NoClassError("Lung-RADS v2022 names no class for a growing subsegmental nodule.")
        return LungRads.BENIGN, reason
    first_seen = status in (Status.BASELINE, Status.NEW)
    return LungRads.SUSPICIOUS if first_seen else LungRads.VERY_SUSPICIOUS, reason


def _non_solid(status: Status, mean: float) -> tuple[LungRads, str]:
    if mean < 30:
        return LungRads.BENIGN, f"{status} non-solid nodule below 30 mm"
    if status in (Status.STABLE, Status.SLOWLY_GROWING):
        return LungRads.BENIGN, f"{status} non-solid nodule of 30 mm or more"
    if status is Status.GROWING:
        raise NoClassError(
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
        raise MissingFactsError("solid_component_mm")
    solid = float(rounded(nodule.solid_component_mm, "0.1"))
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
        raise MissingFactsError("previous_category")
    stepped = _STEPS.get(before, LungRads.BENIGN)
    if nodule.previous_mean_mm is not None and nodule.type is NoduleKind.SOLID:
        was, _ = _solid(Status.BASELINE, float(rounded(nodule.previous_mean_mm, "0.1")))
        now, _ = _solid(Status.BASELINE, mean)
        if now > was and now > stepped:
            return now, f"solid nodule that crossed a size limit, now {mean:g} mm"
    return stepped, f"stable {nodule.type} nodule, {before} before"
