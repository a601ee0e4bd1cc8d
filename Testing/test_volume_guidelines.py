"""BTS 2015 and NELSON: every class at its limits, as volumes are shown, and what is missing."""

from typing import Any

import pytest

from LungNoduleSegLib.nodules.table import NoduleKind
from LungNoduleSegLib.risk.facts import (
    LABELS,
    NoduleFacts,
    PatientFacts,
    PriorCancer,
    Sex,
    Status,
    Uptake,
)
from LungNoduleSegLib.risk.guidelines import bts, fleischner, nelson

SOLID, PART, NON = NoduleKind.SOLID, NoduleKind.PART_SOLID, NoduleKind.NON_SOLID
WOMAN = PatientFacts(
    age=65,
    sex=Sex.FEMALE,
    family_history=False,
    emphysema=False,
    ever_smoked=True,
    prior_cancer=PriorCancer.NONE,
)
KNOWN: dict[str, Any] = {"count": 1, "upper_lobe": True, "spiculation": False}


@pytest.mark.parametrize(
    ("facts", "words", "months"),
    [
        ({"kind": SOLID, "volume_mm3": 79.4}, "Discharge", None),
        ({"kind": SOLID, "volume_mm3": 79.6}, "CT at 3 months", (3, 3)),
        ({"kind": SOLID, "longest_mm": 4.9}, "Discharge", None),
        ({"kind": SOLID, "longest_mm": 4.96}, "CT at 12 months", (12, 12)),
        ({"kind": SOLID, "longest_mm": 5.9}, "CT at 12 months", (12, 12)),
        ({"kind": SOLID, "longest_mm": 6.0}, "CT at 3 months", (3, 3)),
        ({"kind": SOLID, "volume_mm3": 80}, "CT at 3 months", (3, 3)),
        ({"kind": SOLID, "volume_mm3": 299.4}, "CT at 3 months; if stable", (3, 3)),
        ({"kind": SOLID, "volume_mm3": 299.6, "longest_mm": 15.0}, "PET-CT", None),
        ({"kind": SOLID, "volume_mm3": 300, "longest_mm": 8.0}, "CT at 3 months.", (3, 3)),
        ({"kind": SOLID, "longest_mm": 15.0}, "PET-CT", None),
        ({"kind": SOLID, "longest_mm": 15.0, "pet_uptake": Uptake.NONE}, "CT at 3 months", (3, 3)),
        ({"kind": SOLID, "longest_mm": 15.0, "pet_uptake": Uptake.FAINT}, "biopsy", None),
        ({"kind": SOLID, "longest_mm": 28.0, "pet_uptake": Uptake.INTENSE}, "excision or", None),
        ({"kind": SOLID, "longest_mm": 9.9, "smooth_juxtapleural": True}, "No follow-up", None),
        ({"kind": SOLID, "longest_mm": 10.0, "smooth_juxtapleural": True}, "PET-CT", None),
        ({"kind": SOLID, "longest_mm": 9.0, "benign_pattern": True}, "No follow-up", None),
        ({"kind": NON, "longest_mm": 4.9}, "No follow-up", None),
        ({"kind": PART, "longest_mm": 5.0}, "CT at 3 months", (3, 3)),
        ({"kind": NON, "longest_mm": 6.0, "status": Status.STABLE}, "1, 2 and 4 years", (12, 12)),
        ({"kind": PART, "longest_mm": 20.0, "status": Status.STABLE}, "Discuss", None),
        ({"kind": PART, "longest_mm": 20.0, "status": Status.GROWING}, "resection", None),
        ({"kind": SOLID, "longest_mm": 9.0, "doubling_days": 400.0}, "work-up", None),
        ({"kind": SOLID, "longest_mm": 9.0, "doubling_days": 400.4}, "work-up", None),
        ({"kind": SOLID, "longest_mm": 9.0, "doubling_days": 400.5}, "biopsy or CT", None),
        ({"kind": SOLID, "longest_mm": 9.0, "doubling_days": 600.4}, "biopsy or CT", None),
        ({"kind": SOLID, "longest_mm": 9.0, "doubling_days": 601.0}, "discharge", None),
    ],
)
def test_bts(facts: dict[str, Any], words: str, months: tuple[int, int] | None) -> None:
    found = bts(NoduleFacts(**(KNOWN | facts)), WOMAN)
    assert words in found.management
    assert found.months == months


STABLE: dict[str, Any] = {"kind": SOLID, "status": Status.STABLE}


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"volume_mm3": 150, "previous_volume_mm3": 140, "months_since_previous": 12}, "Discharge"),
        (
            {"volume_mm3": 150, "previous_volume_mm3": 140, "months_since_previous": 11.9},
            "CT at 12 months after the previous one, then discharge if stable by volume.",
        ),
        ({"volume_mm3": 174, "previous_volume_mm3": 140, "months_since_previous": 24}, "Discharge"),
        ({"volume_mm3": 150, "months_since_previous": 3}, "CT at 12 months"),
        (
            {"volume_mm3": 150, "months_since_previous": 12},
            "CT at 24 months after the previous one, then discharge if stable by diameter.",
        ),
        ({"volume_mm3": 150, "months_since_previous": 24}, "Discharge"),
        ({"longest_mm": 5.5, "months_since_previous": 13}, "CT at 24 months"),
        ({"longest_mm": 5.5, "months_since_previous": 24}, "Discharge"),
        (
            {
                "longest_mm": 9.0,
                "volume_mm3": 310,
                "previous_volume_mm3": 300,
                "months_since_previous": 12,
            },
            "Discharge",
        ),
        (
            {
                "longest_mm": 15.0,
                "volume_mm3": 1700,
                "previous_volume_mm3": 1700,
                "months_since_previous": 36,
            },
            "PET-CT",
        ),
    ],
)
def test_a_stable_solid_nodule_is_discharged_by_bts_after_a_year_or_two(
    facts: dict[str, Any], words: str
) -> None:
    found = bts(NoduleFacts(**(KNOWN | STABLE | facts)), WOMAN)
    assert words in found.management
    assert found.category.startswith("stable solid, ")


def test_bts_asks_how_long_a_nodule_is_stable() -> None:
    found = bts(NoduleFacts(volume_mm3=150, **(KNOWN | STABLE)), WOMAN)
    assert found.missing == (LABELS["months_since_previous"],)


@pytest.mark.parametrize("size", [{"volume_mm3": 60.0}, {"longest_mm": 4.0}])
def test_a_new_small_nodule_is_not_discharged_by_bts(size: dict[str, float]) -> None:
    facts: dict[str, Any] = {**KNOWN, "kind": SOLID, **size}
    found = bts(NoduleFacts(**facts, status=Status.NEW), WOMAN)
    assert found.management == "Follow-up by CT, as it is new."
    for status in (None, Status.BASELINE, Status.STABLE):
        assert bts(NoduleFacts(**facts, status=status), WOMAN).management == "Discharge."


def test_a_nodule_proven_benign_needs_nothing_by_any_guideline() -> None:
    facts: dict[str, Any] = {"kind": SOLID, "longest_mm": 12, "volume_mm3": 800, **KNOWN}
    proven = NoduleFacts(**facts, perpendicular_mm=11, proven_benign=True)
    found = bts(proven, WOMAN)
    assert (found.category, found.management) == ("proven benign by a work-up", "No follow-up.")
    for rule in (fleischner, nelson):
        assert rule(proven, WOMAN).not_for == "The nodule is proven benign by a work-up."


@pytest.mark.parametrize(
    ("mm", "shown", "months"),
    [
        (9.2, "9 %", (3, 3)),
        (9.4, "9.7 %", (3, 3)),
        (9.53, "9.99 %", (3, 3)),
        (9.54, "10.02 %", None),
        (9.65, "10.3 %", None),
        (15, "25 %", None),
    ],
)
def test_a_probability_near_a_limit_is_shown_on_its_side(
    mm: float, shown: str, months: tuple[int, int] | None
) -> None:
    found = bts(NoduleFacts(kind=SOLID, longest_mm=mm, **KNOWN), WOMAN)
    assert found.category == f"solid, 8 mm or more, Brock {shown}"
    assert found.months == months


def test_bts_asks_for_what_its_models_need() -> None:
    large = NoduleFacts(kind=SOLID, longest_mm=12, **KNOWN)
    assert LABELS["age"] in bts(large, PatientFacts()).missing
    assert bts(NoduleFacts(), WOMAN).missing == (LABELS["kind"], LABELS["longest_mm"])
    growing = large.corrected(status=Status.GROWING)
    assert bts(growing, WOMAN).missing == (LABELS["doubling_days"],)
    smooth = NoduleFacts(kind=SOLID, volume_mm3=200, smooth_juxtapleural=True)
    assert bts(smooth, WOMAN).missing == (LABELS["longest_mm"],)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"kind": SOLID, "volume_mm3": 49.4}, "NODCAT 2"),
        ({"kind": SOLID, "volume_mm3": 49.6}, "NODCAT 3"),
        ({"kind": SOLID, "volume_mm3": 500.4}, "NODCAT 3"),
        ({"kind": SOLID, "volume_mm3": 500.5}, "NODCAT 4"),
        ({"kind": SOLID, "volume_mm3": 49}, "NODCAT 2"),
        ({"kind": SOLID, "volume_mm3": 50}, "NODCAT 3"),
        ({"kind": SOLID, "volume_mm3": 500}, "NODCAT 3"),
        ({"kind": SOLID, "volume_mm3": 501}, "NODCAT 4"),
        ({"kind": SOLID, "benign_pattern": True}, "NODCAT 1"),
        ({"kind": NON, "longest_mm": 8.0, "perpendicular_mm": 8.0}, "NODCAT 3"),
        ({"kind": NON, "longest_mm": 8.0, "perpendicular_mm": 7.0}, "NODCAT 2"),
        ({"kind": NON, "longest_mm": 7.96, "perpendicular_mm": 7.96}, "NODCAT 3"),
    ],
)
def test_nelson(facts: dict[str, Any], expected: str) -> None:
    assert nelson(NoduleFacts(**facts), PatientFacts()).category == expected


def test_nelson_has_no_class_for_a_nodule_at_the_pleura() -> None:
    facts: dict[str, Any] = {"volume_mm3": 90.0, "smooth_juxtapleural": True}
    found = nelson(NoduleFacts(kind=SOLID, **facts), PatientFacts())
    assert "smallest diameter, which is not measured" in found.not_for
    assert not found.category
    benign = NoduleFacts(kind=SOLID, benign_pattern=True, **facts)
    assert nelson(benign, PatientFacts()).category == "NODCAT 1"


def test_growth_by_lung_rads_that_the_volume_denies_is_classed_by_size() -> None:
    facts = {**KNOWN, "kind": SOLID, "status": Status.GROWING, "months_since_previous": 4}
    for now, before, expected in (
        (150, 140, ("solid, 80 to 300 mm³", "CT at 3 months; if stable, at 12 months, then")),
        (70, 70, ("solid, below 80 mm³", "Follow-up by CT, as it is growing.")),
        (175, 140, ("", "")),
    ):
        found = bts(NoduleFacts(volume_mm3=now, previous_volume_mm3=before, **facts), WOMAN)
        assert found.category == expected[0]
        assert found.management.startswith(expected[1])
        assert bool(found.missing) == (not found.category)


@pytest.mark.parametrize(
    ("before", "category", "management"),
    [(141, "stable solid", "Discharge."), (140, "solid", "CT at 3 months; if stable, at 12")],
)
def test_a_volume_that_rose_by_a_quarter_is_not_called_stable(
    before: float, category: str, management: str
) -> None:
    facts = {"volume_mm3": 175, "previous_volume_mm3": before, "months_since_previous": 36}
    found = bts(NoduleFacts(**(KNOWN | STABLE | facts)), WOMAN)
    assert found.category == f"{category}, 80 to 300 mm³"
    assert found.management.startswith(management)


@pytest.mark.parametrize(("before", "growing"), [(61, False), (60, True)])
def test_a_small_nodule_is_not_discharged_if_its_volume_rose_by_a_quarter(
    before: float, growing: bool
) -> None:
    facts = {"volume_mm3": 75, "previous_volume_mm3": before, "months_since_previous": 36}
    found = bts(NoduleFacts(**(KNOWN | STABLE | facts)), WOMAN)
    assert found.management == ("Follow-up by CT, as it is growing." if growing else "Discharge.")
