"""The table of the CT series in Slicer's DICOM database, of which some are ticked."""

from typing import Any

import qt
from slicer.i18n import tr as _

from CTLungScreeningSlicer.panel.dicom_database import DatabaseSeries, ct_series
from CTLungScreeningSlicer.panel.events import Signal


class SeriesTable:
    """One row a series, with a box to tick.

    Attributes:
        changed: signal without arguments: others are ticked, or there are others.
    """

    def __init__(self, table: Any) -> None:
        """Take a table with the columns patient, date, series and slices; `read` fills it."""
        self.changed = Signal()
        self._table = table
        self._series: list[DatabaseSeries] = []
        table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        table.horizontalHeader().stretchLastSection = True
        table.itemChanged.connect(lambda item: self.changed.emit())

    @property
    def ticked(self) -> list[DatabaseSeries]:
        """The series that are ticked."""
        rows = enumerate(self._series)
        return [one for row, one in rows if self._box(row).checkState() == qt.Qt.Checked]

    def read(self) -> None:
        """Show what the database holds now; what was ticked stays so."""
        ticked = {one.uid for one in self.ticked}
        self._series = list(ct_series())
        blocked = self._table.blockSignals(True)
        self._table.rowCount = len(self._series)
        for row, one in enumerate(self._series):
            texts = (one.patient, one.date, one.description, str(len(one.files)))
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(_("{uid} in {folder}").format(uid=one.uid, folder=one.folder))
                self._table.setItem(row, column, item)
            self._tick(row, one.uid in ticked)
        self._table.blockSignals(blocked)
        self.changed.emit()

    def tick_all(self) -> None:
        """Tick every series, or none if all are ticked."""
        everything = len(self.ticked) < len(self._series)
        blocked = self._table.blockSignals(True)
        for row in range(len(self._series)):
            self._tick(row, everything)
        self._table.blockSignals(blocked)
        self.changed.emit()

    def _box(self, row: int) -> Any:
        return self._table.item(row, 0)

    def _tick(self, row: int, ticked: bool) -> None:
        self._box(row).setCheckState(qt.Qt.Checked if ticked else qt.Qt.Unchecked)
