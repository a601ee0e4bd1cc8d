"""Features of scans and trained classifiers in a Slicer scene: table nodes in, a new one out."""

import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import slicer

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningSlicer.scene.commands import Commands
from CTLungScreeningSlicer.scene.history import History
from CTLungScreeningSlicer.scene.subject_hierarchy import place_beside
from LungNoduleSegLib.nodules.table import Nodule
from LungNoduleSegLib.results.segments import TAG
from LungNoduleSegLib.risk.assessment import DISCLAIMER
from LungNoduleSegLib.risk.features import (
    FEATURES_VERSION,
    SCAN_FEATURES,
    ScanFeatures,
    Source,
    nodule_features,
    scan_features,
)
from LungNoduleSegLib.risk.growth_table import Row
from LungNoduleSegLib.risk.prediction import (
    RiskPrediction,
    moved_by,
    predict_scans,
    read_prediction,
)
from LungNoduleSegSlicer.scene.result_nodes import (
    ResultNodes,
    chest_of,
    dicom_ids,
    nodule_labels_of,
    nodules_of,
)
from LungNoduleSegSlicer.scene.result_tables import (
    FEATURE_COLUMNS,
    PREDICTION_COLUMNS,
    SCORE_COLUMNS,
    SOURCE_ROLE,
    add_table,
    rows_of,
    tables_of,
)


class ClassifierLogic:
    """Brings features and trained classifiers of risk to nodes of the scene.

    Every result is a new table node; its attributes hold version and parameters, and it references
    what it was made of in the role `SOURCE_ROLE`. The history can undo each.
    """

    def __init__(self, history: History, commands: Commands) -> None:
        self._history, self._commands = history, commands

    def computeFeatures(self, results: Sequence[ResultNodes]) -> Any:
        """Compute the features of scans from their segments and tables.

        Returns:
            A new table node, one row a scan, with the columns of the command `features`.

        Raises:
            InputError: if a node cannot be used.
        """
        if not results:
            raise InputError("No scan was given: choose the results of at least one.")
        rows: list[Row] = []
        for result in results:
            chest, labels = chest_of(result), nodule_labels_of(result)
            nodules = nodule_features(labels, chest.nodules, chest.lungs)
            patient, series = dicom_ids(result.segmentation)
            features = scan_features(labels, nodules.values())
            scan = ScanFeatures(chest.name, patient, series, Source.RUN, features, nodules)
            rows.append({**scan.identifiers, **scan.features})
        with self._history.allOrNothing():
            node = add_table(
                self._history.scene,
                "Features",
                FEATURE_COLUMNS,
                rows,
                "features",
                {
                    "features_version": str(FEATURES_VERSION),
                    "volumes": json.dumps([_volumes(nodules_of(one.table)) for one in results]),
                },
                [node for result in results for node in (result.table, result.segmentation)],
            )
            place_beside(results[-1].table, node)
        return node

    def trainRisk(
        self,
        featuresNode: Any,
        labelsNode: Any,
        outputFolder: Path,
        options: Sequence[str] = (),
        progress: ProgressCallback = silent,
    ) -> Any:
        """Train both classifiers in a child process.

        Args:
            featuresNode: a table of `computeFeatures`, or one of its columns read from a file.
            labelsNode: a table with a column `patient_id` or `scan`, and `label`, 1 for cancer.
            outputFolder: gets models, cards, report and plots; nothing is overwritten.
            options: further options of `lung-nodule-seg train-risk`.
            progress: called at least ten times a second; may raise `Cancelled`.

        Returns:
            A new table node with the scores on scans that were not trained on, one row a
            classifier; attributes hold the training's parameters as JSON.

        Raises:
            InputError: if the tables cannot be learnt from.
            ChildError: if the child process failed; its log is named.
            Cancelled: if `progress` raised it.
        """
        work = Path(tempfile.mkdtemp(prefix="LungNoduleSeg-", dir=slicer.app.temporaryPath))
        files = {work / "features.csv": featuresNode, work / "labels.csv": labelsNode}

        try:
            for file, node in files.items():
                _write_csv(file, node)
            self._commands.run(
                "train-risk", *files, "-o", outputFolder, *options, progress=progress
            )
        except InputError as problem:
            text = str(problem)
            for file, node in files.items():
                text = text.replace(str(file), node.GetName()).replace(file.name, node.GetName())
            raise InputError(text) from None
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return self._scores(outputFolder, [featuresNode, labelsNode])

    def _scores(self, folder: Path, sources: Sequence[Any]) -> Any:
        from LungNoduleSegLib.risk.risk_models import Algorithm, load_risk_model  # noqa: PLC0415

        rows: list[Row] = []
        training: dict[str, Any] = {}
        for algorithm in Algorithm:
            file = folder / algorithm.file_name
            card = load_risk_model(file).card
            rows.append({"classifier": algorithm.label, **card.scores, "model": str(file)})
            training[algorithm.label] = card.training
        with self._history.allOrNothing():
            return add_table(
                self._history.scene,
                "Risk classifiers",
                SCORE_COLUMNS,
                rows,
                "scores",
                {"training": json.dumps(training)},
                sources,
            )

    def predictRisk(self, featuresNode: Any, modelFile: Path) -> Any:
        """Give the probability of cancer of each scan by a trained model, and what moved it.

        Args:
            featuresNode: a table of `computeFeatures`.
            modelFile: a `.ubj` or `.skops` file of `trainRisk`, with its card.

        Returns:
            A new table node, one row a scan; the attribute `predictions` holds all contributions
            as JSON.

        Raises:
            InputError: if the table or the model cannot be used.
        """
        scans = [_scan(row) for row in rows_of(featuresNode, FEATURE_COLUMNS)]
        found = predict_scans(scans, modelFile)
        rows: list[Row] = [
            {
                "scan": one.scan,
                "probability": one.probability,
                "moved_by": "; ".join(moved_by(one)),
                "warnings": " ".join(one.warnings),
            }
            for one in found
        ]
        with self._history.allOrNothing():
            node = add_table(
                self._history.scene,
                f"{featuresNode.GetName()} risk",
                PREDICTION_COLUMNS,
                rows,
                "prediction",
                {
                    "model": str(modelFile),
                    "predictions": json.dumps([asdict(one) for one in found]),
                    "disclaimer": DISCLAIMER,
                },
                [featuresNode],
            )
            place_beside(featuresNode, node)
        return node

    def askModel(self, results: ResultNodes, modelFile: Path) -> Any:
        """Do as `computeFeatures` and `predictRisk` for one scan, in one step."""
        with self._history.allOrNothing(what="ask the trained model"):
            return self.predictRisk(self.computeFeatures([results]), modelFile)

    def predictionOf(self, results: ResultNodes) -> tuple[RiskPrediction | None, list[str]]:
        """Give what a trained model said last of a scan, None if it was not asked.

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
                text = "Nodules were changed since the trained model was asked: ask it again."
                return None, [text]
            return read_prediction(one), []
        return None, []


def _volumes(nodules: Sequence[Nodule]) -> dict[str, float]:
    """The volumes of nodules by number, to tell whether they are still the same."""
    return {str(one.id): one.volume_mm3 for one in nodules}


def _write_csv(file: Path, table_node: Any) -> None:
    rows = rows_of(table_node)
    with file.open("x", encoding="utf-8", newline="") as stream:
        writer = csv_files.DictWriter(stream, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def _scan(row: Mapping[str, Any]) -> ScanFeatures:
    """Read a row of a table of features."""
    features = {name: math.nan if row[name] is None else float(row[name]) for name in SCAN_FEATURES}
    return ScanFeatures(
        str(row["scan"]),
        str(row["patient_id"] or ""),
        str(row["series_instance_uid"] or ""),
        Source(row["source"]),
        features,
        {},
    )
