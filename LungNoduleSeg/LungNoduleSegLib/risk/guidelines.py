"""Guidelines: Fleischner 2017, and two that use the volume, BTS 2015 and NELSON.

Fleischner uses the mean of the longest and the perpendicular diameter on one slice, rounded to
1 mm, and for part-solid nodules also the mean diameter of the solid component. Without a diameter,
and for comparison, it uses the volume.

Volumes are rounded to 1 mm³, diameters to 0.1 mm and doubling times to 1 day, as they are shown,
before they are compared with a limit.

Sources:
    Fleischner: MacMahon et al., Radiology 2017;284:228-243, table 1. BTS: Callister et al., Thorax
    2015;70 Suppl 2:ii1-ii54. NELSON: Xu et al., Lung Cancer 2006;54:177-184.
    `docs/published-models.md` names the open texts that classes and thresholds were checked with.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from LungNoduleSegLib.nodules.table import mean_axial_mm, rounded
from LungNoduleSegLib.risk.facts import (
    LABELS,
    NoduleFacts,
    NoduleKind,
    PatientFacts,
    PriorCancer,
    Status,
)
from LungNoduleSegLib.risk.published_models import HERDER, PANCAN_2B, evaluate


@dataclass(frozen=True)
class GuidelineResult:
    """A category with its management, or the reason why there is none.

    Exactly one of `category`, `missing` (labels of the missing facts) and `not_for` (a sentence:
    the guideline does not cover this nodule) is set. `months` is the interval to the next CT, if
    the guideline states one. `if_first` is the category of a first CT, if only the change since an
    earlier one is missing.
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
    if_first: str = ""

    @property
    def provisional(self) -> str:
        """The category of a first CT as a phrase; "" without one."""
        return f"{self.if_first} if this is the first CT" if self.if_first else ""


PROVEN_BENIGN = "proven benign by a work-up"


class MissingFactsError(Exception):
    """Facts that a rule needs are unknown; the arguments are their names."""


class NoClassError(Exception):
    """The guideline has no category for the nodule."""


def unknown(facts: NoduleFacts | PatientFacts, *names: str) -> list[str]:
    """Return those of the named facts that are unknown."""
    return [name for name in names if getattr(facts, name) is None]


def _refuse_proven_benign(nodule: NoduleFacts) -> None:
    """Raise `NoClassError` for a nodule that is proven benign."""
    if nodule.proven_benign:
        raise NoClassError(f"The nodule is {PROVEN_BENIGN}.")


def diameters(nodule: NoduleFacts) -> tuple[float, float]:
    """Return longest and perpendicular diameter, or raise `MissingFactsError`."""
    if nodule.longest_mm is None or nodule.perpendicular_mm is None:
        raise MissingFactsError(*unknown(nodule, "longest_mm", "perpendicular_mm"))
    return nodule.longest_mm, nodule.perpendicular_mm


def fleischner_mean_mm(longest_mm: float, perpendicular_mm: float) -> float:
    """Mean of two diameters (mm), rounded to the nearest millimetre as in Fleischner 2017."""
    return float(rounded((longest_mm + perpendicular_mm) / 2, "1"))


VOLUMES_MM3 = (100, 250)
"""The volumes that correspond to 6 and 8 mm in the table."""

_FLEISCHNER = ("Fleischner 2017", "MacMahon et al., Radiology 2017;284:228-243, table 1")
_FLEISCHNER_SCOPE = (
    "Nodules found by chance in people of 35 years or more without known cancer or "
    "immunosuppression; not for screening."
)

_NONE = ("No routine follow-up.", None)
_MOST_SUSPICIOUS = "Further management by the most suspicious nodule."


def fleischner(nodule: NoduleFacts, patient: PatientFacts) -> GuidelineResult:
    """Classify a nodule by the Fleischner Society's guideline of 2017."""
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
        notes.append("The guideline applies to people aged 35 years or more.")
    if patient.prior_cancer not in (None, PriorCancer.NONE):
        notes.append("The guideline does not apply to people with a known cancer.")
    if patient.immunosuppressed:
        notes.append("The guideline does not apply to people with immunosuppression.")
    if patient.screening:
        notes.append("The guideline does not apply to screening CT; Lung-RADS does.")
    if nodule.status not in (None, Status.BASELINE, Status.NEW):
        notes.append("Intervals count from the first CT on which the nodule was seen.")
    if nodule.longest_mm is not None and nodule.volume_mm3 is not None:
        alone = _size(replace(nodule, longest_mm=None, perpendicular_mm=None))
        if alone != _size(nodule):
            volume = rounded(nodule.volume_mm3, "1")
            notes.append(f"Its volume of {volume} mm³ is in another size class.")
    if nodule.smooth_juxtapleural:
        notes.append("A typical intrapulmonary lymph node needs no follow-up, even above 6 mm.")
    return notes


def _fleischner(
    nodule: NoduleFacts, patient: PatientFacts
) -> tuple[str, tuple[str, tuple[int, int] | None]]:
    kind = nodule.type
    if kind is NoduleKind.CALCIFIED:
        raise NoClassError(
            "The guideline does not apply to nodules with fat or a benign pattern of calcification."
        )
    _refuse_proven_benign(nodule)
    sizes = ("longest_mm", "perpendicular_mm")
    by_volume = nodule.volume_mm3 is not None and nodule.longest_mm is None
    count = 1 if nodule.count == 1 else nodule.count_alike
    missing = unknown(nodule, *(() if by_volume else sizes))
    if count is None:
        missing.append("count" if nodule.count is None else "count_alike")
    missing += nodule.missing_type()
    if kind is NoduleKind.SOLID:
        missing += unknown(patient, "high_risk")
    if missing or count is None:
        raise MissingFactsError(*missing)
    small, large = _size(nodule)
    multiple = count > 1
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
    """Whether a nodule is below 6 mm, and whether above 8 mm, or the corresponding volumes."""
    if nodule.longest_mm is not None:
        mean = fleischner_mean_mm(*diameters(nodule))
        return mean < 6, mean > 8
    low, high = VOLUMES_MM3
    volume = rounded(nodule.volume_mm3 or 0, "1")
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


Classed = tuple[str, str, tuple[int, int] | None]
"""A category, its management, and the months to the next CT."""

BTS = (
    "BTS 2015",
    "Callister et al., Thorax 2015;70 Suppl 2:ii1-ii54",
    "Adults with nodules found by chance or by screening; volume before longest diameter.",
)
NELSON = (
    "NELSON",
    "Xu et al., Lung Cancer 2006;54:177-184",
    "Size classes of a screening trial of current and former smokers; by volume.",
)

FAST_DAYS, SLOW_DAYS = 400, 600
"""Volume doubling times at which the management changes."""

GROWTH_BY_VOLUME = 1.25
"""Volumes of less than this times the previous one are stable."""

BROCK_LIMIT = 0.10
"""Brock probability from which BTS recommends PET-CT."""

HERDER_LIMITS = (0.10, 0.70)


def bts(nodule: NoduleFacts, patient: PatientFacts) -> GuidelineResult:
    """Classify a nodule by the guideline of the British Thoracic Society."""
    return _result(BTS, _bts, nodule, patient)


def nelson(nodule: NoduleFacts, patient: PatientFacts) -> GuidelineResult:
    """Classify a nodule by the size classes of the NELSON trial."""
    return _result(NELSON, _nelson, nodule, patient)


def _result(
    guideline: tuple[str, str, str],
    rule: Callable[[NoduleFacts, PatientFacts], Classed],
    nodule: NoduleFacts,
    patient: PatientFacts,
) -> GuidelineResult:
    try:
        category, management, months = rule(nodule, patient)
    except MissingFactsError as missing:
        return GuidelineResult(*guideline, missing=tuple(LABELS[name] for name in missing.args))
    except NoClassError as none:
        return GuidelineResult(*guideline, not_for=str(none))
    reason = "volume, type and growth"
    return GuidelineResult(
        *guideline, category=category, reason=reason, management=management, months=months
    )


def _bts(nodule: NoduleFacts, patient: PatientFacts) -> Classed:
    if nodule.type is NoduleKind.CALCIFIED:
        return "benign pattern", "No follow-up.", None
    if nodule.proven_benign:
        return PROVEN_BENIGN, "No follow-up.", None
    missing = nodule.missing_type()
    if nodule.volume_mm3 is None:
        missing += unknown(nodule, "longest_mm")
    if missing:
        raise MissingFactsError(*missing)
    solid = nodule.type is NoduleKind.SOLID
    growing = nodule.status in (Status.GROWING, Status.SLOWLY_GROWING)
    if solid and nodule.status is Status.GROWING and _stable_by_volume(nodule):
        growing = False  # for Lung-RADS it is, which may mean since an earlier scan
    if growing or nodule.doubling_days:
        return _bts_growing(nodule)
    if not solid:
        return _bts_subsolid(nodule, patient)
    return _bts_solid(nodule, patient)


def _bts_solid(nodule: NoduleFacts, patient: PatientFacts) -> Classed:
    longest = rounded(nodule.longest_mm or 0, "0.1")
    if nodule.smooth_juxtapleural:
        if nodule.longest_mm is None:
            raise MissingFactsError("longest_mm")
        if longest < 10:
            return "perifissural or subpleural, smooth, below 10 mm", "No follow-up.", None
    if nodule.volume_mm3 is not None:
        volume = rounded(nodule.volume_mm3, "1")
        small, large = volume < 80, volume >= 300
        size = "below 80 mm³" if small else "300 mm³ or more" if large else "80 to 300 mm³"
    else:
        small, large = longest < 5, longest >= 8
        size = "below 5 mm" if small else "8 mm or more" if large else "6 to 8 mm"
        if 5 <= longest < 6:
            size = "5 to 6 mm"
    stable = nodule.status is Status.STABLE and _stable_by_volume(nodule) is not False
    known = stable or nodule.status is Status.NEW
    category = f"{nodule.status} solid, {size}" if known else f"solid, {size}"
    grows = nodule.status is Status.GROWING or _stable_by_volume(nodule) is False
    if small and (grows or nodule.status is Status.NEW):
        return category, f"Follow-up by CT, as it is {'growing' if grows else 'new'}.", None
    if small:
        return category, "Discharge.", None
    if large:
        return _bts_large(nodule, patient, category)
    if size == "5 to 6 mm":
        return category, *_watched(nodule, "CT at 12 months.", (12, 12))
    follow_up = "CT at 3 months; if stable, at 12 months, then discharge if stable by volume."
    return category, *_watched(nodule, follow_up, (3, 3))


def _watched(
    nodule: NoduleFacts, first: str, months: tuple[int, int]
) -> tuple[str, tuple[int, int] | None]:
    """Return what follows for a solid nodule under surveillance: for a stable one, how long.

    BTS discharges it after one year if it is stable by volume, after two years if by diameter only.
    The years count from the previous CT, as earlier ones are not known: the nodule may have been
    stable for longer, never for less. A volume of 25 % more is growth, whatever the diameters say.

    Args:
        nodule: a solid one.
        first: management of one that is not known to be stable.
        months: from this CT to the next one then.
    """
    by_volume = _stable_by_volume(nodule)
    if nodule.status is not Status.STABLE or by_volume is False:
        return first, months
    if nodule.months_since_previous is None:
        raise MissingFactsError("months_since_previous")
    since = rounded(nodule.months_since_previous, "0.1")
    until = 12 if by_volume or since < 12 else 24
    if since >= until:
        return "Discharge.", None
    by = "by volume" if until == 12 else "by diameter"
    return f"CT at {until} months after the previous one, then discharge if stable {by}.", None


def _stable_by_volume(nodule: NoduleFacts) -> bool | None:
    """Whether the volume is stable by BTS; None if one of the two is unknown."""
    now, before = nodule.volume_mm3, nodule.previous_volume_mm3
    return now / before < GROWTH_BY_VOLUME if now and before else None


def _bts_large(nodule: NoduleFacts, patient: PatientFacts, category: str) -> Classed:
    again = "CT at 3 months.", (3, 3)
    herder = evaluate(HERDER, nodule, patient)
    if nodule.pet_uptake is not None and herder.probability is not None:
        low, high = HERDER_LIMITS
        chance = herder.probability
        category = f"{category}, Herder {_percent(chance, *HERDER_LIMITS)}"
        if chance < low:
            return category, *_watched(nodule, *again)
        if chance <= high:
            return category, "Consider image-guided biopsy; excision biopsy or CT.", None
        return category, "Consider excision or non-surgical treatment.", None
    brock = _brock(nodule, patient)
    category = f"{category}, Brock {_percent(brock, BROCK_LIMIT)}"
    if brock < BROCK_LIMIT:
        return category, *_watched(nodule, *again)
    return category, "PET-CT, then the risk by the Herder model.", None


def _percent(probability: float, *limits: float) -> str:
    """Write a probability with the more decimals the closer it is to a limit."""
    apart = 100 * min(abs(probability - limit) for limit in limits)
    decimals = sum(apart <= near for near in (0.5, 0.05, 0.005))
    return f"{100 * probability:.{decimals}f} %"


def _brock(nodule: NoduleFacts, patient: PatientFacts) -> float:
    """Return the probability by the Brock model, or raise `MissingFactsError`."""
    brock = evaluate(PANCAN_2B, nodule, patient)
    if brock.probability is None:
        raise MissingFactsError(*(name for name, label in LABELS.items() if label in brock.missing))
    return brock.probability


def _bts_subsolid(nodule: NoduleFacts, patient: PatientFacts) -> Classed:
    if nodule.longest_mm is None:
        raise MissingFactsError("longest_mm")
    if rounded(nodule.longest_mm, "0.1") < 5:
        return f"{nodule.type}, below 5 mm", "No follow-up.", None
    if nodule.status is not Status.STABLE:
        return f"{nodule.type}, 5 mm or more", "CT at 3 months.", (3, 3)
    brock = _brock(nodule, patient)
    category = f"stable {nodule.type}, Brock {_percent(brock, BROCK_LIMIT)}"
    if brock < BROCK_LIMIT:
        return category, "CT at 1, 2 and 4 years after the first.", (12, 12)
    return category, "Discuss CT surveillance, image-guided biopsy, or treatment.", None


def _bts_growing(nodule: NoduleFacts) -> Classed:
    if nodule.type is not NoduleKind.SOLID:
        return f"growing {nodule.type}", "Consider resection or non-surgical treatment.", None
    if nodule.doubling_days is None:
        raise MissingFactsError("doubling_days")
    days = rounded(nodule.doubling_days, "1")
    category = f"growing solid, doubling in {days} days"
    if days <= FAST_DAYS:
        return category, "Further diagnostic work-up: biopsy, imaging or resection.", None
    if days <= SLOW_DAYS:
        return category, "Consider biopsy or CT surveillance, by the patient's preference.", None
    return category, "Consider discharge or CT surveillance, by the patient's preference.", None


NODCAT = "Category by size alone; growth decides what follows."


def _nelson(nodule: NoduleFacts, _: PatientFacts) -> Classed:
    if nodule.type is NoduleKind.CALCIFIED:
        return "NODCAT 1", "Benign.", None
    _refuse_proven_benign(nodule)
    if missing := nodule.missing_type():
        raise MissingFactsError(*missing)
    if nodule.type is NoduleKind.PART_SOLID:
        raise NoClassError("NELSON uses the volume of the solid part, which is not measured.")
    if nodule.type is NoduleKind.NON_SOLID:
        mean = mean_axial_mm(*diameters(nodule))
        return ("NODCAT 3" if mean >= 8 else "NODCAT 2"), NODCAT, None
    if nodule.smooth_juxtapleural:
        raise NoClassError(
            "NELSON classes pleural-based nodules by their smallest diameter, "
            "which is not measured."
        )
    if nodule.volume_mm3 is None:
        raise MissingFactsError("volume_mm3")
    volume = rounded(nodule.volume_mm3, "1")
    passed = (volume >= 50) + (volume > 500)
    return f"NODCAT {2 + passed}", NODCAT, None
