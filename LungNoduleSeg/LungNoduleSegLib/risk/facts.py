"""The inputs of published models and guidelines, with the origin of each.

Any fact may be unknown (None); no value is assumed silently. `measured_facts` fills in what the
image shows; `NoduleFacts.corrected` overrides it and records that a person did.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Any

import numpy as np
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.options import Option, options_of, settle_choices
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG
from LungNoduleSegLib.nodules.table import (
    MAX_MM,
    MAX_MM3,
    MOST_NODULES,
    Nodule,
    NoduleKind,
    Side,
    rounded,
)

UPPER_LOBE_ABOVE = 2 / 3
"""Relative height in the lung above which a nodule is assumed to lie in the upper lobe."""

NOT_UPPER_LOBE_BELOW = 1 / 3
"""Relative height below which it is assumed not to; in between the lobe is unknown."""


SUBSOLID = (NoduleKind.PART_SOLID, NoduleKind.NON_SOLID)


class Origin(StrEnum):
    """Origin of a value."""

    MEASURED = "measured"
    GUESSED = "guessed"
    GIVEN = "given"


class Sex(StrEnum):
    """The patient's sex, as the models use it."""

    FEMALE = "female"
    MALE = "male"


class PriorCancer(StrEnum):
    """Previous cancer."""

    NONE = "none"
    EXTRATHORACIC_OLD = "extrathoracic, more than 5 years ago"
    EXTRATHORACIC_RECENT = "extrathoracic, within 5 years"
    LUNG = "lung"


class Status(StrEnum):
    """The nodule compared with the previous CT, in the terms of Lung-RADS v2022."""

    BASELINE = "baseline"
    NEW = "new"
    STABLE = "stable"
    GROWING = "growing"
    SLOWLY_GROWING = "slowly growing"


class Airway(StrEnum):
    """The airway a nodule lies in."""

    NONE = "none"
    SUBSEGMENTAL = "subsegmental"
    SEGMENTAL = "segmental or more proximal"


class Cyst(StrEnum):
    """An atypical pulmonary cyst, in the terms of Lung-RADS v2022; thick is 2 mm or more."""

    NONE = "none"
    THICK_WALLED = "thick-walled"
    MULTILOCULAR = "multilocular"
    BECOMING_MULTILOCULAR = "becoming multilocular"
    GROWING_CYST = "thick-walled, its cystic part growing"
    GROWING_WALL = "thick-walled, its wall or nodularity growing"
    GROWING_MULTILOCULAR = "multilocular, growing"
    MORE_LOCULATION = "multilocular, more loculation or new or denser opacity"


class Uptake(StrEnum):
    """Uptake of FDG in PET, on the four-point scale of the Herder model and the BTS guideline."""

    NONE = "none"
    FAINT = "faint"
    MODERATE = "moderate"
    INTENSE = "intense"


class Incomplete(StrEnum):
    """Why an examination cannot be classified yet."""

    NO = "no"
    AWAITING_PRIOR = "a prior CT is being located"
    NOT_EVALUABLE = "part or all of the lungs cannot be evaluated"


class LungRads(StrEnum):
    """Lung-RADS v2022 categories."""

    INCOMPLETE = "0"
    NEGATIVE = "1"
    BENIGN = "2"
    PROBABLY_BENIGN = "3"
    SUSPICIOUS = "4A"
    VERY_SUSPICIOUS = "4B"
    VERY_SUSPICIOUS_FEATURES = "4X"


@dataclass(frozen=True)
class PatientFacts:
    """Clinical facts of a patient, None where unknown."""

    age: Annotated[float | None, Option("age in years")] = None
    sex: Annotated[Sex | None, Option("sex")] = None
    family_history: Annotated[bool | None, Option("family history of lung cancer")] = None
    emphysema: Annotated[bool | None, Option("emphysema on CT")] = None
    ever_smoked: Annotated[bool | None, Option("current or former smoker")] = None
    years_since_quitting: Annotated[
        float | None, Option("years since quitting smoking (current smoker: 0)")
    ] = None
    prior_cancer: Annotated[PriorCancer | None, Option("prior cancer")] = None
    high_risk: Annotated[bool | None, Option("clinically high risk of lung cancer")] = None
    screening: Annotated[bool | None, Option("screening CT")] = None
    immunosuppressed: Annotated[bool | None, Option("immunosuppression")] = None
    incomplete: Annotated[Incomplete | None, Option("examination incomplete")] = None
    other_finding: Annotated[bool | None, Option("other significant finding")] = None

    def __post_init__(self) -> None:
        settle_choices(self)
        if self.age is not None and not 0 < self.age <= 120:
            raise InputError(f"An age of {self.age} years is not possible; enter it in years.")
        quit_years = self.years_since_quitting
        if quit_years is not None and not 0 <= quit_years <= (self.age or 120):
            raise InputError(
                f"{quit_years:g} years since quitting smoking are not possible; enter the years, "
                "or 0 for a current smoker."
            )


LARGEST = {
    "longest_mm": MAX_MM,
    "perpendicular_mm": MAX_MM,
    "volume_mm3": MAX_MM3,
    "solid_component_mm": MAX_MM,
    "previous_mean_mm": MAX_MM,
    "previous_solid_mm": MAX_MM,
    "previous_volume_mm3": MAX_MM3,
    "months_since_previous": 1500.0,
    "doubling_days": 1e9,
}
"""The largest possible value of what is above 0."""


_SIZES = ("longest_mm", "perpendicular_mm", "volume_mm3")

_BY_SIZE = ("volume_mm3", "status", "doubling_days")
"""Measured facts that a corrected size makes unknown."""

_EARLIER = (
    "doubling_days",
    "previous_mean_mm",
    "previous_solid_mm",
    "previous_volume_mm3",
    "months_since_previous",
)
_BY_STATUS: Mapping[Status | None, tuple[str, ...]] = {
    Status.BASELINE: _EARLIER,
    Status.NEW: _EARLIER,
    Status.STABLE: ("doubling_days",),
}
"""Measured facts that an entered status makes unknown, if another was measured."""


@dataclass(frozen=True)
class NoduleFacts:
    """Facts of one nodule, None where unknown.

    `longest_mm` and `perpendicular_mm` are measured at a right angle on one slice. The models and
    the BTS guideline use the longest diameter, Lung-RADS and Fleischner the mean of the two, each
    with its own rounding.
    """

    longest_mm: Annotated[float | None, Option("longest diameter in mm")] = None
    perpendicular_mm: Annotated[float | None, Option("perpendicular diameter in mm")] = None
    volume_mm3: Annotated[float | None, Option("volume in mm³")] = None
    solid_component_mm: Annotated[float | None, Option("mean solid component diameter in mm")] = (
        None
    )
    kind: Annotated[NoduleKind | None, Option("nodule type")] = None
    benign_pattern: Annotated[bool | None, Option("benign calcification pattern or fat")] = None
    count: Annotated[int | None, Option("number of non-calcified nodules in both lungs")] = None
    count_alike: Annotated[
        int | None, Option("number of nodules of the same class, solid or subsolid")
    ] = None
    upper_lobe: Annotated[bool | None, Option("upper lobe location")] = None
    spiculation: Annotated[bool | None, Option("spiculation")] = None
    smooth_juxtapleural: Annotated[bool | None, Option("smooth juxtapleural nodule")] = None
    airway: Annotated[Airway | None, Option("airway involvement")] = None
    cyst: Annotated[Cyst | None, Option("atypical pulmonary cyst")] = None
    suspicious_features: Annotated[
        bool | None, Option("other suspicious features, such as enlarged nodes")
    ] = None
    infection: Annotated[bool | None, Option("signs of infection or inflammation")] = None
    pet_uptake: Annotated[Uptake | None, Option("FDG uptake in PET")] = None
    proven_benign: Annotated[bool | None, Option("proven benign")] = None
    status: Annotated[Status | None, Option("change since the previous CT")] = None
    previous_category: Annotated[
        LungRads | None, Option("Lung-RADS category of the previous CT")
    ] = None
    previous_mean_mm: Annotated[float | None, Option("mean diameter on the previous CT in mm")] = (
        None
    )
    previous_solid_mm: Annotated[
        float | None, Option("mean solid component diameter on the previous CT in mm")
    ] = None
    previous_volume_mm3: Annotated[float | None, Option("volume on the previous CT in mm³")] = None
    months_since_previous: Annotated[float | None, Option("months since the previous CT")] = None
    doubling_days: Annotated[float | None, Option("volume doubling time in days")] = None
    id: int | None = None
    origins: Mapping[str, Origin] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settle_choices(self)
        for name, largest in LARGEST.items():
            size = getattr(self, name)
            if size is not None and not 0 < size <= largest:
                possible = "length above 0 mm" if name.endswith("_mm") else "number above 0"
                if size > largest:
                    possible = f"number up to {largest:,.0f}"
                raise InputError(f"{size} is not a {LABELS[name]}; enter a {possible}.")
        for name in ("perpendicular_mm", "solid_component_mm"):
            size = getattr(self, name)
            if size is not None and self.longest_mm is not None and size > self.longest_mm:
                raise InputError(
                    f"The {LABELS[name]} ({size:g}) exceeds the longest diameter "
                    f"({self.longest_mm:g}); correct one of the two."
                )
        for name in ("count", "count_alike"):
            number = getattr(self, name)
            if number is not None and not 1 <= number < MOST_NODULES:
                possible = "1 or more" if number < 1 else f"a number below {MOST_NODULES}"
                raise InputError(f"The {LABELS[name]} cannot be {number}; enter {possible}.")
        origins = {
            name: self.origins.get(name, Origin.GIVEN)
            for name in LABELS
            if getattr(self, name, None) is not None
        }
        object.__setattr__(self, "origins", origins)

    def corrected(self, **values: Any) -> "NoduleFacts":
        """Override facts with those entered by a person; None makes one unknown.

        Another size than the measured one means another outline: what was measured by the old one
        becomes unknown, unless it is entered too. So does what another type, count or status than
        the measured one refutes.
        """
        status = values.get("status")
        refuted = [*_BY_STATUS.get(status, ())] if status != self.status else []
        if any(values.get(name) not in (None, getattr(self, name)) for name in _SIZES):
            refuted += _BY_SIZE
        kind = values.get("kind") or self.kind
        if kind != NoduleKind.PART_SOLID:
            refuted.append("solid_component_mm")
        other_class = (kind in SUBSOLID) != (self.kind in SUBSOLID)
        if other_class or values.get("count") not in (None, self.count):
            refuted.append("count_alike")
        unknown = {
            name: None
            for name in refuted
            if self.origins.get(name) is Origin.MEASURED
            and getattr(self, name) is not Status.NEW  # which it is at any size
        }
        return self.overridden(Origin.GIVEN, **{**unknown, **values})

    def overridden(self, origin: Origin, **values: Any) -> "NoduleFacts":
        """Override facts and record their origin."""
        return replace(self, **values, origins={**self.origins, **dict.fromkeys(values, origin)})

    @property
    def type(self) -> NoduleKind | None:
        """The type for models and guidelines; calcification without a benign pattern is solid.

        CALCIFIED means a benign pattern (complete, central, popcorn, concentric rings) or fat;
        None that the type, or whether the pattern is benign, is unknown.
        """
        if self.benign_pattern:
            return NoduleKind.CALCIFIED
        if self.kind is NoduleKind.CALCIFIED:
            return None if self.benign_pattern is None else NoduleKind.SOLID
        return self.kind

    @property
    def compared(self) -> bool:
        """Whether some fact says that there is a previous CT."""
        earlier = any(getattr(self, name) is not None for name in (*_EARLIER, "previous_category"))
        return earlier or self.status not in (None, Status.BASELINE)

    def missing_type(self) -> list[str]:
        """Names of the facts that `type` lacks."""
        if self.type is not None:
            return []
        return ["kind" if self.kind is None else "benign_pattern"]


LABELS = {
    one.name: one.option.help for kind in (PatientFacts, NoduleFacts) for one in options_of(kind)
}
"""Labels of all facts in the panel, the command line and the report."""


def fact_text(name: str, value: object) -> str:
    """Write a fact: mm³ and days as whole numbers, others to one decimal, never as 0 if above."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    near = float(rounded(value, "1" if name.endswith(("_mm3", "_days")) else "0.1"))
    return f"{near:.10g}" if near or not value else f"{value:.1g}"


def measured_facts(
    nodules: Iterable[Nodule], lungs: sitk.Image | None = None
) -> tuple[NoduleFacts, ...]:
    """Return the measured facts of each nodule.

    Diameters, volume, type and the solid component of a part-solid nodule are measured. The counts
    exclude calcified nodules. The lobe is estimated from the height of the nodule between the
    lowest and the highest point of its lung: upper above `UPPER_LOBE_ABOVE`, not upper below
    `NOT_UPPER_LOBE_BELOW`, unknown in between. This is an estimate because fissures are not
    segmented: the lower lobe reaches high posteriorly, the lingula low anteriorly.

    Args:
        nodules: rows of one scan's nodule table.
        lungs: labels of the right and the left lung on any grid; None leaves the lobe unknown.
    """
    rows = tuple(nodules)
    solid = sum(row.kind is NoduleKind.SOLID for row in rows)
    subsolid = sum(row.kind in SUBSOLID for row in rows)
    extents = {} if lungs is None else lung_heights(lungs)
    return tuple(_measured(row, solid, subsolid, extents.get(row.side)) for row in rows)


def relative_height(z: float, extent: tuple[float, float]) -> float:
    """Height of `z` (mm, LPS) in a lung from 0 at its lowest to 1 at its highest point."""
    low, high = extent
    return (z - low) / (high - low) if high > low else 0.5


def _measured(
    row: Nodule, solid: int, subsolid: int, extent: tuple[float, float] | None
) -> NoduleFacts:
    upper, origin = None, Origin.GUESSED
    if row.lobe is not None:
        upper, origin = row.lobe.is_upper, Origin.MEASURED
    elif extent is not None:
        upper = _upper_lobe(relative_height(row.z, extent))
    measured: dict[str, Any] = {
        "longest_mm": row.diameter_mm,
        "perpendicular_mm": row.perpendicular_mm,
        "volume_mm3": row.volume_mm3,
        "kind": row.kind,
        "solid_component_mm": row.solid_mm,
        "count": max(solid + subsolid, 1),
        "count_alike": max(subsolid if row.kind in SUBSOLID else solid, 1),
    }
    origins = dict.fromkeys(measured, Origin.MEASURED) | {"upper_lobe": origin}
    return NoduleFacts(id=row.id, upper_lobe=upper, origins=origins, **measured)


def _upper_lobe(height: float) -> bool | None:
    if NOT_UPPER_LOBE_BELOW < height < UPPER_LOBE_ABOVE:
        return None
    return height >= UPPER_LOBE_ABOVE


def lung_heights(lungs: sitk.Image) -> dict[Side, tuple[float, float]]:
    """The lowest and the highest z (mm, LPS) of each lung, to about 4 mm."""
    coarse = coarse_lungs(lungs)
    labels = sitk.GetArrayViewFromImage(coarse)
    to_z = np.asarray(coarse.GetDirection()).reshape(3, 3)[2] * coarse.GetSpacing()
    found = {}
    for side, label in ((Side.RIGHT, RIGHT_LUNG), (Side.LEFT, LEFT_LUNG)):
        k, j, i = np.nonzero(labels == label)
        if k.size:
            z = coarse.GetOrigin()[2] + to_z[0] * i + to_z[1] * j + to_z[2] * k
            found[side] = (float(z.min()), float(z.max()))
    return found


def coarse_lungs(lungs: sitk.Image) -> sitk.Image:
    """Subsample lungs to voxels about 4 mm apart, which is enough for `measured_facts`."""
    i, j, k = coarse_steps(lungs.GetSpacing())
    return lungs[::i, ::j, ::k]


def coarse_steps(spacing: Sequence[float]) -> tuple[int, ...]:
    """Return the sampling steps of `coarse_lungs` in voxels along each axis."""
    return tuple(max(1, round(4 / size)) for size in spacing)
