"""The model chooser: bundled models, added ones, or a file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.model_card import read_card
from CTLungScreeningSlicer.panel.dialogs import choose_file
from CTLungScreeningSlicer.panel.errors import shown_errors
from CTLungScreeningSlicer.panel.events import Signal


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
        """Choose a model by its file.

        Raises:
            InputError: if it is no model with a card; the choice stays.
        """
        if file not in self._files:
            self._add(file)
        self._show(self._files.index(file))

    @property
    def scene_name(self) -> str:
        """What a scene calls the chosen model: its file, "" for the first of those bundled."""
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
        row = len(self._files)
        self._files.append(file)
        self._box.insertItem(row, name)
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
    """Give name and description of a network by its card.

    Raises:
        InputError: if it has no card that can be read.
    """
    card = read_card(file)
    return card.name, f"{card.description}\n\n{file}"
