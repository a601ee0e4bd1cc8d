"""The panel LungNoduleSeg, in Slicer or on its stand-in."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any

import slicer_host

slicer = slicer_host.start()

import numpy as np
import psutil

import CTSliceToolsLib
import LungNoduleSegLib
from CTSliceToolsLib.child_process import module_command, module_environment
from CTSliceToolsLib.reading.ct_reading import read_ct
from CTSliceToolsLib.scene.mrml_volume import add_volume
from panel_host import PICTURES, leave_panel, open_panel, slow
from slicer_host.actions import process_events, save_picture, wait_until


def phantom(folder: Path) -> Any:
    """Make a chest CT phantom in a process of its own, and load it."""
    subprocess.run(
        module_command("LungNoduleSegLib", "phantom", "-o", folder / "phantom"),
        env={**os.environ, **module_environment(CTSliceToolsLib, LungNoduleSegLib)},
        check=True,
    )
    return add_volume(read_ct(folder / "phantom" / "dicom").image, "phantom")


class PanelTest(unittest.TestCase):
    """The panel open in an empty scene."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        self.widget = open_panel("LungNoduleSeg")
        self.ui = self.widget.ui
        self.run_bar = self.widget.segment.run_bar
        self.before = {one.pid for one in psutil.Process().children(recursive=True)}

    def tearDown(self) -> None:
        leave_panel()
        slicer.mrmlScene.Clear()
        process_events()

    def children(self) -> set[int]:
        return {one.pid for one in psutil.Process().children(recursive=True)} - self.before

    def node_ids(self) -> set[str]:
        scene = slicer.mrmlScene
        return {scene.GetNthNode(row).GetID() for row in range(scene.GetNumberOfNodes())}


class TestWithoutAScan(PanelTest):
    def test_the_button_says_what_is_missing(self) -> None:
        self.assertFalse(self.run_bar.button.enabled)
        self.assertEqual(self.run_bar.button.toolTip, "Choose a chest CT first.")
        self.assertFalse(self.ui.undoButton.enabled)
        save_picture(self.widget.parent, PICTURES / "segment-empty.png")


class RunTest(PanelTest):
    """The panel open on a scan."""

    def setUp(self) -> None:
        super().setUp()
        self.volume = self.load()
        self.widget.chooseVolume(self.volume)
        process_events()
        self.nodes = self.node_ids()

    def load(self) -> Any:
        return slicer.util.addVolumeFromArray(np.full((40, 64, 64), -1000, np.int16), name="air")

    def run_to_end(self) -> None:
        self.run_bar.button.click()
        wait_until(lambda: not self.run_bar.runner.busy, 300)


class TestRun(RunTest):
    """Runs that do not come to their end."""

    def test_cancelled_it_leaves_no_child_and_no_node(self) -> None:
        self.run_bar.button.click()
        wait_until(lambda: bool(self.children()))
        self.assertEqual(self.run_bar.button.text, "Cancel")
        self.run_bar.button.click()
        wait_until(lambda: not self.run_bar.runner.busy)
        self.assertEqual((self.children(), self.node_ids()), (set(), self.nodes))

    def test_scene_closed_during_a_run(self) -> None:
        self.run_bar.button.click()
        wait_until(lambda: bool(self.children()))
        slicer.mrmlScene.Clear()
        self.assertFalse(self.run_bar.runner.busy)
        self.assertEqual(self.children(), set())

    def test_module_reloaded_during_a_run(self) -> None:
        self.run_bar.button.click()
        wait_until(lambda: bool(self.children()))
        slicer.util.reloadScriptedModule("LungNoduleSeg")
        self.assertEqual(self.children(), set())

    def test_another_module_is_shown_during_a_run(self) -> None:
        self.run_bar.button.click()
        wait_until(lambda: bool(self.children()))
        leave_panel()
        self.assertTrue(self.run_bar.runner.busy)
        self.run_bar.runner.stop()


@slow
class TestNoCt(RunTest):
    def test_one_sentence_names_the_volume(self) -> None:
        with self.assertLogs(level="ERROR") as shown:
            self.run_to_end()
        self.assertIn("air has values from -1000 to -1000: that is not CT", shown.output[0])
        self.assertEqual(self.node_ids(), self.nodes)


@slow
class TestPhantom(RunTest):
    """The whole way of a phantom with the bundled model."""

    def load(self) -> Any:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return phantom(Path(folder.name))

    def test_results_come_into_the_scene_and_undo_takes_them_out(self) -> None:
        self.run_to_end()
        added = {
            slicer.mrmlScene.GetNodeByID(one).GetClassName() for one in self.node_ids() - self.nodes
        }
        self.assertLessEqual(
            {"vtkMRMLSegmentationNode", "vtkMRMLTableNode", "vtkMRMLMarkupsFiducialNode"}, added
        )
        segmentation = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
        table = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLTableNode")
        count = table.GetNumberOfRows()
        self.assertGreater(count, 0)
        self.assertEqual(segmentation.GetSegmentation().GetNumberOfSegments(), count + 2)
        self.assertIn(f"{count} nodule", self.ui.resultLabel.text)
        save_picture(self.widget.parent, PICTURES / "segment.png")
        self.ui.undoButton.click()
        process_events()
        self.assertEqual(self.node_ids(), self.nodes)
        self.assertEqual(self.ui.resultLabel.text, "")
