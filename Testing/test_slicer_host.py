"""The stand-in for Slicer does what Slicer's source says, as far as the panels rely on it."""

import enum
import tempfile
import unittest
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import slicer_host

slicer = slicer_host.start()

import ctk
import numpy as np
import qt
from slicer import vtkMRMLScalarVolumeNode
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from slicer_host.actions import press, process_events, tool_tip

UI = """<ui version="4.0"><class>Panel</class><widget class="qMRMLWidget" name="Panel">
 <layout class="QVBoxLayout" name="column">
  <item><widget class="qMRMLNodeComboBox" name="selector">
   <property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist>
   </property>
   <property name="noneEnabled"><bool>true</bool></property>
   <property name="SlicerParameterName" stdset="0"><string>volume</string></property>
  </widget></item>
  <item><widget class="QCheckBox" name="box">
   <property name="SlicerParameterName" stdset="0"><string>on</string></property>
  </widget></item>
  <item><widget class="ctkSliderWidget" name="slider">
   <property name="SlicerParameterName" stdset="0"><string>level</string></property>
  </widget></item>
  <item><widget class="QComboBox" name="choice">
   <property name="SlicerParameterName" stdset="0"><string>kind</string></property>
  </widget></item>
  <item><widget class="QLineEdit" name="line">
   <property name="SlicerParameterName" stdset="0"><string>text</string></property>
  </widget></item>
 </layout></widget>
 <connections><connection><sender>Panel</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
  <receiver>selector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections>
</ui>"""


class Kind(enum.Enum):
    ROUND = 1
    FLAT = 2


@parameterNodeWrapper
class Parameters:
    volume: vtkMRMLScalarVolumeNode
    on: bool = True
    level: Annotated[float, WithinRange(-2, 5)] = 1.5
    kind: Kind = Kind.FLAT
    text: str = "a"


def volume(name: str) -> Any:
    return slicer.util.addVolumeFromArray(np.zeros((2, 2, 2), np.int16), name=name)


class TestLayout(unittest.TestCase):
    def test_a_batch_gets_its_views_when_it_ends(self) -> None:
        scene, manager = slicer.mrmlScene, slicer.app.layoutManager()
        before = manager.layout
        self.addCleanup(manager.setLayout, before)
        scene.StartState(scene.BatchProcessState)
        try:
            manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutTwoOverTwoView)
            self.assertIsNone(manager.sliceWidget("Slice4"))
        finally:
            scene.EndState(scene.BatchProcessState)
        node = scene.GetSingletonNode("Slice4", "vtkMRMLSliceNode")
        self.assertIs(manager.sliceWidget("Slice4").mrmlSliceNode(), node)
        scene.RemoveNode(node)
        self.assertIsNone(manager.sliceWidget("Slice4"))


class TestParameterNode(unittest.TestCase):
    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        file = Path(folder.name) / "Panel.ui"
        file.write_text(UI)
        self.widget = slicer.util.loadUI(str(file))
        self.widget.setMRMLScene(slicer.mrmlScene)
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
        wrapper: Any = Parameters
        self.parameters = wrapper(self.node)

    def test_defaults_are_written_and_shown(self) -> None:
        self.parameters.connectGui(self.ui)
        self.assertEqual(self.node.GetParameter("on"), "True")
        shown = (self.ui.box.checked, self.ui.slider.value, self.ui.line.text)
        self.assertEqual(shown, (True, 1.5, "a"))
        self.assertEqual(self.ui.choice.currentText, "FLAT")
        self.assertIsNone(self.ui.selector.currentNode())

    def test_widgets_and_node_follow_each_other(self) -> None:
        self.parameters.connectGui(self.ui)
        first, second = volume("first"), volume("second")
        self.ui.box.checked = False
        self.ui.slider.value = -1.0
        self.ui.choice.currentIndex = 0
        self.ui.line.text = "b"
        self.ui.selector.setCurrentNode(second)
        read = self.parameters
        self.assertEqual(
            (read.on, read.level, read.kind, read.text), (False, -1.0, Kind.ROUND, "b")
        )
        self.assertIs(read.volume, second)
        read.volume, read.level, read.kind = first, 5, Kind.FLAT
        self.assertIs(self.ui.selector.currentNode(), first)
        self.assertEqual((self.ui.slider.value, self.ui.choice.currentIndex), (5, 1))

    def test_after_disconnecting_they_do_not(self) -> None:
        tag = self.parameters.connectParametersToGui({"text": self.ui.line})
        self.parameters.disconnectGui(tag)
        self.ui.line.text = "b"
        self.assertEqual(self.parameters.text, "a")

    def test_connecting_all_returns_no_tag(self) -> None:
        self.assertIsNone(self.parameters.connectGui(self.ui))
        self.parameters.disconnectGui(None)
        self.ui.line.text = "b"
        self.assertEqual(self.parameters.text, "b")

    def test_values_are_read_again_when_the_node_has_changed(self) -> None:
        self.node.SetParameter("text", "b")
        self.assertEqual(self.parameters.text, "b")
        self.node.SetNodeReferenceID("volume", volume("first").GetID())
        self.assertEqual(self.parameters.volume.GetName(), "first")

    def test_values_are_checked(self) -> None:
        with self.assertRaises(ValueError):
            self.parameters.level = 6.0
        with self.assertRaises(TypeError):
            self.parameters.text = 3

    def test_a_removed_node_is_no_value(self) -> None:
        self.parameters.connectGui(self.ui)
        self.parameters.volume = one = volume("one")
        slicer.mrmlScene.RemoveNode(one)
        self.assertIsNone(self.ui.selector.currentNode())
        self.assertIsNone(self.parameters.volume)

    def test_without_none_the_first_node_is_chosen(self) -> None:
        self.ui.selector.noneEnabled = False
        first, second = volume("same name"), volume("same name")
        self.assertIs(self.ui.selector.currentNode(), first)
        slicer.mrmlScene.RemoveNode(first)
        self.assertIs(self.ui.selector.currentNode(), second)

    def test_a_new_name_is_shown(self) -> None:
        one = volume("old")
        one.SetName("new")
        box = self.ui.selector.findChild(qt.QComboBox)
        texts = [box.itemText(row) for row in range(box.count)]
        self.assertIn("new", texts)
        self.assertNotIn("old", texts)


class TestQt(unittest.TestCase):
    def test_properties_are_properties(self) -> None:
        button = qt.QPushButton("a")
        button.text = "b"
        button.objectName = "it"
        self.assertEqual((button.text, button.enabled, button.name), ("b", True, "it"))
        self.assertEqual(button.className(), "QPushButton")

    def test_only_writable_properties_can_be_set(self) -> None:
        table = qt.QTableWidget()
        header = table.horizontalHeader()
        header.showSortIndicator = True
        for widget in (header, slicer.qMRMLNodeComboBox()):
            with self.assertRaises(AttributeError):
                widget.sortIndicatorShown = True

    def test_what_pythonqt_does_not_know_is_not_returned(self) -> None:
        widget = qt.QTableWidget()
        with self.assertRaises(ValueError):
            widget.fontMetrics()
        self.assertGreater(qt.QFontMetrics(widget.font).height(), 0)

    def test_tool_tips_come_back_wrapped(self) -> None:
        button = qt.QPushButton("a")
        button.toolTip = "Find A & B."
        self.assertEqual(button.toolTip, "<p>Find A &amp; B.</p>")
        self.assertEqual(tool_tip(button), "Find A & B.")

    @unittest.skipIf(slicer_host.is_real(), "Slicer's dialog would wait for an answer")
    def test_file_dialogs_give_the_path_alone(self) -> None:
        answer = ("/tmp/a.csv", "Tables (*.csv)")
        with mock.patch.object(qt.QFileDialog.__base__, "getOpenFileName", return_value=answer):
            self.assertEqual(qt.QFileDialog.getOpenFileName(), "/tmp/a.csv")

    def test_main_window_and_keys(self) -> None:
        window = slicer.util.mainWindow()
        called: list[str] = []
        shortcut = qt.QShortcut(qt.QKeySequence("-"), window)
        shortcut.activated.connect(lambda: called.append("-"))
        window.activateWindow()
        process_events()
        press("-")
        shortcut.enabled = False
        press("-")
        self.assertEqual(called, ["-"])

    def test_a_section_folds(self) -> None:
        section = ctk.ctkCollapsibleButton()
        column = qt.QVBoxLayout(section)
        column.addWidget(qt.QLabel("inside"))
        folded: list[bool] = []
        section.contentsCollapsed.connect(folded.append)
        section.collapsed = True
        self.assertLess(section.maximumHeight, 50)
        section.click()
        self.assertEqual((section.collapsed, folded), (False, [True, False]))


class TestMessages(unittest.TestCase):
    @unittest.skipIf(slicer_host.is_real(), "Slicer would crash")
    def test_a_display_node_must_not_go_first(self) -> None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        node.CreateDefaultDisplayNodes()
        with self.assertLogs(level="ERROR") as shown:
            slicer.mrmlScene.RemoveNode(node.GetDisplayNode())
        self.assertIn("Slicer crashes", shown.output[0])

    def test_what_a_slot_raises_is_logged(self) -> None:
        button = qt.QPushButton("a")
        button.clicked.connect(lambda *_: 1 / 0)
        with self.assertLogs(level="ERROR") as shown:
            button.click()
        self.assertIn("ZeroDivisionError", shown.output[0])

    def test_errors_are_logged_while_testing(self) -> None:
        with self.assertLogs(level="ERROR") as shown:
            slicer.util.errorDisplay("It is broken.")
        self.assertIn("It is broken.", shown.output[0])
