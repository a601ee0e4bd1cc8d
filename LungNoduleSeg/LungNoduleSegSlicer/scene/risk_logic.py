"""Cancer risk of nodules in a Slicer scene, and the clinical data kept on the volume node.

A nodule's facts are kept with the place where it lay, so that they are none of another nodule that
a later run gives the same number.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from datetime import date
from typing import Any

import slicer

from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.scene.history import Change, History
from LungNoduleSegLib.nodules.table import Nodule
from LungNoduleSegLib.results.segments import LUNG_STYLES, TAG
from LungNoduleSegLib.risk.assessment import ScanRisk, assess
from LungNoduleSegLib.risk.clinical_data import (
    NO_CLINICAL_DATA,
    ClinicalData,
    Values,
    add_prior_facts,
    fitting_facts,
    parse_facts,
)
from LungNoduleSegLib.risk.facts import (
    LABELS,
    NoduleFacts,
    PatientFacts,
    Sex,
    Status,
    measured_facts,
)
from LungNoduleSegLib.risk.growth import study_date
from LungNoduleSegSlicer.scene.classifier_logic import ClassifierLogic
from LungNoduleSegSlicer.scene.growth_logic import GrowthLogic
from LungNoduleSegSlicer.scene.mrml_results import BINARY_LABELMAP
from LungNoduleSegSlicer.scene.result_nodes import (
    ResultNodes,
    coarse_lungs_of,
    dicom_attribute,
    nodules_of,
    study_date_of,
    volume_node_of,
)

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


class RiskLogic:
    """Evaluates published models and guidelines for the nodules of a scan."""

    def __init__(self, history: History, growth: GrowthLogic, classifier: ClassifierLogic) -> None:
        self._history, self._growth, self._classifier = history, growth, classifier
        self._lungs: tuple[Any, Any] | None = None

    def facts(self, results: ResultNodes) -> ClinicalData:
        """Give what was told of a scan, its nodules that are there, and its DICOM header."""
        told = self.toldFacts(results)
        header = asdict(self.headerFacts(results))
        said = {name: value for name, value in asdict(told.patient).items() if value is not None}
        return replace(told, patient=PatientFacts(**header | said))

    def toldFacts(self, results: ResultNodes) -> ClinicalData:
        """Give what was told of a scan and its nodules that are there."""
        return told_facts(volume_node_of(results.segmentation), nodules_of(results.table))

    def headerFacts(self, results: ResultNodes) -> PatientFacts:
        """Give what the DICOM header of a scan tells of the patient."""
        return header_facts(volume_node_of(results.segmentation))

    def setFact(
        self, results: ResultNodes, name: str, value: Any, number: int | None = None
    ) -> None:
        """Keep a fact of the patient or a nodule with the scan, or with None take it back.

        Args:
            results: of the scan.
            name: of the fact, see `PatientFacts` and `NoduleFacts`.
            value: of the fact's type.
            number: of the nodule, for a fact of a nodule.

        Raises:
            InputError: if the value is not possible, or does not go with the others.
        """
        volume = volume_node_of(results.segmentation)
        nodules = nodules_of(results.table, rejected=True)
        told = with_fact(told_facts(volume, nodules), name, value, number)
        told.correct(measured_facts(nodules), results.table.GetName())
        what = f"enter {LABELS[name]}"
        self._keep(volume, told, nodules, what, f"{what} {number} {volume.GetID()}")

    def clearFacts(self, results: ResultNodes) -> None:
        """Forget everything that was told of a scan and its nodules."""
        volume = volume_node_of(results.segmentation)
        self._keep(volume, NO_CLINICAL_DATA, (), "clear clinical data")

    def evaluate(self, results: ResultNodes) -> ScanRisk:
        """Evaluate models and guidelines for every nodule of a scan that is not rejected.

        What was told comes before what the last comparison with a prior scan tells, and that
        before what was measured. A prediction by a trained model is that of the last time it was
        asked. Where nodules were changed since, neither is taken, and a note says so.

        Raises:
            InputError: if the nodes are not those of a run.
        """
        told = self.facts(results)
        measured = self.measuredFacts(results)
        if self._growth.find(results) is not None:  # so it is not the first scan
            told = replace(told, shared={n: v for n, v in told.shared.items() if n != "status"})
        prediction, doubts = self._classifier.prediction(results)
        told_of = told.correct(measured, results.table.GetName())
        assessments = tuple(assess(one, told.patient) for one in told_of)
        notes = self._growth.warnings(results)
        return ScanRisk(told.patient, assessments, prediction, (*notes, *doubts))

    def measuredFacts(self, results: ResultNodes) -> tuple[NoduleFacts, ...]:
        """Give what image and comparison tell of each nodule that is not rejected."""
        measured = measured_facts(nodules_of(results.table), self._coarse_lungs(results))
        prior = fitting_facts(measured, self._growth.priorFacts(results))
        return tuple(add_prior_facts(measured, prior))

    def _coarse_lungs(self, results: ResultNodes) -> Any | None:
        """The lungs, coarsely, as long as they are what they were; None if there are none."""
        segmentation = results.segmentation.GetSegmentation()
        found = [segmentation.GetSegment(style.id) for style in LUNG_STYLES.values()]
        labelmaps = [one and one.GetRepresentation(BINARY_LABELMAP) for one in found]
        key = [(one, one and one.GetMTime()) for one in labelmaps]
        if self._lungs is None or self._lungs[0] != key:
            try:
                self._lungs = key, coarse_lungs_of(results.segmentation)
            except InputError:
                self._lungs = key, None
        return self._lungs[1]

    def _keep(
        self,
        volume: Any,
        told: ClinicalData,
        nodules: tuple[Nodule, ...],
        what: str,
        kind: str = "",
    ) -> None:
        before = volume.GetAttribute(FACTS)

        def restore() -> None:
            if volume.GetScene() is not None:
                volume.SetAttribute(FACTS, before)

        keep_facts(volume, told, nodules)
        if volume.GetAttribute(FACTS) != before:
            self._history.remember(Change(restore, kind, what))
