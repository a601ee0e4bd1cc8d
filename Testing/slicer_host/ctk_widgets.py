"""Stand-ins for the widgets of CTK that our .ui files and code use."""

from pathlib import Path
from typing import Any

from PySide6.QtCore import Property, QMargins, QRect, QSize, Qt, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QPalette
from PySide6.QtWidgets import (
    QAbstractButton,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QSlider,
    QStyle,
    QStyleOptionButton,
    QToolButton,
    QWidget,
)

from __feature__ import true_property  # isort: skip  # noqa: F401

HEADER_HEIGHT = 26


class ctkCollapsibleButton(QAbstractButton):
    """A titled section; a click on its title folds it."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._collapsed = False
        self.setContentsMargins(6, HEADER_HEIGHT, 6, 4)
        self.clicked.connect(lambda *_: self._fold(not self._collapsed))

    def _fold(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        self.maximumHeight = HEADER_HEIGHT if collapsed else 16777215
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)

    collapsed = Property(bool, lambda self: self._collapsed, _fold)

    def sizeHint(self) -> QSize:
        """Give the size of the contents, or of the title alone."""
        inside = self.layout().totalSizeHint() if self.layout() else QSize(100, HEADER_HEIGHT)
        return QSize(inside.width(), HEADER_HEIGHT if self._collapsed else inside.height())

    def minimumSizeHint(self) -> QSize:
        """Give the least size, likewise."""
        inside = self.layout().totalMinimumSize() if self.layout() else QSize(100, HEADER_HEIGHT)
        return QSize(inside.width(), HEADER_HEIGHT if self._collapsed else inside.height())

    def hitButton(self, position: Any) -> bool:
        """Only the title is a button."""
        return position.y() < HEADER_HEIGHT

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the title with an arrow, and a frame around the contents."""
        painter = QPainter(self)
        option = QStyleOptionButton()
        option.initFrom(self)
        option.rect = QRect(0, 0, self.width, HEADER_HEIGHT - 4)
        option.text = ("▸ " if self._collapsed else "▾ ") + self.text
        style = self.style()
        style.drawPrimitive(QStyle.PE_PanelButtonCommand, option, painter, self)
        option.rect = option.rect.adjusted(8, 0, -8, 0)
        painter.drawText(option.rect, Qt.AlignLeft | Qt.AlignVCenter, option.text)
        if not self._collapsed:
            painter.setPen(self.palette.color(QPalette.Mid))
            painter.drawRect(0, HEADER_HEIGHT - 4, self.width - 1, self.height - HEADER_HEIGHT + 3)


class ctkSliderWidget(QWidget):
    """A slider with a box for the number."""

    valueChanged = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._slider = QSlider(Qt.Horizontal)
        self._box = QDoubleSpinBox()
        self._slider.maximum = 1000
        row = QHBoxLayout(self)
        row.contentsMargins = QMargins()
        row.addWidget(self._slider)
        row.addWidget(self._box)
        self._box.valueChanged.connect(self._show)
        self._slider.sliderMoved.connect(
            lambda step: self._set_value(
                self._box.minimum + step / 1000 * (self._box.maximum - self._box.minimum)
            )
        )

    def _show(self, value: float) -> None:
        span = self._box.maximum - self._box.minimum
        self._slider.sliderPosition = int(1000 * (value - self._box.minimum) / span) if span else 0
        self.valueChanged.emit(value)

    def _set_value(self, value: float) -> None:
        self._box.value = value

    def _set(self, name: str, value: Any) -> None:
        setattr(self._box, name, value)
        self._show(self._box.value)

    value = Property(float, lambda self: self._box.value, _set_value)
    minimum = Property(
        float, lambda self: self._box.minimum, lambda self, new: self._set("minimum", new)
    )
    maximum = Property(
        float, lambda self: self._box.maximum, lambda self, new: self._set("maximum", new)
    )
    singleStep = Property(
        float, lambda self: self._box.singleStep, lambda self, new: self._set("singleStep", new)
    )
    decimals = Property(
        int, lambda self: self._box.decimals, lambda self, new: self._set("decimals", new)
    )
    suffix = Property(
        str, lambda self: self._box.suffix, lambda self, new: self._set("suffix", new)
    )


class ctkPathLineEdit(QWidget):
    """A line for a path with a button that opens a dialog."""

    currentPathChanged = Signal(str)
    Files, Dirs, Readable, Writable = 0x1, 0x2, 0x4, 0x8

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._filters = self.Files
        self._line = QLineEdit()
        browse = QToolButton()
        browse.text = "…"
        row = QHBoxLayout(self)
        row.contentsMargins = QMargins()
        row.addWidget(self._line)
        row.addWidget(browse)
        self._line.textChanged.connect(self.currentPathChanged)
        browse.clicked.connect(lambda *_: self.browse())

    def browse(self) -> None:
        """Ask for the path."""
        if self._filters & self.Dirs:
            chosen = QFileDialog.getExistingDirectory(self)
        else:
            chosen = QFileDialog.getOpenFileName(self)[0]
        self._line.text = chosen or self._line.text

    def _set_path(self, path: str) -> None:
        self._line.text = path

    def _set_filters(self, filters: int) -> None:
        self._filters = filters

    currentPath = Property(str, lambda self: self._line.text, _set_path)
    filters = Property(int, lambda self: self._filters, _set_filters)
    settingKey = Property(str, lambda self: "", lambda self, key: None)


class ctkDirectoryButton(QPushButton):
    """A button with the name of a folder, which opens a dialog for another."""

    directoryChanged = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._folder = str(Path.cwd())
        self.clicked.connect(lambda *_: self.browse())

    def browse(self) -> None:
        """Ask for the folder."""
        self._set_folder(QFileDialog.getExistingDirectory(self) or self._folder)

    def _set_folder(self, folder: str) -> None:
        if folder != self._folder:
            self._folder = folder
            self.text = folder
            self.directoryChanged.emit(folder)

    directory = Property(str, lambda self: self._folder, _set_folder)


class ctkMessageBox(QMessageBox):
    """A message box; the part that remembers "do not show again" is left out."""


CLASSES = (
    ctkCollapsibleButton,
    ctkDirectoryButton,
    ctkMessageBox,
    ctkPathLineEdit,
    ctkSliderWidget,
)
