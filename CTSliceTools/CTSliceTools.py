"""The panel CTSliceTools: annotate CT scans with one key, and localize their slices."""

from pathlib import Path
from typing import Annotated, Any

import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class CTSliceTools(ScriptedLoadableModule):
    """Tells Slicer about the module."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        parent.title = _("CT Slice Tools")
        parent.categories = [_("Chest Imaging Platform")]
        parent.contributors = ["CTLungScreening contributors"]
        parent.helpText = _(
            "Annotate the slices of CT scans with anatomical landmarks, one key each; find out "
            "where in the body a slice lies; match the slices of two scans; train on your own "
            "scans. For research use only."
        )
        parent.acknowledgementText = _(
            "After the tutorial “Building a CT Slice Localizer With Keras” of 2019."
        )


@parameterNodeWrapper
class CTSliceToolsParameterNode:
    """What the panel shows, kept in the scene.

    Attributes:
        volume: the CT volume to work on.
        queueFolder: where series to be labelled are looked for.
        modelFile: the localizer; empty for the bundled one.
        otherVolume: the CT volume to compare with.
        sideBySide: whether slice views show both volumes at the same level.
        matchTolerance: how far in normalized location the listed slices may be off.
    """

    volume: vtkMRMLScalarVolumeNode
    queueFolder: str
    modelFile: str
    otherVolume: vtkMRMLScalarVolumeNode
    sideBySide: bool
    matchTolerance: Annotated[float, WithinRange(0.001, 0.1)] = 0.01


class CTSliceToolsModuleLogic(ScriptedLoadableModuleLogic):
    """Finds the parameter node; the work is done by CTSliceToolsLib.scene."""

    def __init__(self) -> None:
        super().__init__()
        self.moduleName = "CTSliceTools"

    def parameters(self) -> Any:
        """Give the CTSliceToolsParameterNode of the current scene."""
        wrapper: Any = CTSliceToolsParameterNode
        return wrapper(self.getParameterNode())


class CTSliceToolsWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
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
        from CTSliceToolsLib.scene.logic import CTSliceToolsLogic  # noqa: PLC0415
        from CTSliceToolsLib.widgets.annotate_section import AnnotateSection  # noqa: PLC0415
        from CTSliceToolsLib.widgets.localize_section import LocalizeSection  # noqa: PLC0415
        from CTSliceToolsLib.widgets.match_section import MatchSection  # noqa: PLC0415
        from CTSliceToolsLib.widgets.queue_box import QueueBox  # noqa: PLC0415
        from CTSliceToolsLib.widgets.training_section import TrainingSection  # noqa: PLC0415

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/CTSliceTools.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = CTSliceToolsLogic()
        self.annotate = AnnotateSection(self.ui, self.logic)
        self.queue = QueueBox(self.ui, self.annotate, self.chooseVolume)
        requirements = Path(self.resourcePath("CTSliceTools/requirements.txt"))
        self.localize = LocalizeSection(self.ui, self.logic, self.annotate, requirements)
        self.localize.model.changed.connect(self.onModelChosen)
        self.match = MatchSection(self.ui, self.logic, self.localize.model, requirements)
        for section in (self.localize, self.match):
            section.run_bar.runner.ended.connect(self.onLocalized)
        self.training = TrainingSection(self.ui, self.logic, self.localize.model, requirements)

        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneChanged)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneChanged)
        self.addObserver(scene, scene.NodeRemovedEvent, self.onParametersModified)
        self.initializeParameters()

    def cleanup(self) -> None:
        """Stop all work and let go of the scene: the module is unloaded, or Slicer quits."""
        self.stop()
        self.setParameters(None)
        self.removeObservers()

    def enter(self) -> None:
        """The panel is shown."""
        self.initializeParameters()

    def exit(self) -> None:
        """Another module is shown: keys are Slicer's again; the scene may change unheard."""
        self.annotate.stop()
        self.setParameters(None)

    def stop(self) -> None:
        """End annotation and every run."""
        self.annotate.stop()
        self.localize.stop()
        self.match.stop()
        self.training.stop()

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        """The scene goes: nothing may hold on to its nodes."""
        self.stop()
        self.setParameters(None)

    def onSceneChanged(self, caller: Any, event: Any) -> None:
        """The scene was closed or another read into it: take its parameters if we are shown."""
        if self.parent.isEntered:
            self.initializeParameters()

    def initializeParameters(self) -> None:
        """Take the parameters of the scene, with its first volume if none was chosen."""
        self.setParameters(CTSliceToolsModuleLogic().parameters())
        if self._parameters is not None and self._parameters.volume is None:
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
        self.training.set_parameters(parameters and parameters.parameterNode)
        self.onParametersModified()

    def onParametersModified(self, caller: Any = None, event: Any = None) -> None:
        """Show what the parameters say."""
        volume = self._parameters.volume if self._parameters else None
        self.annotate.set_volume(volume)
        self.localize.set_volume(volume)
        if self._parameters:
            self.match.set_volumes(
                volume,
                self._parameters.otherVolume,
                self._parameters.sideBySide,
                self._parameters.matchTolerance,
            )
            self.localize.show_model(self._parameters.modelFile)
        else:
            self.match.set_volumes(None, None)

    def onLocalized(self, error: str, details: str) -> None:
        """A run of either section has ended."""
        self.localize.refresh()
        self.match.refresh()

    def onModelChosen(self, file: Path) -> None:
        """Keep the chosen model in the scene, also if a training ends while we are not shown."""
        CTSliceToolsModuleLogic().parameters().modelFile = self.localize.model_name(file)
