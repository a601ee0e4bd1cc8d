"""Asks for files and folders; PySide's dialogs give the filter as well, PythonQt's do not."""

from pathlib import Path
from typing import Any

import qt
import slicer


def choose_file(title: str, filters: str) -> Path | None:
    """Ask for a file that is there; None if the user cancels."""
    return _path(qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", filters))


def choose_new_file(title: str, name: str, filters: str) -> Path | None:
    """Ask for a file to write; the dialog asks before one is replaced."""
    return _path(qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, name, filters))


def choose_folder(title: str, start: str) -> Path | None:
    """Ask for a folder."""
    return _path(qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title, start))


def _path(chosen: Any) -> Path | None:
    name = chosen if isinstance(chosen, str) else chosen[0]
    return Path(name) if name else None
