"""The twelve landmarks as rows of a table widget."""

from collections.abc import Callable, Mapping
from typing import Any

import qt
from slicer.i18n import tr as _

from CTLungScreeningSlicer.panel.table_height import fit_height
from CTSliceToolsLib.landmarks import LANDMARKS
from CTSliceToolsSlicer.scene.annotation_logic import LandmarkSlice

KEY, NAME, SLICE, Z = range(4)
"""Columns."""


class LandmarkTable:
    """Shows which slice each landmark is set at; one that is not set is grey.

    Attributes:
        widget: the table of the .ui file, whose columns it has.
    """

    def __init__(self, widget: Any, go_to: Callable[[str], None]) -> None:
        """Fill the table; a click on a row calls `go_to` with the landmark's name."""
        self.widget = widget
        widget.rowCount = len(LANDMARKS)
        for row, landmark in enumerate(LANDMARKS):
            texts = {KEY: landmark.key, NAME: landmark.name}
            for column in range(widget.columnCount):
                widget.setItem(row, column, qt.QTableWidgetItem(texts.get(column, "")))
        header = widget.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(NAME, qt.QHeaderView.Stretch)
        fit_height(widget, 0, len(LANDMARKS))
        widget.cellClicked.connect(lambda row, column: go_to(LANDMARKS[row].name))
        self.show({}, {})

    def show(self, found: Mapping[str, LandmarkSlice], files: Mapping[str, str]) -> None:
        """Show the slices of landmarks; `files` names their files by SOP Instance UID, for tips."""
        present = qt.QBrush(self.widget.palette.color(qt.QPalette.Text))
        missing = qt.QBrush(qt.QColor(150, 150, 150))
        for row, landmark in enumerate(LANDMARKS):
            place = found.get(landmark.name)
            texts, file = {SLICE: "–", Z: ""}, ""
            if place is not None:
                texts = {SLICE: str(place.number), Z: f"{place.z_mm:.1f}"}
                file = files.get(place.sop_instance_uid, "")
            location = _("Normalized location {location:g}").format(location=landmark.location)
            for column, text in texts.items():
                self.widget.item(row, column).setText(text)
            for column in range(self.widget.columnCount):
                item = self.widget.item(row, column)
                item.setForeground(present if place else missing)
                item.setToolTip("\n".join(filter(None, (location, file))))

    def selected(self) -> list[str]:
        """Give the names of the landmarks in the selected rows."""
        rows = sorted({item.row() for item in self.widget.selectedItems()})
        return [LANDMARKS[row].name for row in rows]
