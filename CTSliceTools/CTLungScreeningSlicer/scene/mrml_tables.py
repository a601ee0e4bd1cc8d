"""Columns of table nodes, and charts of them. Needs slicer."""

import math
from collections.abc import Iterable
from typing import Any

import vtk

from CTLungScreeningSlicer.scene.mrml_volume import add_node

BLUE, VERMILION = (0.0, 0.45, 0.7), (0.84, 0.37, 0.0)
"""Colours of what is plotted."""


def add_column(
    table_node: Any,
    name: str,
    values: Iterable[Any] = (),
    kind: type = float,
    about: tuple[str, str, str] | None = None,
) -> None:
    """Add a column to a table node.

    Args:
        table_node: gets the column.
        name: of the column.
        values: one a row; None for an empty cell, of numbers NaN.
        kind: of the values, numbers or a kind of text.
        about: title, unit and description.
    """
    text = issubclass(kind, str)
    whole = issubclass(kind, int)
    column = (vtk.vtkStringArray if text else vtk.vtkIntArray if whole else vtk.vtkDoubleArray)()
    column.SetName(name)
    for value in values:
        column.InsertNextValue(("" if text else math.nan) if value is None else value)
    table_node.AddColumn(column)
    if about is not None:
        title, unit, description = about
        table_node.SetColumnTitle(name, title)
        table_node.SetColumnUnitLabel(name, unit)
        table_node.SetColumnDescription(name, description)
        table_node.SetUseColumnTitleAsColumnHeader(True)


def add_series(
    chart: Any, table_node: Any, x: str, y: str, name: str, colour: tuple[float, float, float]
) -> Any:
    """Plot a column of a table against another, as points and a line; return the series node."""
    series = add_node(chart.GetScene(), "PlotSeries", name)
    series.SetAndObserveTableNodeID(table_node.GetID())
    series.SetPlotType(series.PlotTypeScatter)
    series.SetXColumnName(x)
    series.SetYColumnName(y)
    series.SetColor(*colour)
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    return series


def series_of(chart: Any) -> list[Any]:
    """Return the series nodes of a chart."""
    return [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())]
