"""Risk and growth of nodules in a Slicer scene: table nodes in, a new table node out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from types import UnionType
from typing import Any, get_args, get_type_hints

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from CTSliceToolsLib.errors import InputError
from CTSliceToolsLib.geometry.affine import LPS_TO_RAS
from CTSliceToolsLib.scene import mrml_host
from CTSliceToolsLib.scene.mrml_volume import ijk_to_world
from LungNoduleSegLib.nodules.table import COLUMNS, Column, Nodule
from LungNoduleSegLib.results.segments import LUNG_STYLES, TAG
from LungNoduleSegLib.risk.assessment import DISCLAIMER, Assessment, assess
from LungNoduleSegLib.risk.facts import NoduleFacts, PatientFacts, measured_facts
from LungNoduleSegLib.risk.growth import ChestScan, Growth, compare_scans
from LungNoduleSegLib.risk.growth_table import GROWTH_COLUMNS, Row, growth_row
from LungNoduleSegLib.scene.logic import ResultNodes
from LungNoduleSegLib.scene.mrml_results import BINARY_LABELMAP, place_beside

RISK_COLUMNS = {
    "id": COLUMNS["id"],
    "model": Column("Model or guideline", "", "What the row is the result of"),
    "probability": Column("Probability", "", "Of cancer, 0 to 1; empty for a guideline"),
    "category": Column("Category", "", "Of a guideline; empty for a model"),
    "management": Column("Management", "", "What the guideline recommends"),
    "missing": Column("Missing", "", "Facts still asked for; until then there is no result"),
    "not_for": Column("Not for", "", "Why the model or guideline does not apply"),
    "source": Column("Source", "", "Where it was published"),
}
"""One row for each nodule and each published model or guideline."""

WORDS = (
    "model",
    "category",
    "management",
    "missing",
    "not_for",
    "source",
    "change",
    "side",
    "prior_kind",
    "current_kind",
    "lung_rads_change",
)
"""Columns of words; the others are of numbers."""

SOURCE_ROLE = "CTLungScreening.source"
"""Node reference from a result to the nodes that it was made of."""

Rows = Sequence[Mapping[str, str | int | float | None]]


class RiskLogic:
    """Brings the published models and the comparison of two scans to nodes of the scene."""

    def __init__(self) -> None:
        self.scene = mrml_host.start()

    def assessRisk(  # noqa: N802 - Slicer's way of naming
        self,
        tableNode: Any,  # noqa: N803
        patient: PatientFacts,
        segmentationNode: Any | None = None,  # noqa: N803
        corrections: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> Any:
        """Evaluate every published model and guideline for each nodule of a table.

        Args:
            tableNode: the nodule table of a run.
            patient: facts that no image tells.
            segmentationNode: of the same run; from its lungs upper lobes are guessed.
            corrections: by id of a nodule, facts that a person corrects (`NoduleFacts.corrected`).

        Returns:
            A new table node. Its attributes hold the version, the facts and who said them as JSON;
            it references its sources in the role `SOURCE_ROLE`.

        Raises:
            InputError: if the table is no table of nodules or a correction is not possible.
        """
        nodules = nodules_of(tableNode)
        lungs = None if segmentationNode is None else lungs_of(segmentationNode)
        facts = {one.id: one for one in measured_facts(nodules, lungs)}
        for number, values in (corrections or {}).items():
            if number not in facts:
                raise InputError(
                    f"{tableNode.GetName()} holds no nodule {number}: choose one of its numbers."
                )
            facts[number] = facts[number].corrected(**values)
        assessments = [assess(one, patient) for one in facts.values()]
        node = self._tableNode(
            f"{tableNode.GetName()} risk",
            RISK_COLUMNS,
            [row for one in assessments for row in _risk_rows(one)],
            {
                "patient": json.dumps(asdict(patient)),
                "nodules": json.dumps([_told(one.nodule) for one in assessments]),
                "disclaimer": DISCLAIMER,
            },
            "risk",
        )
        for source in (tableNode, segmentationNode):
            if source is not None:
                node.AddNodeReferenceID(SOURCE_ROLE, source.GetID())
        place_beside(tableNode, node)
        return node

    def compareGrowth(  # noqa: N802
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
            tables and segmentations in the role `SOURCE_ROLE`, the prior ones first.

        Raises:
            InputError: if a node cannot be used or shows no lung.
        """
        growth = compare_scans(_chest(prior), _chest(current), days)
        node = self._tableNode(
            f"{current.table.GetName()} growth",
            GROWTH_COLUMNS,
            [growth_row(one, growth.days) for one in growth.nodules],
            _growth_attributes(growth),
            "growth",
        )
        for result in (prior, current):
            node.AddNodeReferenceID(SOURCE_ROLE, result.table.GetID())
            node.AddNodeReferenceID(SOURCE_ROLE, result.segmentation.GetID())
        place_beside(current.table, node)
        return node

    def _tableNode(  # noqa: N802
        self,
        name: str,
        columns: Mapping[str, Column],
        rows: Rows,
        attributes: Mapping[str, str],
        mark: str,
    ) -> Any:
        node = self.scene.AddNewNodeByClass("vtkMRMLTableNode", self.scene.GenerateUniqueName(name))
        for key, about in columns.items():
            node.AddColumn(_column(key, [row[key] for row in rows]))
            node.SetColumnTitle(key, about.title)
            node.SetColumnUnitLabel(key, about.unit)
            node.SetColumnDescription(key, about.description)
        node.SetUseColumnTitleAsColumnHeader(True)
        node.SetAttribute(TAG, mark)
        node.SetAttribute(f"{TAG}.version", version("CTLungScreening"))
        for key, value in attributes.items():
            node.SetAttribute(f"{TAG}.{key}", value)
        return node


def nodules_of(table_node: Any) -> tuple[Nodule, ...]:
    """Read the nodules back from a table node that holds those of a run.

    Raises:
        InputError: if it holds something else.
    """
    table = table_node.GetTable()
    columns = {name: table.GetColumnByName(name) for name in COLUMNS}
    if any(column is None for column in columns.values()):
        raise InputError(f"{table_node.GetName()} is no table of nodules: choose that of a run.")
    types = get_type_hints(Nodule)
    try:
        return tuple(
            Nodule(
                **{
                    name: _value(column.GetValue(row), types[name])
                    for name, column in columns.items()
                }
            )
            for row in range(table.GetNumberOfRows())
        )
    except ValueError as error:
        raise InputError(
            f"{table_node.GetName()} holds a value that is none of a nodule ({error}): "
            "correct it or run the scan again."
        ) from error


def lungs_of(segmentation_node: Any) -> sitk.Image:
    """Give the lungs of a segmentation node as labels in the world, LPS mm.

    Raises:
        InputError: if it has no segment of a lung as a run makes them.
    """
    segmentation = segmentation_node.GetSegmentation()
    ids = {label: style.id for label, style in LUNG_STYLES.items()}
    found = {label: one for label, one in ids.items() if segmentation.GetSegment(one)}
    if not found or segmentation_node.GetParentTransformNode() is not None:
        raise InputError(
            f"{segmentation_node.GetName()} has no lungs of a run, or is under a transform: "
            "choose the segmentation of a run, its transform hardened."
        )
    merged: sitk.Image | None = None
    for label, segment_id in found.items():
        segment = segmentation.GetSegment(segment_id)
        one = _labels(segment.GetRepresentation(BINARY_LABELMAP), segment.GetLabelValue()) * label
        if merged is None:
            merged = one
        else:
            on_grid = sitk.Resample(one, merged, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
            merged = sitk.Maximum(merged, on_grid)
    return merged


def _labels(labelmap: Any, value: int) -> sitk.Image:
    """One segment of a labelmap as an image, LPS mm."""
    low_x, high_x, low_y, high_y, low_z, high_z = labelmap.GetExtent()
    shape = (high_z - low_z + 1, high_y - low_y + 1, high_x - low_x + 1)
    voxels = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(shape)
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    to_lps = LPS_TO_RAS @ slicer.util.arrayFromVTKMatrix(matrix)
    return _placed((voxels == value).astype(np.uint8), to_lps, (low_x, low_y, low_z))


def _placed(
    voxels: np.ndarray[Any, Any], to_lps: np.ndarray[Any, Any], first: tuple[int, int, int]
) -> sitk.Image:
    image = sitk.GetImageFromArray(voxels)
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((to_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((to_lps @ [*first, 1.0])[:3].tolist())
    return image


def _chest(result: ResultNodes) -> ChestScan:
    segmentation = result.segmentation
    volume = segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())
    if volume is None or volume.GetImageData() is None:
        raise InputError(
            f"{segmentation.GetName()} names no volume that it is from: choose the segmentation "
            "of a run, with its scan in the scene."
        )
    hu = _placed(slicer.util.arrayFromVolume(volume), LPS_TO_RAS @ ijk_to_world(volume), (0, 0, 0))
    return ChestScan(volume.GetName(), hu, lungs_of(segmentation), nodules_of(result.table))


def _risk_rows(one: Assessment) -> list[Row]:
    number = one.nodule.id
    rows: list[Row] = [
        {
            "id": number,
            "model": model.model,
            "probability": model.probability,
            "category": None,
            "management": None,
            "missing": ", ".join(model.missing),
            "not_for": model.not_for,
            "source": model.source,
        }
        for model in one.models
    ]
    rows += [
        {
            "id": number,
            "model": guideline.guideline,
            "probability": None,
            "category": guideline.category,
            "management": guideline.management,
            "missing": ", ".join(guideline.missing),
            "not_for": guideline.not_for,
            "source": guideline.source,
        }
        for guideline in one.guidelines
    ]
    return rows


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


def _column(name: str, values: Sequence[str | int | float | None]) -> Any:
    """Make a column of words or of numbers; None becomes empty or NaN."""
    column = vtk.vtkStringArray() if name in WORDS else vtk.vtkDoubleArray()
    nothing = "" if name in WORDS else np.nan
    column.SetName(name)
    for value in values:
        column.InsertNextValue(nothing if value is None else value)
    return column


def _value(value: Any, kind: Any) -> Any:
    if isinstance(kind, UnionType):
        return None if np.isnan(value) else _value(value, get_args(kind)[0])
    return kind(value)
