"""The section that writes results to files, as they are in the scene."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import qt
from slicer.i18n import tr as _

from CTLungScreeningLib.child_process import Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.panel.dicom_database import instance_files
from CTLungScreeningSlicer.panel.packages import ensure_packages
from CTLungScreeningSlicer.panel.run_bar import RunBar
from CTLungScreeningSlicer.panel.section import Section
from CTLungScreeningSlicer.panel.widgets import (
    choose_folder,
    choose_new_file,
    on_click,
    show_text,
    shown_errors,
)
from CTLungScreeningSlicer.scene.mrml_host import safe_file_name
from CTLungScreeningSlicer.scene.mrml_volume import INSTANCE_UIDS
from LungNoduleSegLib.results.reading import REPORT, TABLE, dicom_files
from LungNoduleSegSlicer.panel.segment_section import TITLE
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes, volume_node_of

T = TypeVar("T")


class OutputSection(Section):
    """Buttons for the report, the table, and DICOM SEG and SR.

    Attributes:
        run_bar: shows what is being written, and cancels it.
    """

    def __init__(self, ui: Any, logic: LungNoduleSegLogic, requirements: Path) -> None:
        """Build the section; `requirements` are installed when they are first needed."""
        super().__init__()
        self._ui, self._logic, self._requirements = ui, logic, requirements
        self._results: ResultNodes | None = None
        self.run_bar = RunBar(ui.outputRun)
        self.run_bar.runner.changed.connect(self._show_state)
        show_text(ui.outputLabel, "")
        on_click(ui.reportButton, self._ask_for_report)
        on_click(ui.tableButton, self._ask_for_table)
        on_click(ui.dicomButton, self._ask_for_dicom_folder)

    def set_results(self, results: ResultNodes | None) -> None:
        """Write these from now on."""
        if results != self._results:
            show_text(self._ui.outputLabel, "")
        self._results = results
        self._show_state()

    def stop(self) -> None:
        """Stop writing."""
        self.run_bar.runner.stop()

    def save_report(self, path: Path) -> None:
        """Write the report, and open it in the browser if that is ticked."""

        def done(_result: None) -> None:
            self._show_files([path])
            if self._ui.openReportBox.checked:
                qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path)))

        self._save(lambda results: self._logic.saving.reportWork(results, path), done)

    def save_table(self, path: Path) -> None:
        """Write the table."""
        if self._results is not None:
            show_text(self._ui.outputLabel, "")
            with shown_errors():
                self._logic.saving.saveTable(self._results, path)
                self._show_files([path])

    def save_dicom(self, folder: Path) -> None:
        """Write DICOM SEG, SR and, with nodules, key images into a folder."""
        self._save(
            lambda results: self._logic.saving.dicomWork(results, folder, _dicom_files(results)),
            lambda notes: self._show_files(dicom_files(folder), notes),
        )

    def _save(self, make_work: Callable[[ResultNodes], Work[T]], done: Callable[[T], None]) -> None:
        """Write files in a child process, then call `done` with the result."""
        results = self._results
        if results is None or not ensure_packages(self._requirements, TITLE):
            return
        show_text(self._ui.outputLabel, "")
        with shown_errors():
            self.run_bar.start(make_work(results), done)

    def _show_files(self, files: Sequence[Path], notes: Sequence[str] = ()) -> None:
        text = _("Saved: {files}").format(files="\n".join(map(str, files)))
        show_text(self._ui.outputLabel, "\n".join([text, *notes]))

    def _show_state(self) -> None:
        ready = self._results is not None and not self.run_bar.runner.busy
        for button in (self._ui.reportButton, self._ui.tableButton, self._ui.dicomButton):
            button.enabled = ready

    def _ask_for_report(self) -> None:
        path = choose_new_file(
            _("Save the report"), self._name(REPORT), _("Web page (*.html)"), ".html"
        )
        if path is not None:
            self.save_report(path)

    def _ask_for_table(self) -> None:
        filters = _("Table (*.csv)")
        path = choose_new_file(_("Save the table"), self._name(TABLE), filters, ".csv")
        if path is not None:
            self.save_table(path)

    def _ask_for_dicom_folder(self) -> None:
        folder = choose_folder(_("Folder for DICOM SEG and SR"), "")
        if folder is not None:
            self.save_dicom(folder)

    def _name(self, name: str) -> str:
        """Propose a file name with the volume's name."""
        if self._results is None:
            return name
        kept = safe_file_name(volume_node_of(self._results).GetName())
        return f"{kept.strip(' .') or 'scan'} {name}"


def _dicom_files(results: ResultNodes) -> list[Path]:
    """Find the DICOM files of the volume in Slicer's database."""
    volume = volume_node_of(results)
    uids = (volume.GetAttribute(INSTANCE_UIDS) or "").split()
    files = instance_files(uids, {})
    if not uids or len(files) < len(set(uids)):
        raise InputError(
            f"{volume.GetName()} is not in Slicer's DICOM database with all its slices: import it "
            "in the DICOM module, load it from there and run it."
        )
    return list(dict.fromkeys(files.values()))
