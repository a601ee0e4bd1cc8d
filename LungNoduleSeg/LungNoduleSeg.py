"""The panel LungNoduleSeg: the lungs and nodules of a chest CT, with one button."""

from pathlib import Path
from typing import Annotated, Any

import slicer
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)


class LungNoduleSeg(ScriptedLoadableModule):
    """Describes the module to Slicer."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        parent.title = _("Lung Nodule Segmentation")
        parent.categories = [_("Chest Imaging Platform")]
        parent.dependencies = ["CTSliceTools"]
        parent.contributors = ["CTLungScreening contributors"]
        parent.helpText = _(
            "Segment the lungs in chest CT, find, measure and review lung nodules, estimate "
            "cancer risk, compare with prior scans, and save reports."
        )
        parent.acknowledgementText = _(
            "Based on the tutorial “U-Net Segmentation Approach to Cancer Diagnosis” of 2017."
        )
        slicer.app.connect("startupCompleted()", self.registerSampleData)

    def registerSampleData(self) -> None:
        """Offer scans to try the module on."""
        from LungNoduleSegSlicer.panel.sample_data import register_sample_data  # noqa: PLC0415

        requirements = Path(self.resourcePath("LungNoduleSeg/requirements.txt"))
        register_sample_data(requirements, self.parent.title)


@parameterNodeWrapper
class LungNoduleSegParameterNode:
    """The state of the panel, kept in the scene.

    Attributes:
        volume: the chest CT to work on.
        modelFile: the network; empty for the bundled one.
        lungMethod: how the lungs are found; empty for the default.
        lungs: the segmentation whose lungs are taken instead.
        priorVolume: an earlier CT of the same patient.
        intervalDays: between the two; 0: by their study dates.
        followUpSideBySide: whether slice views show both at the same level.
    """

    volume: vtkMRMLScalarVolumeNode
    modelFile: str
    lungMethod: str
    lungs: vtkMRMLSegmentationNode
    priorVolume: vtkMRMLScalarVolumeNode
    intervalDays: Annotated[int, WithinRange(0, 36500)]
    followUpSideBySide: bool


class LungNoduleSegModuleLogic(ScriptedLoadableModuleLogic):
    """Finds the parameter node; the work is done by LungNoduleSegSlicer.scene."""

    def __init__(self) -> None:
        super().__init__()
        self.moduleName = "LungNoduleSeg"

    def parameters(self) -> Any:
        """Return the LungNoduleSegParameterNode of the current scene."""
        wrapper: Any = LungNoduleSegParameterNode
        return wrapper(self.getParameterNode())


class LungNoduleSegWidget(ScriptedLoadableModuleWidget):
    """Plumbing between the .ui file, the parameter node and the sections.

    Attributes:
        binding: keeps panel and parameters together; None where Slicer is too old.
    """

    binding: Any = None

    def setup(self) -> None:
        """Build the panel."""
        # Not at the top of the file, which Slicer imports when it starts.
        from CTLungScreeningSlicer.panel.widgets import (  # noqa: PLC0415
            ModelChooser,
            refuse_old_slicer,
        )

        ScriptedLoadableModuleWidget.setup(self)
        if refuse_old_slicer(self.layout):
            return
        from CTLungScreeningSlicer.panel.section import Debounced, ParameterBinding  # noqa: PLC0415
        from LungNoduleSegLib.options import DEFAULT_MODEL  # noqa: PLC0415
        from LungNoduleSegSlicer.panel.batch_section import BatchSection  # noqa: PLC0415
        from LungNoduleSegSlicer.panel.follow_up_section import FollowUpSection  # noqa: PLC0415
        from LungNoduleSegSlicer.panel.nodules_section import NodulesSection  # noqa: PLC0415
        from LungNoduleSegSlicer.panel.output_section import OutputSection  # noqa: PLC0415
        from LungNoduleSegSlicer.panel.risk_section import RiskSection  # noqa: PLC0415
        from LungNoduleSegSlicer.panel.segment_section import (  # noqa: PLC0415
            LungsSection,
            SegmentSection,
            about_model,
            added,
            added_models,
        )
        from LungNoduleSegSlicer.panel.training_section import TrainingSection  # noqa: PLC0415
        from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: PLC0415

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/LungNoduleSeg.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.ui.undoButton.clicked.connect(self.undo)

        self.logic = LungNoduleSegLogic()
        self._shown: tuple[Any, bool, Any] | None = None
        # After the current events: results that are being deleted are gone by then.
        self._restore_points_soon = Debounced(self._restore_points)
        requirements, train, risk, cluster = (
            Path(self.resourcePath(f"LungNoduleSeg/requirements{name}.txt"))
            for name in ("", "-train", "-risk", "-cluster")
        )
        filters = _("Models (*.zip *.onnx *.keras *.json)")
        self.model = ModelChooser(
            self.ui.modelBox, [DEFAULT_MODEL, *added_models()], about_model, filters, added
        )
        self.model.changed.connect(self.onModelChosen)
        self.lungs = LungsSection(self.ui)
        self.segment = SegmentSection(self.ui, self.logic, self.model, self.lungs, requirements)
        self.nodules = NodulesSection(self.ui, self.logic)
        self.risk = RiskSection(self.ui, self.logic, risk)
        self.nodules.chosen.connect(self.risk.choose)
        self.segment.finished.connect(self.nodules.go_to_most_suspicious)
        self.followUp = FollowUpSection(self.ui, self.logic, self.model, requirements)
        self.training = TrainingSection(self.ui, self.logic, self.model, train)
        self.batch = BatchSection(
            self.ui, self.logic, self.model, self.lungs, cluster, self.chooseVolume
        )
        self.output = OutputSection(self.ui, self.logic, requirements)
        self.sections: tuple[Any, ...] = (
            self.lungs,
            self.segment,
            self.nodules,
            self.risk,
            self.followUp,
            self.training,
            self.batch,
            self.output,
        )
        for section in self.sections:
            section.changed.connect(self.refresh)

        find = LungNoduleSegModuleLogic().parameters
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
        """Another module is shown: runs go on; the scene may change unheard."""
        if self.binding is not None:
            self.binding.leave()

    def stop(self) -> None:
        """Stop all runs."""
        from CTLungScreeningSlicer.panel.section import for_each  # noqa: PLC0415

        self._restore_points_soon.cancel()
        for_each(self.sections, lambda section: section.stop())
        self.logic.history.clear()

    def chooseVolume(self, volume: Any) -> None:
        """Make a volume the one to work on."""
        self.binding.choose_volume(volume)

    def onModelChosen(self, file: Path) -> None:
        """Keep the chosen model in the scene, also if a training ends while we are not shown."""
        LungNoduleSegModuleLogic().parameters().modelFile = self.model.scene_name

    def show(self, parameters: Any | None) -> None:
        """Pass the parameters to the sections, and the volume and its results if they changed."""
        from CTLungScreeningSlicer.panel.section import for_each  # noqa: PLC0415
        from CTLungScreeningSlicer.scene.mrml_volume import has_voxels  # noqa: PLC0415

        if parameters is not None:
            self.model.choose_named(parameters.modelFile)
            self._restore_points_soon()
        self.ui.undoButton.enabled = parameters is not None and self.logic.history.canUndo
        what = self.logic.history.lastChange or _("the last change to the results")
        self.ui.undoButton.toolTip = _("Undo: {what} (Ctrl+Z).").format(what=what)
        volume = parameters and parameters.volume
        shown = volume, has_voxels(volume), volume and self.logic.resultsOf(volume)
        before, self._shown = self._shown, None

        def update(section: Any) -> None:
            section.set_parameters(parameters)
            if before is None or before[:2] != shown[:2]:
                section.set_volume(volume)
            if before != shown:
                section.set_results(shown[2])

        for_each(self.sections, update)
        self._shown = shown

    def refresh(self) -> None:
        """Update the sections: results may have changed."""
        self._shown = None
        self.binding.refresh()

    def _restore_points(self) -> None:
        if self.binding.parameters is not None and self.logic.restorePoints():
            self.refresh()

    def undo(self, *_arguments: Any) -> None:
        """Undo the last change of the results in any section."""
        self.nodules.undo()


class LungNoduleSegTest(ScriptedLoadableModuleTest):
    """What developer mode's button Reload and Test runs, and Slicer's module Self Tests."""

    def runTest(self) -> None:
        """Open the panel on an empty scene: it can be run as soon as there is a volume."""
        import numpy as np  # noqa: PLC0415

        slicer.mrmlScene.Clear()
        slicer.util.selectModule("LungNoduleSeg")
        panel = slicer.util.getModuleWidget("LungNoduleSeg")
        self.assertFalse(panel.segment.run_bar.button.enabled)
        volume = slicer.util.addVolumeFromArray(np.zeros((9, 4, 4), np.int16))
        panel.chooseVolume(volume)
        self.assertTrue(panel.segment.run_bar.button.enabled)
