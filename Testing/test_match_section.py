"""The section Match of the panel CTSliceTools, in Slicer or on its stand-in."""

import subprocess
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock
from xml.etree import ElementTree

import slicer_host

slicer = slicer_host.start()

import numpy as np
import qt
import vtk

from coded_scans import HEIGHT, coded_prediction, coded_volume, upright
from CTLungScreeningLib.geometry import ScanAlignment
from CTLungScreeningSlicer.panel.side_by_side import BESIDE_NAME, LAYOUT, LAYOUT_XML, RED_NAME
from CTLungScreeningSlicer.panel.slice_views import BESIDE, RED, pointed_ras
from CTLungScreeningSlicer.scene.mrml_volume import add_volume
from CTSliceToolsLib.localizer.matching import TOLERANCE
from CTSliceToolsSlicer.scene import prediction_nodes
from panel_host import (
    PICTURES,
    RunTest,
    descendants,
    leave_panel,
    open_panel,
    reopen,
    scene_file,
    scroll_to,
    slow,
    write_card,
)
from slicer_host.actions import process_events, save_picture, tool_tip, wait_until

SHIFT_MM = 37.0
"""How much higher the second scan lies than the first."""


class MatchTest(RunTest):
    """The section open on two volumes of alike anatomy, the second `SHIFT_MM` higher."""

    localized = True

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        slicer.app.layoutManager().setLayout(self.layouts().SlicerLayoutFourUpView)
        self.widget = open_panel("CTSliceTools")
        self.ui, self.match = self.widget.ui, self.widget.match
        self.volume = self.add("baseline", 0)
        self.other = self.add("follow-up", SHIFT_MM)
        slicer.util.setSliceViewerLayers(background=self.volume, fit=True)
        self.widget.chooseVolume(self.volume)
        self.ui.otherSelector.setCurrentNode(self.other)
        self.ui.matchSection.collapsed = False
        process_events()

    def tearDown(self) -> None:
        leave_panel()
        slicer.mrmlScene.Clear()
        process_events()

    def add(self, name: str, shift_mm: float) -> Any:
        grid = upright(-340 + shift_mm, -10 + shift_mm)
        volume = add_volume(coded_volume(grid, shift_mm), name)
        if self.localized:
            prediction_nodes.add_prediction(volume, coded_prediction(grid, shift_mm))
        return volume

    def choose_model(self) -> None:
        """Choose a file with a card: enough to start a run that does not come to its end."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.widget.localize.model.choose(write_card(Path(folder.name), "chosen"))

    @staticmethod
    def layouts() -> Any:
        return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")

    def z(self, view: str) -> float:
        return float(slicer.mrmlScene.GetNodeByID(view).GetSliceToRAS().GetElement(2, 3))

    def shown(self, view: str) -> Any:
        widget = slicer.app.layoutManager().sliceWidget(view)
        node_id = widget.sliceLogic().GetSliceCompositeNode().GetBackgroundVolumeID()
        return slicer.mrmlScene.GetNodeByID(node_id or "")

    def rows(self) -> list[tuple[float, float, float]]:
        table = self.ui.matchTable
        texts = [[table.item(row, n).text() for n in (1, 2, 3)] for row in range(table.rowCount)]
        return [(float(z), float(offset), float(location)) for z, offset, location in texts]

    def switch(self) -> None:
        self.ui.sideBySideBox.click()
        process_events()
        if self.ui.sideBySideBox.checked:
            wait_until(lambda: self.match.views.settled)

    def assert_level(self, delta: float = 2.5) -> None:
        """Check that both views show the same level, to a slice's thickness."""
        self.assertAlmostEqual(self.z(BESIDE) - self.z(RED), SHIFT_MM, delta=delta)


class TestSideBySide(MatchTest):
    def test_the_view_beside_follows_the_red_one_and_the_other_way_round(self) -> None:
        self.switch()
        self.assertEqual(slicer.app.layoutManager().layout, LAYOUT)
        self.assertEqual(self.shown("Red").GetName(), "baseline")
        self.assertEqual(self.shown(BESIDE_NAME).GetName(), "follow-up")
        for z in (-120.0, -122.5, -250.0, -60.0):
            scroll_to(z)
            self.assertAlmostEqual(self.z(RED), z)
            self.assert_level()
        for z in (-120.0, -122.5, -250.0, -60.0):
            scroll_to(z, BESIDE_NAME)
            self.assertAlmostEqual(self.z(BESIDE), z)
            self.assert_level()
            process_events()
            self.assertAlmostEqual(self.z(BESIDE), z)
        save_picture(self.widget.parent, PICTURES / "match.png")

    def test_ticking_the_box_leaves_the_red_view_at_its_level(self) -> None:
        """Slicer moves the new view to 0 mm, which is outside both scans."""
        scroll_to(-200)
        self.switch()
        self.assertAlmostEqual(self.z(RED), -200)
        self.assert_level()

    def test_no_view_leaves_its_scan(self) -> None:
        self.switch()
        for view, other, volume in (
            ("Red", BESIDE, self.other),
            (BESIDE_NAME, RED, self.volume),
        ):
            bounds = [0.0] * 6
            volume.GetRASBounds(bounds)
            for z in (-400.0, 100.0):
                scroll_to(z, view)
                self.assertTrue(bounds[4] < self.z(other) < bounds[5], (view, z, self.z(other)))

    def test_both_views_are_equally_wide(self) -> None:
        layout = ElementTree.fromstring(LAYOUT_XML)
        self.assertEqual((layout.get("type"), layout.get("split")), ("horizontal", "true"))
        views = [view.get("singletontag") for view in layout.iter("view")]
        self.assertEqual(views, [RED_NAME, BESIDE_NAME])
        sizes = {item.get("splitSize") for item in layout.iter("item")}
        self.assertEqual(len(sizes), 1)
        self.assertNotIn(None, sizes)
        self.switch()
        if slicer_host.is_real():  # the stand-in lays out no views
            manager = slicer.app.layoutManager()
            red, beside = (manager.sliceWidget(name) for name in (RED_NAME, BESIDE_NAME))
            self.assertAlmostEqual(red.width, beside.width, delta=4)

    def test_both_volumes_are_shown_in_the_same_window(self) -> None:
        self.volume.GetDisplayNode().SetAutoWindowLevel(False)
        self.volume.GetDisplayNode().SetWindowLevel(1400, -500)
        self.switch()
        display = self.other.GetDisplayNode()
        self.assertEqual((display.GetWindow(), display.GetLevel()), (1400, -500))

    def test_scrolling_back_and_forth_comes_back(self) -> None:
        self.switch()
        for _turn in range(5):
            scroll_to(-120)
            beside = self.z(BESIDE)
            scroll_to(-300, BESIDE_NAME)
            scroll_to(beside, BESIDE_NAME)
            self.assertAlmostEqual(self.z(RED), -120, places=3)

    def test_one_scroll_moves_each_view_once(self) -> None:
        self.switch()
        moves = {RED: 0, BESIDE: 0}

        def count(node: Any, event: str) -> None:
            moves[node.GetID()] += 1

        for view in moves:
            node = slicer.mrmlScene.GetNodeByID(view)
            self.addCleanup(node.RemoveObserver, node.AddObserver("ModifiedEvent", count))
        scroll_to(-200)
        process_events()
        self.assertLessEqual(max(moves.values()), 2)

    def test_off_restores_what_was_there(self) -> None:
        red = slicer.mrmlScene.GetNodeByID(RED)
        red.SetOrientation("Coronal")
        slicer.util.setSliceViewerLayers(background=self.other, fit=True)
        before = slicer.util.arrayFromVTKMatrix(red.GetSliceToRAS()).tolist()
        self.switch()
        self.assertEqual(red.GetOrientation(), "Axial")
        scroll_to(-90)
        self.switch()
        self.assertEqual(slicer.app.layoutManager().layout, self.layouts().SlicerLayoutFourUpView)
        self.assertEqual(self.shown("Red").GetName(), "follow-up")
        self.assertEqual(slicer.util.arrayFromVTKMatrix(red.GetSliceToRAS()).tolist(), before)
        beside = self.z(BESIDE)
        scroll_to(-200)
        self.assertEqual(self.z(BESIDE), beside)

    def test_the_red_view_counts_when_all_views_jump(self) -> None:
        self.switch()
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, 0, 0, -150, 0)
        process_events()
        self.assertAlmostEqual(self.z(RED), -150)
        self.assert_level()

    @unittest.skipIf(slicer_host.is_real(), "Slicer has its own")
    def test_slicers_own_linking_leaves_it_alone(self) -> None:
        link = slicer.vtkMRMLSliceLinkLogic()
        link.SetMRMLScene(slicer.mrmlScene)
        self.addCleanup(link.SetMRMLScene, None)
        self.check_linked()

    @unittest.skipUnless(slicer_host.is_real(), "the stand-in has none")
    def test_slicers_running_linking_leaves_it_alone(self) -> None:
        self.check_linked()

    def check_linked(self) -> None:
        self.switch()
        composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        for one in composites:
            one.SetLinkedControl(True)
            one.SetHotLinkedControl(True)
            self.addCleanup(one.SetLinkedControl, False)
            self.addCleanup(one.SetHotLinkedControl, False)
        for name, view in (("Red", RED), (BESIDE_NAME, BESIDE)):
            logic = slicer.app.layoutManager().sliceWidget(name).sliceLogic()
            for z in (-120.0, -200.0):
                logic.StartSliceOffsetInteraction()
                logic.SetSliceOffset(z)
                logic.EndSliceOffsetInteraction()
                process_events()
                self.assertAlmostEqual(self.z(view), z)
                self.assert_level()
        logic = slicer.app.layoutManager().sliceWidget("Red").sliceLogic()
        logic.StartSliceCompositeNodeInteraction(1 << 1)
        logic.GetSliceCompositeNode().SetForegroundVolumeID(self.other.GetID())
        logic.EndSliceCompositeNodeInteraction()
        process_events()
        self.assertEqual(self.shown(BESIDE_NAME).GetName(), "follow-up")

    def test_another_layout_switches_it_off(self) -> None:
        self.switch()
        slicer.app.layoutManager().setLayout(self.layouts().SlicerLayoutOneUpRedSliceView)
        process_events()
        self.assertFalse(self.ui.sideBySideBox.checked)
        self.assertFalse(self.widget.binding.parameters.sideBySide)
        self.assertEqual(
            slicer.app.layoutManager().layout, self.layouts().SlicerLayoutOneUpRedSliceView
        )

    def test_each_view_keeps_its_volume(self) -> None:
        self.switch()
        slicer.util.setSliceViewerLayers(background=self.volume)
        process_events()
        self.assertEqual(self.shown(BESIDE_NAME).GetName(), "follow-up")

    def test_a_view_that_is_not_axial_goes_its_own_way(self) -> None:
        self.switch()
        scroll_to(-120)
        beside = self.z(BESIDE)
        slicer.mrmlScene.GetNodeByID(RED).SetOrientation("Sagittal")
        scroll_to(20)
        self.assertEqual(self.z(BESIDE), beside)
        slicer.mrmlScene.GetNodeByID(RED).SetOrientation("Axial")
        scroll_to(-90)
        self.assert_level()

    def test_the_pointer_in_the_view_beside_means_the_level_in_the_first_volume(self) -> None:
        self.switch()
        scroll_to(-120)
        beside = slicer.mrmlScene.GetNodeByID(BESIDE)
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        self.addCleanup(crosshair.SetCursorPositionInvalid)
        crosshair.SetCursorPositionXYZ([10, 10, 0], beside)
        ras = pointed_ras()
        assert ras is not None
        self.assertAlmostEqual(ras[2], -120)

    def test_landmarks_show_in_the_view_of_their_volume(self) -> None:
        displays = [
            self.widget.logic.predictionNodes(one).markups.GetDisplayNode()
            for one in (self.volume, self.other)
        ]

        def views() -> list[list[str]]:
            return [
                [view for view in (RED, BESIDE) if d.IsDisplayableInView(view)] for d in displays
            ]

        self.switch()
        self.assertEqual(views(), [[RED], [BESIDE]])
        self.ui.otherSelector.setCurrentNode(self.volume)
        self.widget.chooseVolume(self.other)
        process_events()
        self.assertEqual(views(), [[BESIDE], [RED]])
        self.switch()
        self.assertEqual(views(), [[RED, BESIDE]] * 2)


class TestList(MatchTest):
    def test_the_nearest_slice_comes_first(self) -> None:
        scroll_to(HEIGHT["Aortic arch"])
        rows = self.rows()
        self.assertAlmostEqual(rows[0][0], HEIGHT["Aortic arch"] + SHIFT_MM, delta=2.5)
        offsets = [abs(offset) for _z, offset, _location in rows]
        self.assertEqual(offsets, sorted(offsets))
        self.assertLessEqual(
            max(location for *_, location in rows) - min(location for *_, location in rows),
            2 * TOLERANCE + 0.001,
        )
        self.assertIn("baseline at -95.0 mm matches follow-up at -5", self.ui.levelLabel.text)

    def test_more_tolerance_more_slices(self) -> None:
        self.assertAlmostEqual(self.ui.toleranceBox.value, TOLERANCE)
        scroll_to(-120)
        few = len(self.rows())
        self.ui.toleranceBox.value = 0.03
        process_events()
        self.assertAlmostEqual(self.widget.binding.parameters.matchTolerance, 0.03)
        self.assertGreater(len(self.rows()), 2 * few)

    def test_a_click_shows_the_slice_beside_and_leaves_the_red_view(self) -> None:
        scroll_to(-120)
        self.assertFalse(self.ui.sideBySideBox.checked)
        rows = self.rows()
        self.ui.matchTable.cellClicked.emit(3, 0)
        process_events()
        self.assertTrue(self.ui.sideBySideBox.checked)
        self.assertAlmostEqual(self.z(BESIDE), rows[3][0], delta=0.1)
        self.assertAlmostEqual(self.z(RED), -120)
        self.assertEqual(self.rows(), rows)
        scroll_to(-130)
        self.assert_level()

    def test_a_level_is_certain_only_near_one_found_on_the_voxels(self) -> None:
        levels = np.array([-120.0, -90.0])
        logic = self.widget.logic
        found = ScanAlignment(levels, levels + SHIFT_MM)
        with (
            mock.patch.object(logic, "alignment", lambda *_: found),
            mock.patch.object(logic, "isAligned", lambda *_: True),
        ):
            self.match.refresh()
            for z, certain in ((-105, True), (-145, True), (-155, False), (-300, False)):
                scroll_to(z)
                self.assertEqual("± 3 mm" in self.ui.levelLabel.text, certain, z)

    def test_what_cannot_be_located_is_unknown_and_not_followed(self) -> None:
        strange = coded_prediction(upright(-340 + SHIFT_MM, -10 + SHIFT_MM), SHIFT_MM)
        nothing = np.full(len(HEIGHT), 1000.0)
        fit = replace(strange.fit, uncertainty_mm=nothing, warnings=("It is no body.",))
        prediction_nodes.add_prediction(self.other, replace(strange, fit=fit))
        self.match.refresh()
        self.switch()
        beside = self.z(BESIDE)
        scroll_to(-120)
        self.assertEqual(
            self.ui.levelLabel.text, "It is unknown where follow-up shows baseline at -120.0 mm."
        )
        self.assertEqual(self.ui.matchWarning.text, "It is no body.")
        self.assertEqual(self.rows(), [])
        self.assertEqual(self.z(BESIDE), beside)

    def test_outside_the_second_volume_nothing_is_listed(self) -> None:
        scroll_to(-800)
        self.assertEqual(self.rows(), [])
        self.assertIn("outside follow-up", self.ui.levelLabel.text)


class TestScene(MatchTest):
    def test_a_volume_deleted_while_side_by_side(self) -> None:
        for volume in (self.other, self.volume):
            self.ui.otherSelector.setCurrentNode(self.other)
            self.ui.sideBySideBox.checked = True
            process_events()
            self.assertEqual(slicer.app.layoutManager().layout, LAYOUT)
            slicer.mrmlScene.RemoveNode(volume)
            process_events()
            self.assertNotEqual(slicer.app.layoutManager().layout, LAYOUT)
            self.assertEqual((self.rows(), self.ui.levelLabel.text), ([], ""))
            self.assertFalse(self.match.run_bar.button.enabled)
            self.other, self.volume = self.add("new", SHIFT_MM), self.volume
            scroll_to(-130)

    def test_a_moved_volume_has_to_be_localized_again(self) -> None:
        self.switch()
        scroll_to(-120)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(2, 3, 100)
        transform.SetMatrixTransformToParent(matrix)
        self.other.SetAndObserveTransformNodeID(transform.GetID())
        process_events()
        self.assertIn("follow-up was moved since", self.ui.matchWarning.text)
        self.choose_model()
        self.assertTrue(self.match.run_bar.button.enabled)
        beside = self.z(BESIDE)
        scroll_to(-130)
        self.assertEqual((self.z(BESIDE), self.rows()), (beside, []))
        grid = upright(-340 + SHIFT_MM + 100, -10 + SHIFT_MM + 100)
        prediction_nodes.add_prediction(self.other, coded_prediction(grid, SHIFT_MM + 100))
        self.match.refresh()
        self.assertAlmostEqual(self.z(BESIDE), -130 + SHIFT_MM + 100, delta=2.5)
        self.assertEqual(self.ui.matchWarning.text, "")

    def test_two_volumes_of_one_name(self) -> None:
        self.other.SetName("baseline")
        self.switch()
        scroll_to(-120)
        self.assert_level()
        self.ui.otherSelector.setCurrentNode(self.volume)
        process_events()
        self.assertIn("same as the first", tool_tip(self.match.run_bar.button))
        self.assertNotEqual(slicer.app.layoutManager().layout, LAYOUT)

    def test_scene_closed(self) -> None:
        self.switch()
        slicer.mrmlScene.Clear()
        process_events()
        self.assertNotEqual(slicer.app.layoutManager().layout, LAYOUT)
        self.assertFalse(self.ui.sideBySideBox.checked)
        scroll_to(-120)

    def test_scene_saved_and_opened_side_by_side(self) -> None:
        self.switch()
        self.ui.toleranceBox.value = 0.02
        scroll_to(-120)
        file = scene_file(self)
        self.assertTrue(slicer.mrmlScene.WriteToMRB(file))
        for clear in (False, True):
            with self.subTest(clear=clear):
                reopen(file, clear)
                other = self.ui.otherSelector.currentNode()
                self.assertEqual(other.GetName(), "follow-up")
                self.assertAlmostEqual(self.ui.toleranceBox.value, 0.02)
                self.assertTrue(self.ui.sideBySideBox.checked)
                self.assertEqual(slicer.app.layoutManager().layout, LAYOUT)
                self.assertIs(self.shown(BESIDE_NAME), other)
                scroll_to(-140)
                self.assert_level()
                self.switch()
                self.assertNotEqual(slicer.app.layoutManager().layout, LAYOUT)
                found = self.widget.logic.predictionNodes(other)
                self.assertTrue(found.markups.GetDisplayNode().IsDisplayableInView(RED))

    def test_opened_in_a_batch_it_waits_for_the_views(self) -> None:
        self.switch()
        leave_panel()
        scene = slicer.mrmlScene
        scene.RemoveNode(scene.GetNodeByID(BESIDE))
        scene.StartState(scene.BatchProcessState)
        open_panel("CTSliceTools")
        self.assertIsNone(self.widget.binding.parameters)
        scene.EndState(scene.BatchProcessState)
        process_events()
        self.assertEqual(slicer.app.layoutManager().layout, LAYOUT)
        scroll_to(-140)
        self.assert_level()

    def test_another_module_and_back(self) -> None:
        self.switch()
        leave_panel()
        process_events()
        self.assertEqual(slicer.app.layoutManager().layout, self.layouts().SlicerLayoutFourUpView)
        open_panel("CTSliceTools")
        self.assertEqual(slicer.app.layoutManager().layout, LAYOUT)
        scroll_to(-140)
        self.assert_level()

    def test_reload(self) -> None:
        self.switch()
        slicer.util.reloadScriptedModule("CTSliceTools")
        self.ui = slicer.util.getModuleWidget("CTSliceTools").ui
        process_events()
        self.assertTrue(self.ui.sideBySideBox.checked)
        for z in (-140.0, -150.0):
            scroll_to(z)
            self.assert_level()
        self.switch()
        self.assertEqual(slicer.app.layoutManager().layout, self.layouts().SlicerLayoutFourUpView)

    def test_every_control_has_a_tool_tip(self) -> None:
        inside = self.ui.matchSection.findChildren(qt.QWidget)
        kinds = (qt.QAbstractButton, qt.QComboBox, qt.QDoubleSpinBox, qt.QTableWidget)
        bare = [
            name
            for name, widget in vars(self.ui).items()
            if widget in inside
            and isinstance(widget, kinds)
            and not name.startswith("qt_")
            and not widget.toolTip
        ]
        self.assertEqual(bare, [])
        self.assertTrue(self.ui.otherSelector.toolTip)


class TestLeft(MatchTest):
    def test_the_first_panel_of_a_reloaded_module_is_left(self) -> None:
        """Slicer 5.6 goes on telling the panel that was there before the reload."""
        before = self.widget
        slicer.util.reloadScriptedModule("CTSliceTools")
        self.widget = slicer.util.getModuleWidget("CTSliceTools")
        self.ui, self.match = self.widget.ui, self.widget.match
        self.switch()
        self.assertEqual(slicer.app.layoutManager().layout, LAYOUT)
        before.exit()
        process_events()
        self.assertNotEqual(slicer.app.layoutManager().layout, LAYOUT)


class TestRun(MatchTest):
    """The button that localizes what is missing."""

    localized = False

    def setUp(self) -> None:
        super().setUp()
        self.before = descendants()

    def start(self) -> None:
        self.choose_model()
        self.match.run_bar.button.click()
        wait_until(lambda: bool(self.children()))

    def test_what_is_missing_is_said(self) -> None:
        self.assertIn("baseline has no slice locations yet", self.ui.matchWarning.text)
        self.assertIn("follow-up has no slice locations yet", self.ui.matchWarning.text)
        self.ui.otherSelector.setCurrentNode(None)
        process_events()
        self.assertEqual(tool_tip(self.match.run_bar.button), "Choose a second volume first.")
        self.assertEqual(self.ui.matchWarning.text, "")

    def test_cancelled_it_leaves_no_child_and_no_node(self) -> None:
        scene = slicer.mrmlScene
        nodes = scene.GetNumberOfNodes()
        self.start()
        save_picture(self.widget.parent, PICTURES / "match-running.png")
        self.match.run_bar.button.click()
        wait_until(lambda: not self.match.run_bar.runner.busy)
        self.assertEqual((self.children(), scene.GetNumberOfNodes()), (set(), nodes))

    def test_scene_closed_during_a_run(self) -> None:
        self.start()
        slicer.mrmlScene.Clear()
        self.assertFalse(self.match.run_bar.runner.busy)
        self.assertEqual(self.children(), set())

    @slow
    def test_both_volumes_are_localized_with_one_press(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        model = Path(folder.name) / "reader.keras"
        code = (
            "import sys, pathlib, coded_scans; coded_scans.save_reader(pathlib.Path(sys.argv[1]))"
        )
        subprocess.run([sys.executable, "-c", code, model], cwd=Path(__file__).parent, check=True)
        self.widget.localize.model.choose(model)
        self.switch()
        self.match.run_bar.button.click()
        wait_until(lambda: not self.match.run_bar.runner.busy, 240)
        self.assertIn("Uncertain by up to", self.ui.matchWarning.text)
        self.assertEqual(tool_tip(self.match.run_bar.button), "The volumes are already matched.")
        self.assertGreater(self.ui.foundTable.rowCount, 4)
        for z in (-100.0, -120.0, -200.0):
            scroll_to(z)
            self.assert_level(5)


if __name__ == "__main__":
    unittest.main()
