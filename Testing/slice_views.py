"""Pictures of a Slicer scene as its slice and 3-D views show it, without a window (EGL).

Run it as a program: rendering ends in a crash in a process that has imported TensorFlow.

    python Testing/slice_views.py SCENE.mrb FOLDER
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

import slicer
import vtk

from CTLungScreeningSlicer.scene import mrml_host

ORIENTATIONS = ("Axial", "Coronal", "Sagittal")
SIZE = (600, 600)

SLICE_MANAGERS = ("vtkMRMLSegmentationsDisplayableManager2D", "vtkMRMLMarkupsDisplayableManager")
THREE_D_MANAGERS = (
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
)


class View:
    """A render window; displayable managers draw the scene into it once it is given a node."""

    def __init__(self) -> None:
        self.renderer = vtk.vtkRenderer()
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(True)
        self._window.SetMultiSamples(0)
        self._window.SetAlphaBitPlanes(True)
        self._window.SetSize(*SIZE)
        self._window.AddRenderer(self.renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._interactor.Initialize()
        self._managers = slicer.vtkMRMLDisplayableManagerGroup()

    def show(self, view_node: Any, factory_class: Any, managers: tuple[str, ...]) -> None:
        """Draw what the managers show in this view, over what the renderer has already."""
        factory = factory_class.GetInstance()
        factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        for manager in managers:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        self._managers.Initialize(factory, self.renderer)
        self._managers.SetMRMLDisplayableNode(view_node)
        self._window.Render()

    def draw(self) -> None:
        """Draw it as the scene is now."""
        self._window.Render()

    def save(self, file: Path) -> None:
        """Draw into a PNG file."""
        self.draw()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self._window)
        grab.ReadFrontBufferOff()
        writer = vtk.vtkPNGWriter()
        writer.SetFileName(str(file))
        writer.SetInputConnection(grab.GetOutputPort())
        writer.Write()


class SliceView(View):
    """The slice of a volume through a point, with segments and markups over it."""

    def __init__(self, volume: Any, orientation: str, ras: Sequence[float]) -> None:
        super().__init__()
        self._logic = logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        logic.SetMRMLScene(slicer.mrmlScene)
        node = logic.AddSliceNode(orientation)
        node.SetOrientation(orientation)
        logic.ResizeSliceNode(*SIZE)
        logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
        logic.FitSliceToBackground()
        node.JumpSliceByOffsetting(*ras)

        self.renderer.GetActiveCamera().ParallelProjectionOn()
        mapper = vtk.vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        mapper.SetInputConnection(logic.GetImageDataConnection())
        background = vtk.vtkActor2D()
        background.SetMapper(mapper)
        background.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(background)
        self.show(node, slicer.vtkMRMLSliceViewDisplayableManagerFactory, SLICE_MANAGERS)


def save_surfaces(file: Path) -> None:
    """Save the 3-D view from in front of the patient."""
    logic = slicer.vtkMRMLViewLogic()
    logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    logic.SetMRMLScene(slicer.mrmlScene)
    view = View()
    view.renderer.SetBackground(1, 1, 1)
    view.renderer.SetUseDepthPeeling(True)
    node = logic.AddViewNode("Picture")
    view.show(node, slicer.vtkMRMLThreeDViewDisplayableManagerFactory, THREE_D_MANAGERS)
    camera = view.renderer.GetActiveCamera()
    camera.SetPosition(0, 1, 0.15)
    camera.SetFocalPoint(0, 0, 0)
    camera.SetViewUp(0, 0, 1)
    view.renderer.ResetCamera()
    camera.Zoom(1.3)
    view.save(file)


def save_views(folder: Path) -> None:
    """Save views of the current scene's volume through its first control point."""
    scene = slicer.mrmlScene
    scene.AddNode(slicer.vtkMRMLInteractionNode())
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLSegmentationNode")
        node.CreateClosedSurfaceRepresentation()
    volume = scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    points = scene.GetFirstNodeByClass("vtkMRMLMarkupsFiducialNode")
    ras = [0.0, 0.0, 0.0]
    points.GetNthControlPointPositionWorld(0, ras)
    for orientation in ORIENTATIONS:
        SliceView(volume, orientation, ras).save(folder / f"{orientation.lower()}.png")
    save_surfaces(folder / "surfaces.png")


if __name__ == "__main__":
    if not mrml_host.start().ReadFromMRB(sys.argv[1]):
        sys.exit(f"{sys.argv[1]} could not be read")
    save_views(Path(sys.argv[2]))
