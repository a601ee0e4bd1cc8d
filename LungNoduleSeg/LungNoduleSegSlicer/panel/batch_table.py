"""The table of a batch: one row a scan, which fills while the batch runs."""

from collections.abc import Mapping
from typing import Any

import qt
from slicer.i18n import tr as _

from CTLungScreeningSlicer.panel.table_height import fit_height

_LONGEST = 16
"""Characters of a scan's name that are shown, its last ones."""

_STATE = 4
_MOST_ROWS = 8
_FAILED_COLOUR = "#c62828"


class BatchTable:
    """Rows of `results.csv`, and how far the scans under way are."""

    def __init__(self, table: Any) -> None:
        """Take a table with the columns scan, nodules, largest, Lung-RADS and state."""
        self._table = table
        self._rows: dict[str, int] = {}
        self._cells: dict[str, Mapping[str, str]] = {}
        table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        table.horizontalHeader().highlightSections = False
        table.verticalHeader().visible = False
        table.horizontalHeader().setSectionResizeMode(_STATE, qt.QHeaderView.Stretch)
        self._fit()

    @property
    def chosen(self) -> Mapping[str, str] | None:
        """The cells of the chosen row; None while its scan is not finished."""
        row = self._table.currentRow()
        return next((self._cells.get(name) for name, at in self._rows.items() if at == row), None)

    @property
    def finished(self) -> int:
        """How many scans have a result or an error."""
        return len(self._cells)

    @property
    def failed(self) -> int:
        """How many have an error."""
        return sum(bool(cells["error"]) for cells in self._cells.values())

    def show(self, rows: Mapping[str, Mapping[str, str]]) -> None:
        """Show these rows of a results table and no others."""
        self._table.rowCount = 0
        self._rows, self._cells = {}, {}
        for cells in rows.values():
            self._finish(cells)
        self._fit()

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take what the command `batch` tells: a scan's progress, or its finished row."""
        if "row" in event:
            self._finish(event["row"])
        elif "scan_stage" in event:
            text = event["scan_stage"]
            if event["scan_total"]:
                text += f", {100 * event['scan_done'] // event['scan_total']} %"
            self._put(self._row(event["scan"]), _STATE, text)

    def _finish(self, cells: Mapping[str, str]) -> None:
        name, error = cells["scan"], cells["error"]
        row = self._row(name)
        self._cells[name] = cells
        patient = " ".join(filter(None, (cells["patient_id"], cells["study_date"])))
        self._put(row, 0, patient or _short(name)).setToolTip(name)
        texts = (cells["nodules"], _millimetres(cells), cells["lung_rads"])
        for column, text in enumerate(texts, start=1):
            self._put(row, column, text)
        state = self._put(row, _STATE, error or _("Done"))
        state.setToolTip(error or cells["source"])
        if error:
            state.setForeground(qt.QBrush(qt.QColor(_FAILED_COLOUR)))

    def _row(self, scan: str) -> int:
        if scan not in self._rows:
            self._rows[scan] = row = self._table.rowCount
            self._table.rowCount = row + 1
            self._put(row, 0, _short(scan)).setToolTip(scan)
            self._fit()
        return self._rows[scan]

    def _fit(self) -> None:
        self._table.visible = bool(self._table.rowCount)
        fit_height(self._table, 1, _MOST_ROWS)

    def _put(self, row: int, column: int, text: str) -> Any:
        item = qt.QTableWidgetItem(text)
        self._table.setItem(row, column, item)
        return item


def _millimetres(cells: Mapping[str, str]) -> str:
    text = cells["largest_diameter_mm"]
    return f"{float(text):.1f} mm" if text else ""


def _short(scan: str) -> str:
    return scan if len(scan) <= _LONGEST else f"…{scan[-_LONGEST:]}"
