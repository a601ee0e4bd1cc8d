"""Lung-RADS v2022 and Fleischner 2017: every class at its limits, roundings, what is missing."""

from dataclasses import replace
from typing import Any

import pytest

from LungNoduleSegLib.nodules.table import NoduleKind
from LungNoduleSegLib.risk.facts import (
    LABELS,
    Airway,
    LungRads,
    NoduleFacts,
    PatientFacts,
    PriorCancer,
    Status,
)
from LungNoduleSegLib.risk.fleischner import fleischner, fleischner_mean_mm
from LungNoduleSegLib.risk.lung_rads import change_by_lung_rads, lung_rads, lung_rads_mean_mm

SOLID, PART, NON = NoduleKind.SOLID, NoduleKind.PART_SOLID, NoduleKind.NON_SOLID
SCREENED = PatientFacts(screening=True)


def nodule(kind: NoduleKind, mm: float, **facts: Any) -> NoduleFacts:
    usual: dict[str, Any] = {"longest_mm": mm, "perpendicular_mm": mm, "kind": kind, "count": 1}
    return NoduleFacts(**(usual | facts))


def category(kind: NoduleKind, status: Status, mm: float, **facts: Any) -> str:
    return lung_rads(nodule(kind, mm, status=status, **facts), SCREENED).category


@pytest.mark.parametrize(
    ("status", "mm", "expected"),
    [
        (Status.BASELINE, 5.9, "2"),
        (Status.BASELINE, 6, "3"),
        (Status.BASELINE, 7.9, "3"),
        (Status.BASELINE, 8, "4A"),
        (Status.BASELINE, 14.9, "4A"),
        (Status.BASELINE, 15, "4B"),
        (Status.NEW, 3.9, "2"),
        (Status.NEW, 4, "3"),
        (Status.NEW, 5.9, "3"),
        (Status.NEW, 6, "4A"),
        (Status.NEW, 7.9, "4A"),
        (Status.NEW, 8, "4B"),
        (Status.GROWING, 3, "4A"),
        (Status.GROWING, 7.9, "4A"),
        (Status.GROWING, 8, "4B"),
        (Status.SLOWLY_GROWING, 5, "4B"),
    ],
)
def test_lung_rads_solid(status: Status, mm: float, expected: str) -> None:
    assert category(SOLID, status, mm) == expected


@pytest.mark.parametrize(
    ("status", "mm", "solid", "expected"),
    [
        (Status.BASELINE, 5.9, None, "2"),
        (Status.BASELINE, 6, 5.9, "3"),
        (Status.BASELINE, 10, 6, "4A"),
        (Status.BASELINE, 10, 7.9, "4A"),
        (Status.BASELINE, 10, 8, "4B"),
        (Status.NEW, 5.9, None, "3"),
        (Status.NEW, 6, 3.9, "4A"),
        (Status.NEW, 6, 4, "4B"),
        (Status.GROWING, 10, 3.9, "4A"),
        (Status.GROWING, 10, 4, "4B"),
        (Status.SLOWLY_GROWING, 10, None, "4B"),
    ],
)
def test_lung_rads_part_solid(
    status: Status, mm: float, solid: float | None, expected: str
) -> None:
    assert category(PART, status, mm, solid_component_mm=solid) == expected


@pytest.mark.parametrize(
    ("status", "mm", "expected"),
    [
        (Status.BASELINE, 29.9, "2"),
        (Status.NEW, 29.9, "2"),
        (Status.GROWING, 29.9, "2"),
        (Status.BASELINE, 30, "3"),
        (Status.NEW, 30, "3"),
        (Status.STABLE, 30, "2"),
        (Status.SLOWLY_GROWING, 30, "2"),
    ],
)
def test_lung_rads_non_solid(status: Status, mm: float, expected: str) -> None:
    assert category(NON, status, mm) == expected


@pytest.mark.parametrize(
    ("airway", "status", "expected"),
    [
        (Airway.SUBSEGMENTAL, Status.BASELINE, "2"),
        (Airway.SUBSEGMENTAL, Status.NEW, "2"),
        (Airway.SUBSEGMENTAL, Status.STABLE, "2"),
        (Airway.SEGMENTAL, Status.BASELINE, "4A"),
        (Airway.SEGMENTAL, Status.NEW, "4A"),
        (Airway.SEGMENTAL, Status.STABLE, "4B"),
        (Airway.SEGMENTAL, Status.GROWING, "4B"),
    ],
)
def test_lung_rads_airway(airway: Airway, status: Status, expected: str) -> None:
    """The size does not count: it need not even be known."""
    facts = NoduleFacts(airway=airway, status=status)
    assert lung_rads(facts, SCREENED).category == expected


@pytest.mark.parametrize(
    "facts",
    [
        NoduleFacts(airway=Airway.SUBSEGMENTAL, status=Status.GROWING),
        nodule(NON, 30, status=Status.GROWING),
    ],
)
def test_what_the_table_leaves_open_gets_no_category(facts: NoduleFacts) -> None:
    found = lung_rads(facts, SCREENED)
    assert "names no class" in found.not_for
    assert not found.category
    assert not found.missing


@pytest.mark.parametrize(
    ("kind", "status", "mm", "expected"),
    [
        (SOLID, Status.BASELINE, 9.9, "2"),
        (SOLID, Status.NEW, 9.9, "2"),
        (SOLID, Status.BASELINE, 10, "4A"),
        (SOLID, Status.GROWING, 9.9, "4B"),
        (PART, Status.BASELINE, 9.9, "3"),
    ],
)
def test_lung_rads_juxtapleural(kind: NoduleKind, status: Status, mm: float, expected: str) -> None:
    found = category(kind, status, mm, smooth_juxtapleural=True, solid_component_mm=3.0)
    assert found == expected


@pytest.mark.parametrize(
    ("before", "expected"),
    [("1", "2"), ("2", "2"), ("3", "2"), ("4A", "3"), ("4B", "4B"), ("4X", "4X")],
)
@pytest.mark.parametrize("kind", [SOLID, PART])
def test_lung_rads_steps_down_when_stable(kind: NoduleKind, before: str, expected: str) -> None:
    assert category(kind, Status.STABLE, 10, previous_category=LungRads(before)) == expected


@pytest.mark.parametrize(
    ("previous_mm", "now_mm", "before", "expected"),
    [
        (5.5, 6.5, LungRads.BENIGN, "3"),
        (7.0, 8.1, LungRads.PROBABLY_BENIGN, "4A"),
        (6.2, 6.9, LungRads.PROBABLY_BENIGN, "2"),
        (8.2, 7.8, LungRads.SUSPICIOUS, "3"),
        (7.8, 8.2, LungRads.VERY_SUSPICIOUS, "4B"),
    ],
)
def test_a_crossed_size_limit_counts_without_growth(
    previous_mm: float, now_mm: float, before: LungRads, expected: str
) -> None:
    facts = {"previous_mean_mm": previous_mm, "previous_category": before}
    assert category(SOLID, Status.STABLE, now_mm, **facts) == expected


@pytest.mark.parametrize("mm", [7, 10, 20])
def test_suspicious_features_raise_to_4x(mm: float) -> None:
    assert category(SOLID, Status.BASELINE, mm, spiculation=True) == "4X"
    assert category(SOLID, Status.BASELINE, mm, suspicious_features=True) == "4X"


def test_suspicious_features_leave_category_2() -> None:
    assert category(SOLID, Status.BASELINE, 5, spiculation=True) == "2"


def test_benign_patterns_and_infection_come_first() -> None:
    assert category(SOLID, Status.BASELINE, 20, benign_pattern=True) == "1"
    assert category(SOLID, Status.NEW, 20, infection=True) == "0"
    calcified = NoduleKind.CALCIFIED
    assert category(calcified, Status.BASELINE, 20, benign_pattern=True) == "1"
    assert category(calcified, Status.BASELINE, 20, benign_pattern=False) == "4B"
    asked = lung_rads(nodule(calcified, 20, status=Status.BASELINE), SCREENED)
    assert asked.missing == (LABELS["benign_pattern"],)


@pytest.mark.parametrize(
    ("facts", "missing"),
    [
        (NoduleFacts(), ("status", "longest_mm", "perpendicular_mm", "kind")),
        (nodule(SOLID, 9), ("status",)),
        (nodule(PART, 9, status=Status.BASELINE), ("solid_component_mm",)),
        (nodule(PART, 9, status=Status.GROWING), ("solid_component_mm",)),
        (nodule(SOLID, 9, status=Status.STABLE), ("previous_category",)),
        (
            nodule(SOLID, 9, status=Status.STABLE, previous_category=LungRads.INCOMPLETE),
            ("previous_category",),
        ),
    ],
)
def test_lung_rads_names_what_is_missing(facts: NoduleFacts, missing: tuple[str, ...]) -> None:
    found = lung_rads(facts, SCREENED)
    assert found.missing == tuple(LABELS[name] for name in missing)
    assert not found.category
    assert not found.management


def test_lung_rads_intervals_and_notes() -> None:
    def months(mm: float) -> tuple[int, int] | None:
        return lung_rads(nodule(SOLID, mm, status=Status.BASELINE), SCREENED).months

    assert [months(mm) for mm in (5, 7, 9, 16)] == [(12, 12), (6, 6), (3, 3), None]
    found = lung_rads(nodule(SOLID, 9, status=Status.BASELINE), PatientFacts(screening=False))
    assert any("another reason" in note for note in found.notes)
    assert any(LABELS["airway"] in note for note in found.notes)
    told = nodule(
        SOLID,
        9,
        status=Status.BASELINE,
        airway=Airway.NONE,
        smooth_juxtapleural=False,
        suspicious_features=False,
        infection=False,
    )
    assert not lung_rads(told, SCREENED).notes


@pytest.mark.parametrize(
    ("before", "now", "months", "expected"),
    [
        (7.0, 8.5, 12, Status.STABLE),
        (7.0, 8.6, 12, Status.GROWING),
        (7.0, 6.0, 12, Status.STABLE),
        (7.0, 8.6, 13, None),
        (7.0, 8.5, 24, Status.STABLE),
    ],
)
def test_growth_by_lung_rads(
    before: float, now: float, months: float, expected: Status | None
) -> None:
    assert change_by_lung_rads(before, now, months) is expected


@pytest.mark.parametrize(
    ("longest", "across", "tenths", "whole"),
    [
        (6.1, 5.8, 6.0, 6),
        (6.0, 5.9, 6.0, 6),
        (5.94, 5.94, 5.9, 6),
        (5.46, 5.46, 5.5, 5),
        (6.0, 5.0, 5.5, 6),
        (9.0, 8.0, 8.5, 9),
        (8.9, 8.0, 8.5, 8),
    ],
)
def test_means_are_rounded_as_each_guideline_says(
    longest: float, across: float, tenths: float, whole: float
) -> None:
    assert lung_rads_mean_mm(longest, across) == tenths
    assert fleischner_mean_mm(longest, across) == whole


# Fleischner 2017, table 1

NO_FOLLOW_UP = "No routine follow-up."
LOW, HIGH = False, True


@pytest.mark.parametrize(
    ("count", "mm", "risk", "months", "words"),
    [
        (1, 5.4, LOW, None, NO_FOLLOW_UP),
        (1, 5.4, HIGH, (12, 12), "Optional CT at 12 months."),
        (1, 5.5, LOW, (6, 12), "6 to 12 months, then consider CT at 18 to 24 months"),
        (1, 8.4, HIGH, (6, 12), "6 to 12 months, then at 18 to 24 months"),
        (1, 8.5, LOW, (3, 3), "CT at 3 months, PET/CT or tissue sampling"),
        (1, 8.5, HIGH, (3, 3), "CT at 3 months, PET/CT or tissue sampling"),
        (2, 5.4, LOW, None, NO_FOLLOW_UP),
        (2, 5.4, HIGH, (12, 12), "Optional CT at 12 months."),
        (2, 6, LOW, (3, 6), "3 to 6 months, then consider CT at 18 to 24 months"),
        (2, 6, HIGH, (3, 6), "3 to 6 months, then at 18 to 24 months"),
        (2, 20, LOW, (3, 6), "3 to 6 months, then consider CT at 18 to 24 months"),
        (2, 20, HIGH, (3, 6), "most suspicious"),
    ],
)
def test_fleischner_solid(
    count: int, mm: float, risk: bool, months: tuple[int, int] | None, words: str
) -> None:
    found = fleischner(nodule(SOLID, mm, count=count), PatientFacts(high_risk=risk))
    assert found.months == months
    assert words in found.management
    assert ("high risk" if risk else "low risk") in found.category


@pytest.mark.parametrize(
    ("kind", "count", "mm", "months", "words"),
    [
        (NON, 1, 5.4, None, NO_FOLLOW_UP),
        (NON, 1, 6, (6, 12), "every 2 years until 5 years"),
        (PART, 1, 5.4, None, NO_FOLLOW_UP),
        (PART, 1, 6, (3, 6), "annual CT for 5 years"),
        (NON, 2, 5.4, (3, 6), "at 2 and 4 years"),
        (PART, 2, 5.4, (3, 6), "at 2 and 4 years"),
        (NON, 2, 6, (3, 6), "most suspicious"),
        (PART, 2, 6, (3, 6), "most suspicious"),
    ],
)
def test_fleischner_subsolid_does_not_ask_for_the_risk(
    kind: NoduleKind, count: int, mm: float, months: tuple[int, int] | None, words: str
) -> None:
    found = fleischner(nodule(kind, mm, count=count), PatientFacts())
    assert found.months == months
    assert words in found.management


def test_fleischner_solid_component() -> None:
    small = fleischner(nodule(PART, 12, solid_component_mm=5.4), PatientFacts())
    large = fleischner(nodule(PART, 12, solid_component_mm=5.5), PatientFacts())
    assert "annual CT" in small.management
    assert "biopsy" not in small.management
    assert "biopsy" in large.management


def test_fleischner_names_what_is_missing() -> None:
    empty = fleischner(NoduleFacts(), PatientFacts())
    assert empty.missing == tuple(
        LABELS[name] for name in ("longest_mm", "perpendicular_mm", "count", "kind")
    )
    assert fleischner(nodule(SOLID, 7), PatientFacts()).missing == (LABELS["high_risk"],)
    calcified = nodule(NoduleKind.CALCIFIED, 7, benign_pattern=True)
    assert "benign pattern" in fleischner(calcified, PatientFacts()).not_for


@pytest.mark.parametrize(
    ("person", "words"),
    [
        ({"age": 34}, "35 years"),
        ({"prior_cancer": PriorCancer.EXTRATHORACIC_RECENT}, "known cancer"),
        ({"immunosuppressed": True}, "immunosuppression"),
        ({"screening": True}, "Lung-RADS"),
    ],
)
def test_fleischner_outside_its_range(person: dict[str, Any], words: str) -> None:
    found = fleischner(nodule(NON, 7), replace(PatientFacts(age=60), **person))
    assert any(words in note for note in found.notes)
    assert not fleischner(nodule(NON, 7), PatientFacts(age=60, screening=False)).notes
