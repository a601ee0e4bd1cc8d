"""Risk of nodules in a Slicer scene: what was told, measured and compared, and what it means."""

from dataclasses import asdict, replace
from typing import Any

from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.scene.history import Change, History
from LungNoduleSegLib.nodules.table import Nodule
from LungNoduleSegLib.results.segments import LUNG_STYLES
from LungNoduleSegLib.risk.assessment import assess
from LungNoduleSegLib.risk.clinical_data import (
    NO_CLINICAL_DATA,
    ClinicalData,
    add_prior_facts,
    fitting_facts,
)
from LungNoduleSegLib.risk.facts import (
    LABELS,
    NoduleFacts,
    PatientFacts,
    coarse_lungs,
    measured_facts,
)
from LungNoduleSegLib.risk.scan_risk import ScanRisk
from LungNoduleSegSlicer.scene.classifier_logic import ClassifierLogic
from LungNoduleSegSlicer.scene.clinical_data_node import (
    FACTS,
    header_facts,
    keep_facts,
    told_facts,
    with_fact,
)
from LungNoduleSegSlicer.scene.growth_logic import GrowthLogic
from LungNoduleSegSlicer.scene.mrml_results import BINARY_LABELMAP
from LungNoduleSegSlicer.scene.result_nodes import (
    ResultNodes,
    lungs_of,
    nodules_of,
    volume_node_of,
)


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
                self._lungs = key, coarse_lungs(lungs_of(results.segmentation))
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
