"""Tables of risk and growth as MRML table nodes, with their sources."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import slicer
import vtk

from CTLungScreeningLib import __version__
from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.scene.mrml_volume import add_node
from LungNoduleSegLib.nodules.table import Column
from LungNoduleSegLib.results.segments import TAG
from LungNoduleSegLib.risk.features import IDENTIFIERS, SCAN_FEATURES
from LungNoduleSegLib.risk.growth_table import Row

FEATURE_COLUMNS = {
    "scan": Column("Scan", "", "Name of the volume"),
    "patient_id": Column("Patient", "", "From DICOM, else empty"),
    "series_instance_uid": Column("Series", "", "From DICOM, else empty"),
    "source": Column("Source", "", "Kind of input the features were computed from"),
} | {name: Column(name, about.unit, about.description) for name, about in SCAN_FEATURES.items()}
"""Columns of the CSV file of `features`, one row per scan."""

PREDICTION_COLUMNS = {
    "scan": FEATURE_COLUMNS["scan"],
    "probability": Column("Probability", "", "Of cancer by the trained model, 0 to 1"),
    "moved_by": Column("Contributions", "", "The strongest features, in log odds (SHAP)"),
    "warnings": Column("Warnings", "", "Features outside the training data, and others"),
}
"""One row per scan."""

WORDS = frozenset(
    (
        *("change", "side", "kind", "prior_kind", "current_kind", "lung_rads_change"),
        *("scan", "date", "source"),
        *("moved_by", "warnings", *IDENTIFIERS),
    )
)
"""Columns of text; the others are of numbers."""

SOURCE_ROLE = "CTLungScreening.source"
"""Node reference from a result to the nodes it was made from."""


def add_table(
    scene: Any,
    name: str,
    columns: Mapping[str, Column],
    rows: Sequence[Mapping[str, str | int | float | None]],
    mark: str,
    attributes: Mapping[str, str],
    sources: Sequence[Any],
) -> Any:
    """Add a table node with its kind, parameters and sources.

    Args:
        scene: gets the node.
        name: made unique.
        columns: with title, unit and description.
        rows: a value for each column; None for an empty cell.
        mark: the value of the attribute `TAG`, the kind of table.
        attributes: parameters, stored as attributes `TAG.name`.
        sources: nodes to reference in the role `SOURCE_ROLE`.
    """
    node = add_node(scene, "Table", name)
    for key, about in columns.items():
        node.AddColumn(_column(key, [row[key] for row in rows]))
        node.SetColumnTitle(key, about.title)
        node.SetColumnUnitLabel(key, about.unit)
        node.SetColumnDescription(key, about.description)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetAttribute(TAG, mark)
    node.SetAttribute(f"{TAG}.version", __version__)
    for key, value in attributes.items():
        node.SetAttribute(f"{TAG}.{key}", value)
    for source in sources:
        node.AddNodeReferenceID(SOURCE_ROLE, source.GetID())
    return node


def tables_of(scene: Any, mark: str) -> list[Any]:
    """Return the tables that `add_table` made with a mark, the last one first."""
    tables = slicer.util.getNodesByClass("vtkMRMLTableNode", scene)
    return [node for node in reversed(tables) if node.GetAttribute(TAG) == mark]


def rows_of(table_node: Any, columns: Mapping[str, Column] | None = None) -> list[Row]:
    """Read a table node; an empty cell or NaN becomes None.

    Args:
        table_node: of any kind.
        columns: to read, all required; None for all columns.

    Raises:
        InputError: if a column is missing.
    """
    table = table_node.GetTable()
    names = columns or [table.GetColumnName(i) for i in range(table.GetNumberOfColumns())]
    found = {name: table.GetColumnByName(name) for name in names}
    if missing := [name for name, column in found.items() if column is None]:
        raise InputError(
            f"{table_node.GetName()} has no column {missing[0]}: choose another table."
        )
    return [
        {name: _cell(column.GetValue(row)) for name, column in found.items()}
        for row in range(table.GetNumberOfRows())
    ]


def _column(name: str, values: Sequence[str | int | float | None]) -> Any:
    """Make a column of text or numbers; None becomes empty or NaN."""
    column = vtk.vtkStringArray() if name in WORDS else vtk.vtkDoubleArray()
    nothing = "" if name in WORDS else np.nan
    column.SetName(name)
    for value in values:
        column.InsertNextValue(nothing if value is None else value)
    return column


def _cell(value: Any) -> Any:
    return None if value == "" or value != value else value  # noqa: PLR0124 - NaN
