"""The volumes of nodules against time as a plot chart."""

import math
from collections.abc import Sequence
from typing import Any

import vtk

from CTLungScreeningSlicer.scene.nodes import add_node
from LungNoduleSegLib.risk.growth_rate import Change
from LungNoduleSegLib.risk.growth_table import Row

COLOURS = {
    Change.GROWN: (0.84, 0.37, 0.0),
    Change.SHRUNK: (0.0, 0.45, 0.7),
}
"""Of the line of a nodule, by what became of it; `GREY` for all else."""


GREY = (0.4, 0.4, 0.4)


def add_growth_plot(scene: Any, name: str, rows: Sequence[Row], scans: int) -> Any:
    """Add a chart with the volumes of every nodule that two dates or more show, on a log axis.

    Args:
        scene: gets chart, series and their table.
        name: of the chart.
        rows: of `TIMELINE_COLUMNS`: each nodule at each of the scans.
        scans: how many there are.

    Returns:
        The vtkMRMLPlotChartNode.
    """
    dated = all(row["days"] is not None for row in rows)
    table = add_node(scene, "Table", f"{name} volumes")
    table.SetLocked(True)
    chart = add_node(scene, "PlotChart", name)
    chart.SetTitle(name)
    chart.SetXAxisTitle("Days since the first scan" if dated else "Scan")
    chart.SetYAxisTitle("Volume (mm³)")
    chart.SetYAxisLogScale(True)
    days = [float(row["days"] or 0) if dated else float(n) for n, row in enumerate(rows[:scans])]
    _add_column(table, "time", days or list(range(scans)))
    for first in range(0, len(rows), scans):
        track = rows[first : first + scans]
        found = [row for row in track if row["id"] is not None]
        if len(found) < 2:
            continue
        label = f"nodule {found[-1]['id']:.0f}"
        if track[-1]["id"] is None:
            label += f" of {found[-1]['scan']}"
        volumes = [math.nan if row["id"] is None else row["volume_mm3"] for row in track]
        _add_column(table, label, volumes)
        series = add_node(scene, "PlotSeries", label)
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetPlotType(series.PlotTypeScatter)
        series.SetXColumnName("time")
        series.SetYColumnName(label)
        series.SetColor(*COLOURS.get(Change(str(track[0]["change"])), GREY))
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
