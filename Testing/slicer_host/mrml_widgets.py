"""Stand-ins for Slicer's widgets that follow the scene."""

from pathlib import Path
from typing import Any

import slicer
import vtk
from PySide6.QtCore import Property, QMargins, Signal
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QVBoxLayout, QWidget
from shiboken6 import isValid

from __feature__ import true_property  # isort: skip  # noqa: F401


SLICE_MANAGERS = ("vtkMRMLSegmentationsDisplayableManager2D", "vtkMRMLMarkupsDisplayableManager")
"""What is drawn over a slice."""


class qMRMLWidget(QWidget):
    """A widget that tells its scene to those that a .ui file connects with it."""

    mrmlSceneChanged = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def mrmlScene(self) -> Any:
        """Return the scene."""
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        """Set the scene, also of the widgets that the .ui file connects."""
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)


class qMRMLNodeComboBox(QWidget):
    """A selector of nodes of some classes.

    As Slicer's: with `noneEnabled` off the first node is chosen when there is no current one;
    nodes that are read from a file are listed when all of them are there.
    """

    currentNodeChanged = Signal(object)
    nodeActivated = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._box = QComboBox()
        row = QHBoxLayout(self)
        row.contentsMargins = QMargins()
        row.addWidget(self._box)
        self._types: list[str] = []
        self._none = False
        self._scene: Any = None
        self._tags: list[int] = []
        self._named: list[tuple[Any, int]] = []
        self._current_id = ""
        self._box.activated.connect(lambda *_: self._activate())

    def mrmlScene(self) -> Any:
        """Return the scene."""
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        """List the nodes of a scene from now on."""
        self._let_go()
        self._scene = scene
        self._tags = [
            scene.AddObserver(event, lambda *_: self._list())
            for event in (
                scene.NodeAddedEvent,
                scene.NodeRemovedEvent,
                scene.EndImportEvent,
            )
        ]
        self._list()

    def currentNode(self) -> Any:
        """Return the node that is chosen, or None."""
        return self._scene.GetNodeByID(self._current_id) if self._scene else None

    def setCurrentNode(self, node: Any) -> None:
        """Choose a node, or None."""
        self.setCurrentNodeID(node.GetID() if node else "")

    def setCurrentNodeID(self, node_id: str) -> None:
        """Choose a node by its id; an id that is not listed chooses none."""
        listed = self._box.findData(node_id) >= 0
        self._choose(node_id if listed else self._fallback())

    def nodeCount(self) -> int:
        """Return how many nodes can be chosen."""
        return sum(bool(self._box.itemData(row)) for row in range(self._box.count))

    def _nodes(self) -> list[Any]:
        wanted = self._types or ["vtkMRMLNode"]
        nodes = [self._scene.GetNthNode(row) for row in range(self._scene.GetNumberOfNodes())]
        return [
            node
            for node in nodes
            if node.GetClassName() in wanted and not node.GetHideFromEditors()
        ]

    def _list(self) -> None:
        if not isValid(self):
            self._let_go()
            return
        if self._scene is None or self._scene.IsImporting():
            return
        nodes = self._nodes()
        for node, tag in self._named:
            node.RemoveObserver(tag)
        self._named = [
            (node, node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._rename()))
            for node in nodes
        ]
        self._box.clear()
        if self._none:
            self._box.addItem("None", "")
        for node in nodes:
            self._box.addItem(node.GetName(), node.GetID())
        known = self._box.findData(self._current_id) >= 0 and self._current_id
        self._choose(self._current_id if known else self._fallback())

    def _let_go(self) -> None:
        """Stop observing: of a widget that Qt has deleted, or for another scene."""
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        for node, tag in self._named:
            node.RemoveObserver(tag)
        self._tags, self._named = [], []

    def _fallback(self) -> str:
        first = "" if self._none or not self._box.count else self._box.itemData(0)
        return first or ""

    def _rename(self) -> None:
        if not isValid(self):
            self._let_go()
            return
        for row in range(self._box.count):
            node = self._scene.GetNodeByID(self._box.itemData(row) or "")
            if node:
                self._box.setItemText(row, node.GetName())

    def _activate(self) -> None:
        self._choose(self._box.currentData() or "")
        self.nodeActivated.emit(self.currentNode())

    def _choose(self, node_id: str) -> None:
        self._box.currentIndex = self._box.findData(node_id)
        if node_id != self._current_id:
            self._current_id = node_id
            self.currentNodeChanged.emit(self.currentNode())

    def _set_types(self, types: list[str]) -> None:
        self._types = list(types)
        self._list()

    def _set_none(self, enabled: bool) -> None:
        self._none = enabled
        self._list()

    nodeTypes = Property("QStringList", lambda self: self._types, _set_types)
    noneEnabled = Property(bool, lambda self: self._none, _set_none)
    currentNodeID = Property(str, lambda self: self._current_id, setCurrentNodeID)
    addEnabled = Property(bool, lambda self: True, lambda self, on: None)
    removeEnabled = Property(bool, lambda self: True, lambda self, on: None)
    renameEnabled = Property(bool, lambda self: False, lambda self, on: None)
    editEnabled = Property(bool, lambda self: False, lambda self, on: None)
    selectNodeUponCreation = Property(bool, lambda self: True, lambda self, on: None)
    showChildNodeTypes = Property(bool, lambda self: False, lambda self, on: None)


class qMRMLSliceView(QWidget):
    """A slice view: its render window is real and drawn by nobody before a test asks for it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._renderer = vtk.vtkRenderer()
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(True)
        self._window.SetMultiSamples(0)
        self._window.SetAlphaBitPlanes(True)  # else what is drawn over a slice hides it
        self._window.AddRenderer(self._renderer)

    def renderWindow(self) -> Any:
        """Return the vtkRenderWindow."""
        return self._window

    def setSliceLogic(self, logic: Any) -> None:
        """Draw the slice of a logic with markups and segments over it, as Slicer's views do."""
        self._logic = logic

    def save(self, file: Path) -> None:
        """Draw now, with EGL, into a PNG file; not in a process that has TensorFlow."""
        node = self._logic.GetSliceNode()
        self._window.SetSize(*node.GetDimensions()[:2])
        self._renderer.GetActiveCamera().ParallelProjectionOn()
        mapper = vtk.vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        mapper.SetInputConnection(self._logic.GetImageDataConnection())
        image = vtk.vtkActor2D()
        image.SetMapper(mapper)
        image.GetProperty().SetDisplayLocationToBackground()
        self._renderer.AddViewProp(image)
        managers = slicer.vtkMRMLDisplayableManagerGroup()
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        for manager in SLICE_MANAGERS:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        interactor = vtk.vtkGenericRenderWindowInteractor()
        interactor.SetRenderWindow(self._window)
        interactor.Initialize()
        managers.Initialize(factory, self._renderer)
        managers.SetMRMLDisplayableNode(node)
        self._window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self._window)
        grab.ReadFrontBufferOff()
        writer = vtk.vtkPNGWriter()
        writer.SetFileName(str(file))
        writer.SetInputConnection(grab.GetOutputPort())
        writer.Write()

    def scheduleRender(self) -> None:
        """Do nothing: the offscreen window is drawn when its picture is taken."""


class qMRMLSliceWidget(QWidget):
    """A slice view with its logic and nodes."""

    def __init__(self, name: str) -> None:
        super().__init__()
        logics = slicer.app.applicationLogic()
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(logics)
        self._logic.SetMRMLScene(slicer.mrmlScene)
        self._logic.SetSliceNode(slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode"))
        self._logic.ResizeSliceNode(400, 400)
        logics.GetSliceLogics().AddItem(self._logic)
        self._view = qMRMLSliceView(self)
        self._view.setSliceLogic(self._logic)
        column = QVBoxLayout(self)
        column.contentsMargins = QMargins()
        column.addWidget(self._view)

    def sliceLogic(self) -> Any:
        """Return the vtkMRMLSliceLogic."""
        return self._logic

    def mrmlSliceNode(self) -> Any:
        """Return the vtkMRMLSliceNode."""
        return self._logic.GetSliceNode()

    def sliceView(self) -> qMRMLSliceView:
        """Return the view."""
        return self._view


CLASSES = (qMRMLNodeComboBox, qMRMLSliceView, qMRMLSliceWidget, qMRMLWidget)
