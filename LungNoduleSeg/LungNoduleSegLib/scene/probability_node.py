"""The probability that a run kept, as a volume node that the table of nodules refers to."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import slicer

from CTSliceToolsLib.errors import InputError
from CTSliceToolsLib.geometry.affine import LPS_TO_RAS, ijk_to_lps
from LungNoduleSegLib.nodules.candidates import NoduleRules
from LungNoduleSegLib.results.names import PROBABILITY, RECORD
from LungNoduleSegLib.results.segments import TAG
from LungNoduleSegLib.scene.result_nodes import PROBABILITY_ROLE

RULES = f"{TAG}.rules"
"""Attribute of the probability's node: the rules by which the nodules were found, as JSON."""


def of_table(table_node: Any | None) -> Any | None:
    """Give the probability that a table was made from, if it was kept."""
    return None if table_node is None else table_node.GetNodeReference(PROBABILITY_ROLE)


def bring(folder: Path, table_node: Any, name: str) -> Any:
    """Bring the probability of a run into the scene, in place of the one that the table had.

    Args:
        folder: of the run.
        table_node: of its nodules.
        name: of the volume that was segmented.

    Raises:
        InputError: if the file is damaged.
    """
    try:
        image = sitk.ReadImage(folder / PROBABILITY)
    except RuntimeError as error:
        raise InputError(f"{folder / PROBABILITY} is damaged: run the scan again.") from error
    node = of_table(table_node)
    if node is None:
        scene = table_node.GetScene()
        node = scene.AddNewNodeByClass(
            "vtkMRMLScalarVolumeNode", scene.GenerateUniqueName(f"{name} nodule probability")
        )
        table_node.SetNodeReferenceID(PROBABILITY_ROLE, node.GetID())
    slicer.util.updateVolumeFromArray(node, sitk.GetArrayViewFromImage(image))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(LPS_TO_RAS @ ijk_to_lps(image)))
    node.SetAttribute(RULES, json.dumps(_rules(folder / RECORD)))
    return node


def rules_of(node: Any) -> NoduleRules:
    """Give the rules by which the nodules in the scene were found."""
    return NoduleRules(**json.loads(node.GetAttribute(RULES) or "{}"))


def set_threshold(node: Any, threshold: float) -> None:
    """Keep in the scene that the nodules were found at another threshold."""
    node.SetAttribute(RULES, json.dumps(asdict(replace(rules_of(node), threshold=threshold))))


def _rules(file: Path) -> dict[str, Any]:
    try:
        rules: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["parameters"]["rules"]
        return rules
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no record of a run: run the scan again.") from error
