"""The section Dataset and training: from DICOM files to a trained and measured localizer."""

from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from CTLungScreeningLib.child_work import Work
from CTLungScreeningSlicer.panel.dialogs import offer_file, offer_folder, offer_new_file
from CTLungScreeningSlicer.panel.errors import shown_errors
from CTLungScreeningSlicer.panel.labels import show_text
from CTLungScreeningSlicer.panel.model_chooser import ModelChooser
from CTLungScreeningSlicer.panel.packages import ensure_packages
from CTLungScreeningSlicer.panel.picture_window import PictureWindow
from CTLungScreeningSlicer.panel.run_bar import RunBar
from CTLungScreeningSlicer.panel.section import Section
from CTLungScreeningSlicer.panel.section_parameters import SectionParameters
from CTLungScreeningSlicer.scene.loss_curve import TrainingCurve
from CTSliceToolsLib.localizer.training_plan import LocalizerTrainingPlan
from CTSliceToolsSlicer.panel.training_parameters import PROPERTY, training_parameters
from CTSliceToolsSlicer.panel.training_results import result_text
from CTSliceToolsSlicer.panel.training_run import Paths, Step, TrainingRun
from CTSliceToolsSlicer.scene.logic import CTSliceToolsLogic

TITLE = "CT Slice Tools"

_FIELDS = {
    "source": "source",
    "dataset": "dataset",
    "slices": "slices",
    "parts": "parts",
    "model": "model",
    "test_data": "testData",
    "evaluation": "evaluation",
}
"""Parameter of each path of `Paths` that has a field."""


class TrainingSection(Section):
    """Six steps, of which a run does those that are ticked, one after the other.

    Attributes:
        run_bar: runs them.
        pictures: the window with the plots of an evaluation.
    """

    def __init__(
        self, ui: Any, logic: CTSliceToolsLogic, model: ModelChooser, requirements: Path
    ) -> None:
        """Build the section.

        Args:
            ui: widgets of the .ui file; those with a parameter have it in the property `PROPERTY`.
            logic: runs the commands.
            model: gets the trained model, and gives the one to evaluate where none is trained.
            requirements: packages installed when a run is first started.
        """
        super().__init__()
        self._ui, self._logic, self._model = ui, logic, model
        self._requirements = requirements
        self._parameters = SectionParameters(training_parameters, ui, PROPERTY, self.refresh)
        self._curve = TrainingCurve()
        self.pictures = PictureWindow(_("Evaluation"))
        self.run_bar = RunBar(
            ui.trainingRun,
            _("Run selected steps"),
            _("Run the selected steps one after another."),
            self._make_work,
            lambda result: self.refresh(),
        )
        self.run_bar.runner.told.connect(self._curve.hear)
        model.changed.connect(lambda file: self.refresh())
        for button, field in (
            (ui.sourceBrowse, ui.sourceFolder),
            (ui.datasetBrowse, ui.datasetFolder),
            (ui.slicesBrowse, ui.slicesFolder),
            (ui.partsBrowse, ui.partsFolder),
            (ui.testDataBrowse, ui.testDataFolder),
            (ui.evaluationBrowse, ui.evaluationFolder),
        ):
            offer_folder(button, field)
        weights = _("Weights (*.keras *.h5)")
        offer_file(ui.weightsBrowse, ui.weightsFile, _("Weights"), weights)
        models = _("Keras models (*.keras)")
        offer_new_file(ui.newModelBrowse, ui.newModelFile, _("New model"), models, ".keras")
        ui.picturesButton.clicked.connect(self.show_pictures)
        show_text(ui.resultLabel, "")
        self.refresh()

    def set_parameters(self, parameters: Any | None) -> None:
        """Keep the section and a parameter node equal from now on; a run goes on as it began."""
        self._parameters.set_node(parameters and parameters.parameterNode)

    def stop(self) -> None:
        """End the run, if there is one, with its child process."""
        self.run_bar.runner.stop()
        self.pictures.close()

    def refresh(self, *_arguments: Any) -> None:
        """Show what follows from the parameters."""
        run = self._run()
        for name, parameter in _FIELDS.items():
            path = getattr(run.paths, name)
            self._parameters.widgets[parameter].placeholderText = "" if path is None else str(path)
        ui = self._ui
        ui.trainingBox.visible = Step.TRAIN in run.steps
        ui.evaluationBox.visible = Step.EVALUATE in run.steps
        ui.picturesButton.visible = Step.EVALUATE in run.steps
        ui.picturesButton.enabled = bool(self._pictures())
        self.run_bar.set_obstacle(self._obstacle(run))

    def show_pictures(self, *_arguments: Any) -> None:
        """Show the plots of the evaluation."""
        self.pictures.show(self._pictures())

    def _run(self) -> TrainingRun:
        """What the parameters ask for."""
        choice, path = self._parameters.values, self._parameters.path
        if choice is None:
            return TrainingRun((), Paths(), LocalizerTrainingPlan())
        steps = [step for step in Step if choice.getValue(step.value)]
        plan = self._parameters.settings(LocalizerTrainingPlan, random=choice.randomStart)
        chosen = {name: path(parameter) for name, parameter in _FIELDS.items()}
        paths = Paths(**chosen, tested_model=self._model.file)
        complete = paths.completed(plan.backbone.value, Step.TRAIN in steps)
        return TrainingRun(steps, complete, plan, choice.hardLinks, choice.pseudonymize)

    def _obstacle(self, run: TrainingRun) -> str:
        if not run.steps:
            return _("Select a step first.")
        return {
            None: "",
            "source": _("Choose the folder with the DICOM files first."),
            "dataset": _("Choose the folder of the data set first."),
            "slices": _("Choose the folder of the slices first."),
            "parts": _("Choose the folder of the partitions first."),
            "model": _("Choose a file for the new model first."),
            "test_data": _("Choose the test data first."),
            "tested_model": _("Choose a model under Localize first."),
            "evaluation": _("Choose the folder for the results first."),
        }[run.missing]

    def _make_work(self) -> Work[None] | None:
        run = self._run()
        run.require_new()
        if not ensure_packages(self._requirements, TITLE):
            return None
        return self._work(run)

    def _work(self, run: TrainingRun) -> Work[None]:
        show_text(self._ui.resultLabel, "")
        for step in Step:
            if step in run.steps:
                command = self._logic.commands.work(*run.arguments(step))
                if step is Step.TRAIN and run.paths.model is not None:
                    command = self._curve.during(command, run.paths.model.stem)
                result = yield from command
                lines = [self._ui.resultLabel.text, result_text(step, result)]
                show_text(self._ui.resultLabel, "\n".join(filter(None, lines)))
                self._use(step, result)

    def _use(self, step: Step, result: dict[str, Any]) -> None:
        """Choose the model that was trained, show what was measured."""
        if step is Step.TRAIN:
            with shown_errors():
                self._model.choose(Path(result["output"]))
        elif step is Step.EVALUATE:
            self.pictures.show(_pictures_in(Path(result["output"])))

    def _pictures(self) -> list[Path]:
        folder = self._run().paths.evaluation
        return [] if folder is None else _pictures_in(folder)


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))
