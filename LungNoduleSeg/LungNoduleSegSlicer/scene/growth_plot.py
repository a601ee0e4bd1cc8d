"""The volumes of nodules at two times as a plot chart."""

from collections.abc import Sequence
from typing import Any

import vtk

from LungNoduleSegLib.risk.growth import Change
from LungNoduleSegLib.risk.growth_table import Row

COLOURS = {
    Change.GROWN: (0.84, 0.37, 0.0),
    Change.SHRUNK: (0.0, 0.45, 0.7),
    Change.UNCHANGED: (0.4, 0.4, 0.4),
}
"""Of the line of a pair, by what became of it."""


def add_growth_plot(scene: Any, name: str, rows: Sequence[Row], days: int | None) -> Any:
    """Add a chart with a line a pair from its prior to its current volume, on a logarithmic axis.

    Args:
        scene: gets chart, series and their table.
        name: of the chart.
        rows: of `GROWTH_COLUMNS`.
        days: between the scans; None: they are drawn one step apart.

    Returns:
        The vtkMRMLPlotChartNode.
    """
    pairs = [row for row in rows if row["prior_id"] is not None and row["current_id"] is not None]
    table = _add(scene, "Table", f"{name} volumes")
    table.SetLocked(True)
    chart = _add(scene, "PlotChart", name)
    chart.SetTitle(name)
    chart.SetXAxisTitle("Days since the prior scan" if days else "Prior scan, current scan")
    chart.SetYAxisTitle("Volume (mm³)")
    chart.SetYAxisLogScale(True)
    _add_column(table, "time", (0.0, float(days or 1)))
    for row in pairs:
        label = f"nodule {row['current_id']:.0f}"
        _add_column(table, label, (row["prior_volume_mm3"], row["current_volume_mm3"]))
        series = _add(scene, "PlotSeries", label)
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetPlotType(series.PlotTypeScatter)
        series.SetXColumnName("time")
        series.SetYColumnName(label)
        series.SetColor(*COLOURS[Change(str(row["change"]))])
        series.SetLineWidth(2)
        series.SetMarkerStyle(series.MarkerStyleCircle)
        series.SetMarkerSize(7)
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    return chart


def _add_column(table: Any, name: str, values: Sequence[Any]) -> None:
    column = vtk.vtkDoubleArray()
    column.SetName(name)
    for value in values:
        column.InsertNextValue(value)
    table.AddColumn(column)


def _add(scene: Any, kind: str, name: str) -> Any:
    return scene.AddNewNodeByClass(f"vtkMRML{kind}Node", scene.GenerateUniqueName(name))
