"""The panel LungNoduleSeg, in Slicer or on its stand-in."""

from typing import Any

import slicer_host

slicer = slicer_host.start()

from nodule_panel import PanelTest, ScanTest, add_phantom
from panel_host import PICTURES, leave_panel, slow
from slicer_host.actions import process_events, save_picture, wait_until


class TestWithoutAScan(PanelTest):
    def test_the_button_says_what_is_missing(self) -> None:
        self.assertFalse(self.run_bar.button.enabled)
        self.assertEqual(self.run_bar.button.toolTip, "Choose a chest CT first.")
        self.assertFalse(self.ui.undoButton.enabled)
        save_picture(self.widget.parent, PICTURES / "segment-empty.png")


class TestRun(ScanTest):
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
class TestNoCt(ScanTest):
    def test_one_sentence_names_the_volume(self) -> None:
        with self.assertLogs(level="ERROR") as shown:
            self.run_to_end()
        self.assertIn("air has values from -1000 to -1000: that is not CT", shown.output[0])
        self.assertEqual(self.node_ids(), self.nodes)


@slow
class TestPhantom(ScanTest):
    """The whole way of a phantom with the bundled model."""

    def load(self) -> Any:
        return add_phantom()

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
