"""The probability that a run kept, as a volume node that the table of nodules refers to."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import slicer

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry.affine import LPS_TO_RAS, ijk_to_lps
from CTLungScreeningLib.reading.volume_files import read_labels
from CTLungScreeningSlicer.scene.nodes import add_node
from LungNoduleSegLib.nodules.candidates import NoduleRules
from LungNoduleSegLib.results.names import PROBABILITY, RECORD
from LungNoduleSegLib.results.segments import TAG
from LungNoduleSegSlicer.scene.result_nodes import PROBABILITY_ROLE

RULES = f"{TAG}.rules"
"""Attribute of the probability's node: the rules by which the nodules were found, as JSON."""


def of_table(table_node: Any | None) -> Any | None:
    """Give the probability that a table was made from, if it was kept."""
    return None if table_node is None else table_node.GetNodeReference(PROBABILITY_ROLE)


def bring(folder: Path, table_node: Any, name: str) -> Any:
    """Bring the probability of a run into the scene, in place of the one that the table had.

    A run that is about to end has no record yet: its rules are kept by `set_rules`.

    Args:
        folder: of the run.
        table_node: of its nodules.
        name: of the volume that was segmented.

    Raises:
        InputError: if the file is damaged.
    """
    try:
        image = read_labels(folder / PROBABILITY)
    except InputError as error:
        raise InputError(f"{folder / PROBABILITY} is damaged: run the scan again.") from error
    node = of_table(table_node)
    if node is None:
        scene = table_node.GetScene()
        node = add_node(scene, "ScalarVolume", f"{name} nodule probability")
        node.SetHideFromEditors(True)  # else it would be offered as a chest CT
        table_node.SetNodeReferenceID(PROBABILITY_ROLE, node.GetID())
    slicer.util.updateVolumeFromArray(node, sitk.GetArrayViewFromImage(image))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(LPS_TO_RAS @ ijk_to_lps(image)))
    record = folder / RECORD
    node.SetAttribute(RULES, json.dumps(_rules(record) if record.exists() else {}))
    return node


def rules_of(node: Any) -> NoduleRules:
    """Give the rules by which the nodules in the scene were found."""
    return NoduleRules(**json.loads(node.GetAttribute(RULES) or "{}"))


def set_rules(node: Any, rules: NoduleRules) -> None:
    """Keep in the scene by which rules the nodules were found."""
    node.SetAttribute(RULES, json.dumps(asdict(rules)))


def set_threshold(node: Any, threshold: float) -> None:
    """Keep in the scene that the nodules were found at another threshold."""
    set_rules(node, replace(rules_of(node), threshold=threshold))


def _rules(file: Path) -> dict[str, Any]:
    try:
        rules: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["parameters"]["rules"]
        return rules
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no record of a run: run the scan again.") from error
