"""Logistic models of the probability that a lung nodule is cancer, and how one is evaluated.

The log odds are a constant plus one term an input. A result holds those terms, so that the number
can be explained, or, while an input is missing, the names of what is missing and no number.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from scipy.special import expit

from LungNoduleSegLib.risk.facts import (
    LABELS,
    NoduleFacts,
    NoduleKind,
    PatientFacts,
    PriorCancer,
)

Value = Callable[[NoduleFacts, PatientFacts], float | None]
"""The regressor of a term, or None while the fact it is made of is missing."""


@dataclass(frozen=True)
class Term:
    """One input of a model: the fact it comes from, and what its value is multiplied by."""

    fact: str
    coefficient: float
    value: Value

    def missing(self, nodule: NoduleFacts, patient: PatientFacts) -> list[str]:
        """Names of the facts without which the term has no value."""
        return [] if self.value(nodule, patient) is not None else [self.fact]


@dataclass(frozen=True)
class ModelTerm(Term):
    """An input that is the probability another model gives."""

    model: "Model"

    def missing(self, nodule: NoduleFacts, patient: PatientFacts) -> list[str]:
        """Names of the facts that the other model still asks for."""
        return [name for term in self.model.terms for name in term.missing(nodule, patient)]


def probability_of(model: "Model", coefficient: float) -> ModelTerm:
    """Make a term of the probability (0 to 1) that `model` gives."""
    value: Value = lambda nodule, patient: evaluate(model, nodule, patient).probability  # noqa: E731
    return ModelTerm(model.name, coefficient, value, model)


@dataclass(frozen=True)
class Model:
    """A logistic model, and the people and nodules it was made from."""

    name: str
    source: str
    scope: str
    constant: float
    terms: tuple[Term, ...]
    warnings: Callable[[NoduleFacts, PatientFacts], list[str]]
    without: tuple[PriorCancer, ...] = ()
    """Prior cancers of the patients the model left out; it has no term for them."""


@dataclass(frozen=True)
class Contribution:
    """What one input adds to the log odds."""

    label: str
    log_odds: float


@dataclass(frozen=True)
class ModelResult:
    """A probability (0 to 1) with its terms, or why there is none.

    Exactly one of `probability`, `missing` (what is still asked for, by name) and `not_for` (a
    sentence: the model has no answer for this nodule) is filled.
    """

    model: str
    source: str
    scope: str
    probability: float | None = None
    missing: tuple[str, ...] = ()
    not_for: str = ""
    constant: float | None = None
    contributions: tuple[Contribution, ...] = ()
    warnings: tuple[str, ...] = ()


def evaluate(model: Model, nodule: NoduleFacts, patient: PatientFacts) -> ModelResult:
    """Evaluate one of `MODELS` for one nodule.

    Returns:
        A result with a probability only where every input of the model is known.
    """
    result = ModelResult(model.name, model.source, model.scope)
    if refusal := _refusal(model, nodule, patient):
        return replace(result, not_for=refusal)
    if missing := _missing(model, nodule, patient):
        return replace(result, missing=tuple(LABELS[name] for name in missing))
    values = {term: term.value(nodule, patient) for term in model.terms}
    contributions = tuple(
        Contribution(_term_label(term, nodule), term.coefficient * value + 0.0)
        for term, value in values.items()
        if value is not None
    )
    log_odds = model.constant + sum(term.log_odds for term in contributions)
    return replace(
        result,
        probability=float(expit(log_odds)),
        constant=model.constant,
        contributions=contributions,
        warnings=tuple(model.warnings(nodule, patient)),
    )


def _missing(model: Model, nodule: NoduleFacts, patient: PatientFacts) -> list[str]:
    asked = [name for term in model.terms for name in term.missing(nodule, patient)]
    if nodule.missing_type() == ["benign_pattern"]:
        asked = [name for name in asked if name != "kind"] + ["benign_pattern"]
    return list(dict.fromkeys(asked))


def _refusal(model: Model, nodule: NoduleFacts, patient: PatientFacts) -> str:
    if nodule.type is NoduleKind.CALCIFIED:
        return (
            "The model was made from nodules without a benign pattern of calcification or fat; "
            "it has no answer for this one."
        )
    if patient.prior_cancer in model.without:
        return (
            f"The model leaves out patients with prior cancer ({patient.prior_cancer}); it has no "
            "answer for this one."
        )
    for term in model.terms:
        if isinstance(term, ModelTerm) and (refusal := _refusal(term.model, nodule, patient)):
            return refusal
    return ""


def _term_label(term: Term, nodule: NoduleFacts) -> str:
    if isinstance(term, ModelTerm):
        return f"probability by {term.model.name}"
    return f"type: {nodule.type}" if term.fact == "kind" else LABELS[term.fact]
