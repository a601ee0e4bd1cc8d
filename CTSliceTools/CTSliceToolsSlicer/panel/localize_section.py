"""The section Localize: where in the body the slices of the volume lie."""

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from CTLungScreeningLib.child_process import Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.panel.packages import ensure_packages
from CTLungScreeningSlicer.panel.run_bar import RunBar
from CTLungScreeningSlicer.panel.section import Section
from CTLungScreeningSlicer.panel.slice_views import (
    go_to,
    pointed_ras,
    pointed_view,
    pointer_observers,
    view_shows,
)
from CTLungScreeningSlicer.panel.widgets import ModelChooser, fit_height, show_text
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME, describe_location
from CTSliceToolsLib.localizer.prediction import DEFAULT_MODEL, UNKNOWN_MM, ScanPrediction
from CTSliceToolsSlicer.panel.annotate_section import AnnotateSection
from CTSliceToolsSlicer.scene.logic import CTSliceToolsLogic

TITLE = "CT Slice Tools"


class LocalizeSection(Section):
    """Prediction of one volume: run, landmarks found, plot, live readout.

    Attributes:
        model: chooses the localizer.
        run_bar: runs it.
    """

    def __init__(
        self, ui: Any, logic: CTSliceToolsLogic, annotate: AnnotateSection, requirements: Path
    ) -> None:
        """Build the section; `requirements` are installed when a run is first started."""
        super().__init__()
        self._ui, self._logic, self._annotate = ui, logic, annotate
        self._requirements = requirements
        self._volume: Any = None
        self._prediction: ScanPrediction | None = None
        self._tags: list[tuple[Any, int]] = []
        self.model = ModelChooser(ui.modelBox, [DEFAULT_MODEL] if DEFAULT_MODEL.exists() else [])
        self.run_bar = RunBar(
            ui.localizeRun,
            _("Localize slices"),
            _("Predict the location of each slice in the body."),
            self._make_work,
            lambda nodes: None,
        )
        self.run_bar.runner.ended.connect(lambda *_: self.changed.emit())
        self.model.changed.connect(lambda file: self._show_obstacle())
        header = ui.foundTable.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        ui.foundTable.cellClicked.connect(lambda row, column: self._go_to_row(row))
        ui.plotButton.clicked.connect(self._show_plot)
        ui.adoptButton.clicked.connect(self._adopt)
        self.refresh()

    def set_volume(self, volume: Any | None) -> None:
        """Work on a volume from now on, or on none; a run goes on with the one it began with."""
        if volume is not self._volume:
            self._volume = volume
            self._observe()
        self.refresh()

    def stop(self) -> None:
        """Stop the run and its child process."""
        self.run_bar.runner.stop()

    def refresh(self) -> None:
        """Show the prediction that the scene holds for the volume."""
        self._prediction, warning = None, ""
        if self._volume is not None and self._logic.predictionNodes(self._volume) is not None:
            try:
                self._prediction = self._logic.prediction(self._volume)
                warning = "\n".join(self._prediction.fit.warnings)
            except InputError as problem:
                warning = str(problem)
        self._fill_table()
        there = self._prediction is not None
        for widget in (
            self._ui.foundTable,
            self._ui.locationLabel,
            self._ui.plotButton,
            self._ui.adoptButton,
        ):
            widget.visible = there
        show_text(self._ui.warningLabel, warning)
        self._show_location()
        self._show_obstacle()

    def _make_work(self) -> Work[Any] | None:
        if not ensure_packages(self._requirements, TITLE):
            return None
        return self._logic.predictWork(self._volume, self.model.file)

    def _show_obstacle(self) -> None:
        obstacle = ""
        if self._volume is None:
            obstacle = _("Choose a CT volume first.")
        elif self.model.file is None:
            obstacle = _("Choose a model first.")
        self.run_bar.set_obstacle(obstacle)

    def _fill_table(self) -> None:
        rows: list[tuple[str, ...]] = []
        if self._prediction is not None:
            for name, place in self._prediction.landmarks.items():
                z, off = f"{place.z_mm:.1f}", f"{place.uncertainty_mm:.0f}"
                location = f"{LANDMARK_BY_NAME[name].location:g}"
                rows.append((name, str(place.slice.index), z, off, location))
            rows += [(name, "", _("unknown"), "", "") for name in self._prediction.unknown]
        table = self._ui.foundTable
        table.rowCount = len(rows)
        for row, texts in enumerate(rows):
            for column, text in enumerate(texts):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        fit_height(table, 1, len(LANDMARK_BY_NAME))

    def _go_to_row(self, row: int) -> None:
        nodes = self._logic.predictionNodes(self._volume)
        if nodes is not None and row < nodes.markups.GetNumberOfControlPoints():
            place = [0.0, 0.0, 0.0]
            nodes.markups.GetNthControlPointPositionWorld(row, place)
            go_to(place)

    def _show_plot(self, *_arguments: Any) -> None:
        nodes = self._logic.predictionNodes(self._volume)
        if nodes is not None:
            slicer.modules.plots.logic().ShowChartInLayout(nodes.chart)

    def _adopt(self, *_arguments: Any) -> None:
        self._annotate.change(self._logic.annotateAsPredicted)

    def _show_location(self, *_arguments: Any) -> None:
        text, view, ras = "", pointed_view(), pointed_ras()
        if self._prediction is not None and ras is not None and view_shows(view, self._volume):
            low, high = self._prediction.field_of_view
            if low <= ras[2] <= high:
                location = float(self._prediction.fit.location_at(ras[2]))
                off = float(self._prediction.fit.uncertainty_at(ras[2]))
                sure = f"± {off:.0f} mm" if off <= UNKNOWN_MM else _("unknown")
                text = f"{location:.3f}, {describe_location(location)} ({sure})"
        self._ui.locationLabel.text = text

    def _observe(self) -> None:
        for node, tag in self._tags:
            node.RemoveObserver(tag)
        self._tags = []
        if self._volume is not None:
            event = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
            self._tags = pointer_observers(self._show_location)
            self._tags.append((self._volume, self._volume.AddObserver(event, self._moved)))

    def _moved(self, *_arguments: Any) -> None:
        self.refresh()
