"""PanCan and Mayo models: worked examples of others, arithmetic by another way, what is missing."""

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from CTLungScreeningLib.errors import InputError
from docs_scripts import script_of
from LungNoduleSegLib.nodules.table import NoduleKind
from LungNoduleSegLib.risk.assessment import assess
from LungNoduleSegLib.risk.facts import (
    LABELS,
    NoduleFacts,
    PatientFacts,
    PriorCancer,
    Sex,
    Status,
    Uptake,
)
from LungNoduleSegLib.risk.published_models import (
    HERDER,
    MAYO,
    MODELS,
    PANCAN_1A,
    PANCAN_1B,
    PANCAN_2A,
    PANCAN_2B,
    VA,
    Model,
    ModelResult,
    evaluate,
)


def nodule(mm: float, **facts: Any) -> NoduleFacts:
    usual: dict[str, Any] = {
        "kind": NoduleKind.SOLID,
        "count": 1,
        "upper_lobe": False,
        "spiculation": False,
        "pet_uptake": Uptake.NONE,
    }
    return NoduleFacts(longest_mm=mm, **(usual | facts))


def patient(age: float, **facts: Any) -> PatientFacts:
    usual: dict[str, Any] = {
        "sex": Sex.MALE,
        "family_history": False,
        "emphysema": False,
        "ever_smoked": False,
        "years_since_quitting": 0.0,
        "prior_cancer": PriorCancer.NONE,
    }
    return PatientFacts(age=age, **(usual | facts))


def probability(model: Model, lesion: NoduleFacts, person: PatientFacts) -> float:
    found = evaluate(model, lesion, person).probability
    assert found is not None
    return found


OLD_CANCER = PriorCancer.EXTRATHORACIC_OLD
PART_SOLID = NoduleKind.PART_SOLID

# Worked examples as their source prints them, with the digits it prints; docs/published-models.md
# names the sources.
EXAMPLES = {
    "Swensen table 3": (MAYO, nodule(20), patient(55), "0.11"),
    "lungnodules, Mayo 1": (
        MAYO,
        nodule(16, spiculation=True, upper_lobe=True),
        patient(65, ever_smoked=True, prior_cancer=OLD_CANCER),
        "0.8465",
    ),
    "lungnodules, Mayo 2": (
        MAYO,
        nodule(10, upper_lobe=True),
        patient(60, ever_smoked=True),
        "0.1636",
    ),
    "lungnodules, Mayo 3": (
        MAYO,
        nodule(18, spiculation=True, upper_lobe=True),
        patient(72, sex=Sex.FEMALE, ever_smoked=True, prior_cancer=OLD_CANCER),
        "0.9035",
    ),
    "lungnodules, Mayo 4": (
        MAYO,
        nodule(7, upper_lobe=True),
        patient(74, ever_smoked=True),
        "0.187",
    ),
    "sophiewell, Mayo 1": (
        MAYO,
        nodule(12, spiculation=True, upper_lobe=True),
        patient(51, ever_smoked=True),
        "0.334",
    ),
    "sophiewell, Mayo 2": (MAYO, nodule(6), patient(45), "0.013"),
    "lungnodules, 2b 1": (
        PANCAN_2B,
        nodule(10, kind=PART_SOLID, count=3, spiculation=True, upper_lobe=True),
        patient(70, sex=Sex.FEMALE, family_history=True, emphysema=True),
        "0.4141",
    ),
    "lungnodules, 2b 2": (
        PANCAN_2B,
        nodule(15, upper_lobe=True),
        patient(65, sex=Sex.FEMALE),
        "0.2537",
    ),
    "sophiewell, 2b 1": (
        PANCAN_2B,
        nodule(15, count=2, spiculation=True, upper_lobe=True),
        patient(65, sex=Sex.FEMALE, emphysema=True),
        "0.477",
    ),
    "sophiewell, 2b 2": (PANCAN_2B, nodule(5), patient(55), "0.003"),
    "lungnodules, 2a": (
        PANCAN_2A,
        nodule(15, upper_lobe=True, spiculation=None),
        patient(65, sex=Sex.FEMALE),
        "0.2974",
    ),
    "computed, 1a": (
        PANCAN_1A,
        nodule(15, upper_lobe=True, spiculation=None),
        patient(65, sex=Sex.FEMALE),
        "0.2919",
    ),
    "computed, 1b": (
        PANCAN_1B,
        nodule(15, upper_lobe=True),
        patient(65, sex=Sex.FEMALE),
        "0.2460",
    ),
    "computed, Herder": (
        HERDER,
        nodule(7, upper_lobe=True, pet_uptake=Uptake.INTENSE),
        patient(74, ever_smoked=True),
        "0.6735",
    ),
    "computed, VA": (
        VA,
        nodule(20),
        patient(70, ever_smoked=True, years_since_quitting=10),
        "0.6863",
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_examples_of_others(name: str) -> None:
    model, lesion, person, printed = EXAMPLES[name]
    digits = len(printed.partition(".")[2])
    assert f"{probability(model, lesion, person):.{digits}f}" == printed


def test_every_model_has_examples_to_the_third_decimal_and_the_docs_show_them() -> None:
    docs = (Path(__file__).parents[1] / "docs" / "published-models.md").read_text(encoding="utf-8")
    exact = {model.name for model, _, _, printed in EXAMPLES.values() if len(printed) >= 5}
    assert exact == {model.name for model in MODELS}
    for model, lesion, person, printed in EXAMPLES.values():
        assert f"| {printed} | {probability(model, lesion, person):.4f} |" in docs


@given(
    age=st.integers(40, 90),
    mm=st.floats(1, 40),
    count=st.integers(1, 12),
    flags=st.tuples(*[st.booleans()] * 5),
    kind=st.sampled_from([NoduleKind.SOLID, PART_SOLID, NoduleKind.NON_SOLID]),
)
def test_pancan_2b_as_the_uncentred_equation_of_another_paper(
    age: int, mm: float, count: int, flags: tuple[bool, ...], kind: NoduleKind
) -> None:
    """Eur Radiol 2019;29:5367, table 2, prints the model with its centring worked out."""
    female, family, emphysema, upper, spiculated = flags
    x = (
        0.2761
        + 0.0287 * age
        + 0.6011 * female
        + 0.2961 * family
        + 0.2953 * emphysema
        + 0.6581 * upper
        - 5.3854 / math.sqrt(mm / 10)
        + 0.7729 * spiculated
        + {"solid": 0, "part-solid": 0.377, "non-solid": -0.1276}[kind]
        - 0.0824 * count
    )
    lesion = nodule(mm, kind=kind, count=count, upper_lobe=upper, spiculation=spiculated)
    person = patient(
        age,
        sex=Sex.FEMALE if female else Sex.MALE,
        family_history=family,
        emphysema=emphysema,
    )
    expected = math.exp(x) / (1 + math.exp(x))
    assert probability(PANCAN_2B, lesion, person) == pytest.approx(expected, abs=2e-5)


def test_pancan_at_the_centre_is_the_constant_alone() -> None:
    """A man of 62 with four nodules, this one solid, 4 mm and low: every term is zero."""
    lesion = nodule(4, count=4)
    assert probability(PANCAN_2A, lesion, patient(62)) == pytest.approx(0.001104698, rel=1e-4)
    assert probability(PANCAN_2B, lesion, patient(62)) == pytest.approx(0.001124626, rel=1e-4)


# Odds ratios: what one finding multiplies the odds by, from exp() of the printed coefficients.
ODDS_RATIOS = [
    (PANCAN_2A, "patient", {"sex": Sex.FEMALE}, 1.7568),
    (PANCAN_2A, "patient", {"family_history": True}, 1.3516),
    (PANCAN_2A, "patient", {"emphysema": True}, 1.4137),
    (PANCAN_2A, "nodule", {"upper_lobe": True}, 2.0372),
    (PANCAN_2A, "nodule", {"kind": PART_SOLID}, 1.4042),
    (PANCAN_2A, "nodule", {"kind": NoduleKind.NON_SOLID}, 0.7404),
    (PANCAN_2A, "nodule", {"count": 2}, 0.9228),
    (PANCAN_2A, "patient", {"age": 61}, 1.0326),
    (PANCAN_2B, "patient", {"sex": Sex.FEMALE}, 1.8241),
    (PANCAN_2B, "nodule", {"spiculation": True}, 2.1660),
    (MAYO, "patient", {"ever_smoked": True}, 2.2071),
    (MAYO, "patient", {"prior_cancer": OLD_CANCER}, 3.8145),
    (MAYO, "nodule", {"spiculation": True}, 2.8312),
    (MAYO, "nodule", {"upper_lobe": True}, 2.1898),
    (MAYO, "nodule", {"longest_mm": 13.0}, 1.1359),
    (PANCAN_1A, "patient", {"sex": Sex.FEMALE}, 1.7871),
    (PANCAN_1A, "nodule", {"upper_lobe": True}, 1.9039),
    (PANCAN_1B, "patient", {"sex": Sex.FEMALE}, 1.9092),
    (PANCAN_1B, "nodule", {"upper_lobe": True}, 1.8238),
    (PANCAN_1B, "nodule", {"spiculation": True}, 2.5368),
    (HERDER, "nodule", {"pet_uptake": Uptake.FAINT}, 10.1961),
    (HERDER, "nodule", {"pet_uptake": Uptake.MODERATE}, 101.1903),
    (HERDER, "nodule", {"pet_uptake": Uptake.INTENSE}, 118.0373),
    (VA, "patient", {"ever_smoked": True}, 7.8538),
    (VA, "patient", {"age": 70}, 2.1793),
    (VA, "nodule", {"longest_mm": 13.0}, 1.1185),
]


@pytest.mark.parametrize(("model", "who", "change", "ratio"), ODDS_RATIOS)
def test_one_finding_multiplies_the_odds(
    model: Model, who: str, change: dict[str, Any], ratio: float
) -> None:
    lesion, person = nodule(12), patient(60)
    before = probability(model, lesion, person)
    if who == "nodule":
        lesion = lesion.corrected(**change)
    else:
        person = replace(person, **change)
    after = probability(model, lesion, person)
    assert after / (1 - after) * (1 - before) / before == pytest.approx(ratio, rel=1e-4)


def test_size_of_pancan_2a() -> None:
    """From 4 to 40 mm the size term rises by 5.6693 × (1.58113883 − 0.5)."""
    small, large = (probability(PANCAN_2A, nodule(mm, count=4), patient(62)) for mm in (4, 40))
    rise = math.log(large / (1 - large)) - math.log(small / (1 - small))
    assert rise == pytest.approx(6.129300, abs=1e-5)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_terms_explain_the_number(model: Model) -> None:
    result = evaluate(model, nodule(12, upper_lobe=True), patient(70, ever_smoked=True))
    assert result.constant is not None
    assert result.probability is not None
    log_odds = result.constant + sum(term.log_odds for term in result.contributions)
    assert math.log(result.probability / (1 - result.probability)) == pytest.approx(log_odds)
    assert len(result.contributions) == len({term.label for term in result.contributions})


FULL_NODULE = nodule(12, upper_lobe=True)
FULL_PATIENT = patient(62, ever_smoked=True)


def facts_of(model: Model) -> set[str]:
    """Names of everything that a model asks for."""
    nothing = NoduleFacts(), PatientFacts()
    return {name for term in model.terms for name in term.missing(*nothing)}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_no_number_while_an_input_is_missing(model: Model) -> None:
    for fact in facts_of(model):
        if hasattr(FULL_PATIENT, fact):
            result = evaluate(model, FULL_NODULE, replace(FULL_PATIENT, **{fact: None}))
        else:
            result = evaluate(model, FULL_NODULE.corrected(**{fact: None}), FULL_PATIENT)
        assert result.probability is None
        assert result.missing == (LABELS[fact],)
        assert not result.contributions


def test_herder_asks_for_what_mayo_asks_for_and_refuses_whom_it_refuses() -> None:
    assert facts_of(HERDER) == facts_of(MAYO) | {"pet_uptake"}
    recent = patient(62, prior_cancer=PriorCancer.EXTRATHORACIC_RECENT)
    assert str(PriorCancer.EXTRATHORACIC_RECENT) in evaluate(HERDER, FULL_NODULE, recent).not_for


def test_va_does_not_ask_a_never_smoker_when_they_quit() -> None:
    never = patient(62, years_since_quitting=None)
    assert evaluate(VA, FULL_NODULE, never).probability is not None
    smoker = evaluate(VA, FULL_NODULE, replace(never, ever_smoked=True))
    assert smoker.missing == (LABELS["years_since_quitting"],)


@pytest.mark.parametrize("years", [-1, 70, math.nan])
def test_impossible_years_since_quitting_are_refused(years: float) -> None:
    with pytest.raises(InputError, match="since quitting"):
        PatientFacts(age=62, years_since_quitting=years)


def test_everything_missing_is_named_once() -> None:
    found = assess(NoduleFacts(), PatientFacts())
    assert all(result.probability is None for result in found.models)
    assert all(not result.category for result in found.guidelines)
    assert len(found.missing) == len(set(found.missing))
    for name in ("age", "sex", "longest_mm", "kind", "count", "upper_lobe", "spiculation"):
        assert LABELS[name] in found.missing


def test_calcified_nodules_are_asked_for_the_pattern() -> None:
    def result(model: Model, **facts: Any) -> ModelResult:
        return evaluate(model, nodule(8, kind=NoduleKind.CALCIFIED, **facts), FULL_PATIENT)

    for model in MODELS:
        assert result(model).missing == (LABELS["benign_pattern"],)
        assert "calcification" in result(model, benign_pattern=True).not_for
        as_solid = evaluate(model, nodule(8), FULL_PATIENT)
        assert result(model, benign_pattern=False).probability == as_solid.probability


@pytest.mark.parametrize("cancer", [PriorCancer.LUNG, PriorCancer.EXTRATHORACIC_RECENT])
def test_mayo_has_no_answer_after_these_cancers(cancer: PriorCancer) -> None:
    result = evaluate(MAYO, FULL_NODULE, patient(62, prior_cancer=cancer))
    assert result.probability is None
    assert str(cancer) in result.not_for


@pytest.mark.parametrize(
    ("model", "lesion", "person", "words"),
    [
        (MAYO, nodule(3.9), FULL_PATIENT, "4 to 30 mm"),
        (MAYO, nodule(30.1), FULL_PATIENT, "4 to 30 mm"),
        (MAYO, nodule(10, count=2), FULL_PATIENT, "solitary"),
        (MAYO, nodule(10, kind=PART_SOLID), FULL_PATIENT, "radiographs"),
        (MAYO, nodule(10), patient(62, screening=True), "by chance"),
        (PANCAN_2B, nodule(10), patient(49), "50 to 75"),
        (PANCAN_2A, nodule(10), patient(76), "50 to 75"),
        (PANCAN_2A, nodule(10), patient(62, ever_smoked=False), "smokers"),
        (PANCAN_2A, nodule(10), patient(62, screening=False), "screening"),
        (PANCAN_2A, nodule(10), patient(62, prior_cancer=PriorCancer.LUNG), "lung cancer"),
        (PANCAN_2B, nodule(10, status=Status.GROWING), FULL_PATIENT, "growth"),
        (PANCAN_2B, nodule(31), FULL_PATIENT, "mass"),
    ],
)
def test_outside_its_range_a_model_warns(
    model: Model, lesion: NoduleFacts, person: PatientFacts, words: str
) -> None:
    result = evaluate(model, lesion, person)
    assert result.probability is not None
    assert any(words in warning for warning in result.warnings)


def test_inside_its_range_no_model_warns() -> None:
    assert not evaluate(MAYO, nodule(12), patient(62)).warnings
    smoker = patient(62, ever_smoked=True, screening=True)
    assert not evaluate(PANCAN_2B, nodule(12, status=Status.BASELINE), smoker).warnings


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"longest_mm": 0.0}, "above 0 mm"),
        ({"longest_mm": math.nan}, "above 0 mm"),
        ({"longest_mm": 5.0, "perpendicular_mm": 6.0}, "correct one of the two"),
        ({"longest_mm": 5.0, "solid_component_mm": 6.0}, "correct one of the two"),
        ({"count": 0}, "1 or more"),
    ],
)
def test_impossible_nodules_are_refused(facts: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        NoduleFacts(**facts)


@pytest.mark.parametrize("age", [0, -1, 121, math.nan])
def test_impossible_ages_are_refused(age: float) -> None:
    with pytest.raises(InputError, match="in years"):
        PatientFacts(age=age)


OUTCOMES = Path(__file__).parents[2] / "shared" / "data" / "uk_nodules.csv"


@pytest.mark.skipif(not OUTCOMES.exists(), reason="needs uk_nodules.csv")
def test_1a_and_1b_beat_the_diameter_on_nodules_with_known_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The outside check of both: AUC computed with other code on the same table."""
    docs = Path(__file__).parents[1] / "docs"
    page = (docs / "published-models.md").read_text(encoding="utf-8")
    script = script_of("models_on_outcomes")
    with OUTCOMES.open(encoding="utf-8", newline="") as stream:
        predicted = script.predictions(list(csv.DictReader(stream)))
    aucs = {
        one.name.split(" (")[0]: roc_auc_score(one.malignant, one.probability) for one in predicted
    }
    assert aucs["PanCan 1a"] == pytest.approx(0.8480, abs=5e-5)
    assert aucs["PanCan 1b"] == pytest.approx(0.8707, abs=5e-5)
    assert aucs["diameter alone"] == pytest.approx(0.8214, abs=5e-5)
    monkeypatch.setattr(script, "REPEATS", 1)
    for one in predicted:
        assert script.table_row(one).split(" (")[0] in page
