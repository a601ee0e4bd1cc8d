"""Small parts of panels: dialogs, errors as one sentence, labels, tables, pictures, models."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from CTLungScreeningLib.child_process import ChildError
from CTLungScreeningLib.errors import InputError, is_of_users, sentence_of
from CTLungScreeningLib.model_card import read_card
from CTLungScreeningSlicer.panel.section import Signal

OLDEST = 5, 12
"""The oldest Slicer that brings all that is used, above all pydicom 3."""


def refuse_old_slicer(layout: Any) -> bool:
    """Return whether this Slicer is too old for a panel, and say so in the panel if it is."""
    version = int(slicer.app.majorVersion), int(slicer.app.minorVersion)
    if version >= OLDEST:
        return False
    text = _("This is Slicer {version}: the panel needs {oldest} or newer.")
    this, oldest = (".".join(map(str, one)) for one in (version, OLDEST))
    label = qt.QLabel(text.format(version=this, oldest=oldest))
    label.wordWrap = True
    layout.addWidget(label)
    return True


@contextmanager
def shown_errors() -> Iterator[None]:
    """Show an error raised within that is not a bug, such as a full disk, and continue.

    One of a child process is shown too: it names the log.
    """
    try:
        yield
    except Exception as problem:
        failed = isinstance(problem, ChildError)
        if not failed and not is_of_users(problem):
            raise
        text = str(problem) if failed else sentence_of(problem)
        slicer.util.errorDisplay(text, windowTitle=_("Cannot continue"))


def choose_file(title: str, filters: str) -> Path | None:
    """Ask for an existing file; None if the user cancels."""
    return _path(qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", filters))


def choose_new_file(
    title: str, name: str, filters: str, suffix: str, replaces: bool = False
) -> Path | None:
    """Ask for a file to write; one without a suffix gets `suffix`.

    Where an existing file will be replaced (`replaces`), the dialog asks whether it may; most are
    never replaced.
    """
    dialog = qt.QFileDialog(slicer.util.mainWindow(), title, "", filters)
    dialog.acceptMode = qt.QFileDialog.AcceptSave
    dialog.setOption(qt.QFileDialog.DontConfirmOverwrite, not replaces)
    dialog.defaultSuffix = suffix.removeprefix(".")
    dialog.selectFile(name)
    chosen = dialog.selectedFiles() if dialog.exec() else ()
    dialog.deleteLater()
    return _path(chosen[0]) if chosen else None


def choose_folder(title: str, start: str) -> Path | None:
    """Ask for a folder."""
    return _path(qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title, start))


def _path(chosen: str) -> Path | None:
    return Path(chosen) if chosen else None


def on_click(button: Any, action: Callable[[], object]) -> None:
    """Make a button call an action, without what its signal passes."""
    button.clicked.connect(partial(_call, action))


def _call(action: Callable[[], object], *_arguments: Any) -> None:
    action()


def offer_folder(button: Any, field: Any) -> None:
    """Make a button ask for a folder for a line, starting at the line's own or grey one."""
    _offer(button, field, lambda: choose_folder(_("Folder"), field.text or field.placeholderText))


def offer_file(button: Any, field: Any, title: str, filters: str) -> None:
    """Make a button ask for an existing file."""
    _offer(button, field, lambda: choose_file(title, filters))


def offer_new_model(button: Any, field: Any) -> None:
    """Make a button ask for the file of a model to write."""
    title, filters = _("New model"), _("Keras models (*.keras)")
    _offer(
        button,
        field,
        lambda: choose_new_file(title, field.text or field.placeholderText, filters, ".keras"),
    )


def _offer(button: Any, field: Any, ask: Callable[[], Path | None]) -> None:
    def put(*_arguments: Any) -> None:
        path = ask()
        if path is not None:
            field.text = str(path)

    button.clicked.connect(put)


def show_text(label: Any, text: str) -> None:
    """Show a text in a label, and hide the label if there is none."""
    label.text = text
    label.visible = bool(text)


def fit_height(table: Any, least: int, most: int) -> None:
    """Make a table as high as its rows; with more than `most` of them it scrolls.

    Args:
        table: a table widget.
        least: rows of the default height that it has room for even if it is empty.
        most: rows that are seen at once.
    """
    shown = min(table.rowCount, most)
    height = table.horizontalHeader().sizeHint.height() + 2 * table.frameWidth
    height += sum(table.rowHeight(row) for row in range(shown))
    height += max(0, least - shown) * table.verticalHeader().defaultSectionSize
    table.minimumHeight = table.maximumHeight = height


def pictures_in(folder: Path | None, pattern: str = "*.png") -> list[Path]:
    """List the pictures in a folder by name; none where there is none, or it cannot be read."""
    try:
        return [] if folder is None else sorted(folder.glob(pattern))
    except OSError:
        return []


_SIZE = (900, 700)
_WIDEST = 830
"""Pictures that are wider are shown smaller."""


class PictureWindow:
    """Stays open beside Slicer's windows; one at a time.

    Attributes:
        window: the dialog; None until it is first shown.
        tabs: its pages, one per picture.
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


class ModelChooser:
    """A combo box with the bundled models, those of files chosen so far, and "Add model…".

    Attributes:
        changed: signal with the file of the model that is now chosen.
    """

    def __init__(
        self,
        combo_box: Any,
        bundled: Sequence[Path],
        about: Callable[[Path], tuple[str, str]] | None = None,
        filters: str = "",
        added: Callable[[Path], Path] | None = None,
    ) -> None:
        """Fill an empty combo box of a .ui file.

        Args:
            combo_box: of the .ui file.
            bundled: models that are always there; the first is chosen.
            about: gives a model's name and what is to be known of it; raises `InputError` if it
                cannot be used. None: by the card of a network.
            filters: of the file dialog; "" for networks.
            added: turns what is chosen there into a model's file; raises `InputError` likewise.

        Raises:
            InputError: if a bundled model is missing or damaged.
        """
        self.changed = Signal()
        self._box = combo_box
        self._bundled = [*bundled]
        self._files: list[Path] = []
        self._current = -1
        self._about = about or about_network
        self._added = added or (lambda file: file)
        self._filters = filters or _("Models (*.onnx *.keras *.json)")
        for file in bundled:
            self._add(file)
        self._box.addItem(_("Add model…"))
        self._box.activated.connect(self._choose_row)
        self._show(0 if self._files else -1)

    @property
    def file(self) -> Path | None:
        """The file of the chosen model; None if there is none at all."""
        return self._files[self._current] if self._current >= 0 else None

    def choose(self, file: Path) -> None:
        """Choose a model by its file, whose card is read anew.

        Raises:
            InputError: if it is not a model with a card; the choice stays.
        """
        self._add(file)
        self._show(self._files.index(file))

    @property
    def scene_name(self) -> str:
        """Name of the chosen model in a scene: its file, "" for the first bundled one."""
        return "" if self.file is None or self.file in self._bundled[:1] else str(self.file)

    def choose_named(self, scene_name: str) -> None:
        """Choose the model that a scene names, see `scene_name`, if it is there still."""
        file = Path(scene_name) if scene_name else next(iter(self._bundled), None)
        if file is None or file == self.file:
            return
        try:
            self.choose(file)
        except InputError as problem:
            slicer.util.showStatusMessage(str(problem), 5000)

    def _add(self, file: Path) -> None:
        name, description = self._about(file)
        if file not in self._files:
            self._box.insertItem(len(self._files), name)
            self._files.append(file)
        row = self._files.index(file)
        self._box.setItemText(row, name)
        self._box.setItemData(row, description, qt.Qt.ToolTipRole)

    def _choose_row(self, *_arguments: Any) -> None:
        row = self._box.currentIndex
        if row < len(self._files):
            self._show(row)
            return
        self._show(self._current)
        file = choose_file(_("Model"), self._filters)
        if file is not None:
            with shown_errors():
                self.choose(self._added(file))

    def _show(self, row: int) -> None:
        changed = row != self._current
        self._current = row
        self._box.currentIndex = row
        if row >= 0:
            self._box.toolTip = self._box.itemData(row, qt.Qt.ToolTipRole)
        if changed:
            self.changed.emit(self.file)


def about_network(file: Path) -> tuple[str, str]:
    """Return name and description of a network by its card.

    Raises:
        InputError: if it has no card that can be read.
    """
    card = read_card(file)
    return card.name, f"{card.description}\n\n{file}"
