"""The box Many scans: one CT series after the other, each saved as it is labelled."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from CTLungScreeningLib.errors import Cancelled, InputError
from CTLungScreeningSlicer.panel.dicom_database import ct_series
from CTLungScreeningSlicer.panel.run_bar import ProgressWindow
from CTLungScreeningSlicer.panel.section import Section
from CTLungScreeningSlicer.panel.widgets import choose_folder, show_text, shown_errors
from CTLungScreeningSlicer.scene.mrml_volume import add_scan
from CTSliceToolsLib.dataset.annotation import SliceName
from CTSliceToolsLib.dataset.label_queue import LabelQueue, SeriesToLabel, passed_over
from CTSliceToolsSlicer.panel.annotate_section import AnnotateSection
from CTSliceToolsSlicer.scene.logic import CTSliceToolsLogic

FOLDER, DATABASE = range(2)
"""Rows of the box that says where the series come from."""


class QueueBox(Section):
    """Loads the next series without an annotation; saves each change of it at once."""

    def __init__(
        self,
        ui: Any,
        logic: CTSliceToolsLogic,
        annotate: AnnotateSection,
        choose_volume: Callable[[Any], None],
    ) -> None:
        """Connect the controls; `choose_volume` makes a volume the panel's."""
        super().__init__()
        self._ui, self._logic, self._annotate = ui, logic, annotate
        self._choose_volume = choose_volume
        self._queue: LabelQueue | None = None
        self._current: SeriesToLabel | None = None
        self._passed: tuple[str, ...] = ()
        self._left_out = ""
        self._tip = ui.queueLabel.toolTip
        self._volume: Any = None
        self._files: Mapping[str, Path] = {}
        self._saved: Mapping[str, int] = {}
        self._there: Mapping[str, SliceName] = {}
        ui.queueSource.currentIndexChanged.connect(self._drop_queue)
        ui.queueFolder.textChanged.connect(self._drop_queue)
        ui.queueBrowse.clicked.connect(self._browse)
        ui.nextButton.clicked.connect(self._press)
        annotate.changed.connect(self._save_change)
        show_text(ui.queueLabel, "")

    def stop(self) -> None:
        """Forget the series before the scene is closed; its volume is no longer the queue's."""
        self._drop_queue()
        self._current = self._volume = None

    def next_series(self, keep_alive: Callable[[], None] = lambda: None) -> None:
        """Load the next series without an annotation; the one before leaves the scene.

        Series that cannot be used are passed over and named below the button. The volume of a
        queue that was left stays.

        Args:
            keep_alive: called at every file; it may raise `Cancelled`.

        Raises:
            InputError: if there is none, or the landmarks of the one before cannot be saved.
        """
        self._save()
        if self._queue is None:
            self._queue, self._left_out = self._make_queue(keep_alive)
        try:
            series, scan, self._passed = self._queue.read_next(self._current, keep_alive)
        except InputError:
            self._show_progress()
            raise
        before = self._volume if self._current in self._queue.series else None
        if before is not None:
            before.SetName(before.GetID())  # the next may have its name
        volume = add_scan(scan, scan.series.description if scan.series else series.uid)
        self._files = {one.sop_instance_uid: one.file for one in scan.slices}
        self._annotate.known_files = self._files
        self._current, self._volume = series, volume
        self._saved, self._there = {}, {}  # no series is loaded that has landmarks
        self._choose_volume(volume)  # before there is none, which would end the annotation
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        if before is not None:
            self._logic.removeVolume(before)
        self._show_progress()

    def _make_queue(self, keep_alive: Callable[[], None]) -> tuple[LabelQueue, str]:
        if self._ui.queueSource.currentIndex == DATABASE:
            return database_queue(keep_alive)
        if not self._ui.queueFolder.text:
            raise InputError(_("Choose the folder with the CT series first."))
        return LabelQueue.of_folder(Path(self._ui.queueFolder.text), keep_alive), ""

    def _save(self) -> None:
        """Save the landmarks of the queue's volume, if they differ from those saved last.

        Whatever volume the panel shows, and also if they were changed while it was hidden.

        Raises:
            InputError: if they contradict anatomy, the volume was cropped, somebody else changed
                the file, or it cannot be written.
        """
        if self._current is None or self._volume.GetScene() is None:
            return
        annotation = self._logic.annotation
        found = annotation.landmarks(self._volume)
        numbers = {name: place.number for name, place in found.items()}
        if numbers != self._saved:
            file = self._current.annotation
            self._there = annotation.saveAnnotation(self._volume, file, self._files, self._there)
            self._saved = numbers
            if self._queue is not None:
                self._queue.look_at(self._current)

    def _save_change(self) -> None:
        try:
            self._save()
        except InputError as problem:
            show_text(self._ui.queueLabel, _("Not saved: {problem}").format(problem=problem))
        else:
            self._show_progress()

    def _press(self, *_arguments: Any) -> None:
        title, text = _("Load next series"), _("Looking for the next series")
        with shown_errors(), suppress(Cancelled), ProgressWindow(title, text) as window:
            self.next_series(window.keep_alive)

    def _browse(self, *_arguments: Any) -> None:
        folder = choose_folder(_("Folder with CT series"), self._ui.queueFolder.text)
        if folder is not None:
            self._ui.queueFolder.text = str(folder)

    def _drop_queue(self, *_arguments: Any) -> None:
        """Make a new queue for the next series; the volume stays, and is saved."""
        self._queue = None
        self._passed = ()
        self._show_progress()

    def _show_progress(self) -> None:
        if self._queue is None:
            show_text(self._ui.queueLabel, "")
        else:
            text = _("{done} of {count} series annotated").format(
                done=self._queue.labelled, count=len(self._queue.series)
            )
            lines = text, passed_over(self._passed), self._left_out
            show_text(self._ui.queueLabel, "\n".join(filter(None, lines)))
            self._ui.queueLabel.toolTip = "\n".join(self._passed) or self._tip


def database_queue(keep_alive: Callable[[], None]) -> tuple[LabelQueue, str]:
    """Queue the CT series of Slicer's DICOM database; `keep_alive` is called at each.

    Returns:
        The queue, and a note on series left out.

    Raises:
        InputError: if there is none, or two of them share a folder.
    """
    found, left_out = ct_series(keep_alive)
    if not found:
        nothing = _("The DICOM database holds no CT series: import some first.")
        raise InputError(f"{nothing} {left_out}".strip())
    return LabelQueue([SeriesToLabel(one.folder, one.uid) for one in found]), left_out
