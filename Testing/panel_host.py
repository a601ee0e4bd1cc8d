"""A panel open in Slicer or its stand-in, with a scan, for tests and pictures."""

import json
import os
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import qt
import slicer

import slicer_host
from CTLungScreeningLib.model_card import file_sha256
from CTLungScreeningSlicer.panel.slice_views import BESIDE
from slicer_host.actions import process_events, save_picture, wait_until

ROOT = Path(__file__).parents[1]
PICTURES = Path(os.environ.get("PANEL_PICTURES") or tempfile.gettempdir()) / "panel-pictures"
"""Where tests save pictures of panels to be looked at."""


WIDTH = 350
"""Of a dock, in pixels: what the panels promise to fit into."""


def slow(test: Any) -> Any:
    """Mark a test that takes longer than ten seconds, for pytest, which Slicer has not."""
    try:
        import pytest
    except ImportError:
        return test
    return pytest.mark.slow(test)


def descendants() -> set[int]:
    """Return the ids of the processes that this one started, and of those that they started."""
    import psutil  # Slicer has none before the first run

    return {one.pid for one in psutil.Process().children(recursive=True)}


class RunTest(unittest.TestCase):
    """Tests of a panel's runs: they set `run_bar`, and `before` to `descendants()`."""

    PATIENCE_S: float = 300
    run_bar: Any
    before: set[int]

    def children(self) -> set[int]:
        return descendants() - self.before

    def node_ids(self) -> set[str]:
        scene = slicer.mrmlScene
        return {scene.GetNthNode(row).GetID() for row in range(scene.GetNumberOfNodes())}

    def run_to_end(self) -> None:
        self.run_bar.button.click()
        wait_until(lambda: not self.run_bar.runner.busy, self.PATIENCE_S)


class StepsTest(RunTest):
    """Tests on a panel whose runs take steps, each with a box to tick in `ui`."""

    STEPS: tuple[str, ...]
    ui: Any

    def node_ids(self) -> set[str]:
        """All nodes but the plot views, which Slicer makes as layouts need them."""
        plot_views = {one.GetID() for one in slicer.util.getNodesByClass("vtkMRMLPlotViewNode")}
        return super().node_ids() - plot_views

    def tick(self, *steps: str) -> None:
        for step in self.STEPS:
            box = getattr(self.ui, f"{step}Step")
            if box.checked != (step in steps):
                box.click()


class StoppedRuns:
    """Tests of runs that do not come to their end, for a `RunTest` on a panel ready to run.

    It has `nodes`, the ids before the run.
    """

    MODULE: str

    def test_cancelled_it_leaves_no_child_and_no_node(self: Any) -> None:
        self.run_bar.button.click()
        wait_until(lambda: bool(self.children()))
        self.assertEqual(self.run_bar.button.text, "Cancel")
        save_picture(self.widget.parent, PICTURES / f"running-{self.MODULE}.png")
        self.run_bar.button.click()
        wait_until(lambda: not self.run_bar.runner.busy)
        self.assertEqual((self.children(), self.node_ids()), (set(), self.nodes))

    def test_scene_closed_during_a_run(self: Any) -> None:
        self.run_bar.button.click()
        wait_until(lambda: bool(self.children()))
        slicer.mrmlScene.Clear()
        self.assertFalse(self.run_bar.runner.busy)
        self.assertEqual(self.children(), set())

    def test_module_reloaded_during_a_run(self: Any) -> None:
        self.run_bar.button.click()
        wait_until(lambda: bool(self.children()))
        slicer.util.reloadScriptedModule(self.MODULE)
        self.assertEqual(self.children(), set())


def write_card(folder: Path, name: str) -> Path:
    """Write a file with the card of a model, which is enough to choose it."""
    file = folder / f"{name}.keras"
    file.write_bytes(name.encode())
    card = {
        "name": f"The {name} one",
        "summary": "Says where a slice lies.",
        "label": "normalized location",
        "preparation": {},
        "limitations": ["Children."],
        "files": {file.name: file_sha256(file)},
    }
    file.with_suffix(".json").write_text(json.dumps(card))
    return file


def open_panel(name: str) -> Any:
    """Load a module if need be, show its panel and return its widget class."""
    if not slicer_host.is_real():
        manager = slicer.app.moduleManager()
        if manager.module(name) is None:
            manager.load(ROOT / name / f"{name}.py")
    slicer.util.selectModule(name)
    process_events()
    return slicer.util.getModuleWidget(name)


def section_names(module: str) -> list[str]:
    """Name the sections of a panel, as its .ui file has them."""
    root = ElementTree.parse(ROOT / module / "Resources" / "UI" / f"{module}.ui").getroot()
    found = root.iter("widget")
    return [one.attrib["name"] for one in found if one.attrib["class"] == "ctkCollapsibleButton"]


def leave_panel() -> None:
    """Show another module."""
    slicer.util.selectModule("Data" if slicer_host.is_real() else "Welcome")


@contextmanager
def docked(widget: Any, width: int, height: int) -> Iterator[Any]:
    """Show a panel in a dock of a size, and give the dock; only in the stand-in."""
    area = slicer.util.mainWindow().panel
    dock = qt.QScrollArea()
    dock.widgetResizable = True
    dock.frameShape = qt.QFrame.NoFrame
    dock.setWidget(area.takeWidget())
    widget.parent.show()
    dock.resize(width, height)
    dock.show()
    process_events()
    try:
        yield dock
    finally:
        area.setWidget(dock.takeWidget())
        widget.parent.show()
        process_events()


def add_scan(name: str = "chest", slices: int = 60, thickness_mm: float = 10.0) -> Any:
    """Add a small axial volume of air and water, from z = 0 upward, shown in the slice views."""
    hu = np.full((slices, 32, 32), -1000, np.int16)
    hu[:, 8:24, 8:24] = 0
    volume = slicer.util.addVolumeFromArray(hu, np.diag([-9.0, -9.0, thickness_mm, 1]), name)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    process_events()
    return volume


def scene_file(test: unittest.TestCase) -> str:
    """A file for the scene, in a folder that goes at the end of the test."""
    folder = tempfile.TemporaryDirectory()
    test.addCleanup(folder.cleanup)
    return str(Path(folder.name) / "scene.mrb")


def reopen(file: str, clear: bool) -> None:
    """Load a scene as in a new session, in place of the current one (`clear`) or added to it.

    There no view has been opened beside the red one yet.
    """
    slicer.mrmlScene.Clear()
    process_events()
    beside = slicer.mrmlScene.GetNodeByID(BESIDE)
    if beside is not None:
        slicer.mrmlScene.RemoveNode(beside)
    assert slicer.mrmlScene.ReadFromMRB(file, clear)
    process_events()


def scroll_to(z_mm: float, view: str = "Red") -> None:
    """Scroll a slice view to a height."""
    slicer.app.layoutManager().sliceWidget(view).sliceLogic().SetSliceOffset(z_mm)
    process_events()
