"""Dialogs that ask for files and folders."""

from pathlib import Path

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


def _path(chosen: str) -> Path | None:
    return Path(chosen) if chosen else None
