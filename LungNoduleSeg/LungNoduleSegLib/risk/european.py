"""European guidelines that go by volume and doubling time: BTS 2015 and the NELSON protocol.

Sources:
    BTS: Callister et al., Thorax 2015;70 Suppl 2:ii1-ii54. NELSON: Xu et al., Lung Cancer
    2006;54:177-184. `docs/published-models.md` names the open texts that the thresholds are from.
"""

from collections.abc import Callable

from LungNoduleSegLib.risk.facts import LABELS, NoduleFacts, NoduleKind, PatientFacts, Status
from LungNoduleSegLib.risk.guidelines import (
    GuidelineResult,
    MissingFactsError,
    NoClassError,
    ask,
    diameters,
)
from LungNoduleSegLib.risk.logistic_model import evaluate
from LungNoduleSegLib.risk.published_models import HERDER, PANCAN_2B

Classed = tuple[str, str, tuple[int, int] | None]
"""A category, what is to be done, and the months to the next CT."""

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
"""Volume doubling times that both guidelines act on."""

BROCK_LIMIT = 0.10
"""Probability by the Brock model from which BTS asks for PET-CT."""

HERDER_LIMITS = (0.10, 0.70)


def bts(nodule: NoduleFacts, patient: PatientFacts) -> GuidelineResult:
    """Class a nodule by the guideline of the British Thoracic Society."""
    return _result(BTS, _bts, nodule, patient)


def nelson(nodule: NoduleFacts, patient: PatientFacts) -> GuidelineResult:
    """Class a nodule by the size classes of the NELSON trial."""
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
    asked = nodule.missing_type()
    if nodule.volume_mm3 is None:
        asked += ask(nodule, "longest_mm")
    if asked:
        raise MissingFactsError(*asked)
    if nodule.status in (Status.GROWING, Status.SLOWLY_GROWING) or nodule.doubling_days:
        return _bts_growing(nodule)
    if nodule.type is not NoduleKind.SOLID:
        return _bts_subsolid(nodule, patient)
    return _bts_solid(nodule, patient)


def _bts_solid(nodule: NoduleFacts, patient: PatientFacts) -> Classed:
    if nodule.smooth_juxtapleural:
        return "perifissural or subpleural, smooth", "No follow-up.", None
    if nodule.volume_mm3 is not None:
        small, large = nodule.volume_mm3 < 80, nodule.volume_mm3 >= 300
        size = "below 80 mm³" if small else "300 mm³ or more" if large else "80 to 300 mm³"
    else:
        longest = nodule.longest_mm or 0
        small, large = longest < 5, longest >= 8
        size = "below 5 mm" if small else "8 mm or more" if large else "6 to 8 mm"
        if 5 <= longest < 6:
            return "solid, 5 to 6 mm", "CT at 12 months.", (12, 12)
    if small:
        return f"solid, {size}", "Discharge.", None
    if large:
        return _bts_large(nodule, patient, size)
    follow_up = "CT at 3 months; if stable, at 12 months, then discharge if stable by volume."
    return f"solid, {size}", follow_up, (3, 3)


def _bts_large(nodule: NoduleFacts, patient: PatientFacts, size: str) -> Classed:
    herder = evaluate(HERDER, nodule, patient)
    if nodule.pet_uptake is not None and herder.probability is not None:
        low, high = HERDER_LIMITS
        chance = herder.probability
        category = f"solid, {size}, Herder {100 * chance:.0f} %"
        if chance < low:
            return category, "CT at 3 months.", (3, 3)
        if chance <= high:
            return category, "Consider image-guided biopsy; excision biopsy or CT.", None
        return category, "Consider excision or non-surgical treatment.", None
    brock = evaluate(PANCAN_2B, nodule, patient)
    if brock.probability is None:
        raise MissingFactsError(*(name for name, label in LABELS.items() if label in brock.missing))
    category = f"solid, {size}, Brock {100 * brock.probability:.0f} %"
    if brock.probability < BROCK_LIMIT:
        return category, "CT at 3 months.", (3, 3)
    return category, "PET-CT, then the risk by the Herder model.", None


def _bts_subsolid(nodule: NoduleFacts, patient: PatientFacts) -> Classed:
    longest = nodule.longest_mm
    if longest is None:
        raise MissingFactsError("longest_mm")
    if longest < 5:
        return f"{nodule.type}, below 5 mm", "No follow-up.", None
    if nodule.status is not Status.STABLE:
        return f"{nodule.type}, 5 mm or more", "CT at 3 months.", (3, 3)
    brock = evaluate(PANCAN_2B, nodule, patient)
    if brock.probability is None:
        raise MissingFactsError(*(name for name, label in LABELS.items() if label in brock.missing))
    category = f"stable {nodule.type}, Brock {100 * brock.probability:.0f} %"
    if brock.probability < BROCK_LIMIT:
        return category, "CT at 1, 2 and 4 years after the first.", (12, 12)
    return category, "Discuss CT surveillance, image-guided biopsy, or treatment.", None


def _bts_growing(nodule: NoduleFacts) -> Classed:
    days = nodule.doubling_days
    if nodule.type is not NoduleKind.SOLID:
        return f"growing {nodule.type}", "Consider resection or non-surgical treatment.", None
    if days is None:
        raise MissingFactsError("doubling_days")
    category = f"growing solid, doubling in {days:.0f} days"
    if days <= FAST_DAYS:
        return category, "Further diagnostic work-up: biopsy, imaging or resection.", None
    if days <= SLOW_DAYS:
        return category, "Consider biopsy or CT surveillance, by the patient's preference.", None
    return category, "Consider discharge or CT surveillance, by the patient's preference.", None


NODCAT = "Category by size alone; growth decides what follows."


def _nelson(nodule: NoduleFacts, _: PatientFacts) -> Classed:
    if nodule.type is NoduleKind.CALCIFIED:
        return "NODCAT 1", "Benign.", None
    if missing := nodule.missing_type():
        raise MissingFactsError(*missing)
    if nodule.type is NoduleKind.PART_SOLID:
        raise NoClassError("NELSON goes by the volume of the solid part, which is not measured.")
    if nodule.type is NoduleKind.NON_SOLID:
        longest, across = diameters(nodule)
        return ("NODCAT 3" if (longest + across) / 2 >= 8 else "NODCAT 2"), NODCAT, None
    if nodule.volume_mm3 is None:
        raise MissingFactsError("volume_mm3")
    passed = (nodule.volume_mm3 >= 50) + (nodule.volume_mm3 > 500)
    return f"NODCAT {2 + passed}", NODCAT, None
