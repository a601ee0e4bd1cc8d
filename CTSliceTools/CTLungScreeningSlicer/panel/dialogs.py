"""Asks for files and folders, and offers to ask from a button beside a line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _


def choose_file(title: str, filters: str) -> Path | None:
    """Ask for a file that is there; None if the user cancels."""
    return _path(qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", filters))


def choose_new_file(title: str, name: str, filters: str) -> Path | None:
    """Ask for a file to write; the dialog asks before one is replaced."""
    return _path(qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, name, filters))


def choose_folder(title: str, start: str) -> Path | None:
    """Ask for a folder."""
    return _path(qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title, start))


def _path(chosen: str) -> Path | None:
    return Path(chosen) if chosen else None


def offer_folder(button: Any, field: Any) -> None:
    """Have a button ask for a folder for a line; the line's own or grey one is where it begins."""
    _offer(button, field, lambda: choose_folder(_("Folder"), field.text or field.placeholderText))


def offer_file(button: Any, field: Any, title: str, filters: str) -> None:
    """Have a button ask for a file that is there."""
    _offer(button, field, lambda: choose_file(title, filters))


def offer_new_file(button: Any, field: Any, title: str, filters: str, suffix: str) -> None:
    """Have a button ask for a file to write; one without a suffix gets `suffix`."""

    def ask() -> Path | None:
        file = choose_new_file(title, field.text or field.placeholderText, filters)
        return file.with_suffix(suffix) if file is not None and not file.suffix else file

    _offer(button, field, ask)


def _offer(button: Any, field: Any, ask: Callable[[], Path | None]) -> None:
    def put(*_arguments: Any) -> None:
        path = ask()
        if path is not None:
            field.text = str(path)

    button.clicked.connect(put)
