"""Cancer risk of nodules in a Slicer scene, and the clinical data kept on the volume node.

A nodule's facts are stored with its position: they follow it when a later run numbers it otherwise,
wait for it while it is not in the table, and are not applied to another nodule of the same number.
"""

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, fields, replace
from datetime import date
from typing import Any

import slicer

from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.scene.history import Change, History
from LungNoduleSegLib.nodules.table import Nodule
from LungNoduleSegLib.results.segments import LUNG_STYLES, TAG
from LungNoduleSegLib.risk.assessment import ScanRisk, assess_examination
from LungNoduleSegLib.risk.clinical_data import (
    NO_CLINICAL_DATA,
    ClinicalData,
    Point,
    Values,
    add_prior_facts,
    fitting_facts,
    numbers_now,
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
from LungNoduleSegSlicer.scene.nodule_segments import segments_of
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
"""Facts of nodules that apply to the whole scan."""


def clinical_data_of(
    volume_node: Any, nodules: Sequence[Nodule]
) -> tuple[ClinicalData, dict[int, Point]]:
    """Read the clinical data of a scan, and the places of the nodules that have some.

    Args:
        volume_node: the scan.
        nodules: all that it has now; data of others keep a number that none of these has.
    """
    text = volume_node.GetAttribute(FACTS)
    if not text:
        return NO_CLINICAL_DATA, {}
    try:
        record = json.loads(text)
        stored = {int(n): tuple(map(float, at)) for n, at in record.pop("places", {}).items()}
        data = parse_facts(record, volume_node.GetName())
        numbers = numbers_now({n: stored[n] for n in data.nodules if n in stored}, nodules)
    except (ValueError, TypeError, AttributeError, InputError):
        return NO_CLINICAL_DATA, {}
    places = {now: stored[n] for n, now in numbers.items()}
    return replace(data, nodules={now: data.nodules[n] for n, now in numbers.items()}), places


def store_clinical_data(volume_node: Any, data: ClinicalData, places: Mapping[int, Point]) -> None:
    """Replace the clinical data of a scan; `places` are those of its nodules."""
    if data == NO_CLINICAL_DATA:
        volume_node.RemoveAttribute(FACTS)
        return
    where = {number: places[number] for number in data.nodules}
    volume_node.SetAttribute(FACTS, json.dumps(data.to_dict() | {"places": where}))


def with_fact(
    data: ClinicalData, name: str, value: Any, number: int | None, compared: bool
) -> ClinicalData:
    """Set a fact, or with None remove it.

    The number of nodules applies to all of them. So does the status baseline of a scan that is not
    compared: setting it for one nodule sets it for all, and setting another status for one removes
    it from all.

    Args:
        data: the current clinical data.
        name: of a fact of `PatientFacts` or `NoduleFacts`.
        value: of the fact's type.
        number: of the nodule, for a fact of a nodule.
        compared: whether the scan is compared with an earlier one, so it is not the first.

    Raises:
        InputError: if the value is impossible.
    """
    if name in _PATIENT:
        return replace(data, patient=replace(data.patient, **{name: value}))
    if name in _OF_ALL:
        return replace(data, shared=_changed(data.shared, name, value))
    if number is None:
        raise ValueError(f"{name} is a fact of a nodule")
    nodules = dict(data.nodules)
    shared = data.shared
    if name == "status" and not compared:
        baseline = Status.BASELINE if value is Status.BASELINE else None
        shared = _changed(shared, name, baseline)
        if baseline is not None:
            nodules = {n: _changed(values, name, None) for n, values in nodules.items()}
            value = None
    nodules[number] = _changed(nodules.get(number, {}), name, value)
    return replace(data, shared=shared, nodules={n: v for n, v in nodules.items() if v})


def header_facts(volume_node: Any) -> PatientFacts:
    """Return age at the study and sex from the DICOM header of a scan."""
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


def _only(data: ClinicalData, numbers: Set[int | None]) -> ClinicalData:
    """Leave out the facts of other nodules."""
    return replace(data, nodules={n: one for n, one in data.nodules.items() if n in numbers})


class RiskLogic:
    """Evaluates published models and guidelines for the nodules of a scan."""

    def __init__(self, history: History, growth: GrowthLogic, classifier: ClassifierLogic) -> None:
        self._history, self._growth, self._classifier = history, growth, classifier
        self._lungs: tuple[Any, Any] | None = None

    def facts(self, results: ResultNodes) -> ClinicalData:
        """Return the clinical data of a scan, completed from its DICOM header."""
        data = self.enteredFacts(results)
        header = asdict(self.headerFacts(results))
        known = {name: value for name, value in asdict(data.patient).items() if value is not None}
        return replace(data, patient=PatientFacts(**header | known))

    def enteredFacts(self, results: ResultNodes) -> ClinicalData:
        """Return the clinical data that were entered for a scan and its existing nodules."""
        nodules = nodules_of(results.table, rejected=True)
        data, _ = clinical_data_of(volume_node_of(results), nodules)
        return _only(data, {one.id for one in nodules_of(results.table)})

    def headerFacts(self, results: ResultNodes) -> PatientFacts:
        """Return the facts of the patient in the DICOM header of a scan."""
        return header_facts(volume_node_of(results))

    def setFact(
        self, results: ResultNodes, name: str, value: Any, number: int | None = None
    ) -> None:
        """Set a fact of the patient or a nodule, or with None remove it.

        Args:
            results: of the scan.
            name: of the fact, see `PatientFacts` and `NoduleFacts`.
            value: of the fact's type.
            number: of the nodule, for a fact of a nodule.

        Raises:
            InputError: if the value is impossible, or contradicts the others of its nodule.
        """
        volume = volume_node_of(results)
        nodules = nodules_of(results.table, rejected=True)
        data, places = clinical_data_of(volume, nodules)
        data = with_fact(data, name, value, number, self._growth.find(results) is not None)
        here = {one.id: (one.x, one.y, one.z) for one in nodules}
        of_nodule = name not in _PATIENT | _OF_ALL
        checked = _only(data, {number} if of_nodule else set())
        checked.correct(measured_facts(nodules), results.table.GetName())
        what = f"enter {LABELS[name]}"
        self._keep(volume, data, places | here, what, f"{what} {number} {volume.GetID()}")

    def clearFacts(self, results: ResultNodes) -> None:
        """Clear the clinical data of a scan and its nodules."""
        volume = volume_node_of(results)
        self._keep(volume, NO_CLINICAL_DATA, {}, "clear clinical data")

    def evaluate(self, results: ResultNodes) -> ScanRisk:
        """Evaluate models and guidelines for every nodule that is not rejected.

        Clinical data override the last comparison with a prior scan, which overrides measurements.
        The prediction of a trained model is the last one made. Outdated comparisons and predictions
        are left out with a note.

        Raises:
            InputError: if the nodes are not those of a run.
            UnfitFactsError: if what was entered for a nodule contradicts what is measured now.
        """
        data = self.facts(results)
        measured = self.measuredFacts(results)
        compared = self._growth.find(results) is not None
        if compared:  # so it is not the first scan
            data = replace(data, shared={n: v for n, v in data.shared.items() if n != "status"})
        prediction, warnings = self._classifier.prediction(results)
        corrected = data.correct(measured, results.table.GetName())
        assessments = assess_examination(corrected, data.patient, compared)
        notes = self._growth.warnings(results)
        return ScanRisk(data.patient, assessments, prediction, (*notes, *warnings), compared)

    def measuredFacts(self, results: ResultNodes) -> tuple[NoduleFacts, ...]:
        """Return the facts of each nodule that is not rejected, measured and from growth."""
        measured = measured_facts(nodules_of(results.table), self._coarse_lungs(results))
        prior = fitting_facts(measured, self._growth.priorFacts(results))
        return tuple(add_prior_facts(measured, prior))

    def _coarse_lungs(self, results: ResultNodes) -> Any | None:
        """The subsampled lungs, cached until they change; None without lungs."""
        segmentation = results.segmentation.GetSegmentation()
        found = map(segmentation.GetSegment, segments_of(results.segmentation, LUNG_STYLES))
        labelmaps = [one.GetRepresentation(BINARY_LABELMAP) for one in found]
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
        data: ClinicalData,
        places: Mapping[int, Point],
        what: str,
        kind: str = "",
    ) -> None:
        before = volume.GetAttribute(FACTS)

        def restore() -> None:
            if volume.GetScene() is not None:
                volume.SetAttribute(FACTS, before)

        store_clinical_data(volume, data, places)
        if volume.GetAttribute(FACTS) != before:
            self._history.remember(Change(restore, kind, f"{what} of {volume.GetName()}"))
