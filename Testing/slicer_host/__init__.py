"""Slicer for the tests of the panels: the real application, or a stand-in where there is none.

The stand-in is slicer-core's MRML and `slicer.util` as they are, with PySide6 offscreen as `qt` and
the smallest classes for what Slicer's C++ widgets, `ScriptedLoadableModule`,
`parameterNodeWrapper`, `i18n` and `packaging` do, written after Slicer's source. Tests call `start`
and the functions of `actions` only, which do the same in a real Slicer.
"""

import ctypes.util
import importlib.util
import os
import unittest
from typing import Any

SYSTEM_LIBRARIES = {
    "EGL": "libegl1",
    "GL": "libgl1",
    "X11": "libx11-6",
    "dbus-1": "libdbus-1-3",
    "fontconfig": "libfontconfig1",
    "freetype": "libfreetype6",
    "glib-2.0": "libglib2.0-0",
    "xkbcommon": "libxkbcommon0",
}
"""What PySide6's Linux wheel loads from the system, with Debian's name of the package."""


def start() -> Any:
    """Return the package `slicer` with an application: the real one if this runs in Slicer.

    Raises:
        unittest.SkipTest: if there is neither Slicer nor what the stand-in needs.
    """
    if importlib.util.find_spec("slicer") is None:
        raise unittest.SkipTest("the panels need Slicer or slicer-core, which is not installed")
    import slicer

    if not hasattr(slicer, "qSlicerScriptedLoadableModuleWidget"):
        _require_qt()
        from slicer_host import application

        application.start()
    return slicer


def is_real() -> bool:
    """Tell whether the application is Slicer itself."""
    import slicer

    return hasattr(getattr(slicer, "app", None), "errorLogModel")


def _require_qt() -> None:
    if importlib.util.find_spec("PySide6") is None:
        raise unittest.SkipTest("the panels need PySide6: pip install PySide6-Essentials")
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
    try:
        from PySide6 import QtWidgets  # noqa: F401 - to see whether it can be
    except ImportError as problem:
        missing = [
            package
            for library, package in SYSTEM_LIBRARIES.items()
            if ctypes.util.find_library(library) is None
        ]
        raise unittest.SkipTest(
            f"PySide6 cannot be loaded ({problem}): apt-get install "
            f"{' '.join(missing or SYSTEM_LIBRARIES.values())}"
        ) from None
