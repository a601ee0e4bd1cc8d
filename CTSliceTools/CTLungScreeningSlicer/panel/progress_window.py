"""A window with the progress of work that keeps the user from starting anything else."""

from typing import Any, Self

import qt
import slicer
from slicer.i18n import tr as _

from CTLungScreeningLib.errors import Cancelled

WIDTH = 400


class ProgressWindow:
    """Used as a context manager around the work, which shows how far it is."""

    def __init__(self, title: str, text: str) -> None:
        """Take the title, and what is done first."""
        self._window = window = qt.QProgressDialog(slicer.util.mainWindow())
        window.windowTitle = title
        window.windowModality = qt.Qt.ApplicationModal
        window.minimumDuration = window.maximum = 0  # shown at once, the end is not known
        window.minimumWidth = WIDTH
        window.labelText = text

    def __enter__(self) -> Self:
        self._window.show()
        slicer.app.processEvents()
        return self

    def __exit__(self, *_exception: Any) -> None:
        self._window.close()
        self._window.deleteLater()

    def show(self, text: str) -> None:
        """Say what is done now.

        Raises:
            Cancelled: if the user has pressed Cancel.
        """
        self._window.labelText = text
        self.keep_alive()

    def keep_alive(self) -> None:
        """Let the window be drawn and pressed; call it ten times a second.

        Raises:
            Cancelled: if the user has pressed Cancel.
        """
        slicer.app.processEvents()
        if self._window.wasCanceled:
            raise Cancelled

    def report(self, stage: str, done: int, total: int) -> None:
        """Show progress as the `ProgressCallback` of a command.

        Raises:
            Cancelled: if the user has pressed Cancel.
        """
        self.show(
            _("{stage}, {percent} %").format(stage=stage, percent=100 * done // max(total, 1))
        )
