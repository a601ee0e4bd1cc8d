"""The panel CTSliceTools: annotate CT scans with one key, and localize their slices."""

from pathlib import Path
from typing import Annotated, Any

import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)


class CTSliceTools(ScriptedLoadableModule):
    """Describes the module to Slicer."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        parent.title = _("CT Slice Tools")
        parent.categories = [_("Chest Imaging Platform")]
        parent.contributors = ["CTLungScreening contributors"]
        parent.helpText = _(
            "Annotate CT scans with anatomical landmarks, one key each, locate slices in the body, "
            "match the slices of two scans, and train on your own scans."
        )
        parent.acknowledgementText = _(
            "Based on the tutorial “Building a CT Slice Localizer With Keras” of 2019."
        )
        slicer.app.connect("startupCompleted()", self.registerLayout)

    def registerLayout(self) -> None:
        """Make scenes show their views that were saved with two volumes side by side."""
        from CTLungScreeningSlicer.panel.side_by_side import register_layout  # noqa: PLC0415

        register_layout()


@parameterNodeWrapper
class CTSliceToolsParameterNode:
    """The state of the panel, kept in the scene.

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
    """Finds the parameter node; the work is done by CTSliceToolsSlicer.scene."""

    def __init__(self) -> None:
        super().__init__()
        self.moduleName = "CTSliceTools"

    def parameters(self) -> Any:
        """Return the CTSliceToolsParameterNode of the current scene."""
        wrapper: Any = CTSliceToolsParameterNode
        return wrapper(self.getParameterNode())


class CTSliceToolsWidget(ScriptedLoadableModuleWidget):
    """Plumbing between the .ui file, the parameter node and the sections.

    Attributes:
        binding: keeps panel and parameters together; None where Slicer is too old.
    """

    binding: Any = None

    def setup(self) -> None:
        """Build the panel."""
        # Not at the top of the file, which Slicer imports when it starts.
        from CTLungScreeningSlicer.panel.widgets import refuse_old_slicer  # noqa: PLC0415

        ScriptedLoadableModuleWidget.setup(self)
        if refuse_old_slicer(self.layout):
            return
        from CTLungScreeningSlicer.panel.section import ParameterBinding  # noqa: PLC0415
        from CTSliceToolsSlicer.panel.annotate_section import AnnotateSection  # noqa: PLC0415
        from CTSliceToolsSlicer.panel.localize_section import LocalizeSection  # noqa: PLC0415
        from CTSliceToolsSlicer.panel.match_section import MatchSection  # noqa: PLC0415
        from CTSliceToolsSlicer.panel.queue_box import QueueBox  # noqa: PLC0415
        from CTSliceToolsSlicer.panel.training_section import TrainingSection  # noqa: PLC0415
        from CTSliceToolsSlicer.scene.logic import CTSliceToolsLogic  # noqa: PLC0415

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/CTSliceTools.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = CTSliceToolsLogic()
        self.annotate = AnnotateSection(self.ui, self.logic.annotation)
        self.queue = QueueBox(self.ui, self.logic, self.annotate, self.chooseVolume)
        requirements, train = (
            Path(self.resourcePath(f"CTSliceTools/requirements{name}.txt"))
            for name in ("", "-train")
        )
        self.localize = LocalizeSection(self.ui, self.logic, self.annotate, requirements)
        self.localize.model.changed.connect(self.onModelChosen)
        self.match = MatchSection(self.ui, self.logic, self.localize.model, requirements)
        self.training = TrainingSection(self.ui, self.logic, self.localize.model, train)
        self.sections = (self.annotate, self.queue, self.localize, self.match, self.training)
        for section in (self.localize, self.match):
            section.changed.connect(self.refresh)

        find = CTSliceToolsModuleLogic().parameters
        self.binding = ParameterBinding(self, find, self.show, self.stop)

    def onReload(self) -> None:
        """Read the files of our packages again too; called by developer mode's button Reload."""
        from CTLungScreeningSlicer.panel.section import forget_packages  # noqa: PLC0415

        forget_packages()
        ScriptedLoadableModuleWidget.onReload(self)

    def cleanup(self) -> None:
        """Stop all work and release the scene: the module is unloaded, or Slicer quits."""
        if self.binding is not None:
            self.binding.close()

    def enter(self) -> None:
        """The panel is shown."""
        if self.binding is not None:
            self.binding.enter()

    def exit(self) -> None:
        """Another module is shown: keys are Slicer's again; the scene may change unheard."""
        if self.binding is not None:
            self.binding.leave()

    def stop(self) -> None:
        """Stop the annotation and all runs."""
        from CTLungScreeningSlicer.panel.section import for_each  # noqa: PLC0415

        for_each(self.sections, lambda section: section.stop())

    def chooseVolume(self, volume: Any) -> None:
        """Make a volume the one to work on."""
        self.binding.choose_volume(volume)

    def show(self, parameters: Any | None) -> None:
        """Pass the parameters and the volume to the sections."""
        from CTLungScreeningSlicer.panel.section import for_each  # noqa: PLC0415

        if parameters is not None:
            self.localize.model.choose_named(parameters.modelFile)

        def update(section: Any) -> None:
            section.set_parameters(parameters)
            section.set_volume(parameters and parameters.volume)

        for_each(self.sections, update)

    def refresh(self) -> None:
        """Update the sections: a scan may have been localized."""
        self.binding.refresh()

    def onModelChosen(self, file: Path) -> None:
        """Keep the chosen model in the scene, also if a training ends while we are not shown."""
        CTSliceToolsModuleLogic().parameters().modelFile = self.localize.model.scene_name


class CTSliceToolsTest(ScriptedLoadableModuleTest):
    """What developer mode's button Reload and Test runs, and Slicer's module Self Tests."""

    def runTest(self) -> None:
        """Open the panel on an empty scene, and annotate a slice."""
        import numpy as np  # noqa: PLC0415

        slicer.mrmlScene.Clear()
        slicer.util.selectModule("CTSliceTools")
        panel = slicer.util.getModuleWidget("CTSliceTools")
        volume = slicer.util.addVolumeFromArray(np.zeros((9, 4, 4), np.int16))
        panel.chooseVolume(volume)
        panel.logic.annotation.setLandmark(volume, "Aortic arch", 3)
        self.assertEqual(list(panel.logic.annotation.landmarks(volume)), ["Aortic arch"])
