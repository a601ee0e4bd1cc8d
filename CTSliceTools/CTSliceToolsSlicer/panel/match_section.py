"""The section Match: the slices of a second volume at the level of the first."""

from math import isfinite
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from CTLungScreeningLib.child_process import Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import ScanAlignment
from CTLungScreeningSlicer.panel.packages import ensure_packages
from CTLungScreeningSlicer.panel.run_bar import RunBar
from CTLungScreeningSlicer.panel.section import Debounced, Section
from CTLungScreeningSlicer.panel.side_by_side import SideBySide
from CTLungScreeningSlicer.panel.slice_views import RED, view_centre
from CTLungScreeningSlicer.panel.widgets import ModelChooser, fit_height, show_text
from CTSliceToolsLib.localizer.matching import (
    TOLERANCE,
    SliceMatch,
    find_level,
    match_slices,
    matched_uncertainty,
)
from CTSliceToolsLib.localizer.prediction import ScanPrediction
from CTSliceToolsSlicer.panel.localize_section import TITLE
from CTSliceToolsSlicer.scene.logic import CTSliceToolsLogic


class MatchSection(Section):
    """Two volumes level with each other: localize them, scroll side by side, list the slices.

    Attributes:
        run_bar: localizes the two volumes where that is not done yet, and compares their voxels.
        views: the two slice views.
    """

    def __init__(
        self, ui: Any, logic: CTSliceToolsLogic, model: ModelChooser, requirements: Path
    ) -> None:
        """Build the section; `requirements` are installed when a run is first started."""
        super().__init__()
        self._ui, self._logic = ui, logic
        self._model, self._requirements = model, requirements
        self._volume: Any = None
        self._other: Any = None
        self._tolerance = TOLERANCE
        self._side_by_side = False
        self._first: ScanPrediction | None = None
        self._prediction: ScanPrediction | None = None
        self._alignment: ScanAlignment | None = None
        self._one_patient: bool | None = None
        self._off = 0.0
        self._missing: list[Any] = []
        self._matches: list[SliceMatch] = []
        self._tags: list[tuple[Any, int]] = []
        self._refresh_soon = Debounced(self.refresh)
        self._show_level_soon = Debounced(self._show_level)
        self.views = SideBySide()
        self.views.closed.connect(lambda: setattr(ui.sideBySideBox, "checked", False))
        self.run_bar = RunBar(
            ui.matchRun,
            _("Match volumes"),
            _("Localize both volumes if needed, and compare their voxels."),
            self._make_work,
            lambda nodes: None,
            keeps=True,
        )
        self.run_bar.runner.ended.connect(lambda *_: self.changed.emit())
        model.changed.connect(lambda file: self._show_obstacle())
        ui.matchTable.horizontalHeader().setSectionResizeMode(qt.QHeaderView.Stretch)
        ui.matchTable.cellClicked.connect(lambda row, column: self.go_to_match(row))
        self.refresh()

    def set_parameters(self, parameters: Any | None) -> None:
        """Match the two volumes that the parameters name."""
        pair = (None, None)
        if parameters is not None:
            pair = parameters.volume, parameters.otherVolume
            self._side_by_side = parameters.sideBySide
            self._tolerance = parameters.matchTolerance
        if pair != (self._volume, self._other):
            self._volume, self._other = pair
            self._observe()
        self.refresh()

    def stop(self) -> None:
        """Stop the run, and restore the earlier views."""
        self.run_bar.runner.stop()
        self.views.close()
        self._refresh_soon.cancel()
        self._show_level_soon.cancel()

    def go_to_match(self, row: int) -> None:
        """Show a slice of the list beside the red view."""
        z_mm = self._matches[row].slice.z_mm
        self._ui.sideBySideBox.checked = True
        self.views.go_to(z_mm)

    def refresh(self) -> None:
        """Show what the scene holds of the two volumes."""
        problem = self._pair_problem()
        self._first = self._prediction = self._alignment = self._one_patient = None
        self._missing = []
        warnings: list[str] = []
        located = True
        for volume in () if problem else (self._volume, self._other):
            try:
                self._first, self._prediction = self._prediction, self._logic.prediction(volume)
                warnings += self._prediction.fit.warnings
                located = located and self._prediction.located
            except InputError as reason:
                self._missing.append(volume)
                warnings.append(str(reason))
        if not problem and not self._missing:
            self._alignment = self._logic.alignment(self._volume, self._other)
            self._one_patient = self._logic.isAligned(self._volume, self._other)
            if self._one_patient is False and located:
                warnings.append(_("The voxels do not look like those of one patient."))
        if self._side_by_side and not problem:
            self.views.show(self._volume, self._other)
            self.views.keep_apart(self._markups(self._volume), self._markups(self._other))
            self.views.align(self._alignment if self._one_patient or located else None)
        else:
            self.views.close()
        show_text(self._ui.matchWarning, "\n".join(warnings))
        self._show_level()
        self._show_obstacle()

    def _pair_problem(self) -> str:
        if self._volume is None:
            return _("Choose a CT volume first.")
        if self._other is None:
            return _("Choose a second volume first.")
        if self._other is self._volume:
            return _("The second volume is the same as the first. Choose another one.")
        return ""

    def _markups(self, volume: Any) -> list[Any]:
        """Return the landmarks of a volume, those found and those annotated."""
        found = self._logic.predictionNodes(volume)
        nodes = (found and found.markups, self._logic.annotation.markupsNode(volume))
        return [node for node in nodes if node is not None]

    def _make_work(self) -> Work[Any] | None:
        if not ensure_packages(self._requirements, TITLE):
            return None
        return self._match(self._volume, self._other, self._missing, self._model.file)

    def _match(self, volume: Any, other: Any, missing: list[Any], model: Path | None) -> Work[None]:
        for one in missing:
            yield from self._logic.predictWork(one, model)
        yield from self._logic.alignWork(volume, other)

    def _show_obstacle(self) -> None:
        obstacle = self._pair_problem()
        if not obstacle and not self._missing and self._one_patient is not None:
            obstacle = _("The volumes are already matched.")
        elif not obstacle and self._missing and self._model.file is None:
            obstacle = _("Choose a model under Localize first.")
        self.run_bar.set_obstacle(obstacle)

    def _show_level(self) -> None:
        """Show where the second volume has the level of the red view."""
        self._matches, text = [], ""
        red = slicer.mrmlScene.GetNodeByID(RED)
        if (
            self._first is not None
            and self._prediction is not None
            and self._alignment is not None
            and red is not None
        ):
            z = float(view_centre(red)[2])
            there = self._alignment.other_at(z)
            checked = self._alignment.z_mm if self._one_patient else None
            self._off = matched_uncertainty(self._prediction, there, self._first, z, checked)
            low, high = self._prediction.field_of_view
            level = find_level(self._prediction, float(self._prediction.fit.location_at(there)))
            if not isfinite(self._off):
                text = _("It is unknown where {other} shows {volume} at {z:.1f} mm.")
            elif low <= there <= high:
                self._matches = match_slices(self._prediction, level, self._tolerance)
                text = _(
                    "{volume} at {z:.1f} mm matches {other} at {there:.1f} ± {off:.0f} mm, "
                    "slice {number}."
                )
            else:
                text = _("{volume} at {z:.1f} mm is outside {other} (at {there:.1f} mm).")
            text = text.format(
                volume=self._volume.GetName(),
                z=z,
                other=self._other.GetName(),
                there=there,
                off=self._off,
                number=self._prediction.slice_at(there).index,
            )
        show_text(self._ui.levelLabel, text)
        self._fill_table()

    def _fill_table(self) -> None:
        table = self._ui.matchTable
        table.clearSelection()
        table.rowCount = len(self._matches)
        table.visible = bool(self._matches)
        for row, match in enumerate(self._matches):
            texts = (
                str(match.slice.index),
                f"{match.slice.z_mm:.1f}",
                f"{match.offset_mm:+.1f}",
                f"{match.slice.location:.3f}",
                f"{self._off:.0f}",
            )
            for column, text in enumerate(texts):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        fit_height(table, 3, 6)

    def _observe(self) -> None:
        """Observe scrolling and changes of the volumes."""
        for node, tag in self._tags:
            node.RemoveObserver(tag)
        self._tags = []
        if self._volume is None or self._other is None:
            return
        modified = vtk.vtkCommand.ModifiedEvent
        moved = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        red = slicer.mrmlScene.GetNodeByID(RED)
        for node, event, soon in (
            (red, modified, self._show_level_soon),
            (self._volume, modified, self._refresh_soon),
            (self._volume, moved, self._refresh_soon),
            (self._other, modified, self._refresh_soon),
            (self._other, moved, self._refresh_soon),
        ):
            if node is not None:
                self._tags.append((node, node.AddObserver(event, soon)))
