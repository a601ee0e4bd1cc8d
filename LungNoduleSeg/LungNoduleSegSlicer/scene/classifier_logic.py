"""Features of scans and trained classifiers in a Slicer scene: table nodes in, a new one out."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from CTLungScreeningSlicer.scene.history import History
from CTLungScreeningSlicer.scene.mrml_volume import place_beside
from LungNoduleSegLib.nodules.table import Nodule
from LungNoduleSegLib.results.segments import TAG
from LungNoduleSegLib.risk.assessment import DISCLAIMER
from LungNoduleSegLib.risk.features import (
    FEATURES_VERSION,
    ScanFeatures,
    Source,
    nodule_features,
    scan_features,
)
from LungNoduleSegLib.risk.growth_table import Row
from LungNoduleSegLib.risk.prediction import (
    RiskPrediction,
    predict_scans,
    read_prediction,
    strongest,
)
from LungNoduleSegSlicer.scene.mrml_results import (
    FEATURE_COLUMNS,
    PREDICTION_COLUMNS,
    SOURCE_ROLE,
    add_table,
    tables_of,
)
from LungNoduleSegSlicer.scene.result_nodes import (
    ResultNodes,
    chest_of,
    dicom_ids,
    nodule_labels_of,
    nodules_of,
    volume_node_of,
)
from LungNoduleSegSlicer.scene.review_state import require_measured


class ClassifierLogic:
    """Brings features and trained classifiers of risk to nodes of the scene.

    Every result is a new table node; its attributes hold version and parameters, and it references
    what it was made of in the role `SOURCE_ROLE`. The history can undo each.
    """

    def __init__(self, history: History) -> None:
        self._history = history

    def predict(self, results: ResultNodes, modelFile: Path) -> Any:
        """Return the probability of cancer of a scan by a trained model, and what moved it.

        Args:
            results: of the scan, whose features are computed.
            modelFile: a `.ubj` or `.skops` file of `lung-nodule-seg train-risk`, with its card.

        Returns:
            A new table node of one row, beside one of the features with the columns of the command
            `features`; the attribute `predictions` holds all contributions as JSON.

        Raises:
            InputError: if a node or the model cannot be used, or a nodule was edited since it was
                measured.
        """
        features = _features(results)
        (found,) = predict_scans([features], modelFile)
        row: Row = {
            "scan": found.scan,
            "probability": found.probability,
            "moved_by": "; ".join(strongest(found)),
            "warnings": " ".join(found.warnings),
        }
        name = volume_node_of(results).GetName()
        with self._history.allOrNothing(what=f"predict the risk of {name}"):
            source = self._add_features(results, features)
            node = add_table(
                self._history.scene,
                f"{source.GetName()} risk",
                PREDICTION_COLUMNS,
                [row],
                "prediction",
                {
                    "model": str(modelFile),
                    "predictions": json.dumps([asdict(found)]),
                    "disclaimer": DISCLAIMER,
                },
                [source],
            )
            place_beside(source, node)
        return node

    def prediction(self, results: ResultNodes) -> tuple[RiskPrediction | None, list[str]]:
        """Return the last prediction of a trained model for a scan, None without one.

        Returns:
            The prediction; and a sentence instead of it if nodules were changed since.
        """
        for node in tables_of(results.table.GetScene(), "prediction"):
            features = node.GetNodeReference(SOURCE_ROLE)
            if features is None or features.GetNodeReference(SOURCE_ROLE) is not results.table:
                continue
            (one,) = json.loads(node.GetAttribute(f"{TAG}.predictions"))
            (then,) = json.loads(features.GetAttribute(f"{TAG}.volumes"))
            now = _volumes(nodules_of(results.table))
            if then.keys() != now.keys() or any(
                not math.isclose(then[number], now[number], rel_tol=1e-3) for number in then
            ):
                text = "The nodules have changed since this prediction. Press Predict again."
                return None, [text]
            return read_prediction(one), []
        return None, []

    def _add_features(self, results: ResultNodes, scan: ScanFeatures) -> Any:
        node = add_table(
            self._history.scene,
            "Features",
            FEATURE_COLUMNS,
            [{**scan.identifiers, **scan.features}],
            "features",
            {
                "features_version": str(FEATURES_VERSION),
                "volumes": json.dumps([_volumes(nodules_of(results.table))]),
            },
            [results.table, results.segmentation],
        )
        place_beside(results.table, node)
        return node


def _features(results: ResultNodes) -> ScanFeatures:
    chest, labels = chest_of(results), nodule_labels_of(results)
    require_measured(results)
    nodules = nodule_features(labels, chest.nodules, chest.lungs)
    patient, series = dicom_ids(results)
    features = scan_features(labels, nodules.values())
    return ScanFeatures(chest.name, patient, series, Source.RUN, features, nodules)


def _volumes(nodules: Sequence[Nodule]) -> dict[str, float]:
    """The volumes of nodules by number, to detect changes."""
    return {str(one.id): one.volume_mm3 for one in nodules}
