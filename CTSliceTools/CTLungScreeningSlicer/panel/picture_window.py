"""A window that shows the pictures of a run, one per tab."""

from collections.abc import Sequence
from pathlib import Path

import qt
import slicer

_SIZE = (900, 700)
_WIDEST = 860
"""Pictures that are wider are shown smaller."""


class PictureWindow:
    """Stays open beside Slicer's windows; one at a time.

    Attributes:
        window: the dialog; None until it is first shown.
        tabs: its pages, one a picture.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self.window: qt.QDialog | None = None
        self.tabs: qt.QTabWidget | None = None
        self._unread: dict[int, Path] = {}

    def show(self, files: Sequence[Path]) -> None:
        """Show these pictures and no others; each is read when its tab is."""
        self.close()
        self._unread = dict(enumerate(files))
        self.window = qt.QDialog(slicer.util.mainWindow())
        self.window.windowTitle = self._title
        self.tabs = qt.QTabWidget()
        qt.QVBoxLayout(self.window).addWidget(self.tabs)
        for file in files:
            self.tabs.addTab(qt.QScrollArea(), file.stem)
        self._read(0)
        self.tabs.currentChanged.connect(self._read)
        self.window.resize(*_SIZE)
        self.window.show()

    def close(self) -> None:
        """Close the window, if it is open."""
        if self.window is not None:
            self.window.close()
            self.window.deleteLater()
        self.window = self.tabs = None

    def _read(self, number: int) -> None:
        file = self._unread.pop(number, None)
        if file is None or self.tabs is None:
            return
        picture = qt.QPixmap(str(file))
        if picture.width() > _WIDEST:
            picture = picture.scaledToWidth(_WIDEST, qt.Qt.SmoothTransformation)
        label = qt.QLabel()
        label.pixmap = picture
        label.toolTip = str(file)
        self.tabs.widget(number).setWidget(label)
