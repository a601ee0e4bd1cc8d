"""Chooses a model: a bundled one, or a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from CTSliceToolsLib.errors import InputError
from CTSliceToolsLib.model_card import ModelCard, read_card
from CTSliceToolsLib.panel.errors import shown_errors
from CTSliceToolsLib.panel.file_dialogs import choose_file
from CTSliceToolsLib.panel.signals import Signal


class ModelChooser:
    """A combo box with the bundled models, those of files chosen so far, and "From file…".

    Attributes:
        changed: signal with the file of the model that is now chosen.
    """

    def __init__(self, combo_box: Any, bundled: Sequence[Path]) -> None:
        """Fill an empty combo box of a .ui file.

        Raises:
            InputError: if a bundled model is missing or damaged.
        """
        self.changed = Signal()
        self._box = combo_box
        self._bundled = [*bundled]
        self._files: list[Path] = []
        self._current = -1
        for file in bundled:
            self._add(file)
        self._box.addItem(_("From file…"))
        self._box.activated.connect(self._choose_row)
        if self._files:
            self._show(0)

    @property
    def file(self) -> Path | None:
        """The `.keras` file of the chosen model; None if there is none at all."""
        return self._files[self._current] if self._files else None

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
        if file is None or file == self.file or not file.exists():
            return
        try:
            self.choose(file)
        except InputError as problem:
            slicer.util.showStatusMessage(str(problem), 5000)

    def _add(self, file: Path) -> None:
        card = read_card(file)
        row = len(self._files)
        self._files.append(file)
        self._box.insertItem(row, card.name)
        self._box.setItemData(row, describe(card, file), qt.Qt.ToolTipRole)

    def _choose_row(self, *_arguments: Any) -> None:
        row = self._box.currentIndex
        if row < len(self._files):
            self._show(row)
            return
        self._show(self._current)
        file = choose_file(_("Model"), _("Keras models (*.keras)"))
        if file is not None:
            with shown_errors():
                self.choose(file)

    def _show(self, row: int) -> None:
        changed = row != self._current
        self._current = row
        self._box.currentIndex = row
        self._box.toolTip = self._box.itemData(row, qt.Qt.ToolTipRole)
        if changed:
            self.changed.emit(self.file)


def describe(card: ModelCard, file: Path) -> str:
    """Say what a model does, where it is not to be trusted, and where it is."""
    limits = "".join(f"\n• {one}" for one in card.limitations)
    heading = _("Not to be trusted:") if limits else ""
    return "\n\n".join(part for part in (card.summary, heading + limits, str(file)) if part)
