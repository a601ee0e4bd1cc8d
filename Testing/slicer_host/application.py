"""The stand-in for `slicer.app`, its main window and its modules."""

import importlib.util
import logging
import sys
import tempfile
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from CTLungScreeningSlicer.scene import mrml_host
from slicer_host.dicom_database import DicomDatabase

from __feature__ import true_property  # isort: skip  # noqa: F401


class Application(QtWidgets.QApplication):
    """The part of qSlicerApplication that panels use, around the headless host."""

    majorVersion, minorVersion = 5, 12

    def __init__(self, host: Any) -> None:
        super().__init__(["Slicer"])
        self.applicationName = "Slicer"
        self.temporaryPath = host.temporaryPath
        self.dataInputOutput = host.dataInputOutput
        self._host = host
        self._modules = ModuleManager()

    def applicationLogic(self) -> Any:
        """Return the vtkSlicerApplicationLogic."""
        return self._host.applicationLogic()

    def mrmlScene(self) -> Any:
        """Return the scene."""
        return self._host.mrmlScene()

    def testingEnabled(self) -> bool:
        """Messages are logged and not shown, as in Slicer's own tests."""
        return True

    def connect(self, signal: str, slot: Any) -> None:
        """Call `slot` at once: when a test loads a module, the application has started."""
        assert signal == "startupCompleted()"
        slot()

    def layoutManager(self) -> "LayoutManager":
        """Return the slice views."""
        return self.layout_manager

    def moduleManager(self) -> "ModuleManager":
        """Return the modules."""
        return self._modules


class LayoutManager:
    """The slice views: three in the conventional layout, and those that other layouts add.

    As in Slicer, a batch of changes of the scene, such as loading one, gets its views when it ends.
    """

    def __init__(self) -> None:
        self._widgets: dict[str, Any] = {}
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._logic.SetMRMLScene(slicer.mrmlScene)
        after_logic = -1.0
        self._logic.GetLayoutNode().AddObserver(
            vtk.vtkCommand.ModifiedEvent, lambda *_: self._make_widgets(), after_logic
        )
        scene = slicer.mrmlScene
        scene.AddObserver(scene.EndBatchProcessEvent, lambda *_: self._make_widgets())
        scene.AddObserver(scene.NodeRemovedEvent, self._drop)
        self.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView)

    def layoutLogic(self) -> Any:
        """Return the vtkMRMLLayoutLogic."""
        return self._logic

    @property
    def layout(self) -> int:
        """The number of the layout."""
        return int(self._logic.GetLayoutNode().GetViewArrangement())

    def setLayout(self, number: int) -> None:
        """Show another layout."""
        self._logic.GetLayoutNode().SetViewArrangement(number)

    def resetThreeDViews(self) -> None:
        """Do nothing: there are no 3-D views before a test draws one."""

    def sliceViewNames(self) -> tuple[str, ...]:
        """Return the names of the slice views."""
        return tuple(self._widgets)

    def mrmlSliceLogics(self) -> Any:
        """Return the vtkCollection of slice logics."""
        return slicer.app.applicationLogic().GetSliceLogics()

    def sliceWidget(self, name: str) -> Any:
        """Return a slice view; None if there is none yet."""
        return self._widgets.get(name)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _drop(self, _scene: Any, _event: str, node: Any) -> None:
        """Delete the widget of a slice node that was removed."""
        if node.IsA("vtkMRMLSliceNode") and (view := self.sliceWidget(node.GetLayoutName())):
            del self._widgets[node.GetLayoutName()]
            self.mrmlSliceLogics().RemoveItem(view.sliceLogic())
            view.deleteLater()

    def _make_widgets(self) -> None:
        """Make the widgets of the slice nodes that the logic has added for a layout."""
        if slicer.mrmlScene.IsBatchProcessing():
            return
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            name = node.GetLayoutName()
            if name not in self._widgets:
                self._widgets[name] = slicer.qMRMLSliceWidget(name)
        shown = self._logic.GetViewNodes()
        for node in slicer.util.getNodesByClass("vtkMRMLAbstractViewNode"):
            now = bool(shown.IsItemPresent(node))
            if now and not node.IsMappedInLayout() and node.IsA("vtkMRMLSliceNode"):
                # In Slicer the first event of a view that is newly shown does so.
                QtCore.QTimer.singleShot(0, partial(node.SetSliceOffset, 0.0))
            node.SetMappedInLayout(now)


class MainWindow(QtWidgets.QMainWindow):
    """The main window: the panel of the module that is entered, beside the slice views."""

    def __init__(self) -> None:
        super().__init__()
        self.objectName = "qSlicerMainWindow"
        self.windowTitle = "Slicer stand-in"
        self._selector = ModuleSelector(self)
        self.panel = QtWidgets.QScrollArea()
        self.panel.widgetResizable = True
        self.panel.minimumWidth = 520
        dock = QtWidgets.QDockWidget(self)
        dock.setWidget(self.panel)
        self.addDockWidget(QtCore.Qt.LeftDockWidgetArea, dock)
        self.setCentralWidget(QtWidgets.QWidget())

    def moduleSelector(self) -> "ModuleSelector":
        """Return what selects modules."""
        return self._selector


class ModuleSelector:
    """Enters one module and leaves the one before."""

    def __init__(self, window: MainWindow) -> None:
        self._window = window
        self.selectedModule = ""

    def selectModule(self, name: str) -> None:
        """Show a module's panel; any other name leaves the current module only."""
        manager = slicer.app.moduleManager()
        before = manager.module(self.selectedModule)
        if before is not None:
            before.widgetRepresentation().exit()
            self._window.panel.takeWidget()
        self.selectedModule = name
        if name == "SegmentEditor":
            _open_segment_editor()
        module = manager.module(name)
        if module is not None:
            widget = module.widgetRepresentation()
            self._window.panel.setWidget(widget)
            widget.show()
            widget.enter()


def _open_segment_editor() -> None:
    """Do what the module's panel does when it is first opened: it selects the first segment."""
    node = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    segmentation = node and node.GetSegmentationNode()
    if segmentation is not None and segmentation.GetSegmentation().GetNumberOfSegments():
        node.SetSelectedSegmentID(segmentation.GetSegmentation().GetNthSegmentID(0))


class ModuleManager:
    """Scripted modules loaded from their files."""

    def __init__(self) -> None:
        self._modules: dict[str, ScriptedModule] = {}
        self._slots: list[Any] = []

    def connect(self, signal: str, slot: Any) -> None:
        """Have `slot` called with a module's name before it is unloaded."""
        assert signal == "moduleAboutToBeUnloaded(QString)"
        self._slots.append(slot)

    def disconnect(self, signal: str, slot: Any) -> None:
        """Take a slot away."""
        self._slots.remove(slot)

    def load(self, file: Path) -> "ScriptedModule":
        """Load a module, as Slicer does for each file on its module path."""
        sys.path.insert(0, str(file.parent))
        module = ScriptedModule(file)
        self._modules[file.stem] = module
        setattr(slicer.modules, file.stem.lower(), module)
        return module

    def module(self, name: str) -> "ScriptedModule | None":
        """Return a loaded module."""
        return self._modules.get(name)

    def unload(self, name: str) -> None:
        """Unload a module, as Slicer does with all of them when it quits."""
        for slot in list(self._slots):
            slot(name)
        self._modules.pop(name).widgetRepresentation().deleteLater()


class ScriptedModule:
    """A module in Python: what its class sets on `parent`, and its panel."""

    def __init__(self, file: Path) -> None:
        self.name = file.stem
        self.path = str(file)
        self._widget: ScriptedModuleWidget | None = None
        spec = importlib.util.spec_from_file_location(self.name, file)
        assert spec is not None and spec.loader is not None
        python = importlib.util.module_from_spec(spec)
        sys.modules[self.name] = python
        spec.loader.exec_module(python)
        getattr(python, self.name)(self)

    def widgetRepresentation(self) -> "ScriptedModuleWidget":
        """Return the panel, made when it is first asked for."""
        if self._widget is None:
            self._widget = ScriptedModuleWidget(self.name)
            self._widget.reload()
        return self._widget


class ScriptedModuleWidget(QtWidgets.QWidget):
    """The C++ side of a panel, `parent` of the Python class."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._module_name = name
        self.isEntered = False
        QtWidgets.QVBoxLayout(self)

    def reload(self) -> None:
        """Make the Python class anew and set it up."""
        python = getattr(sys.modules[self._module_name], f"{self._module_name}Widget")
        self._self = python(self)
        setattr(slicer.modules, f"{self._module_name}Widget", self._self)
        self._self.setup()

    def self(self) -> Any:
        """Return the Python class."""
        return self._self

    def enter(self) -> None:
        """Tell the Python class that its panel is shown."""
        self.isEntered = True
        self._self.enter()

    def exit(self) -> None:
        """Tell the Python class that another module is shown."""
        self.isEntered = False
        self._self.exit()


def start() -> None:
    """Put the stand-in where Slicer would be: `slicer.app`, `qt`, `ctk` and the rest."""
    mrml_host.start()
    from slicer_host import ctk_widgets, mrml_widgets, pythonqt, qt_module

    qt = qt_module.install()
    ctk = ModuleType("ctk")
    for widget in ctk_widgets.CLASSES:
        setattr(ctk, widget.__name__, widget)
    for widget in mrml_widgets.CLASSES:
        setattr(slicer, widget.__name__, widget)
    slicer.qSlicerScriptedLoadableModuleWidget = ScriptedModuleWidget
    slicer.qSlicerScriptedLoadableModule = ScriptedModule
    sys.modules["ctk"] = ctk
    qt.QUiLoader.custom_classes = {
        widget.__name__: widget for widget in (*ctk_widgets.CLASSES, *mrml_widgets.CLASSES)
    }

    settings = tempfile.mkdtemp(dir=slicer.app.temporaryPath)
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
    QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, QtCore.QSettings.UserScope, settings)
    slicer.app = Application(slicer.app)
    if slicer.app.applicationLogic().GetSliceLogics() is None:
        slicer.app.applicationLogic().SetSliceLogics(vtk.vtkCollection())
    slicer.mrmlScene.AddNode(slicer.vtkMRMLCrosshairNode())
    interaction = slicer.vtkMRMLInteractionNode()
    interaction.SetSingletonTag("Singleton")
    slicer.mrmlScene.AddNode(interaction)
    slicer.app.layout_manager = LayoutManager()
    _add_plots()
    slicer.dicomDatabase = DicomDatabase()
    _add_packages()
    slicer.app.main_window = MainWindow()
    slicer.app.main_window.show()
    _watch_display_nodes()
    _log_uncaught()
    pythonqt.be_strict((*ctk_widgets.CLASSES, *mrml_widgets.CLASSES))


def _watch_display_nodes() -> None:
    """Log an error where Slicer would crash: a display node goes before what it displays."""
    scene = slicer.mrmlScene

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def see(_scene: Any, _event: str, node: Any) -> None:
        if node.IsA("vtkMRMLDisplayNode") and not scene.IsClosing():
            shown = node.GetDisplayableNode()
            if shown is not None and scene.IsNodePresent(shown):
                logging.error(
                    "%s is removed before %s: Slicer crashes", node.GetName(), shown.GetName()
                )

    scene.AddObserver(scene.NodeAboutToBeRemovedEvent, see)


def _log_uncaught() -> None:
    """Log what is raised in slots and observers, as Slicer does; Qt and VTK only print it."""

    def log(kind: Any, problem: Any, traceback: Any) -> None:
        logging.error("Uncaught", exc_info=(kind, problem, traceback))

    sys.excepthook = log


def _add_plots() -> None:
    """Add the logic of the module Plots, which shows a chart in the layout."""
    logic = slicer.vtkSlicerPlotsLogic()
    logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    logic.SetMRMLScene(slicer.mrmlScene)
    slicer.modules.plots = SimpleNamespace(name="Plots", logic=lambda: logic)


def _add_packages() -> None:
    """Add the Python packages of Slicer that the wheel leaves out."""
    from slicer_host import (
        parameter_nodes,
        sample_data,
        scripted_module,
        translation,
    )

    sys.modules["SampleData"] = sample_data

    for name, module in {
        "ScriptedLoadableModule": scripted_module,
        "i18n": translation,
        "parameterNodeWrapper": parameter_nodes,
    }.items():
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)
    slicer.selfTests = {}
