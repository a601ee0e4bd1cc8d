"""Clinical data of a patient and the nodules, from a JSON file or a growth table."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias, get_args, get_type_hints

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import DAMAGE, InputError
from CTLungScreeningLib.json_files import is_number, read_object
from CTLungScreeningLib.options import spellings
from LungNoduleSegLib.nodules.table import Nodule, mean_axial_mm
from LungNoduleSegLib.risk.facts import LABELS, LARGEST, NoduleFacts, Origin, PatientFacts, Status
from LungNoduleSegLib.risk.growth_rate import DAYS_PER_MONTH, Change

Values = Mapping[str, Any]
"""Facts of one nodule by the names of `NoduleFacts`."""

Point: TypeAlias = tuple[float, ...]
"""A position in LPS mm."""

ALL = "all"
"""Key for all nodules in a file of clinical data."""

SHARED = ("count", "status", "spiculation", "suspicious_features", "infection")
"""Facts that may be stated for all nodules at once."""

CHANGED_MM = 0.051
"""Mean diameters that differ by more belong to two nodules; tables are rounded to 0.1 mm."""

_NODULES = "nodules"
_NODULE_FACTS = {name: kind for name, kind in get_type_hints(NoduleFacts).items() if name in LABELS}
_PATIENT_FACTS = get_type_hints(PatientFacts)


class UnfitFactsError(InputError):
    """What was entered for a nodule contradicts itself or what is measured.

    Attributes:
        number: of the nodule.
    """

    def __init__(self, number: int | None, problem: str) -> None:
        super().__init__(problem if number is None else f"Nodule {number}: {problem}")
        self.number = number


@dataclass(frozen=True)
class ClinicalData:
    """Clinical data entered by a person.

    Attributes:
        patient: facts of the patient.
        shared: facts of every nodule.
        nodules: facts of single nodules by number; they override shared ones.
    """

    patient: PatientFacts = field(default_factory=PatientFacts)
    shared: Values = field(default_factory=dict)
    nodules: Mapping[int, Values] = field(default_factory=dict)

    def correct(self, facts: Iterable[NoduleFacts], where: str = "The scan") -> list[NoduleFacts]:
        """Override measured facts.

        Raises:
            InputError: naming `where`, if a nodule does not exist.
            UnfitFactsError: if a fact is impossible.
        """
        found = list(facts)
        _require_nodules(self.nodules, found, where)
        return [self._corrected(one) for one in found]

    def _corrected(self, facts: NoduleFacts) -> NoduleFacts:
        own = self.nodules.get(facts.id, {}) if facts.id is not None else {}
        try:
            return facts.corrected(**{**self.shared, **own})
        except InputError as error:
            raise UnfitFactsError(facts.id, str(error)) from None

    def to_dict(self) -> dict[str, Any]:
        """Return the known facts, as `read_facts` reads them from a file."""
        patient = {name: value for name, value in asdict(self.patient).items() if value is not None}
        nodules = ({ALL: dict(self.shared)} if self.shared else {}) | {
            str(number): dict(values) for number, values in self.nodules.items()
        }
        return patient | ({_NODULES: nodules} if nodules else {})


NO_CLINICAL_DATA = ClinicalData()


def read_facts(path: Path) -> ClinicalData:
    """Read facts from a JSON file.

    Raises:
        InputError: naming the file and the fact that cannot be used.
    """
    return parse_facts(read_object(path), f"{path}")


def parse_facts(content: Any, where: str) -> ClinicalData:
    """Parse the content of a JSON file, or the result of `ClinicalData.to_dict`.

    An object with the fields of `PatientFacts`, and under `nodules` an object that maps a nodule's
    number, or `all`, to the fields of `NoduleFacts`. A missing or null field is unknown.
    Enumerations are written by value, or by member name as in `extrathoracic-old`.

    Raises:
        InputError: naming `where` and the fact that cannot be used.
    """
    content = _object(content, where)
    nodules = _object(content.pop(_NODULES, {}), f"{where}, {_NODULES}")
    patient = _facts(content, _PATIENT_FACTS, where)
    shared = _facts(nodules.pop(ALL, {}), _NODULE_FACTS, f"{where}, nodule {ALL}")
    if unfit := [name for name in shared if name not in SHARED]:
        raise InputError(
            f"{where}, nodule {ALL}: {unfit[0]} differs from nodule to nodule; state it for single "
            f"nodules. {ALL} may have {', '.join(SHARED)}."
        )
    by_number = {}
    for number, values in nodules.items():
        if not (number.isdecimal() and len(number) < 10):
            raise InputError(f"{where}: '{number}' is not a nodule number; write 1, 2 or {ALL}.")
        by_number[int(number)] = _facts(values, _NODULE_FACTS, f"{where}, nodule {number}")
    try:
        for values in (shared, *by_number.values()):
            NoduleFacts(**values)
        return ClinicalData(PatientFacts(**patient), shared, by_number)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def parse_nodule(record: Mapping[str, Any], where: str) -> NoduleFacts:
    """Make the facts of a nodule of what `dataclasses.asdict` and JSON made of them.

    Raises:
        InputError: naming `where` and the fact that cannot be used.
    """
    values = _facts(
        {name: record[name] for name in _NODULE_FACTS if name in record}, _NODULE_FACTS, where
    )
    origins = {name: Origin(origin) for name, origin in record.get("origins", {}).items()}
    return NoduleFacts(**values, id=record.get("id"), origins=origins)


def prior_facts(rows: Iterable[Values]) -> dict[int, Values]:
    """Extract the facts of the current scan's nodules from a growth table, by number.

    What exceeds the limits of a fact, such as a time between scans with a wrong date, is left out.

    Args:
        rows: with the columns of `GROWTH_COLUMNS`, as returned by `growth_row`.
    """
    found: dict[int, Values] = {}
    for row in rows:
        if row["current_id"] is None:
            continue
        status = row["lung_rads_change"]
        alike = row["change"] != Change.NOT_COMPARABLE
        days = row["days"]
        values = {
            "status": Status(status) if status else None,
            "previous_mean_mm": row["prior_mean_mm"] if alike else None,
            "previous_solid_mm": row["prior_solid_mm"] if alike else None,
            "previous_volume_mm3": row["prior_volume_mm3"] if alike else None,
            "months_since_previous": days and days / DAYS_PER_MONTH,
            "doubling_days": row["doubling_days"],
            _NOW: row["current_mean_mm"],
        }
        found[int(row["current_id"])] = {
            name: value
            for name, value in values.items()
            if value is not None and (name not in LARGEST or 0 < value <= LARGEST[name])
        }
    return found


_NOW = "current_mean_mm"


def read_prior_facts(path: Path) -> dict[int, Values]:
    """Read `prior_facts` from the `growth.csv` of a comparison.

    Raises:
        InputError: if the file is not a growth table.
    """
    try:
        with csv_files.open_table(path) as (_, rows):
            return prior_facts([_growth_cells(row) for _, row in rows])
    except InputError:
        raise
    except (*DAMAGE, csv.Error) as error:
        raise InputError(
            f"{path} is not a growth table: choose a growth.csv written by `growth`."
        ) from error


def add_prior_facts(
    facts: Iterable[NoduleFacts], prior: Mapping[int, Values], where: str = "The scan"
) -> list[NoduleFacts]:
    """Add the change since the previous scan, and the previous diameter, to measured facts.

    Raises:
        InputError: naming `where`, if the growth table belongs to other nodules.
    """
    found = list(facts)
    _require_nodules(prior, found, where)
    result = []
    for one in found:
        values = dict(prior.get(one.id, {}) if one.id is not None else {})
        if not _fits(one, values):
            mean = mean_axial_mm(one.longest_mm or 0, one.perpendicular_mm or 0)
            raise InputError(
                f"Nodule {one.id} of {where} has {mean:g} mm, but {values[_NOW]:g} mm in the "
                "growth table: use the growth table of this scan."
            )
        values.pop(_NOW, None)
        result.append(one.overridden(Origin.MEASURED, **values))
    return result


def numbers_now(places: Mapping[int, Point], nodules: Sequence[Nodule]) -> dict[int, int]:
    """Return the present number of the nodule that lay at each place, the nearest first.

    Facts of nodules that are no longer there get a number that none of these has.
    A nodule may have moved by its diameter where it was measured again; one with another number
    must hold the place, as no neighbour does.
    """
    near = sorted(
        (away, number, one.id)
        for number, place in places.items()
        for one in nodules
        if (away := math.dist(place, (one.x, one.y, one.z)))
        <= one.diameter_mm / (1 if one.id == number else 2)
    )
    found: dict[int, int] = {}
    for _, number, now in near:
        if number not in found and now not in found.values():
            found[number] = now
    ids = {one.id for one in nodules}
    free = count(max(ids | places.keys(), default=0) + 1)
    return {n: found.get(n) or (next(free) if n in ids else n) for n in places}


def fitting_facts(facts: Iterable[NoduleFacts], prior: Mapping[int, Values]) -> dict[int, Values]:
    """Keep the prior facts of nodules that still exist with the same diameter."""
    there = {one.id: one for one in facts}
    return {
        number: values
        for number, values in prior.items()
        if number in there and _fits(there[number], values)
    }


def _fits(one: NoduleFacts, values: Values) -> bool:
    """Whether a nodule's mean diameter is still that of the growth measurement."""
    now = values.get(_NOW)
    if now is None or one.longest_mm is None or one.perpendicular_mm is None:
        return True
    return abs(mean_axial_mm(one.longest_mm, one.perpendicular_mm) - now) <= CHANGED_MM


def _growth_cells(row: Mapping[str, str]) -> dict[str, Any]:
    prior = ("prior_mean_mm", "prior_solid_mm", "prior_volume_mm3")
    names = ("current_id", *prior, "days", "doubling_days", _NOW)
    numbers = {name: float(row[name]) if row[name] else None for name in names}
    return numbers | {name: row[name] for name in ("lung_rads_change", "change")}


def _require_nodules(numbers: Iterable[int], facts: Iterable[NoduleFacts], where: str) -> None:
    there = {one.id for one in facts}
    for number in numbers:
        if number not in there:
            raise InputError(f"{where} holds no nodule {number}: choose one of its numbers.")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object, {{name: value}}; correct the file.")
    return dict(value)


def _facts(values: Any, kinds: Mapping[str, Any], where: str) -> dict[str, Any]:
    found = {}
    for name, value in _object(values, where).items():
        if name not in kinds:
            raise InputError(f"{where}: there is no fact '{name}'; write {', '.join(kinds)}.")
        if value is not None:
            found[name] = _fact(name, value, get_args(kinds[name])[0], where)
    return found


def _fact(name: str, value: Any, kind: Any, where: str) -> Any:
    if issubclass(kind, StrEnum):
        words = {str(word).lower(): member for member in kind for word in spellings(member)}
        if str(value).lower() in words and isinstance(value, str):
            return words[value.lower()]
        choice = ", ".join(spellings(member)[-1] for member in kind)
        raise InputError(f"{where}: '{value}' is not a {LABELS[name]}; write one of {choice}.")
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise InputError(f"{where}: {name} is {value!r}; write true or false.")
    if not is_number(value) or (kind is int and value != int(value)):
        raise InputError(f"{where}: {name} is {value!r}; write a number.")
    return kind(value)
