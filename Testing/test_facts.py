"""Facts about a nodule from the image and from a reader, and the assessment made of them."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import SimpleITK as sitk

from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG
from LungNoduleSegLib.nodules.table import Nodule, NoduleKind, Side, most_suspicious
from LungNoduleSegLib.risk.assessment import assess, influential_facts, to_text
from LungNoduleSegLib.risk.facts import (
    LABELS,
    NoduleFacts,
    Origin,
    PatientFacts,
    PriorCancer,
    Sex,
    Status,
    Uptake,
    measured_facts,
)
from LungNoduleSegLib.risk.guidelines import fleischner

SMOKER = PatientFacts(
    age=70,
    sex=Sex.MALE,
    family_history=False,
    emphysema=False,
    ever_smoked=True,
    years_since_quitting=0.0,
    prior_cancer=PriorCancer.NONE,
    high_risk=True,
    screening=True,
)


def table_row(z: float, side: Side = Side.LEFT, kind: NoduleKind = NoduleKind.SOLID) -> Nodule:
    return Nodule(
        *(7, 0.0, 0.0, z, 3, 9.5, 7.25, 8.0, 300.0),
        *(20.0, 40.0, -100.0, -30.0, 25.0, 70.0, 90.0),
        *(kind, None, side, 4.0, 0.9, 0.6),
    )


def two_lungs(direction: np.ndarray) -> sitk.Image:
    """Right lung from z = 0 to 200 mm, left lung from 40 to 240 mm, on a grid of any direction."""
    size, spacing = np.array([30, 26, 130]), np.array([4.0, 5.0, 2.5])
    image = sitk.Image(size.tolist(), sitk.sitkUInt8)
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())
    centre = direction @ ((size - 1) / 2 * spacing)
    image.SetOrigin((np.array([0.0, 0.0, 120.0]) - centre).tolist())
    index = np.indices(tuple(size.tolist())).reshape(3, -1)
    world = direction @ (index * spacing[:, None]) + np.array(image.GetOrigin())[:, None]
    labels = np.zeros(index.shape[1], np.uint8)
    labels[(world[0] < 0) & (np.abs(world[2] - 100) <= 100)] = RIGHT_LUNG
    labels[(world[0] >= 0) & (np.abs(world[2] - 140) <= 100)] = LEFT_LUNG
    filled = sitk.GetImageFromArray(labels.reshape(size.tolist()).transpose())
    filled.CopyInformation(image)
    return filled


ANGLE = np.deg2rad(20)
DIRECTIONS = {
    "axial": np.eye(3),
    "head to feet": np.diag([1.0, -1.0, -1.0]),
    "oblique": np.array(
        [
            [1.0, 0.0, 0.0],
            [0.0, np.cos(ANGLE), -np.sin(ANGLE)],
            [0.0, np.sin(ANGLE), np.cos(ANGLE)],
        ]
    ),
}


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize(
    ("side", "z", "guess"),
    [
        (Side.RIGHT, 150, True),
        (Side.RIGHT, 100, None),
        (Side.RIGHT, 50, False),
        (Side.LEFT, 190, True),
        (Side.LEFT, 150, None),
        (Side.LEFT, 90, False),
    ],
)
def test_upper_lobe_is_guessed_from_the_height_in_the_lung(
    name: str, side: Side, z: float, guess: bool | None
) -> None:
    (facts,) = measured_facts([table_row(z, side)], two_lungs(DIRECTIONS[name]))
    assert facts.upper_lobe is guess
    assert facts.origins.get("upper_lobe") is (None if guess is None else Origin.GUESSED)


def test_a_sagittal_grid_is_read_by_its_geometry() -> None:
    lungs = two_lungs(np.eye(3))
    sagittal = sitk.PermuteAxes(lungs, [1, 2, 0])
    rows = [table_row(z, side) for side in Side for z in (50, 100, 150, 190)]
    found = [facts.upper_lobe for facts in measured_facts(rows, sagittal)]
    assert found == [facts.upper_lobe for facts in measured_facts(rows, lungs)]
    assert set(found) == {True, False, None}


def test_fleischner_counts_solid_and_subsolid_nodules_apart() -> None:
    """Table 1 has rows for multiple solid and for multiple subsolid nodules."""
    solid, subsolid = NoduleKind.SOLID, NoduleKind.NON_SOLID
    kinds = (subsolid, solid, solid, NoduleKind.CALCIFIED)
    rows = [replace(table_row(0), id=number, kind=kind) for number, kind in enumerate(kinds, 1)]
    ground_glass, one, *_ = measured_facts(rows)
    low = PatientFacts(high_risk=False)
    assert (ground_glass.count, ground_glass.count_alike, one.count_alike) == (3, 1, 2)
    assert "single non-solid" in fleischner(ground_glass, low).category
    assert "multiple solid" in fleischner(one, low).category
    for corrected in (one.corrected(count=4), one.corrected(kind=subsolid)):
        assert fleischner(corrected, low).missing == (LABELS["count_alike"],)
    assert one.corrected(kind=subsolid).count_alike is None
    assert ground_glass.corrected(kind=NoduleKind.PART_SOLID).count_alike == 1
    assert one.corrected(kind=solid).count_alike == 2, "nothing was corrected"
    entered = one.corrected(kind=subsolid, count_alike=4)
    assert "multiple non-solid" in fleischner(entered, low).category
    assert "single solid" in fleischner(one.corrected(count=1), low).category


def test_a_nodule_that_is_not_part_solid_has_no_measured_solid_component() -> None:
    row = replace(table_row(0, kind=NoduleKind.PART_SOLID), solid_mm=4.0)
    (facts,) = measured_facts([row])
    for kind in set(NoduleKind) - {NoduleKind.PART_SOLID}:
        assert facts.corrected(kind=kind).solid_component_mm is None
        assert facts.corrected(kind=kind, solid_component_mm=3.0).solid_component_mm == 3
    assert facts.corrected(kind=NoduleKind.PART_SOLID).solid_component_mm == 4


def test_measured_facts_and_corrections_are_kept_apart() -> None:
    rows = [table_row(150), table_row(60, kind=NoduleKind.CALCIFIED)]
    facts, _ = measured_facts(rows)
    assert (facts.longest_mm, facts.perpendicular_mm, facts.count) == (9.5, 7.25, 1)
    assert set(facts.origins.values()) == {Origin.MEASURED}
    corrected = facts.corrected(longest_mm=11.0, spiculation=True)
    assert corrected.longest_mm == 11
    assert corrected.origins["longest_mm"] is Origin.GIVEN
    assert corrected.origins["spiculation"] is Origin.GIVEN
    assert corrected.origins["perpendicular_mm"] is Origin.MEASURED
    withdrawn = corrected.corrected(kind=None)
    assert "kind" not in withdrawn.origins
    assert facts.longest_mm == 9.5


GROWN = {"status": Status.GROWING, "doubling_days": 300.0, "previous_mean_mm": 6.0}


def test_a_corrected_size_withdraws_what_the_wrong_outline_measured() -> None:
    (facts,) = measured_facts([replace(table_row(0), volume_mm3=65.0)])
    grown = facts.overridden(Origin.MEASURED, **GROWN)
    patient = PatientFacts(high_risk=True)
    by_outline = assess(grown, patient).guidelines
    assert [one.category[:7] for one in by_outline[2:]] == ["growing", "NODCAT "]
    for size in ({"longest_mm": 16.0, "perpendicular_mm": 14.0}, {"volume_mm3": 1700.0}):
        wrong = grown.corrected(**size)
        assert (wrong.status, wrong.doubling_days) == (None, None)
        assert wrong.volume_mm3 == size.get("volume_mm3")
        assert wrong.previous_mean_mm == 6
    found = assess(grown.corrected(longest_mm=16.0, perpendicular_mm=14.0), patient)
    lung_rads, _, bts, nelson = found.guidelines
    assert lung_rads.missing == (LABELS["status"],)
    assert nelson.missing == (LABELS["volume_mm3"],)
    assert bts.category == "" or "80 mm³" not in bts.category
    told = {"longest_mm": 16.0, "volume_mm3": 1700.0, "status": Status.STABLE}
    kept = grown.corrected(**told)
    assert (kept.volume_mm3, kept.status, kept.doubling_days) == (1700, Status.STABLE, None)
    assert grown.corrected(longest_mm=grown.longest_mm, spiculation=True).doubling_days == 300
    new = facts.overridden(Origin.MEASURED, status=Status.NEW).corrected(longest_mm=12.0)
    assert (new.status, new.volume_mm3) == (Status.NEW, None)
    entered = facts.corrected(status=Status.BASELINE).corrected(longest_mm=12.0)
    assert entered.status is Status.BASELINE


@pytest.mark.parametrize("status", [Status.BASELINE, Status.NEW, Status.STABLE])
def test_an_entered_status_withdraws_the_growth_that_was_measured(status: Status) -> None:
    (facts,) = measured_facts([replace(table_row(0), volume_mm3=250.0)])
    others = (
        "previous_mean_mm",
        "previous_solid_mm",
        "previous_volume_mm3",
        "months_since_previous",
    )
    earlier = GROWN | dict.fromkeys(others, 6.0)
    grown = facts.overridden(Origin.MEASURED, **earlier)
    found = grown.corrected(status=status)
    assert found.doubling_days is None
    kept = status is Status.STABLE
    assert [getattr(found, name) is not None for name in others] == [kept] * 4
    results = assess(found.corrected(previous_category="3"), PatientFacts()).guidelines
    assert not any("growing" in one.category for one in results)
    glass = grown.corrected(kind=NoduleKind.NON_SOLID)
    assert assess(glass, PatientFacts()).guidelines[0].category == "4X"
    corrected = glass.corrected(status=status, previous_category="2")
    assert assess(corrected, PatientFacts()).guidelines[0].category == "2"
    told = grown.corrected(status=status, doubling_days=500.0, previous_mean_mm=7.0)
    assert (told.doubling_days, told.previous_mean_mm) == (500, 7)
    assert grown.corrected(status=Status.GROWING).doubling_days == 300
    confirmed = grown.overridden(Origin.MEASURED, status=status).corrected(status=status)
    assert (confirmed.doubling_days, confirmed.previous_mean_mm) == (300, 6)
    assert grown.corrected(spiculation=True).previous_mean_mm == 6


def test_every_fact_has_a_label() -> None:
    names = {*PatientFacts.__dataclass_fields__, *NoduleFacts.__dataclass_fields__}
    assert set(LABELS) == names - {"id", "origins"}


def test_facts_matter_that_are_missing_or_would_change_a_result() -> None:
    (facts,) = measured_facts([table_row(220)], two_lungs(np.eye(3)))
    nothing_known = influential_facts(assess(facts, PatientFacts()))
    assert {"age", "sex", "status", "spiculation", "high_risk"} <= nothing_known
    known = facts.corrected(spiculation=True, status=Status.BASELINE, pet_uptake=Uptake.FAINT)
    found = assess(known, SMOKER)
    assert found.missing == ()
    matter = influential_facts(found)
    assert {"age", "sex", "longest_mm", "spiculation", "upper_lobe", "status"} <= matter
    assert "previous_category" not in matter


@pytest.mark.parametrize(
    ("rows", "first"),
    [
        ([(6, 0.9, "solid"), (20, 0.8, "solid")], 1),
        ([(6, 0.9, "solid"), (20, 0.1, "solid")], 0),
        ([(6, 0.9, "solid"), (20, 1.0, "calcified")], 0),
        ([(6, 0.9, "solid"), (8, None, "solid")], 1),
    ],
)
def test_the_most_suspicious_nodule_comes_first(
    rows: list[tuple[float, float | None, str]], first: int
) -> None:
    nodules = [
        replace(table_row(0), diameter_mm=size, probability=probability, kind=NoduleKind(kind))
        for size, probability, kind in rows
    ]
    assert most_suspicious(nodules) is nodules[first]
    assert most_suspicious([]) is None


def test_an_assessment_becomes_json_and_text() -> None:
    (facts,) = measured_facts([table_row(220)], two_lungs(np.eye(3)))
    found = assess(facts.corrected(spiculation=True, status=Status.BASELINE), SMOKER)
    assert found.missing == (LABELS["pet_uptake"],)
    found = assess(found.nodule.corrected(pet_uptake=Uptake.FAINT), found.patient)
    read = json.loads(json.dumps(asdict(found)))
    assert read["nodule"]["origins"]["upper_lobe"] == "guessed"
    assert [model["probability"] for model in read["models"]] == [
        result.probability for result in found.models
    ]
    text = to_text(found)
    assert "upper lobe location: yes (guessed)" in text
    assert "longest diameter in mm: 9.5 (measured)" in text
    assert "spiculation: yes (given)" in text
    for result in found.models:
        assert result.probability is not None
        assert f"{100 * result.probability:.1f} %" in text
    assert "4X" in text
    assert not found.missing
