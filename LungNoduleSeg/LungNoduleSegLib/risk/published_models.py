"""Logistic models of cancer in a nodule: PanCan (Brock) 1a to 2b, Mayo, Herder and VA.

The log odds are a constant plus one term per input. A result has those terms as an explanation, or,
while an input is missing, the names of the missing inputs and no number.

Sources of the coefficients:
    PanCan (also Brock or Vancouver): McWilliams et al., N Engl J Med 2013;369:910-919, table 2.
    Mayo: Swensen et al., Arch Intern Med 1997;157:849-855, p. 852. Herder: Herder et al., Chest
    2005;128:2490-2496. VA: Gould et al., Chest 2007;131:383-388.
    `docs/published-models.md` says how each was checked.
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
    Sex,
    Status,
    Uptake,
)

Value = Callable[[NoduleFacts, PatientFacts], float | None]
"""The regressor of a term, or None if its fact is unknown."""


@dataclass(frozen=True)
class Term:
    """One input of a model: its fact, coefficient and regressor."""

    fact: str
    coefficient: float
    value: Value

    def missing(self, nodule: NoduleFacts, patient: PatientFacts) -> list[str]:
        """Names of the facts that the term lacks."""
        return [] if self.value(nodule, patient) is not None else [self.fact]


@dataclass(frozen=True)
class ModelTerm(Term):
    """An input that is the probability of another model."""

    model: "Model"

    def missing(self, nodule: NoduleFacts, patient: PatientFacts) -> list[str]:
        """Names of the facts that the other model lacks."""
        return [name for term in self.model.terms for name in term.missing(nodule, patient)]


def probability_of(model: "Model", coefficient: float) -> ModelTerm:
    """Make a term from the probability (0 to 1) of `model`."""
    value: Value = lambda nodule, patient: evaluate(model, nodule, patient).probability  # noqa: E731
    return ModelTerm(model.name, coefficient, value, model)


@dataclass(frozen=True)
class Model:
    """A logistic model, with the population it was derived from."""

    name: str
    source: str
    scope: str
    constant: float
    terms: tuple[Term, ...]
    warnings: Callable[[NoduleFacts, PatientFacts], list[str]]
    without: tuple[PriorCancer, ...] = ()
    """Prior cancers that the model excludes."""


@dataclass(frozen=True)
class Contribution:
    """The contribution of one input to the log odds."""

    label: str
    log_odds: float


@dataclass(frozen=True)
class ModelResult:
    """A probability (0 to 1) with its terms, or the reason why there is none.

    Exactly one of `probability`, `missing` (labels of the missing facts) and `not_for` (a sentence:
    the model does not apply to this nodule) is set.
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
    missing = [name for term in model.terms for name in term.missing(nodule, patient)]
    if nodule.missing_type() == ["benign_pattern"]:
        missing = [name for name in missing if name != "kind"] + ["benign_pattern"]
    return list(dict.fromkeys(missing))


def _refusal(model: Model, nodule: NoduleFacts, patient: PatientFacts) -> str:
    if nodule.type is NoduleKind.CALCIFIED:
        return "The model does not apply to nodules with fat or a benign pattern of calcification."
    if patient.prior_cancer in model.without:
        return f"The model does not apply to patients with prior cancer ({patient.prior_cancer})."
    for term in model.terms:
        if isinstance(term, ModelTerm) and (refusal := _refusal(term.model, nodule, patient)):
            return refusal
    return ""


def _term_label(term: Term, nodule: NoduleFacts) -> str:
    if isinstance(term, ModelTerm):
        return f"probability by {term.model.name}"
    return f"type: {nodule.type}" if term.fact == "kind" else LABELS[term.fact]


def _patient_flag(name: str) -> Value:
    def value(_: NoduleFacts, patient: PatientFacts) -> float | None:
        flag = getattr(patient, name)
        return None if flag is None else float(flag)

    return value


def _nodule_flag(name: str) -> Value:
    def value(nodule: NoduleFacts, _: PatientFacts) -> float | None:
        flag = getattr(nodule, name)
        return None if flag is None else float(flag)

    return value


def _female(_: NoduleFacts, patient: PatientFacts) -> float | None:
    return None if patient.sex is None else float(patient.sex is Sex.FEMALE)


def _longest(nodule: NoduleFacts, _: PatientFacts) -> float | None:
    return nodule.longest_mm


def _age(_: NoduleFacts, patient: PatientFacts) -> float | None:
    return patient.age


PANCAN_AGE = 62
PANCAN_COUNT = 4
PANCAN_SIZE_CENTRE = 1.58113883
"""(4 mm / 10) to the power of -0.5: the size term is centred at 4 mm. Some calculators, after the
wording of the table's footnote, subtract 4 mm from the diameter instead."""


def _pancan_age(_: NoduleFacts, patient: PatientFacts) -> float | None:
    return None if patient.age is None else patient.age - PANCAN_AGE


def _pancan_size(nodule: NoduleFacts, _: PatientFacts) -> float | None:
    """The longest diameter, which the readers of the trial measured, not the mean."""
    if nodule.longest_mm is None:
        return None
    return (nodule.longest_mm / 10) ** -0.5 - PANCAN_SIZE_CENTRE


def _pancan_count(nodule: NoduleFacts, _: PatientFacts) -> float | None:
    return None if nodule.count is None else nodule.count - PANCAN_COUNT


def _log_odds_by_type(part_solid: float, non_solid: float) -> Value:
    log_odds = {
        NoduleKind.SOLID: 0.0,
        NoduleKind.PART_SOLID: part_solid,
        NoduleKind.NON_SOLID: non_solid,
    }

    def value(nodule: NoduleFacts, _: PatientFacts) -> float | None:
        return None if nodule.type is None else log_odds[nodule.type]

    return value


def _pancan_warnings(nodule: NoduleFacts, patient: PatientFacts) -> list[str]:
    found = []
    if patient.age is not None and not 50 <= patient.age <= 75:
        found.append("The model was derived from people aged 50 to 75 years.")
    if patient.ever_smoked is False:
        found.append("The model was derived from current and former smokers.")
    if patient.screening is False:
        found.append("The model was derived from screening CT, which this one is not.")
    if patient.prior_cancer is PriorCancer.LUNG:
        found.append("The model was derived from people without previous lung cancer.")
    if nodule.status not in (None, Status.BASELINE):
        found.append("The model is meant for the first CT; it does not account for growth.")
    if nodule.longest_mm is not None and nodule.longest_mm > 30:
        found.append("Above 30 mm a lesion is a mass, not a nodule.")
    return found


def _mayo_warnings(nodule: NoduleFacts, patient: PatientFacts) -> list[str]:
    found = []
    if nodule.longest_mm is not None and not 4 <= nodule.longest_mm <= 30:
        found.append("The model was derived from nodules of 4 to 30 mm.")
    if nodule.count is not None and nodule.count > 1:
        found.append("The model was derived from solitary nodules.")
    if nodule.type in (NoduleKind.PART_SOLID, NoduleKind.NON_SOLID):
        found.append(
            "The model was derived from chest radiographs, which rarely show such nodules."
        )
    if patient.screening:
        found.append("The model was derived from nodules found by chance, not by screening.")
    return found


_MCWILLIAMS = "McWilliams et al., N Engl J Med 2013;369:910-919, table 2"
_PANCAN_SCOPE = (
    "Cancer found 2 to 4 years after the first low-dose screening CT of current and former "
    "smokers of 50 to 75 years; size is the longest diameter."
)

PANCAN_1A = Model(
    name="PanCan 1a (Brock, parsimonious, without spiculation)",
    source=_MCWILLIAMS,
    scope=_PANCAN_SCOPE,
    constant=-6.5929,
    terms=(
        Term("sex", 0.5806, _female),
        Term("longest_mm", -5.8616, _pancan_size),
        Term("upper_lobe", 0.6439, _nodule_flag("upper_lobe")),
    ),
    warnings=_pancan_warnings,
)
"""For unknown spiculation, and few facts of the patient."""

PANCAN_1B = Model(
    name="PanCan 1b (Brock, parsimonious, with spiculation)",
    source=_MCWILLIAMS,
    scope=_PANCAN_SCOPE,
    constant=-6.6144,
    terms=(
        Term("sex", 0.6467, _female),
        Term("longest_mm", -5.5537, _pancan_size),
        Term("upper_lobe", 0.6009, _nodule_flag("upper_lobe")),
        Term("spiculation", 0.9309, _nodule_flag("spiculation")),
    ),
    warnings=_pancan_warnings,
)

PANCAN_2A = Model(
    name="PanCan 2a (Brock, full, without spiculation)",
    source=_MCWILLIAMS,
    scope=_PANCAN_SCOPE,
    constant=-6.8071,
    terms=(
        Term("age", 0.0321, _pancan_age),
        Term("sex", 0.5635, _female),
        Term("family_history", 0.3013, _patient_flag("family_history")),
        Term("emphysema", 0.3462, _patient_flag("emphysema")),
        Term("longest_mm", -5.6693, _pancan_size),
        Term("kind", 1, _log_odds_by_type(part_solid=0.3395, non_solid=-0.3005)),
        Term("upper_lobe", 0.7116, _nodule_flag("upper_lobe")),
        Term("count", -0.0803, _pancan_count),
    ),
    warnings=_pancan_warnings,
)
"""For unknown spiculation."""

PANCAN_2B = Model(
    name="PanCan 2b (Brock, full, with spiculation)",
    source=_MCWILLIAMS,
    scope=_PANCAN_SCOPE,
    constant=-6.7892,
    terms=(
        Term("age", 0.0287, _pancan_age),
        Term("sex", 0.6011, _female),
        Term("family_history", 0.2961, _patient_flag("family_history")),
        Term("emphysema", 0.2953, _patient_flag("emphysema")),
        Term("longest_mm", -5.3854, _pancan_size),
        Term("kind", 1, _log_odds_by_type(part_solid=0.3770, non_solid=-0.1276)),
        Term("upper_lobe", 0.6581, _nodule_flag("upper_lobe")),
        Term("count", -0.0824, _pancan_count),
        Term("spiculation", 0.7729, _nodule_flag("spiculation")),
    ),
    warnings=_pancan_warnings,
)


def _old_cancer(_: NoduleFacts, patient: PatientFacts) -> float | None:
    if patient.prior_cancer is None:
        return None
    return float(patient.prior_cancer is PriorCancer.EXTRATHORACIC_OLD)


MAYO = Model(
    name="Mayo",
    source="Swensen et al., Arch Intern Med 1997;157:849-855",
    scope=(
        "Solitary nodules of 4 to 30 mm found by chance on a chest radiograph, without lung cancer "
        "before or another cancer within 5 years; size is the diameter in mm."
    ),
    constant=-6.8272,
    terms=(
        Term("age", 0.0391, _age),
        Term("ever_smoked", 0.7917, _patient_flag("ever_smoked")),
        Term("prior_cancer", 1.3388, _old_cancer),
        Term("longest_mm", 0.1274, _longest),
        Term("spiculation", 1.0407, _nodule_flag("spiculation")),
        Term("upper_lobe", 0.7838, _nodule_flag("upper_lobe")),
    ),
    warnings=_mayo_warnings,
    without=(PriorCancer.LUNG, PriorCancer.EXTRATHORACIC_RECENT),
)

_UPTAKE = {Uptake.NONE: 0.0, Uptake.FAINT: 2.322, Uptake.MODERATE: 4.617, Uptake.INTENSE: 4.771}


def _uptake(nodule: NoduleFacts, _: PatientFacts) -> float | None:
    return None if nodule.pet_uptake is None else _UPTAKE[nodule.pet_uptake]


def _herder_warnings(nodule: NoduleFacts, patient: PatientFacts) -> list[str]:
    found = _mayo_warnings(nodule, patient)
    if nodule.longest_mm is not None and nodule.longest_mm < 8:
        found.append("The BTS guideline uses this model for solid nodules of 8 mm or more.")
    return found


HERDER = Model(
    name="Herder (Mayo with PET)",
    source="Herder et al., Chest 2005;128:2490-2496",
    scope=(
        "106 patients referred for PET because of an indeterminate nodule, 57 % of them with "
        "cancer; its inputs are those of the Mayo model and the uptake of FDG."
    ),
    constant=-4.739,
    terms=(probability_of(MAYO, 3.691), Term("pet_uptake", 1, _uptake)),
    warnings=_herder_warnings,
)


def _years_since_quitting(_: NoduleFacts, patient: PatientFacts) -> float | None:
    return 0.0 if patient.ever_smoked is False else patient.years_since_quitting


def _va_warnings(nodule: NoduleFacts, patient: PatientFacts) -> list[str]:
    found = []
    if nodule.count is not None and nodule.count > 1:
        found.append("The model was derived from solitary nodules.")
    if patient.screening:
        found.append("The model was derived from nodules found by chance, not by screening.")
    if patient.sex is Sex.FEMALE:
        found.append("The model was derived from veterans, nearly all of them men.")
    return found


VA = Model(
    name="VA (Veterans Affairs)",
    source="Gould et al., Chest 2007;131:383-388",
    scope=(
        "375 veterans with a solitary nodule, 54 % of them with cancer, 66 years old on average; "
        "size is the diameter in mm."
    ),
    constant=-8.404,
    terms=(
        Term("ever_smoked", 2.061, _patient_flag("ever_smoked")),
        Term("age", 0.0779, _age),
        Term("longest_mm", 0.112, _longest),
        Term("years_since_quitting", -0.0567, _years_since_quitting),
    ),
    warnings=_va_warnings,
)

MODELS = (PANCAN_1A, PANCAN_1B, PANCAN_2A, PANCAN_2B, MAYO, HERDER, VA)
