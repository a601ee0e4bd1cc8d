"""What a reader told of a scan for the models of risk, kept on its volume node.

A nodule's facts are kept with the place where it lay, so that they are none of another nodule that
a later run gives the same number.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from datetime import date
from typing import Any

import slicer

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.nodules.table import Nodule
from LungNoduleSegLib.results.segments import TAG
from LungNoduleSegLib.risk.clinical_data import NO_CLINICAL_DATA, ClinicalData, Values, parse_facts
from LungNoduleSegLib.risk.facts import PatientFacts, Sex, Status
from LungNoduleSegLib.risk.growth import study_date
from LungNoduleSegSlicer.scene.result_nodes import dicom_attribute, study_date_of

FACTS = f"{TAG}.facts"
"""Attribute of a volume: JSON of `ClinicalData.to_dict`, and under `places` LPS mm by number."""

_PATIENT = frozenset(field.name for field in fields(PatientFacts))
_OF_ALL = frozenset({"count"})
"""Facts of nodules that hold for the scan as a whole."""


def told_facts(volume_node: Any, nodules: Iterable[Nodule]) -> ClinicalData:
    """Give what was told of a scan and those of its nodules that are still there."""
    text = volume_node.GetAttribute(FACTS)
    if not text:
        return NO_CLINICAL_DATA
    try:
        record = json.loads(text)
        places = record.pop("places", {})
        told = parse_facts(record, volume_node.GetName())
        there = {
            one.id
            for one in nodules
            if str(one.id) in places
            and math.dist((one.x, one.y, one.z), places[str(one.id)]) <= one.diameter_mm
        }
    except (ValueError, TypeError, AttributeError, InputError):
        return NO_CLINICAL_DATA
    return replace(told, nodules={n: told.nodules[n] for n in told.nodules if n in there})


def keep_facts(volume_node: Any, told: ClinicalData, nodules: Iterable[Nodule]) -> None:
    """Keep what was told in place of what was told before."""
    if told == NO_CLINICAL_DATA:
        volume_node.RemoveAttribute(FACTS)
        return
    places = {one.id: (one.x, one.y, one.z) for one in nodules if one.id in told.nodules}
    volume_node.SetAttribute(FACTS, json.dumps(told.to_dict() | {"places": places}))


def with_fact(told: ClinicalData, name: str, value: Any, number: int | None = None) -> ClinicalData:
    """Add a fact to what was told, or with None take it back.

    The number of nodules holds for all of them. So does that the scan is the first one: telling it
    of one nodule tells it of all, and telling a change of one takes it back.

    Args:
        told: so far.
        name: of a fact of `PatientFacts` or `NoduleFacts`.
        value: of the fact's type.
        number: of the nodule, for a fact of a nodule.

    Raises:
        InputError: if the value is not possible.
    """
    if name in _PATIENT:
        return replace(told, patient=replace(told.patient, **{name: value}))
    if name in _OF_ALL:
        return replace(told, shared=_changed(told.shared, name, value))
    if number is None:
        raise ValueError(f"{name} is a fact of a nodule")
    nodules = dict(told.nodules)
    shared = told.shared
    if name == "status":
        baseline = Status.BASELINE if value is Status.BASELINE else None
        shared = _changed(shared, name, baseline)
        if baseline is not None:
            nodules = {n: _changed(values, name, None) for n, values in nodules.items()}
            value = None
    nodules[number] = _changed(nodules.get(number, {}), name, value)
    return replace(told, shared=shared, nodules={n: v for n, v in nodules.items() if v})


def header_facts(volume_node: Any) -> PatientFacts:
    """Give what the DICOM header of a scan tells of the patient: age at the study, and sex."""
    names = slicer.vtkMRMLSubjectHierarchyConstants
    born = study_date(dicom_attribute(volume_node, names.GetDICOMPatientBirthDateAttributeName()))
    sex = dicom_attribute(volume_node, names.GetDICOMPatientSexAttributeName()).strip().upper()
    return PatientFacts(
        age=_age(born, study_date_of(volume_node)),
        sex={"F": Sex.FEMALE, "M": Sex.MALE}.get(sex),
    )


def _age(born: date | None, then: date | None) -> float | None:
    if born is None or then is None:
        return None
    years = then.year - born.year - ((then.month, then.day) < (born.month, born.day))
    return float(years) if 0 < years <= 120 else None


def _changed(values: Values, name: str, value: Any) -> Mapping[str, Any]:
    rest = {key: one for key, one in values.items() if key != name}
    return rest if value is None else rest | {name: value}
