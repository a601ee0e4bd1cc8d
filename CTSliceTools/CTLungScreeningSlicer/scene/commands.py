"""Run a module's commands from a Slicer scene, and show a training's loss while it runs."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import slicer

from CTLungScreeningLib.child_process import (
    ChildCommand,
    Work,
    complete,
    module_command,
    module_environment,
)
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningSlicer.scene.mrml_host import keeping_alive
from CTLungScreeningSlicer.scene.mrml_tables import (
    BLUE,
    VERMILION,
    add_column,
    add_series,
    series_of,
)
from CTLungScreeningSlicer.scene.mrml_volume import add_node


class Commands:
    """Runs the commands of a module in a child process."""

    def __init__(self, module: ModuleType, *needed: ModuleType) -> None:
        """Take the module to run as `python -m module`, and the packages it imports."""
        self._module, self._packages = module.__name__, (*needed, module)

    def run(self, *arguments: str | Path, progress: ProgressCallback = silent) -> Any:
        """Run a command and return its result, usually a dictionary.

        Args:
            *arguments: the command's name, such as "train", and its arguments and options as on the
                command line.
            progress: called at least ten times a second; a `Cancelled` it raises ends the child
                and its descendants.

        Raises:
            InputError: with the command's message if it refused its input.
            ChildError: if it failed otherwise, naming its log.
            Cancelled: if `progress` raised it.
        """
        return complete(self.work(*arguments), keeping_alive(progress))

    def work(self, *arguments: str | Path) -> Work[Any]:
        """Return the work of `run`, for a panel."""
        return (
            yield ChildCommand(
                module_command(self._module, *arguments, "--progress", "jsonl"),
                module_environment(*self._packages),
            )
        )


LOSSES = {"loss": ("training", BLUE), "val_loss": ("validation", VERMILION)}
"""The plotted metrics, with their names and colours."""


class LossCurve:
    """The metrics of a training's epochs in the scene.

    Attributes:
        table: one row per epoch, with all metrics.
        chart: losses against epochs, on a logarithmic axis unless one is negative.
    """

    def __init__(self, name: str) -> None:
        """Add empty nodes, named after the model, to the scene."""
        self.table = add_node(slicer.mrmlScene, "Table", f"{name} epochs")
        self.table.SetLocked(True)
        self.chart = add_node(slicer.mrmlScene, "PlotChart", f"{name} loss")
        self.chart.SetTitle(name)
        self.chart.SetXAxisTitle("Epoch")
        self.chart.SetYAxisTitle("Loss")
        self.chart.SetYAxisLogScale(True)
        self._arrangement: int | None = None

    def add(self, epoch: Mapping[str, float]) -> None:
        """Add an epoch; the first one defines the metrics, which include `epoch`."""
        table = self.table.GetTable()
        if table.GetNumberOfColumns() == 0:
            for name in epoch:
                add_column(self.table, name)
            for name, (label, colour) in LOSSES.items():
                if name in epoch:
                    series = add_series(self.chart, self.table, "epoch", name, label, colour)
                    series.SetMarkerSize(5)
        row = table.InsertNextBlankRow()
        for name, value in epoch.items():
            if table.GetColumnByName(name) is not None:
                table.SetValueByName(row, name, value)
        if min((epoch[name] for name in LOSSES if name in epoch), default=1) <= 0:
            self.chart.SetYAxisLogScale(False)
        self.table.Modified()

    def show(self) -> None:
        """Show the chart in Slicer's layout."""
        layout = _layout()
        if self._arrangement is None and layout is not None:
            self._arrangement = layout.GetViewArrangement()
        slicer.modules.plots.logic().ShowChartInLayout(self.chart)

    def remove(self) -> None:
        """Remove the nodes from the scene, and the chart from the layout."""
        layout = _layout()
        if self._arrangement is not None and layout is not None:
            layout.SetViewArrangement(self._arrangement)
        for node in (self.chart, *series_of(self.chart), self.table):
            slicer.mrmlScene.RemoveNode(node)


def _layout() -> Any | None:
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")


T = TypeVar("T")


class TrainingCurve:
    """A loss curve in the scene that is updated during a training."""

    def __init__(self) -> None:
        self._curve: LossCurve | None = None

    def during(self, work: Work[T], name: str) -> Work[T]:
        """Show a curve during some work; it is removed unless the work succeeds.

        Args:
            work: a training.
            name: of the model.
        """
        self._curve = LossCurve(name)
        self._curve.show()
        try:
            return (yield from work)
        except BaseException:
            self._curve.remove()
            raise
        finally:
            self._curve = None

    def handle(self, event: dict[str, Any]) -> None:
        """Handle an event of a training command, see `WorkRunner.event`."""
        if "epoch" in event and self._curve is not None:
            self._curve.add(event["epoch"])
