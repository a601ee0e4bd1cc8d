"""Lung-RADS v2022 and Fleischner 2017: every class at its limits, roundings, what is missing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from LungNoduleSegLib.nodules.table import NoduleKind, mean_axial_mm
from LungNoduleSegLib.risk.assessment import assess_examination
from LungNoduleSegLib.risk.clinical_data import parse_facts
from LungNoduleSegLib.risk.facts import (
    LABELS,
    Airway,
    Cyst,
    Incomplete,
    LungRads,
    NoduleFacts,
    PatientFacts,
    PriorCancer,
    Status,
)
from LungNoduleSegLib.risk.growth_rate import DAYS_PER_MONTH
from LungNoduleSegLib.risk.guidelines import bts, fleischner, fleischner_mean_mm, nelson
from LungNoduleSegLib.risk.lung_rads import classify_examination, lung_rads

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
    assert "has no category" in found.not_for
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
    ("previous_mm", "now_mm", "before", "expected"),
    [
        (7.9, 8.1, LungRads.BENIGN, "2"),
        (5.5, 6.5, LungRads.BENIGN, "2"),
        (9.8, 10.1, LungRads.BENIGN, "4A"),
        (10.5, 10.6, LungRads.SUSPICIOUS, "3"),
    ],
)
def test_a_stable_juxtapleural_nodule_has_its_own_limit(
    previous_mm: float, now_mm: float, before: LungRads, expected: str
) -> None:
    facts = {"previous_mean_mm": previous_mm, "previous_category": before}
    found = category(SOLID, Status.STABLE, now_mm, smooth_juxtapleural=True, **facts)
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


@pytest.mark.parametrize(
    ("previous", "now", "before", "expected"),
    [
        ((5.5, 3.0), (6.4, 3.0), LungRads.BENIGN, "3"),
        ((5.5, None), (6.4, 3.0), LungRads.BENIGN, "3"),
        ((13.0, 7.0), (14.0, 8.2), LungRads.PROBABLY_BENIGN, "4B"),
        ((13.0, 7.0), (14.0, 7.4), LungRads.SUSPICIOUS, "3"),
        ((13.0, None), (14.0, 8.2), LungRads.PROBABLY_BENIGN, "2"),
    ],
)
def test_a_part_solid_nodule_crosses_limits_too(
    previous: tuple[float, float | None],
    now: tuple[float, float],
    before: LungRads,
    expected: str,
) -> None:
    facts = {
        "previous_mean_mm": previous[0],
        "previous_solid_mm": previous[1],
        "solid_component_mm": now[1],
        "previous_category": before,
    }
    assert category(PART, Status.STABLE, now[0], **facts) == expected


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
    assert any("applies to screening CT" in note for note in found.notes)
    assert any(LABELS["airway"] in note for note in found.notes)
    entered = nodule(
        SOLID,
        9,
        status=Status.BASELINE,
        airway=Airway.NONE,
        cyst=Cyst.NONE,
        smooth_juxtapleural=False,
        suspicious_features=False,
        infection=False,
    )
    assert not lung_rads(entered, SCREENED).notes


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
    assert mean_axial_mm(longest, across) == tenths
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
    facts = nodule(SOLID, mm, count=count, count_alike=count)
    found = fleischner(facts, PatientFacts(high_risk=risk))
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
    found = fleischner(nodule(kind, mm, count=count, count_alike=count), PatientFacts())
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


# Lung-RADS v2022 by volume, cysts, the examination


@pytest.mark.parametrize(
    ("status", "kind", "mm3", "expected"),
    [
        (Status.BASELINE, SOLID, 112.4, "2"),
        (Status.BASELINE, SOLID, 113, "3"),
        (Status.BASELINE, SOLID, 268, "4A"),
        (Status.BASELINE, SOLID, 1766, "4A"),
        (Status.BASELINE, SOLID, 1767, "4B"),
        (Status.NEW, SOLID, 33, "2"),
        (Status.NEW, SOLID, 34, "3"),
        (Status.NEW, SOLID, 113, "4A"),
        (Status.NEW, SOLID, 268, "4B"),
        (Status.BASELINE, NON, 14136, "2"),
        (Status.BASELINE, NON, 14137, "3"),
    ],
)
def test_lung_rads_by_volume(status: Status, kind: NoduleKind, mm3: float, expected: str) -> None:
    assert lung_rads(NoduleFacts(volume_mm3=mm3, kind=kind, status=status), SCREENED).category == (
        expected
    )


def test_a_contradicting_volume_gives_a_note() -> None:
    one = nodule(SOLID, 7.8, volume_mm3=300.0, status=Status.BASELINE)
    found = lung_rads(one, SCREENED)
    assert found.category == "3"
    assert "By its volume of 300 mm³ the category is 4A." in found.notes
    flat = fleischner(replace(one, volume_mm3=90.0), PatientFacts(high_risk=True))
    assert any("90 mm³" in note for note in flat.notes)
    assert smooth_and_large() == ("2", "4A")


def smooth_and_large() -> tuple[str, str]:
    """A juxtapleural nodule by volume: below 524 mm³, and not."""
    one = NoduleFacts(kind=SOLID, status=Status.BASELINE, smooth_juxtapleural=True)
    small, large = (lung_rads(replace(one, volume_mm3=mm3), SCREENED) for mm3 in (523, 524))
    return small.category, large.category


@pytest.mark.parametrize(
    ("cyst", "status", "expected"),
    [
        (Cyst.THICK_WALLED, Status.BASELINE, "4A"),
        (Cyst.MULTILOCULAR, Status.BASELINE, "4A"),
        (Cyst.BECOMING_MULTILOCULAR, Status.GROWING, "4A"),
        (Cyst.GROWING_CYST, Status.GROWING, "3"),
        (Cyst.GROWING_WALL, Status.GROWING, "4B"),
        (Cyst.GROWING_MULTILOCULAR, Status.GROWING, "4B"),
        (Cyst.MORE_LOCULATION, Status.GROWING, "4B"),
    ],
)
def test_lung_rads_cysts(cyst: Cyst, status: Status, expected: str) -> None:
    assert lung_rads(NoduleFacts(cyst=cyst, status=status), SCREENED).category == expected


def test_a_stable_cyst_steps_down_and_a_growing_one_asks_what_grows() -> None:
    stable = NoduleFacts(cyst=Cyst.MULTILOCULAR, status=Status.STABLE)
    assert lung_rads(stable, SCREENED).missing == (LABELS["previous_category"],)
    known = stable.corrected(previous_category=LungRads.SUSPICIOUS)
    assert lung_rads(known, SCREENED).category == "3"
    growing = stable.corrected(status=Status.GROWING)
    assert "which part of the cyst grows" in lung_rads(growing, SCREENED).not_for


def test_ground_glass_that_doubles_within_a_year_is_4x() -> None:
    one = nodule(NON, 12, status=Status.GROWING, previous_mean_mm=6.0)
    assert lung_rads(one.corrected(months_since_previous=11.0), SCREENED).category == "4X"
    assert lung_rads(one.corrected(months_since_previous=13.0), SCREENED).category == "2"
    for days, expected in ((365, "4X"), (366, "4X"), (367, "2")):
        months = days / DAYS_PER_MONTH
        assert lung_rads(one.corrected(months_since_previous=months), SCREENED).category == expected
        doubling = one.corrected(doubling_days=days + 0.3)
        assert lung_rads(doubling, SCREENED).category == expected
    assert lung_rads(one.corrected(doubling_days=360.0), SCREENED).category == "4X"
    assert lung_rads(one.corrected(doubling_days=370.0), SCREENED).category == "2"
    fast = one.corrected(doubling_days=60.0)
    assert lung_rads(fast.corrected(infection=True), SCREENED).category == "0"
    assert lung_rads(fast.corrected(proven_benign=True), SCREENED).category == "2"


def test_a_nodule_proven_benign_is_of_category_2() -> None:
    assert category(SOLID, Status.STABLE, 20, proven_benign=True) == "2"


def examined(*nodules: NoduleFacts, **facts: Any) -> Any:
    patient = PatientFacts(screening=True, **facts)
    return classify_examination([lung_rads(one, patient) for one in nodules], patient)


def test_what_a_first_ct_would_be_classed_as_is_said_but_not_assumed() -> None:
    results = [lung_rads(nodule(SOLID, mm), SCREENED) for mm in (5, 16)]
    assert [(one.category, one.if_first) for one in results] == [("", "2"), ("", "4B")]
    assert classify_examination(results, SCREENED).if_first == "4B"
    results.append(lung_rads(NoduleFacts(), SCREENED))
    assert not results[-1].if_first
    some = classify_examination(results, SCREENED)
    assert (some.if_first, some.reason) == ("", "at least 4B if this is the first CT")
    for mm, expected in (
        (9, "at least 4A by the nodules with a category; at least 4B if this is the first CT"),
        (16, "at least 4B by the nodules with a category"),
    ):
        known = lung_rads(nodule(SOLID, mm, status=Status.BASELINE), SCREENED)
        assert classify_examination([known, *results], SCREENED).reason == expected


@pytest.mark.parametrize(
    "earlier",
    [
        {"status": Status.NEW},
        {"status": Status.STABLE, "previous_category": "3"},
        {"previous_category": "3"},
        {"previous_mean_mm": 16.0},
        {"months_since_previous": 6.0},
    ],
)
def test_no_ct_with_an_earlier_one_is_taken_as_the_first(earlier: dict[str, Any]) -> None:
    unknown, told = nodule(SOLID, 16), nodule(SOLID, 9, **earlier)
    assert not lung_rads(told, SCREENED).if_first
    for one in assess_examination([unknown, told], SCREENED):
        assert not one.guidelines[0].if_first
    (alone,) = assess_examination([unknown], SCREENED)
    assert alone.guidelines[0].if_first == "4B"
    (compared,) = assess_examination([unknown], SCREENED, compared=True)
    assert not compared.guidelines[0].if_first


def test_an_examination_has_the_category_of_its_most_suspicious_nodule() -> None:
    small, large = (nodule(SOLID, mm, status=Status.BASELINE) for mm in (5, 16))
    assert examined().category == "1"
    assert examined(small).category == "2"
    assert (examined(small, large).category, examined(large, small).months) == ("4B", None)
    infected = large.corrected(infection=True)
    assert examined(small, infected).category == "0"
    assert examined(nodule(SOLID, 9, status=Status.BASELINE), infected).category == "4A"
    unknown = examined(large, nodule(SOLID, 9))
    assert not unknown.category
    assert unknown.missing == (LABELS["status"],)
    assert "at least 4B" in unknown.reason
    assert examined(small, other_finding=True).category == "2S"
    assert "S: " in examined(small, other_finding=True).notes[-1]


def test_only_a_screening_ct_has_a_category_of_lung_rads() -> None:
    results = [lung_rads(nodule(SOLID, 16, status=Status.BASELINE), PatientFacts(screening=False))]
    for found in (results, []):
        by_chance = classify_examination(found, PatientFacts(screening=False, other_finding=True))
        assert (by_chance.category, by_chance.months) == ("", None)
        assert "applies to screening CT" in by_chance.not_for
    assert classify_examination(results, PatientFacts()).category == "4B"
    unknown = classify_examination([], PatientFacts(other_finding=True))
    assert (unknown.category, unknown.missing) == ("", (LABELS["screening"],))
    waiting = PatientFacts(incomplete=Incomplete.NOT_EVALUABLE)
    assert classify_examination([], waiting).category == "0"


@pytest.mark.parametrize("why", [Incomplete.AWAITING_PRIOR, Incomplete.NOT_EVALUABLE])
def test_an_incomplete_examination_is_of_category_0(why: Incomplete) -> None:
    found = examined(nodule(SOLID, 16, status=Status.BASELINE), incomplete=why)
    assert (found.category, found.reason) == ("0", str(why))
    assert "at least 4B" in found.notes[0]
    assert examined(incomplete=Incomplete.NO).category == "1"


@pytest.mark.parametrize(
    ("mm3", "months"),
    [
        (99.4, None),
        (99.6, (6, 12)),
        (100, (6, 12)),
        (250.4, (6, 12)),
        (250.5, (3, 3)),
        (251, (3, 3)),
    ],
)
def test_fleischner_by_volume(mm3: float, months: tuple[int, int] | None) -> None:
    one = NoduleFacts(volume_mm3=mm3, kind=SOLID, count=1)
    assert fleischner(one, PatientFacts(high_risk=False)).months == months


def test_a_volume_is_compared_as_it_is_shown() -> None:
    one = nodule(SOLID, 7, volume_mm3=250.4)
    assert not fleischner(one, PatientFacts(high_risk=True)).notes
    other = fleischner(one.corrected(volume_mm3=250.5), PatientFacts(high_risk=True))
    assert other.notes == ("Its volume of 251 mm³ is in another size class.",)


def test_the_docs_show_a_worked_example_of_every_guideline() -> None:
    """The table of the docs is what the code says: facts as in a file, category, management."""
    page = (Path(__file__).parents[1] / "docs" / "published-models.md").read_text(encoding="utf-8")
    section = page.split("### Worked examples of guidelines")[1].split("## Facts from")[0]
    rows = [line for line in section.splitlines() if "`" in line and line.startswith("|")]
    rules = {"Lung-RADS": lung_rads, "Fleischner": fleischner, "BTS": bts, "NELSON": nelson}
    seen = set()
    for row in rows:
        name, entered, expected, management = (cell.strip() for cell in row.strip("|").split("|"))
        data = parse_facts({"nodules": {"1": json.loads(entered.strip("`"))}}, "docs")
        found = rules[name](NoduleFacts(**data.nodules[1]), PatientFacts(high_risk=True))
        assert (found.category, found.management) == (expected, management)
        seen.add(name)
    assert seen == set(rules)
