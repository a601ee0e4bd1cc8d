"""The panel CTSliceTools, driven by keys and buttons, in Slicer or on its stand-in."""

import gc
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest.mock import patch

import slicer_host

slicer = slicer_host.start()

import numpy as np
import qt

from coded_scans import HEIGHT, coded_volume, upright
from CTLungScreeningSlicer.scene.mrml_volume import add_volume
from CTSliceToolsLib.landmarks import LANDMARKS
from CTSliceToolsLib.localizer.prediction import ModelUsed, ScanPrediction, SliceLocation
from CTSliceToolsLib.localizer.scan_fit import landmark_fit
from CTSliceToolsSlicer.panel.annotate_section import NAME, Z
from CTSliceToolsSlicer.scene.prediction_nodes import add_prediction
from panel_host import (
    PICTURES,
    ROOT,
    StoppedRuns,
    add_scan,
    descendants,
    leave_panel,
    open_panel,
    scroll_to,
    section_names,
    slow,
    write_card,
)
from slice_panel import HEIGHTS, PanelTest
from slicer_host.actions import press, process_events, save_picture, tool_tip, wait_until


class TestKeys(PanelTest):
    def test_twelve_keys_annotate_a_scan(self) -> None:
        self.annotate_all()
        expected = {one.name: 59 - 5 * row for row, one in enumerate(LANDMARKS)}
        self.assertEqual(self.set_slices(), expected)
        self.assertEqual(self.column(Z)[:2], ["590.0", "540.0"])
        node = self.widget.logic.annotation.markupsNode(self.volume)
        labels = [node.GetNthControlPointLabel(row) for row in range(12)]
        self.assertEqual(labels, [one.name for one in LANDMARKS])
        self.assertAlmostEqual(node.GetNthControlPointPositionWorld(5)[2], 340)
        save_picture(self.widget.parent, PICTURES / "annotate.png")

    def test_the_slice_under_the_pointer_counts(self) -> None:
        self.start_keys()
        scroll_to(100)
        scroll_to(-250, "Green")
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        green = slicer.app.layoutManager().sliceWidget("Green").mrmlSliceNode()
        xyz = self.xyz_of(green, (-100, -250, 400))
        crosshair.SetCursorPositionXYZ(xyz, green)
        press("5")
        crosshair.SetCursorPositionInvalid()
        press("6")
        self.assertEqual(self.set_slices(), {"Aortic arch": 40, "Bifurcation of trachea": 10})

    @staticmethod
    def xyz_of(view: Any, ras: tuple[float, float, float]) -> list[float]:
        import vtk

        inverse = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(view.GetXYToRAS(), inverse)
        return list(inverse.MultiplyPoint((*ras, 1)))[:3]

    def test_keys_set_no_landmark_at_a_slice_that_nobody_sees(self) -> None:
        self.start_keys()
        scroll_to(200)
        layouts, node = slicer.app.layoutManager(), slicer.vtkMRMLLayoutNode
        self.addCleanup(layouts.setLayout, layouts.layout)
        for layout in (node.SlicerLayoutOneUp3DView, node.SlicerLayoutOneUpYellowSliceView):
            layouts.setLayout(layout)
            process_events()
            self.assertEqual(self.ui.sliceLabel.text, "Move the mouse pointer over a slice.")
            press("3")
            self.assertEqual(self.set_slices(), {})
        layouts.sliceWidget("Yellow").mrmlSliceNode().SetOrientation("Axial")
        scroll_to(300, "Yellow")
        self.assertEqual(self.ui.sliceLabel.text, "Slice 30")
        press("3")
        self.assertEqual(self.set_slices(), {"C7": 30})
        layouts.sliceWidget("Yellow").mrmlSliceNode().SetOrientation("Sagittal")

    def test_letters_stand_for_keys_that_some_keyboards_lack(self) -> None:
        self.start_keys()
        for key, z in (("A", 500), ("E", 100)):
            scroll_to(z)
            press(key)
        self.assertEqual(self.set_slices(), {"Top of head": 50, "Head of femur": 10})

    def test_no_label_lies_over_the_slice_of_another_volume(self) -> None:
        self.start_keys()
        scroll_to(200)
        press("3")
        composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic()
        composite = composite.GetSliceCompositeNode()
        other = add_scan("other")
        scroll_to(200)
        self.assertEqual(self.annotate.labels.texts()["Red"], "")
        composite.SetBackgroundVolumeID(self.volume.GetID())
        self.assertEqual(self.annotate.labels.texts()["Red"], "C7")
        composite.SetBackgroundVolumeID(other.GetID())
        self.assertEqual(self.annotate.labels.texts()["Red"], "")

    def test_why_no_slice_of_an_oblique_volume_is_pointed_at(self) -> None:
        self.start_keys()
        matrix = np.diag([9.0, 9, 9, 1])
        cos, sin = 9 * np.cos(0.9), 9 * np.sin(0.9)
        matrix[1:3, 1:3] = [[cos, -sin], [sin, cos]]
        self.volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
        process_events()
        with patch.object(slicer.util, "showStatusMessage") as shown:
            press("3")
        self.assertIn("has no axial slices", shown.call_args.args[0])
        self.assertIn("has no axial slices", self.ui.sliceLabel.text)

    def test_the_label_shows_in_the_views(self) -> None:
        self.start_keys()
        scroll_to(200)
        press("3")
        self.assertEqual(self.annotate.labels.texts()["Red"], "C7")
        self.assertIn("Slice 20: C7", self.ui.sliceLabel.text)
        scroll_to(210)
        self.assertEqual(self.annotate.labels.texts()["Red"] or "", "")

    def test_keys_are_dead_while_annotation_is_off(self) -> None:
        press("5")
        self.start_keys()
        self.ui.annotateButton.click()
        press("5")
        self.assertEqual(self.set_slices(), {})

    def test_leaving_the_panel_gives_the_keys_back(self) -> None:
        own: list[str] = []
        shortcut = qt.QShortcut(qt.QKeySequence("5"), slicer.util.mainWindow())
        shortcut.activated.connect(lambda: own.append("5"))
        self.addCleanup(lambda: setattr(shortcut, "enabled", False))
        self.start_keys()
        press("5")
        self.assertEqual(own, [])
        leave_panel()
        press("5")
        self.assertEqual(own, ["5"])
        open_panel("CTSliceTools")
        self.assertFalse(self.ui.annotateButton.checked)
        self.assertEqual(list(self.set_slices()), ["Aortic arch"])

    @unittest.skipIf(slicer_host.is_real(), "Slicer's Python has no QTest to type with")
    def test_a_text_field_keeps_its_keys(self) -> None:
        self.start_keys()
        self.ui.queueFolder.setFocus()
        press("5", self.ui.queueFolder)
        self.assertEqual((self.ui.queueFolder.text, self.set_slices()), ("5", {}))

    def test_outside_the_volume_nothing_is_labelled(self) -> None:
        self.start_keys()
        scroll_to(5000)
        press("5")
        self.assertEqual(self.set_slices(), {})
        self.assertIn("outside", self.ui.sliceLabel.text)


class TestTable(PanelTest):
    def test_undo_and_redo(self) -> None:
        self.annotate_all()
        for _press in range(11):
            self.ui.undoButton.click()
        self.assertEqual(list(self.set_slices()), ["Top of head"])
        press("Ctrl+Z")
        self.assertFalse(self.ui.undoButton.enabled)
        press("Ctrl+Y")
        self.ui.redoButton.click()
        self.assertEqual(list(self.set_slices()), ["Top of head", "Center of orbit"])

    def test_a_click_goes_to_the_landmark(self) -> None:
        self.annotate_all()
        self.ui.landmarkTable.cellClicked.emit(5, NAME)
        red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
        self.assertAlmostEqual(red.GetSliceToRAS().GetElement(2, 3), HEIGHTS["Aortic arch"])

    def test_a_click_on_a_volume_too_oblique_is_refused_with_a_sentence(self) -> None:
        self.start_keys()
        scroll_to(300)
        press("5")
        turned = np.diag([-9.0, -9.0, 10.0, 1])
        turned[1:3, 1:3] = [[-6.4, -7.1], [-6.4, 7.1]]
        self.volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(turned))
        with self.assertLogs(level="ERROR") as shown:
            self.annotate.go_to_landmark("Aortic arch")
        self.assertIn("has no axial slices", shown.output[0])

    def test_remove_by_button_and_by_key(self) -> None:
        self.annotate_all()
        self.ui.landmarkTable.selectRow(0)
        self.ui.removeButton.click()
        self.ui.landmarkTable.selectRow(1)
        if slicer_host.is_real():
            self.annotate.remove_selected()
        else:
            self.ui.landmarkTable.setFocus()
            press("Delete", self.ui.landmarkTable)
        self.assertEqual(len(self.set_slices()), 10)
        self.assertNotIn("Center of orbit", self.set_slices())

    def test_a_wrong_order_is_said_and_not_refused(self) -> None:
        self.start_keys()
        for key, z in (("1", 100), ("5", 300)):
            scroll_to(z)
            press(key)
        self.assertIn("contradicts anatomy", self.ui.orderLabel.text)
        self.assertEqual(len(self.set_slices()), 2)
        self.ui.undoButton.click()
        self.assertEqual(self.ui.orderLabel.text, "")

    def test_a_point_moved_by_hand_is_followed(self) -> None:
        self.annotate_all()
        node = self.widget.logic.annotation.markupsNode(self.volume)
        node.SetNthControlPointPosition(5, 0, 0, 310)
        process_events()
        self.assertEqual(self.set_slices()["Aortic arch"], 31)


class TestVolumeInViews(PanelTest):
    """Keys act on what the user sees."""

    def shown(self) -> set[str | None]:
        nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        return {one.GetBackgroundVolumeID() for one in nodes}

    def test_a_volume_that_is_chosen_is_shown(self) -> None:
        other = add_scan("other")
        self.ui.volumeSelector.setCurrentNode(other)
        self.ui.volumeSelector.setCurrentNode(self.volume)
        self.assertEqual(self.shown(), {self.volume.GetID()})
        self.ui.volumeSelector.setCurrentNode(other)
        self.assertEqual(self.shown(), {other.GetID()})

    def test_the_same_volume_chosen_again_is_shown_again(self) -> None:
        add_scan("other")
        emit = self.ui.volumeSelector.nodeActivated
        emit(self.volume) if slicer_host.is_real() else emit.emit(self.volume)
        self.assertEqual(self.shown(), {self.volume.GetID()})

    def test_a_view_of_another_volume_is_not_annotated(self) -> None:
        self.start_keys()
        other = add_scan("other")
        slicer.util.setSliceViewerLayers(background=other)
        scroll_to(100)
        press("-")
        self.assertEqual(self.set_slices(), {})
        self.assertIn("The view does not show chest", self.ui.sliceLabel.text)
        slicer.util.setSliceViewerLayers(foreground=self.volume, foregroundOpacity=0.0)
        press("-")
        self.assertEqual(self.set_slices(), {})
        slicer.util.setSliceViewerLayers(foregroundOpacity=0.5)
        press("-")
        self.assertEqual(self.set_slices(), {"Head of femur": 10})


class TestFiles(PanelTest):
    def test_numbers_of_a_volume_from_a_file(self) -> None:
        self.annotate_all()
        before, file = self.set_slices(), self.folder / "annotation.json"
        self.annotate.save(file)
        self.assertEqual(json.loads(file.read_text())["Aortic arch"], 34)
        self.ui.landmarkTable.selectAll()
        self.ui.removeButton.click()
        self.assertEqual(self.set_slices(), {})
        self.annotate.load(file)
        self.annotate.refresh()
        self.assertEqual(self.set_slices(), before)

    def answer(self, file: Path, answer: Any) -> None:
        """Press Save landmarks, choose a file, and answer the question that comes up."""
        asked: list[Any] = []

        def shown(kind: Any) -> Any:
            widgets = slicer.app.topLevelWidgets()
            return next(one for one in widgets if isinstance(one, kind) and one.visible)

        def choose() -> None:
            dialog = shown(qt.QFileDialog)
            dialog.findChild(qt.QLineEdit).text = str(file)
            qt.QTimer.singleShot(200, reply)
            dialog.accept()
            if dialog.visible:
                dialog.reject()

        def reply() -> None:
            box = shown(qt.QMessageBox)
            asked.append(answer)
            box.button(answer).click()

        qt.QTimer.singleShot(200, choose)
        self.ui.saveButton.click()
        self.assertEqual(len(asked), 1)

    @unittest.skipIf(slicer_host.is_real(), "the system's own dialog cannot be pressed")
    def test_no_annotation_is_replaced_unasked(self) -> None:
        self.start_keys()
        scroll_to(100)
        press("5")
        for name in ("annotation.json", "landmarks.mrk.json"):
            file = self.folder / name
            file.write_text("{}")
            self.answer(file, qt.QMessageBox.No)
            self.assertEqual(file.read_text(), "{}")
            self.answer(file, qt.QMessageBox.Yes)
            self.assertIn("Aortic arch", file.read_text())

    def test_markups_files(self) -> None:
        self.annotate_all()
        before, file = self.set_slices(), self.folder / "landmarks.mrk.json"
        self.annotate.save(file)
        slicer.mrmlScene.Clear()
        self.volume = add_scan("again")
        self.assertEqual(self.set_slices(), {})
        self.annotate.load(file)
        self.annotate.refresh()
        self.assertEqual(self.set_slices(), before)


class LocalizeTest(PanelTest):
    """The section Localize open on a scan whose brightness tells where its slices lie."""

    model: Path
    models: Path

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.models = Path(folder.name)
        cls.model = cls.make_model("first")

    @classmethod
    def make_model(cls, name: str) -> Path:
        """Make a file with a card: enough to start a run that does not come to its end."""
        return write_card(cls.models, name)

    def setUp(self) -> None:
        super().setUp()
        self.volume = add_volume(coded_volume(upright()), "coded")
        self.widget.chooseVolume(self.volume)
        self.widget.localize.model.choose(self.model)
        self.ui.localizeSection.collapsed = False
        self.run_bar = self.widget.localize.run_bar
        self.before = descendants()
        self.nodes = self.node_ids()

    def found(self) -> dict[str, float]:
        table = self.ui.foundTable
        return {
            table.item(row, 0).text(): float(table.item(row, 2).text())
            for row in range(table.rowCount)
        }


@slow
class TestLocalizeToItsEnd(LocalizeTest):
    """With a real child process and a real network, which reads the brightness."""

    @classmethod
    def make_model(cls, name: str) -> Path:
        file = cls.models / f"{name}.keras"
        code = (
            "import sys, pathlib, coded_scans; coded_scans.save_reader(pathlib.Path(sys.argv[1]))"
        )
        subprocess.run([sys.executable, "-c", code, file], cwd=Path(__file__).parent, check=True)
        return file

    def test_run_readout_jump_plot_and_adopt(self) -> None:
        self.run_to_end()
        found = self.found()
        expected = {name: z for name, z in HEIGHT.items() if -341 < z < -9}
        self.assertEqual(list(found), list(expected))
        for name, z in expected.items():
            self.assertAlmostEqual(found[name], z, delta=10)
        self.assertGreater(float(self.ui.foundTable.item(0, 3).text()), 0)

        scroll_to(-107.5)
        self.assertIn("between Aortic arch and Bifurcation of trachea", self.ui.locationLabel.text)
        self.assertAlmostEqual(float(self.ui.locationLabel.text.split(",")[0]), 0.2125, delta=0.01)

        self.ui.foundTable.cellClicked.emit(list(found).index("Aortic arch"), 0)
        red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
        self.assertAlmostEqual(
            red.GetSliceToRAS().GetElement(2, 3), found["Aortic arch"], delta=0.1
        )
        self.assertIn("at Aortic arch", self.ui.locationLabel.text)

        self.ui.plotButton.click()
        self.ui.adoptButton.click()
        self.assertEqual(list(self.set_slices()), list(expected))
        save_picture(self.widget.parent, PICTURES / "localize.png")
        self.ui.undoButton.click()
        self.assertEqual(self.set_slices(), {})

    def test_volume_deleted_during_a_run(self) -> None:
        self.run_bar.button.click()
        wait_until(lambda: bool(self.children()))
        nodes = self.nodes - {self.volume.GetID()}
        slicer.mrmlScene.RemoveNode(self.volume)
        with self.assertLogs(level="ERROR") as shown:
            wait_until(lambda: not self.run_bar.runner.busy, 120)
        self.assertIn("was deleted", shown.output[0])
        self.assertLessEqual(
            {one for one in self.node_ids() if "Scalar" not in one and "Storage" not in one}, nodes
        )


class TestReadout(PanelTest):
    def test_it_is_empty_over_a_view_of_another_volume(self) -> None:
        fit = landmark_fit({"Aortic arch": 500.0, "Bifurcation of trachea": 450.0})
        slices = tuple(SliceLocation(k, 10.0 * k, 0.2, 0.2) for k in range(60))
        prediction = ScanPrediction(self.folder, None, slices, fit, ModelUsed("m"))
        add_prediction(self.volume, prediction)
        self.widget.refresh()
        scroll_to(475)
        self.assertIn("Aortic arch", self.ui.locationLabel.text)
        other = add_scan("other")
        slicer.util.setSliceViewerLayers(background=other)
        scroll_to(470)
        self.assertEqual(self.ui.locationLabel.text, "")


class TestLocalize(StoppedRuns, LocalizeTest):
    MODULE = "CTSliceTools"

    def test_the_model_is_kept_in_the_scene(self) -> None:
        other = self.make_model("other")
        self.widget.localize.model.choose(other)
        self.assertEqual(self.widget.binding.parameters.modelFile, str(other))
        self.widget.binding.parameters.modelFile = str(self.model)
        self.assertEqual(self.widget.localize.model.file, self.model)
        self.assertIn("• Children.", self.ui.modelBox.toolTip)

    def test_without_a_volume_the_button_says_so(self) -> None:
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
            slicer.mrmlScene.RemoveNode(node)
        process_events()
        self.assertFalse(self.run_bar.button.enabled)
        self.assertEqual(tool_tip(self.run_bar.button), "Choose a CT volume first.")


class TestScene(PanelTest):
    def test_every_section_is_there(self) -> None:
        """Slicer's own test of a module passes although its panel could not be set up."""
        titles = section_names("CTSliceTools")
        self.assertGreater(len(titles), 3)
        slicer.util.reloadScriptedModule("CTSliceTools")
        widget = slicer.util.getModuleWidget("CTSliceTools")
        for name in titles:
            self.assertEqual(getattr(widget.ui, name).className(), "ctkCollapsibleButton")
        sections = ["annotate", "queue", "localize", "match", "training"]
        for name in sections:
            self.assertTrue(type(getattr(widget, name)).__name__.endswith(("Section", "Box")), name)
        self.assertIsNotNone(widget.binding.parameters)

    def test_two_volumes_of_one_name(self) -> None:
        self.annotate_all()
        other = add_scan()
        self.widget.chooseVolume(other)
        self.assertEqual(self.set_slices(), {})
        scroll_to(0)
        press("-")
        self.assertEqual(self.set_slices(), {"Head of femur": 0})
        self.ui.volumeSelector.setCurrentNode(self.volume)
        self.assertEqual(len(self.set_slices()), 12)

    def test_a_volume_deleted_while_annotated(self) -> None:
        self.annotate_all()
        slicer.mrmlScene.RemoveNode(self.volume)
        process_events()
        self.assertFalse(self.ui.annotateButton.checked)
        self.assertEqual(self.set_slices(), {})
        press("5")

    def test_a_transformed_volume(self) -> None:
        self.annotate_all()
        before = self.set_slices()
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = transform.GetMatrixTransformToParent()
        matrix.SetElement(2, 3, 100)
        transform.SetMatrixTransformToParent(matrix)
        self.volume.SetAndObserveTransformNodeID(transform.GetID())
        process_events()
        self.assertEqual(self.set_slices(), before)
        self.assertEqual(self.column(Z)[0], "690.0")
        scroll_to(150)
        press("-")
        self.assertEqual(self.set_slices()["Head of femur"], 5)

    def test_scene_saved_closed_and_opened(self) -> None:
        self.annotate_all()
        before, file = self.set_slices(), self.folder / "scene.mrb"
        self.assertTrue(slicer.mrmlScene.WriteToMRB(str(file)))
        slicer.mrmlScene.Clear()
        process_events()
        self.assertFalse(self.ui.annotateButton.checked)
        self.assertEqual(self.set_slices(), {})
        self.assertTrue(slicer.mrmlScene.ReadFromMRB(str(file)))
        process_events()
        self.assertEqual(self.set_slices(), before)
        self.assertEqual(self.ui.volumeSelector.currentNode().GetName(), "chest")

    def test_reload(self) -> None:
        self.annotate_all()
        before = self.set_slices()
        slicer.util.reloadScriptedModule("CTSliceTools")
        self.widget = slicer.util.getModuleWidget("CTSliceTools")
        self.ui = self.widget.ui
        self.assertEqual(self.set_slices(), before)
        press("5")
        self.assertEqual(self.set_slices(), before)

    def test_visits_leave_nothing_on_the_parameter_node(self) -> None:
        node = self.widget.binding.parameters.parameterNode

        def observers() -> int:
            gc.collect()
            newest = node.AddObserver("AnyEvent", print)
            node.RemoveObserver(newest)
            return sum(node.GetCommand(tag) is not None for tag in range(newest))

        before = observers()
        self.assertGreater(before, 0)
        for _visit in range(3):
            leave_panel()
            self.assertLess(observers(), before)
            open_panel("CTSliceTools")
            self.assertEqual(observers(), before)

    def test_every_control_has_a_tool_tip(self) -> None:
        kinds = (qt.QAbstractButton, qt.QComboBox, qt.QLineEdit, qt.QTableWidget)
        bare = [
            name
            for name, widget in vars(self.ui).items()
            if isinstance(widget, kinds)
            and not name.startswith("qt_")
            and not name.endswith("Section")
            and not widget.toolTip
        ]
        self.assertEqual(bare, [])


class TestStart(unittest.TestCase):
    @unittest.skipIf(slicer_host.is_real(), "Slicer has imported all of it")
    def test_slicer_does_not_wait_for_it_when_it_starts(self) -> None:
        code = (
            "import sys, slicer_host; slicer_host.start(); before = set(sys.modules);"
            "import CTSliceTools; print([name for name in set(sys.modules) - before "
            "if name.split('.')[0] in ('scipy', 'SimpleITK', 'pydicom', 'CTSliceToolsLib')])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONPATH": str(ROOT / "CTSliceTools")},
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual(done.stdout.splitlines()[-1], "[]")
