"""The section Batch: many scans, one row each, errors that stop nothing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import parameterNodeWrapper

from CTLungScreeningLib.child_process import Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.options import arguments_of
from CTLungScreeningSlicer.panel.dicom_database import DatabaseSeries, ct_series
from CTLungScreeningSlicer.panel.packages import ensure_packages
from CTLungScreeningSlicer.panel.run_bar import RunBar
from CTLungScreeningSlicer.panel.section import Section, SectionParameters, Signal, with_parameters
from CTLungScreeningSlicer.panel.widgets import (
    ModelChooser,
    fit_height,
    offer_file,
    offer_folder,
    on_click,
    show_text,
)
from LungNoduleSegLib.batch.cases import write_list
from LungNoduleSegLib.batch.scan_work import RESULTS_TABLE, read_table
from LungNoduleSegLib.options import BatchOptions, RunOptions
from LungNoduleSegLib.results.reading import REPORT
from LungNoduleSegSlicer.panel.segment_section import TITLE, LungsSection
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes, volume_node_of

PROPERTY = "BatchParameter"
"""Dynamic property of the .ui file that names the parameter of a widget."""


class BatchSource(Enum):
    """Source of the scans of a batch."""

    FOLDER = "folder"
    LIST = "list"
    DATABASE = "database"

    def label(self) -> str:
        """Its name for the box that chooses it."""
        return {
            BatchSource.FOLDER: _("Folder"),
            BatchSource.LIST: _("CSV file of paths"),
            BatchSource.DATABASE: _("DICOM database"),
        }[self]


@parameterNodeWrapper
@with_parameters(BatchOptions, batchWorkers="workers")
class BatchParameters:
    """The choices of the section.

    Attributes:
        batchSource: where the scans are.
        batchScans: folder of the scans.
        batchList: CSV file that lists scans.
        batchOutput: folder for the results.
    """

    batchSource: BatchSource = BatchSource.FOLDER  # noqa: N815 - Slicer's way of naming
    batchScans: str  # noqa: N815
    batchList: str  # noqa: N815
    batchOutput: str  # noqa: N815


_LONGEST = 16
"""Characters of a scan's name that are shown, its last ones."""

_STATE = 4
_MOST_ROWS = 8
_FAILED_COLOUR = "#e5533d"


class BatchTable:
    """Rows of `results.csv`, and how far the scans under way are."""

    def __init__(self, table: Any) -> None:
        """Take a table with the columns scan, nodules, largest (mm), Lung-RADS and state."""
        self._table = table
        self._rows: dict[str, int] = {}
        self._cells: dict[str, Mapping[str, str]] = {}
        table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        table.horizontalHeader().highlightSections = False
        table.verticalHeader().visible = False
        # Names of scans are cut short where there is no room; the tool tip has all of it.
        table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        self._fit()

    @property
    def chosen(self) -> Mapping[str, str] | None:
        """The cells of the chosen row; None while its scan is not finished."""
        row = self._table.currentRow()
        return next((self._cells.get(name) for name, at in self._rows.items() if at == row), None)

    @property
    def finished(self) -> int:
        """Number of scans with a result or an error."""
        return len(self._cells)

    @property
    def failed(self) -> int:
        """Number of scans with an error."""
        return sum(bool(cells["error"]) for cells in self._cells.values())

    def show(self, rows: Mapping[str, Mapping[str, str]]) -> None:
        """Show these rows of a results table and no others."""
        self._table.rowCount = 0
        self._rows, self._cells = {}, {}
        for cells in rows.values():
            self._finish(cells)
        self._fit()

    def handle(self, event: Mapping[str, Any]) -> None:
        """Handle an event of the command `batch`: a scan's progress, or its finished row."""
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
        state = self._put(row, _STATE, _("Failed") if error else _("Done"))
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
    with suppress(ValueError):  # another program may have written 7,3
        text = f"{float(text):.1f}"
    return text


def _short(scan: str) -> str:
    return scan if len(scan) <= _LONGEST else f"…{scan[-_LONGEST:]}"


class SeriesTable:
    """A table of series with check boxes.

    Attributes:
        changed: signal without arguments: others are ticked, or there are others.
    """

    def __init__(self, table: Any, label: Any) -> None:
        """Take a table with the columns patient, date, series and slices; `read` fills it.

        The label counts the series left out.
        """
        self.changed = Signal()
        self._table, self._label = table, label
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
        self._series, left_out = ct_series()
        show_text(self._label, left_out)
        with self._silence():
            self._table.rowCount = len(self._series)
            for row, one in enumerate(self._series):
                texts = (one.patient, one.date, one.description, str(one.slices))
                for column, text in enumerate(texts):
                    item = qt.QTableWidgetItem(text)
                    item.setToolTip(_("{uid} in {folder}").format(uid=one.uid, folder=one.folder))
                    self._table.setItem(row, column, item)
                self._tick(row, one.uid in ticked)
        self.changed.emit()

    def tick_all(self) -> None:
        """Tick every series, or none if all are ticked."""
        everything = len(self.ticked) < len(self._series)
        with self._silence():
            for row in range(len(self._series)):
                self._tick(row, everything)
        self.changed.emit()

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """Let the table tell nobody of the changes within."""
        blocked = self._table.blockSignals(True)
        try:
            yield
        finally:
            self._table.blockSignals(blocked)

    def _box(self, row: int) -> Any:
        return self._table.item(row, 0)

    def _tick(self, row: int, ticked: bool) -> None:
        self._box(row).setCheckState(qt.Qt.Checked if ticked else qt.Qt.Unchecked)


SELECTION = "selection.csv"
"""File in the folder for the results that lists the series of the DICOM database to be run."""


class BatchSection(Section):
    """Runs the command `batch`, which goes on where an earlier one was stopped.

    Attributes:
        run_bar: runs it.
        load_bar: loads a scan that it has run.
        series: the series of the DICOM database.
        table: of the scans.
    """

    def __init__(
        self,
        ui: Any,
        logic: LungNoduleSegLogic,
        model: ModelChooser,
        lungs: LungsSection,
        requirements: Path,
        choose_volume: Callable[[Any], None],
    ) -> None:
        """Build the section.

        Args:
            ui: widgets of the .ui file; those with a parameter have it in the property `PROPERTY`.
            logic: runs the command and loads scans.
            model: gives the network.
            lungs: has the method of lung segmentation.
            requirements: packages installed when a run is first started.
            choose_volume: makes a volume the panel's.
        """
        super().__init__()
        self._ui, self._logic, self._model, self._lungs = ui, logic, model, lungs
        self._requirements, self._choose_volume = requirements, choose_volume
        self._running = self._shown = Path()
        self._offered: BatchSource | None = None
        self._unreadable = ""
        self.series = SeriesTable(ui.seriesTable, ui.seriesLabel)
        self.table = BatchTable(ui.batchTable)
        self._parameters = SectionParameters(BatchParameters, ui, PROPERTY, self.refresh)
        self.run_bar = RunBar(
            ui.batchRun,
            _("Run batch"),
            _("Find the lungs and nodules of every scan. Finished scans are not repeated."),
            self.make_work,
            lambda result: None,
            keeps=True,
        )
        self.load_bar = RunBar(ui.loadRun)
        self.run_bar.runner.event.connect(self._handle)
        self.run_bar.runner.ended.connect(lambda error, details: self._show_results())
        self.series.changed.connect(self._show_obstacle)
        offer_folder(ui.batchScansFolder, ui.batchScansLine)
        offer_file(ui.batchListFile, ui.batchListLine, _("Scans"), _("Tables (*.csv)"))
        offer_folder(ui.batchOutputFolder, ui.batchOutputLine)
        on_click(ui.tickAllButton, self.series.tick_all)
        on_click(ui.rereadButton, self.series.read)
        ui.batchTable.itemSelectionChanged.connect(self._show_choice)
        ui.batchTable.cellDoubleClicked.connect(lambda row, column: self.load_chosen())
        on_click(ui.loadScanButton, self.load_chosen)
        on_click(ui.scanReportButton, self.open_report)
        self.refresh()
        self._show_choice()

    def set_parameters(self, parameters: Any | None) -> None:
        """Keep the section and a parameter node equal from now on; a run goes on as it began."""
        self._parameters.set_node(parameters and parameters.parameterNode)

    def stop(self) -> None:
        """Stop the batch and its child processes."""
        self.run_bar.runner.stop()
        self.load_bar.runner.stop()

    def refresh(self) -> None:
        """Show what follows from the parameters."""
        ui, source = self._ui, self._source
        ui.batchFolderRows.visible = source is BatchSource.FOLDER
        ui.batchListRows.visible = source is BatchSource.LIST
        ui.databaseRows.visible = source is BatchSource.DATABASE
        if source is BatchSource.DATABASE and self._offered is not source:
            self.series.read()
        self._offered = source
        if self._output != self._shown and not self.run_bar.runner.busy:
            self._show_results()
        self._show_obstacle()

    def make_work(self) -> Work[Any] | None:
        """Return the batch that is chosen; None if the user declines to install what it needs.

        Raises:
            InputError: if the list of series cannot be written.
        """
        source, output = self._chosen_source(), self._output
        assert source is not None
        if not ensure_packages(self._requirements, TITLE):
            return None
        if self._source is BatchSource.DATABASE:
            write_list(source, [(one.folder, one.uid) for one in self.series.ticked])
        self._running = output
        self._show_results()
        run = RunOptions(self._lungs.method, self._model.file)
        options = (*arguments_of(run), *arguments_of(self._parameters.options(BatchOptions)))
        return self._logic.commands.work("batch", source, "-o", output, *options)

    def load_chosen(self) -> None:
        """Load the scan of the chosen row with its results, and work on it."""
        folder = self._chosen_folder()
        if folder is None or not ensure_packages(self._requirements, TITLE):
            return
        self.load_bar.start(self._logic.loadRunWork(folder), self._show_loaded)

    def _show_loaded(self, results: ResultNodes) -> None:
        volume = volume_node_of(results)
        self._choose_volume(volume)
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        self.changed.emit()

    def open_report(self) -> None:
        """Open the report of the chosen row in the browser."""
        folder = self._chosen_folder()
        if folder is not None:
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder / REPORT)))

    @property
    def _source(self) -> BatchSource:
        values = self._parameters.values
        return BatchSource.FOLDER if values is None else values.batchSource

    @property
    def _output(self) -> Path:
        """The folder for the results; one without a name if none was chosen."""
        values = self._parameters.values
        return Path() if values is None else self._parameters.path("batchOutput") or Path()

    def _chosen_source(self) -> Path | None:
        """The source for the command; None if nothing was chosen."""
        if self._parameters.values is None:
            return None
        if self._source is BatchSource.DATABASE:
            return self._output / SELECTION if self.series.ticked else None
        folder = self._source is BatchSource.FOLDER
        return self._parameters.path("batchScans" if folder else "batchList")

    def _show_obstacle(self) -> None:
        obstacle = ""
        if self._chosen_source() is None:
            obstacle = {
                BatchSource.FOLDER: _("Choose the folder with the scans first."),
                BatchSource.LIST: _("Choose the CSV file of paths first."),
                BatchSource.DATABASE: _("Select a series first."),
            }[self._source]
        elif self._output == Path():
            obstacle = _("Choose the folder for the results first.")
        self.run_bar.set_obstacle(obstacle)

    def _handle(self, event: dict[str, Any]) -> None:
        self.table.handle(event)
        if "row" in event:
            self._show_choice()

    def _show_results(self) -> None:
        """Show the table of the batch that runs, or of the folder for the results."""
        self._shown = self._running if self.run_bar.runner.busy else self._output
        self._unreadable, rows = "", {}
        if self._shown != Path():
            try:
                rows = read_table(self._shown / RESULTS_TABLE)
            except InputError as problem:
                self._unreadable = str(problem)
        self.table.show(rows)
        self._show_choice()

    def _chosen_folder(self) -> Path | None:
        """The folder with the results of the chosen row."""
        cells = self.table.chosen
        return self._shown / cells["results"] if cells and cells["results"] else None

    def _show_choice(self) -> None:
        """Show the counts of the table, and the error of the selected scan."""
        there = self._chosen_folder() is not None
        self._ui.loadScanButton.enabled = self._ui.scanReportButton.enabled = there
        lines = [self._unreadable]
        if self.table.finished:
            counts = _("{done} done, {failed} failed. Table: {table}").format(
                done=self.table.finished - self.table.failed,
                failed=self.table.failed,
                table=self._shown / RESULTS_TABLE,
            )
            lines.append(counts)
        lines.append((self.table.chosen or {}).get("error", ""))
        show_text(self._ui.batchLabel, "\n".join(filter(None, lines)))
