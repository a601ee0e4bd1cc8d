"""Lung-RADS v2022 of a nodule, and of an examination by its most suspicious nodule.

It uses the mean of the longest and the perpendicular diameter on one slice, rounded to 0.1 mm, and
for part-solid nodules also the mean diameter of the solid component. Without a diameter, and for
comparison, it uses the volume, rounded to 1 mm³.

Sources:
    American College of Radiology, Lung-RADS v2022, November 2022; Christensen et al., J Am Coll
    Radiol 2024;21:473-488. `docs/published-models.md` says how the categories were checked.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

from LungNoduleSegLib.nodules.table import Nodule, mean_axial_mm, rounded
from LungNoduleSegLib.risk.facts import (
    LABELS,
    Airway,
    Cyst,
    Incomplete,
    LungRads,
    NoduleFacts,
    NoduleKind,
    PatientFacts,
    Status,
)
from LungNoduleSegLib.risk.growth_rate import DAYS_PER_MONTH
from LungNoduleSegLib.risk.guidelines import (
    PROVEN_BENIGN,
    GuidelineResult,
    MissingFactsError,
    NoClassError,
    diameters,
    unknown,
)

GROWTH_MM = 1.5
"""Growth is an increase of the mean diameter by more than this within 12 months (v2022)."""


TWELVE_MONTHS_DAYS = 366
"""Twelve months that hold a 29 February."""


def change_by_lung_rads(previous_mm: float, now_mm: float, days: int) -> Status | None:
    """Classify a change of a mean diameter between two scans by Lung-RADS v2022.

    Args:
        previous_mm: mean diameter on the previous scan.
        now_mm: mean diameter now.
        days: time between the two scans.

    Returns:
        STABLE (or smaller) or GROWING; None if the scans are more than 12 months apart and the
        increase exceeds 1.5 mm, which the rule does not cover: a reader has to decide.
    """
    rise = rounded(now_mm, "0.1") - rounded(previous_mm, "0.1")
    if rise <= Decimal(str(GROWTH_MM)):
        return Status.STABLE
    return Status.GROWING if days <= TWELVE_MONTHS_DAYS else None


def nodule_change_by_lung_rads(previous: Nodule, now: Nodule, days: int) -> Status | None:
    """Classify the change of a measured nodule, and of its solid component, by Lung-RADS v2022.

    A part-solid nodule grows if either does; ground glass that has become part-solid counts as
    having had a solid component of 0 mm.

    Args:
        previous: the nodule on the previous scan.
        now: the nodule now.
        days: time between the two scans.

    Returns:
        As `change_by_lung_rads`, and None also for a nodule whose type changed without growth.
    """
    sizes = [tuple(mean_axial_mm(one.diameter_mm, one.perpendicular_mm) for one in (previous, now))]
    if now.solid_mm is not None and previous.kind in (NoduleKind.PART_SOLID, NoduleKind.NON_SOLID):
        sizes.append((previous.solid_mm or 0, now.solid_mm))
    changes = [change_by_lung_rads(before, after, days) for before, after in sizes]
    if Status.GROWING in changes:
        return Status.GROWING
    solid = (NoduleKind.SOLID, NoduleKind.CALCIFIED)
    alike = previous.kind is now.kind or {previous.kind, now.kind} == set(solid)
    return Status.STABLE if alike and None not in changes else None


LUNG_RADS = (
    "Lung-RADS v2022",
    "American College of Radiology, Lung-RADS v2022, November 2022",
    "Low-dose CT for lung cancer screening; intervals count from the date of this CT.",
)
"""Name, source and scope."""

NOT_SCREENING = "Lung-RADS applies to screening CT, which this one is not."

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

_EXCEPTIONS = ("smooth_juxtapleural", "airway", "cyst", "suspicious_features", "infection")
"""Facts assumed absent while unknown."""

ASSUMED_ABSENT = "Assumed absent"
"""How the note on them begins."""

VOLUMES_MM3 = {4: 34, 6: 113, 8: 268, 10: 524, 15: 1767, 30: 14137}
"""The volume that corresponds to each mean diameter (mm) in Lung-RADS v2022."""

Reaches = Callable[[float], bool]
"""Whether a nodule reaches a mean diameter in mm, or the corresponding volume."""


def lung_rads(
    nodule: NoduleFacts, patient: PatientFacts, compared: bool = False
) -> GuidelineResult:
    """Classify a nodule by Lung-RADS v2022.

    Args:
        nodule: its facts.
        patient: whether this is a screening CT.
        compared: whether it is known not to be the first CT, other than by facts of this nodule.
    """
    try:
        category, reason = _lung_rads(nodule)
    except MissingFactsError as missing:
        names = tuple(LABELS[name] for name in missing.args)
        if_first = ""
        if missing.args == ("status",) and not (compared or nodule.compared):
            if_first = lung_rads(replace(nodule, status=Status.BASELINE), patient).category
        return GuidelineResult(*LUNG_RADS, missing=names, if_first=if_first)
    except NoClassError as none:
        return GuidelineResult(*LUNG_RADS, not_for=str(none))
    notes = []
    if patient.screening is False:
        notes.append(NOT_SCREENING)
    if category is not LungRads.NEGATIVE and (
        absent := [LABELS[name] for name in _EXCEPTIONS if getattr(nodule, name) is None]
    ):
        notes.append(f"{ASSUMED_ABSENT}: {'; '.join(absent)}.")
    if by_volume := _other_by_volume(nodule, category):
        notes.append(by_volume)
    return categorized(category, reason, notes)


def categorized(category: LungRads, reason: str, notes: Sequence[str]) -> GuidelineResult:
    """Return a category with its management."""
    management, months = _MANAGEMENT[category]
    return GuidelineResult(
        *LUNG_RADS,
        category=str(category),
        reason=reason,
        management=management,
        months=months,
        notes=tuple(notes),
    )


def _other_by_volume(nodule: NoduleFacts, category: LungRads) -> str:
    """Return a note if volume and diameters lead to different categories."""
    if nodule.volume_mm3 is None or None in (nodule.longest_mm, nodule.perpendicular_mm):
        return ""
    try:
        other, _ = _lung_rads(replace(nodule, longest_mm=None, perpendicular_mm=None))
    except (MissingFactsError, NoClassError):
        return ""
    volume = rounded(nodule.volume_mm3, "1")
    return f"By its volume of {volume} mm³ the category is {other}." if other != category else ""


_RAISED = (LungRads.PROBABLY_BENIGN, LungRads.SUSPICIOUS, LungRads.VERY_SUSPICIOUS)
"""Categories that become 4X with suspicious features."""


def _lung_rads(nodule: NoduleFacts) -> tuple[LungRads, str]:
    category, reason = _by_rows(nodule)
    if category in _RAISED and (nodule.suspicious_features or nodule.spiculation):
        return LungRads.VERY_SUSPICIOUS_FEATURES, f"{reason}, with suspicious features"
    decided = any(getattr(nodule, name) for name in _FIRST)
    if nodule.type is NoduleKind.NON_SOLID and not decided and _doubled(nodule):
        return LungRads.VERY_SUSPICIOUS_FEATURES, "ground glass that doubled within a year"
    return category, reason


def _doubled(nodule: NoduleFacts) -> bool:
    """Whether mean diameter or volume doubles within a year."""
    doubling = nodule.doubling_days
    if doubling is not None and rounded(doubling, "1") <= TWELVE_MONTHS_DAYS:
        return True
    was, months = nodule.previous_mean_mm, nodule.months_since_previous
    if was is None or months is None or None in (nodule.longest_mm, nodule.perpendicular_mm):
        return False
    within = rounded(months * DAYS_PER_MONTH, "1") <= TWELVE_MONTHS_DAYS
    return within and mean_axial_mm(*diameters(nodule)) >= 2 * was


_FIRST = {
    "benign_pattern": (LungRads.NEGATIVE, "benign pattern of calcification, or fat"),
    "proven_benign": (LungRads.BENIGN, PROVEN_BENIGN),
    "infection": (LungRads.INCOMPLETE, "findings that suggest infection or inflammation"),
}
"""Facts that decide regardless of size."""


def _by_rows(nodule: NoduleFacts) -> tuple[LungRads, str]:
    """Apply the rows of the table."""
    for name, (category, reason) in _FIRST.items():
        if getattr(nodule, name):
            return category, reason
    missing = unknown(nodule, "status")
    in_airway = nodule.airway not in (None, Airway.NONE)
    is_cyst = nodule.cyst not in (None, Cyst.NONE)
    if not in_airway and not is_cyst:
        if nodule.volume_mm3 is None or nodule.longest_mm is not None:
            missing += unknown(nodule, "longest_mm", "perpendicular_mm")
        missing += nodule.missing_type()
    if missing or nodule.status is None:
        raise MissingFactsError(*missing)
    if in_airway:
        return _airway(nodule, nodule.status)
    return (_cyst if is_cyst else _in_the_lung)(nodule, nodule.status)


def _in_the_lung(nodule: NoduleFacts, status: Status) -> tuple[LungRads, str]:
    kind = nodule.type
    reaches, size = _size(nodule)
    if status in (Status.BASELINE, Status.NEW) and _small_at_pleura(nodule, reaches):
        return LungRads.BENIGN, "smooth solid nodule at pleura or fissure below 10 mm"
    if kind is NoduleKind.NON_SOLID:
        return _non_solid(status, reaches)
    if status is Status.SLOWLY_GROWING:
        return LungRads.VERY_SUSPICIOUS, f"{kind} nodule that grew slowly over several CTs"
    if status is Status.STABLE:
        return _stable(nodule, reaches, size)
    return (
        _solid(status, reaches, size)
        if kind is NoduleKind.SOLID
        else _part_solid(nodule, status, reaches, size)
    )


def _small_at_pleura(nodule: NoduleFacts, reaches: Reaches) -> bool:
    """Whether a nodule is smooth, solid, at pleura or fissure, and below 10 mm."""
    solid = nodule.type is NoduleKind.SOLID
    return bool(nodule.smooth_juxtapleural) and solid and not reaches(10)


def _size(nodule: NoduleFacts) -> tuple[Reaches, str]:
    """Return a test of the mean diameter, or without one of the volume, and the size as text."""
    if nodule.longest_mm is not None:
        mean = mean_axial_mm(*diameters(nodule))
        return (lambda limit: mean >= limit), f"{mean:g} mm"
    volume = rounded(nodule.volume_mm3 or 0, "1")
    return (lambda limit: limit == 0 or volume >= VOLUMES_MM3[int(limit)]), f"{volume} mm³"


_CYSTS = {
    Cyst.GROWING_CYST: LungRads.PROBABLY_BENIGN,
    Cyst.THICK_WALLED: LungRads.SUSPICIOUS,
    Cyst.MULTILOCULAR: LungRads.SUSPICIOUS,
    Cyst.BECOMING_MULTILOCULAR: LungRads.SUSPICIOUS,
    Cyst.GROWING_WALL: LungRads.VERY_SUSPICIOUS,
    Cyst.GROWING_MULTILOCULAR: LungRads.VERY_SUSPICIOUS,
    Cyst.MORE_LOCULATION: LungRads.VERY_SUSPICIOUS,
}


def _cyst(nodule: NoduleFacts, status: Status) -> tuple[LungRads, str]:
    assert nodule.cyst is not None
    reason = f"atypical pulmonary cyst, {nodule.cyst}"
    at_rest = nodule.cyst in (Cyst.THICK_WALLED, Cyst.MULTILOCULAR)
    if at_rest and status is Status.STABLE:
        return _stepped(nodule), f"{reason}, stable"
    if at_rest and status in (Status.GROWING, Status.SLOWLY_GROWING):
        raise NoClassError(f"State which part of the cyst grows: change {LABELS['cyst']}.")
    return _CYSTS[nodule.cyst], reason


def _airway(nodule: NoduleFacts, status: Status) -> tuple[LungRads, str]:
    reason = f"{status} nodule in an airway, {nodule.airway}"
    if nodule.airway is Airway.SUBSEGMENTAL:
        if status in (Status.GROWING, Status.SLOWLY_GROWING):
            raise NoClassError("Lung-RADS v2022 has no category for a growing subsegmental nodule.")
        return LungRads.BENIGN, reason
    first_seen = status in (Status.BASELINE, Status.NEW)
    return LungRads.SUSPICIOUS if first_seen else LungRads.VERY_SUSPICIOUS, reason


def _non_solid(status: Status, reaches: Reaches) -> tuple[LungRads, str]:
    if not reaches(30):
        return LungRads.BENIGN, f"{status} non-solid nodule below 30 mm"
    if status in (Status.STABLE, Status.SLOWLY_GROWING):
        return LungRads.BENIGN, f"{status} non-solid nodule of 30 mm or more"
    if status is Status.GROWING:
        raise NoClassError(
            "Lung-RADS v2022 has no category for a non-solid nodule of 30 mm or more that grows "
            "faster than slowly."
        )
    return LungRads.PROBABLY_BENIGN, f"{status} non-solid nodule of 30 mm or more"


_SOLID_LIMITS = {Status.BASELINE: (6, 8, 15), Status.NEW: (4, 6, 8), Status.GROWING: (0, 0, 8)}
"""Mean diameters (mm) from which a solid nodule has category 3, 4A and 4B."""

_BY_LIMITS = (
    LungRads.BENIGN,
    LungRads.PROBABLY_BENIGN,
    LungRads.SUSPICIOUS,
    LungRads.VERY_SUSPICIOUS,
)


def _solid(status: Status, reaches: Reaches, size: str) -> tuple[LungRads, str]:
    passed = sum(reaches(limit) for limit in _SOLID_LIMITS[status])
    return _BY_LIMITS[passed], f"{status} solid nodule, {size}"


def _part_solid(
    nodule: NoduleFacts, status: Status, reaches: Reaches, size: str
) -> tuple[LungRads, str]:
    reason = f"{status} part-solid nodule, {size}"
    if not reaches(6) and status is Status.BASELINE:
        return LungRads.BENIGN, reason
    if not reaches(6) and status is Status.NEW:
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
"""Category of a stable nodule by its previous one; all others lead to 2. 4B and 4X remain
until a work-up has shown that the nodule is benign."""


def _stepped(nodule: NoduleFacts) -> LungRads:
    before = nodule.previous_category
    if before is None or before is LungRads.INCOMPLETE:
        raise MissingFactsError("previous_category")
    return _STEPS.get(before, LungRads.BENIGN)


def _stable(nodule: NoduleFacts, reaches: Reaches, size: str) -> tuple[LungRads, str]:
    """Stepped management, but by size for a nodule that crossed a size limit."""
    stepped = _stepped(nodule)
    was = _by_previous_size(nodule)
    if was is not None:
        now = _by_size(nodule, reaches)
        if now > was and now > stepped:
            return now, f"{nodule.type} nodule that crossed a size limit, now {size}"
    return stepped, f"stable {nodule.type} nodule, {nodule.previous_category} before"


def _by_previous_size(nodule: NoduleFacts) -> LungRads | None:
    """Category by the size on the previous CT alone; None if that is not known."""
    if nodule.previous_mean_mm is None:
        return None
    mean = float(rounded(nodule.previous_mean_mm, "0.1"))
    before = replace(nodule, solid_component_mm=nodule.previous_solid_mm, longest_mm=None)
    try:
        return _by_size(before, lambda limit: mean >= limit)
    except MissingFactsError:
        return None


def _by_size(nodule: NoduleFacts, reaches: Reaches) -> LungRads:
    """Category of a solid or part-solid nodule by its size, and at the pleura its place, alone."""
    if _small_at_pleura(nodule, reaches):
        return LungRads.BENIGN
    if nodule.type is NoduleKind.SOLID:
        return _solid(Status.BASELINE, reaches, "")[0]
    return _part_solid(nodule, Status.BASELINE, reaches, "")[0]


ORDER = (
    LungRads.NEGATIVE,
    LungRads.BENIGN,
    LungRads.PROBABLY_BENIGN,
    LungRads.INCOMPLETE,
    LungRads.SUSPICIOUS,
    LungRads.VERY_SUSPICIOUS,
    LungRads.VERY_SUSPICIOUS_FEATURES,
)
"""Categories by increasing suspicion. Lung-RADS does not rank 0; by its follow-up of 1 to 3
months it is placed between 3 and 4A (our own reading)."""


def classify_examination(
    results: Sequence[GuidelineResult], patient: PatientFacts
) -> GuidelineResult:
    """Classify an examination by Lung-RADS v2022, by its most suspicious nodule.

    Args:
        results: of `lung_rads` for every nodule; empty if no nodule was found.
        patient: whether the examination is complete, and whether there is another significant
            finding, which adds the modifier S.

    Returns:
        The category, with S appended for the modifier. While a nodule lacks facts there is no
        category, and the reason states the least possible one. There is none for a CT that is not
        a screening CT, or that shows no nodule and may not be one.
    """
    if patient.screening is False:
        return GuidelineResult(*LUNG_RADS, not_for=NOT_SCREENING)

    def rank(category: str) -> int:
        return ORDER.index(LungRads(category))

    found_categories = [one for one in results if one.category]
    most = max(found_categories, key=lambda one: rank(one.category), default=None)
    at_least = f"at least {most.category} by the nodules with a category" if most else ""
    if patient.incomplete not in (None, Incomplete.NO):
        found = categorized(
            LungRads.INCOMPLETE, str(patient.incomplete), [at_least] * bool(at_least)
        )
        if patient.incomplete is Incomplete.AWAITING_PRIOR:
            found = replace(found, management="Comparison with the prior chest CT.", months=None)
        else:
            found = replace(found, management="Additional CT images are needed.", months=None)
    elif missing := dict.fromkeys(name for one in results for name in one.missing):
        first_ct = [one.category or one.if_first for one in results if not one.not_for]
        if_first = max(filter(None, first_ct), key=rank, default="")
        if not all(first_ct):
            if if_first and (most is None or rank(if_first) > rank(most.category)):
                at_least += f"{'; ' * bool(most)}at least {if_first} if this is the first CT"
            if_first = ""
        return GuidelineResult(
            *LUNG_RADS, reason=at_least, missing=tuple(missing), if_first=if_first
        )
    elif refused := [one.not_for for one in results if one.not_for]:
        if most is None or rank(most.category) < rank(LungRads.SUSPICIOUS):
            return GuidelineResult(*LUNG_RADS, not_for=refused[0])
        found = replace(most, notes=(*most.notes, *refused))
    elif most is None and patient.screening is None:
        return GuidelineResult(*LUNG_RADS, missing=(LABELS["screening"],))
    else:
        found = most or categorized(LungRads.NEGATIVE, "no lung nodule", [])
    if patient.other_finding:
        note = "S: a significant finding other than lung cancer, to be managed on its own."
        found = replace(found, category=f"{found.category}S", notes=(*found.notes, note))
    return found
