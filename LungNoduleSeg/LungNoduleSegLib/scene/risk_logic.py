"""Risk and growth of nodules in a Slicer scene: result nodes in, a new table node out."""

import json
from dataclasses import asdict
from typing import Any

from CTSliceToolsLib.scene.subject_hierarchy import place_beside
from LungNoduleSegLib.risk.assessment import DISCLAIMER, assess_scan
from LungNoduleSegLib.risk.facts import NoduleFacts
from LungNoduleSegLib.risk.given_facts import NOTHING_GIVEN, GivenFacts, prior_facts
from LungNoduleSegLib.risk.growth import Growth, compare_scans
from LungNoduleSegLib.risk.growth_table import GROWTH_COLUMNS, growth_row
from LungNoduleSegLib.scene.classifier_logic import ClassifierLogic
from LungNoduleSegLib.scene.result_nodes import ResultNodes, chest_of, lungs_of, nodules_of
from LungNoduleSegLib.scene.result_tables import RISK_COLUMNS, add_table, risk_rows, rows_of


class RiskLogic(ClassifierLogic):
    """Brings published models, growth, features and classifiers to nodes of the scene."""

    def assessRisk(
        self,
        tableNode: Any,
        given: GivenFacts = NOTHING_GIVEN,
        segmentationNode: Any | None = None,
        growthNode: Any | None = None,
    ) -> Any:
        """Evaluate every published model and guideline for each nodule of a table.

        Args:
            tableNode: the nodule table of a run.
            given: what was told of the patient and the nodules.
            segmentationNode: of the same run; from its lungs upper lobes are guessed.
            growthNode: a table of `compareGrowth` whose current scan this is.

        Returns:
            A new table node with a row for each nodule and model; attributes hold the facts and
            who said them as JSON.

        Raises:
            InputError: if a table is of another kind or of another scan, or a fact not possible.
        """
        nodules = nodules_of(tableNode)
        lungs = None if segmentationNode is None else lungs_of(segmentationNode)
        prior = {} if growthNode is None else prior_facts(rows_of(growthNode, GROWTH_COLUMNS))
        found = assess_scan(nodules, lungs, given, prior, tableNode.GetName())
        sources = [node for node in (tableNode, segmentationNode, growthNode) if node is not None]
        with self.allOrNothing():
            node = add_table(
                self.scene,
                f"{tableNode.GetName()} risk",
                RISK_COLUMNS,
                [row for one in found for row in risk_rows(one)],
                "risk",
                {
                    "patient": json.dumps(asdict(given.patient)),
                    "nodules": json.dumps([_told(one.nodule) for one in found]),
                    "disclaimer": DISCLAIMER,
                },
                sources,
            )
            place_beside(tableNode, node)
        return node

    def compareGrowth(
        self, prior: ResultNodes, current: ResultNodes, days: int | None = None
    ) -> Any:
        """Match the nodules of two scans of one patient and put what changed into a table.

        The volume of each scan is the one that its segmentation names as its reference.

        Args:
            prior: segmentation and table of the run on the earlier scan.
            current: likewise of the later scan.
            days: between the two; without it no doubling time is given.

        Returns:
            A new table node, with the interval and the notes as attributes; it references the two
            tables and segmentations, the prior ones first.

        Raises:
            InputError: if a node cannot be used or shows no lung.
        """
        growth = compare_scans(chest_of(prior), chest_of(current), days)
        with self.allOrNothing():
            node = add_table(
                self.scene,
                f"{current.table.GetName()} growth",
                GROWTH_COLUMNS,
                [growth_row(one, growth.days) for one in growth.nodules],
                "growth",
                _growth_attributes(growth),
                [prior.table, prior.segmentation, current.table, current.segmentation],
            )
            place_beside(current.table, node)
        return node


def _told(facts: NoduleFacts) -> dict[str, Any]:
    return {name: value for name, value in asdict(facts).items() if value is not None}


def _growth_attributes(growth: Growth) -> dict[str, str]:
    return {
        "prior": growth.prior.name,
        "current": growth.current.name,
        "days": "" if growth.days is None else str(growth.days),
        "notes": json.dumps(growth.notes),
        "overlap": json.dumps(
            {str(side): round(v, 3) for side, v in growth.alignment.overlap.items()}
        ),
    }
