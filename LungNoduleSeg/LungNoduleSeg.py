"""The panel LungNoduleSeg: the lungs and nodules of a chest CT, with one button."""

from pathlib import Path
from typing import Any

import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class LungNoduleSeg(ScriptedLoadableModule):
    """Tells Slicer about the module."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        parent.title = _("Lung Nodule Segmentation")
        parent.categories = [_("Chest Imaging Platform")]
        parent.dependencies = ["CTSliceTools"]
        parent.contributors = ["CTLungScreening contributors"]
        parent.helpText = _(
            "Find the lungs and the lung nodules of a chest CT, measure them, and put segments, "
            "a table and points into the scene. For research use only."
        )
        parent.acknowledgementText = _(
            "After the tutorial “U-Net Segmentation Approach to Cancer Diagnosis” of 2017."
        )


@parameterNodeWrapper
class LungNoduleSegParameterNode:
    """What the panel shows, kept in the scene.

    Attributes:
        volume: the chest CT to work on.
    """

    volume: vtkMRMLScalarVolumeNode


class LungNoduleSegModuleLogic(ScriptedLoadableModuleLogic):
    """Finds the parameter node; the work is done by LungNoduleSegLib.scene."""

    def __init__(self) -> None:
        super().__init__()
        self.moduleName = "LungNoduleSeg"

    def parameters(self) -> Any:
        """Give the LungNoduleSegParameterNode of the current scene."""
        wrapper: Any = LungNoduleSegParameterNode
        return wrapper(self.getParameterNode())


class LungNoduleSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Plumbing between the .ui file, the parameter node and the sections."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self._parameters: Any = None
        self._guiTag: int | None = None
        self._heldNode: Any = None

    def setup(self) -> None:
        """Build the panel."""
        # Not at the top of the file, which Slicer imports when it starts.
        from LungNoduleSegLib.scene.logic import LungNoduleSegLogic  # noqa: PLC0415
        from LungNoduleSegLib.widgets.segment_section import SegmentSection  # noqa: PLC0415

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/LungNoduleSeg.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = LungNoduleSegLogic()
        self.segment = SegmentSection(
            self.ui, self.logic, Path(self.resourcePath("LungNoduleSeg/requirements.txt"))
        )

        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneChanged)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneChanged)
        self.addObserver(scene, scene.NodeRemovedEvent, self.onParametersModified)
        self.initializeParameters()

    def cleanup(self) -> None:
        """Stop the run and let go of the scene: the module is unloaded, or Slicer quits."""
        self.segment.stop()
        self.setParameters(None)
        self.removeObservers()

    def enter(self) -> None:
        """The panel is shown."""
        self.initializeParameters()

    def exit(self) -> None:
        """Another module is shown: a run goes on; the scene may change unheard."""
        self.setParameters(None)

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        """The scene goes: nothing may hold on to its nodes."""
        self.segment.stop()
        self.setParameters(None)

    def onSceneChanged(self, caller: Any, event: Any) -> None:
        """The scene was closed or another read into it: take its parameters if we are shown."""
        if self.parent.isEntered:
            self.initializeParameters()

    def initializeParameters(self) -> None:
        """Take the parameters of the scene, with its first volume if none was chosen."""
        self.setParameters(LungNoduleSegModuleLogic().parameters())
        if self._parameters.volume is None:
            first = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            if first is not None:
                self._parameters.volume = first

    def chooseVolume(self, volume: Any) -> None:
        """Make a volume the one to work on."""
        if self._parameters is not None:
            self._parameters.volume = volume

    def setParameters(self, parameters: Any) -> None:
        """Keep the panel and a parameter node equal from now on."""
        modified = vtk.vtkCommand.ModifiedEvent
        if self._parameters is not None:
            self._parameters.disconnectGui(self._guiTag)
            self.removeObserver(self._parameters.parameterNode, modified, self.onParametersModified)
        self._parameters = parameters
        if parameters is not None:
            # What connectGui observes with is never taken away: without a reference to the node,
            # Python's garbage collector clears it, and VTK calls what is no more.
            self._heldNode = parameters.parameterNode
            self._guiTag = parameters.connectGui(self.ui)
            self.addObserver(parameters.parameterNode, modified, self.onParametersModified)
        self.onParametersModified()

    def onParametersModified(self, caller: Any = None, event: Any = None) -> None:
        """Show what the parameters say."""
        self.segment.set_volume(self._parameters.volume if self._parameters else None)
