"""What a user does in Slicer, for tests: keys, clicks, waiting, pictures."""

import html
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk

from slicer_host import is_real


def press(key: str, widget: Any | None = None) -> None:
    """Press and release a key, such as "1", "-" or "Delete", in a widget or the main window.

    A key event sent to Slicer's main window fires no shortcut: there the shortcut itself is fired,
    unless a text field has the focus, which would take the key.
    """
    target = widget or slicer.util.mainWindow()
    if not is_real():
        _press_with_qtest(key, target)
        return
    sequence = qt.QKeySequence(key).toString()
    for shortcut in target.findChildren(qt.QShortcut):
        if shortcut.enabled and shortcut.key.toString() == sequence:
            shortcut.activated()


def _press_with_qtest(key: str, target: Any) -> None:
    window = slicer.util.mainWindow()
    if not window.isActiveWindow:  # no window manager makes it so when a dialog closes
        window.activateWindow()
        process_events()
    if len(key) == 1:
        qt.QTest.keyClicks(target, key)
    else:
        qt.QTest.keySequence(target, qt.QKeySequence(key))


def place_point(ras: Sequence[float]) -> None:
    """Click at a place, RAS mm of the world, while Slicer waits for a point to be placed.

    What the views then do with the click is done here, as the stand-in's hear no mouse.
    """
    application = slicer.app.applicationLogic()
    node_id = application.GetSelectionNode().GetActivePlaceNodeID()
    slicer.mrmlScene.GetNodeByID(node_id).AddControlPointWorld(vtk.vtkVector3d(*ras))
    application.GetInteractionNode().SwitchToViewTransformMode()


def tool_tip(widget: Any) -> str:
    """Give the words of a tool tip, which Slicer wraps in paragraphs."""
    return html.unescape(re.sub(r"<[^>]*>", "", widget.toolTip))


def process_events() -> None:
    """Let Qt do what is waiting to be done."""
    slicer.app.processEvents()


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    """Keep the application going until `condition` holds.

    Raises:
        TimeoutError: if it does not within `timeout_s`.
    """
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout_s} s")
        process_events()
        time.sleep(0.01)


def save_picture(widget: Any, file: Path) -> None:
    """Save what a widget looks like as PNG."""
    process_events()
    file.parent.mkdir(parents=True, exist_ok=True)
    if not widget.grab().save(str(file)):
        raise OSError(f"{file} could not be written")
