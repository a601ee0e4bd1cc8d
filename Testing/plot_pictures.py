"""Plot charts of the scene as pictures, drawn by VTK's charts as Slicer's plot view does."""

from pathlib import Path
from typing import Any

import vtk

from slicer_host import is_real


def save_chart(chart: Any, file: Path, size: tuple[int, int] = (520, 360)) -> None:
    """Draw a vtkMRMLPlotChartNode into a PNG file; not in a process that has TensorFlow."""
    if is_real():
        return
    plot = vtk.vtkChartXY()
    plot.SetTitle(chart.GetTitle())
    plot.SetShowLegend(True)
    for axis, title, log in (
        (vtk.vtkAxis.BOTTOM, chart.GetXAxisTitle(), chart.GetXAxisLogScale()),
        (vtk.vtkAxis.LEFT, chart.GetYAxisTitle(), chart.GetYAxisLogScale()),
    ):
        plot.GetAxis(axis).SetTitle(title)
        plot.GetAxis(axis).SetLogScale(log)
    for index in range(chart.GetNumberOfPlotSeriesNodes()):
        series = chart.GetNthPlotSeriesNode(index)
        line = plot.AddPlot(vtk.vtkChart.LINE)
        names = series.GetXColumnName(), series.GetYColumnName()
        line.SetInputData(series.GetTableNode().GetTable(), *names)
        line.SetLabel(series.GetName())
        line.SetColorF(*series.GetColor())
        line.SetWidth(series.GetLineWidth())
        line.SetMarkerStyle(series.GetMarkerStyle())
    view = vtk.vtkContextView()
    view.GetRenderer().SetBackground(1, 1, 1)
    view.GetScene().AddItem(plot)
    window = view.GetRenderWindow()
    window.SetOffScreenRendering(True)
    window.SetMultiSamples(0)
    window.SetSize(*size)
    window.Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    writer = vtk.vtkPNGWriter()
    writer.SetFileName(str(file))
    writer.SetInputConnection(grab.GetOutputPort())
    writer.Write()
