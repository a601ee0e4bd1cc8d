"""Facts from a file, and what growth tells."""

import json
from pathlib import Path
from typing import Any

import pytest

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.risk.assessment import assess_scan, to_text
from LungNoduleSegLib.risk.clinical_data import (
    ClinicalData,
    add_prior_facts,
    prior_facts,
    read_facts,
    read_prior_facts,
)
from LungNoduleSegLib.risk.facts import (
    Airway,
    LungRads,
    NoduleFacts,
    NoduleKind,
    Origin,
    PatientFacts,
    PriorCancer,
    Sex,
    Status,
    fact_text,
)
from LungNoduleSegLib.segmenter import NoduleSegmenter
from test_facts import table_row

TOLD: dict[str, Any] = {
    "age": 64,
    "sex": "Female",
    "emphysema": True,
    "family_history": None,
    "prior_cancer": "extrathoracic-old",
    "nodules": {
        "all": {"status": "baseline", "count": 2},
        "7": {"kind": "part-solid", "solid_component_mm": 4, "airway": "segmental"},
        "8": {"previous_category": "4A", "status": "slowly growing"},
    },
}


def file(folder: Path, entered: object) -> Path:
    path = folder / "facts.json"
    path.write_text(entered if isinstance(entered, str) else json.dumps(entered), encoding="utf-8")
    return path


def test_facts_are_read_in_both_spellings_and_written_back(tmp_path: Path) -> None:
    given = read_facts(file(tmp_path, TOLD))
    assert given.patient == PatientFacts(
        age=64.0, sex=Sex.FEMALE, emphysema=True, prior_cancer=PriorCancer.EXTRATHORACIC_OLD
    )
    assert given.shared == {"status": Status.BASELINE, "count": 2}
    assert given.nodules[7]["airway"] is Airway.SEGMENTAL
    assert given.nodules[8] == {
        "previous_category": LungRads.SUSPICIOUS,
        "status": Status.SLOWLY_GROWING,
    }
    again = tmp_path / "again.json"
    again.write_text(json.dumps(given.to_dict()), encoding="utf-8")
    assert read_facts(again) == given
    assert read_facts(file(tmp_path, {})) == ClinicalData()


def test_facts_come_before_growth_and_growth_before_the_image(tmp_path: Path) -> None:
    given = read_facts(file(tmp_path, TOLD | {"nodules": {"all": {"count": 5}}}))
    growth = prior_facts(
        [
            {
                "current_id": 7,
                "lung_rads_change": "growing",
                "prior_mean_mm": 5.5,
                "prior_solid_mm": None,
                "prior_volume_mm3": 90.0,
                "current_mean_mm": 8.4,
                "change": "grown",
                "days": 365.25,
                "doubling_days": 250.0,
            },
            {
                "current_id": None,
                "lung_rads_change": None,
                "prior_mean_mm": 4,
                "current_mean_mm": None,
            },
        ]
    )
    (found,) = assess_scan([table_row(0)], None, given, growth)
    facts = found.nodule
    assert (facts.status, facts.previous_mean_mm) == (Status.GROWING, 5.5)
    assert facts.previous_volume_mm3 == 90
    assert (facts.months_since_previous, facts.doubling_days) == (12, 250)
    assert (facts.count, facts.origins["count"]) == (5, Origin.GIVEN)
    assert facts.origins["status"] is facts.origins["longest_mm"] is Origin.MEASURED
    assert found.guidelines[0].category == "4B"
    entered = ClinicalData(nodules={7: {"status": Status.NEW}})
    (found,) = assess_scan([table_row(0)], None, entered, growth)
    assert (found.nodule.status, found.nodule.origins["status"]) == (Status.NEW, Origin.GIVEN)


@pytest.mark.parametrize(
    ("days", "doubling", "known"),
    [
        (1, 0.8, {"months_since_previous", "doubling_days"}),
        (45_600, 1e9, {"months_since_previous", "doubling_days"}),
        (46_000, 2e9, set()),  # a wrong date
        (1, 0.0, {"months_since_previous"}),  # rounded in the table
    ],
)
def test_no_interval_between_scans_stops_their_comparison(
    days: int, doubling: float, known: set[str]
) -> None:
    row = {
        "current_id": 7,
        "lung_rads_change": "stable",
        "prior_mean_mm": 8.4,
        "prior_solid_mm": None,
        "prior_volume_mm3": 300.0,
        "current_mean_mm": 8.4,
        "change": "grown",
        "days": days,
        "doubling_days": doubling,
    }
    growth = prior_facts([row])
    assert {"months_since_previous", "doubling_days"} & set(growth[7]) == known
    (found,) = assess_scan([table_row(0)], None, ClinicalData(), growth)
    if days == 1:
        assert found.nodule.months_since_previous == pytest.approx(12 / 365.25)
        assert "months since the previous CT: 0.03 (measured)" in to_text(found)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("volume_mm3", 14137.17, "14137"),
        ("volume_mm3", 1e9, "1000000000"),
        ("volume_mm3", 0.2, "0.2"),
        ("doubling_days", 210.4, "210"),
        ("doubling_days", 400.5, "401"),
        ("volume_mm3", 112.5, "113"),
        ("longest_mm", 4.35, "4.4"),
        ("longest_mm", 9.0, "9"),
        ("longest_mm", 7.26, "7.3"),
        ("months_since_previous", 0.0329, "0.03"),
        ("years_since_quitting", 0.0, "0"),
        ("spiculation", True, "yes"),
        ("status", Status.SLOWLY_GROWING, "slowly growing"),
        ("count", 4, "4"),
    ],
)
def test_facts_in_words(name: str, value: object, text: str) -> None:
    assert fact_text(name, value) == text


def test_growth_of_another_scan_is_refused() -> None:
    facts = [NoduleFacts(id=1, longest_mm=8, perpendicular_mm=6)]
    with pytest.raises(InputError, match="holds no nodule 2"):
        add_prior_facts(facts, {2: {"status": Status.NEW}})
    with pytest.raises(InputError, match="has 7 mm, but 9 mm in the growth table"):
        add_prior_facts(facts, {1: {"status": Status.NEW, "current_mean_mm": 9}})


@pytest.mark.parametrize(
    ("entered", "sentence"),
    [
        ("{", "is not a JSON file"),
        ([1], "holds no JSON object"),
        ('{"age": 60, "age": 80}', "names “age” twice"),
        ({"age": 10**400}, "write a number"),
        ({"nodules": {"1": {"longest_mm": 10**400}}}, "write a number"),
        ({"nodules": {"1": {"count": 10**400}}}, "write a number"),
        ({"nodules": {"1" * 5000: {}}}, "is not a nodule number"),
        ({"nodules": [1]}, "expected an object"),
        ({"agee": 3}, "there is no fact 'agee'; write age, sex"),
        ({"age": "old"}, "age is 'old'; write a number"),
        ({"age": True}, "age is True; write a number"),
        ({"age": 300}, "An age of 300"),
        ({"emphysema": "no"}, "emphysema is 'no'; write true or false"),
        ({"sex": "f"}, "'f' is not a sex; write one of female, male"),
        ({"prior_cancer": "skin"}, "write one of none, extrathoracic-old, extrathoracic-recent"),
        ({"nodules": {"one": {}}}, "'one' is not a nodule number"),
        ({"nodules": {"1": {"age": 3}}}, "there is no fact 'age'"),
        ({"nodules": {"1": {"count": 1.5}}}, "count is 1.5; write a number"),
        ({"nodules": {"1": {"longest_mm": -1}}}, "-1.0 is not a longest diameter"),
        ({"nodules": {"1": {"longest_mm": 1e300}}}, "enter a number up to 1,000"),
        ({"nodules": {"1": {"volume_mm3": 1e308}}}, "enter a number up to 1,000,000,000"),
        ({"nodules": {"1": {"count": 10**9}}}, "enter a number below 65536"),
        ({"nodules": {"all": {"longest_mm": 9}}}, "longest_mm differs from nodule to nodule"),
        ({"nodules": {"all": {"count": 0}}}, "cannot be 0"),
    ],
)
def test_facts_that_cannot_be_used_are_named(
    tmp_path: Path, entered: object, sentence: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_facts(file(tmp_path, entered))
    assert sentence in str(caught.value) and "facts.json" in str(caught.value)


def test_a_table_that_is_none_of_growth_is_named(tmp_path: Path) -> None:
    prior = ("prior_mean_mm", "prior_solid_mm", "prior_volume_mm3")
    names = ("current_id", *prior, "days", "doubling_days")
    header = ",".join((*names, "current_mean_mm", "lung_rads_change", "change"))
    for content in (
        "a,b\n1,2\n",
        "current_id,lung_rads_change,prior_mean_mm\nx,,\n",
        f"{header}\ninf,,,,,,,,grown\n",
    ):
        with pytest.raises(InputError, match="is not a growth table"):
            read_prior_facts(file(tmp_path, content))


def test_a_run_knows_no_numbers_yet(tmp_path: Path) -> None:
    given = ClinicalData(nodules={3: {"kind": NoduleKind.SOLID}})
    with pytest.raises(InputError, match="Clinical data name nodule 3"):
        NoduleSegmenter().run(tmp_path / "scan", tmp_path / "out", clinical_data=given)
    assert not (tmp_path / "out").exists()
