"""A window with pictures that a run has drawn, one a tab."""

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

    def show(self, files: Sequence[Path]) -> None:
        """Show these pictures and no others."""
        self.close()
        self.window = qt.QDialog(slicer.util.mainWindow())
        self.window.windowTitle = self._title
        self.tabs = qt.QTabWidget()
        qt.QVBoxLayout(self.window).addWidget(self.tabs)
        for file in files:
            picture = qt.QPixmap(str(file))
            if picture.width() > _WIDEST:
                picture = picture.scaledToWidth(_WIDEST, qt.Qt.SmoothTransformation)
            label = qt.QLabel()
            label.pixmap = picture
            label.toolTip = str(file)
            page = qt.QScrollArea()
            page.setWidget(label)
            self.tabs.addTab(page, file.stem)
        self.window.resize(*_SIZE)
        self.window.show()

    def close(self) -> None:
        """Close the window, if it is open."""
        if self.window is not None:
            self.window.close()
            self.window.deleteLater()
        self.window = self.tabs = None
