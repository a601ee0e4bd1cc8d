"""The section Dataset and training: from DICOM files to a trained and measured localizer."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import vtk
from slicer.i18n import tr as _

from CTSliceToolsLib.child_work import Work
from CTSliceToolsLib.localizer.training_plan import TrainingPlan
from CTSliceToolsLib.panel.errors import shown_errors
from CTSliceToolsLib.panel.file_dialogs import choose_file, choose_folder, choose_new_file
from CTSliceToolsLib.panel.model_chooser import ModelChooser
from CTSliceToolsLib.panel.packages import ensure_packages
from CTSliceToolsLib.panel.picture_window import PictureWindow
from CTSliceToolsLib.panel.run_bar import RunBar
from CTSliceToolsLib.scene.logic import CTSliceToolsLogic
from CTSliceToolsLib.scene.loss_curve import LossCurve
from CTSliceToolsLib.widgets.training_parameters import PROPERTY, training_parameters
from CTSliceToolsLib.widgets.training_results import result_text
from CTSliceToolsLib.widgets.training_run import Paths, Step, TrainingRun

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


class TrainingSection:
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
        self._ui, self._logic, self._model = ui, logic, model
        self._requirements = requirements
        self._widgets = {
            name: widget for widget in vars(ui).values() if (name := widget.property(PROPERTY))
        }
        self._parameters: Any = None
        self._observed: tuple[Any, int] | None = None
        self._tag: int | None = None
        self._curve: LossCurve | None = None
        self.pictures = PictureWindow(_("Evaluation"))
        self.run_bar = RunBar(
            ui.trainingRun,
            _("Run the ticked steps"),
            _("Do the steps that are ticked, from left to right."),
            self._make_work,
            lambda result: self.refresh(),
        )
        self.run_bar.runner.told.connect(self._hear)
        model.changed.connect(lambda file: self.refresh())
        for button, browse in (
            (ui.sourceBrowse, partial(self._browse_folder, "source")),
            (ui.datasetBrowse, partial(self._browse_folder, "dataset")),
            (ui.slicesBrowse, partial(self._browse_folder, "slices")),
            (ui.partsBrowse, partial(self._browse_folder, "parts")),
            (ui.testDataBrowse, partial(self._browse_folder, "testData")),
            (ui.evaluationBrowse, partial(self._browse_folder, "evaluation")),
            (ui.weightsBrowse, self._browse_weights),
            (ui.newModelBrowse, self._browse_model),
            (ui.picturesButton, self.show_pictures),
        ):
            button.clicked.connect(partial(_call, browse))
        self.refresh()

    def set_parameters(self, node: Any | None) -> None:
        """Keep the section and a parameter node equal from now on; a run goes on as it began."""
        if self._observed is not None and self._observed[0] is node:
            return
        if self._observed is not None:
            self._parameters.disconnectGui(self._tag)
            observed, tag = self._observed
            observed.RemoveObserver(tag)
        self._parameters = self._observed = None
        if node is not None:
            self._parameters = training_parameters(node)
            self._tag = self._parameters.connectParametersToGui(self._widgets)
            tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, self.refresh)
            self._observed = node, tag
        self.refresh()

    def stop(self) -> None:
        """End the run, if there is one, with its child process."""
        self.run_bar.runner.stop()
        self.pictures.close()

    def refresh(self, *_arguments: Any) -> None:
        """Show what follows from the parameters."""
        run = self._run()
        for name, parameter in _FIELDS.items():
            path = getattr(run.paths, name)
            self._widgets[parameter].placeholderText = "" if path is None else str(path)
        ui = self._ui
        ui.trainingBox.enabled = Step.TRAIN in run.steps
        ui.evaluationBox.enabled = Step.EVALUATE in run.steps
        ui.picturesButton.enabled = bool(self._pictures())
        self.run_bar.set_obstacle(self._obstacle(run))

    def show_pictures(self) -> None:
        """Show the plots of the evaluation."""
        self.pictures.show(self._pictures())

    def _run(self) -> TrainingRun:
        """What the parameters ask for."""
        choice = self._parameters
        if choice is None:
            return TrainingRun((), Paths(), TrainingPlan())

        def path(name: str) -> Path | None:
            text = choice.getValue(name).strip()
            return Path(text).expanduser() if text else None

        steps = [step for step in Step if choice.getValue(step.value)]
        plan = TrainingPlan(
            backbone=choice.backbone,
            weights=path("weights"),
            random=choice.randomStart,
            epochs=choice.epochs,
            fine_tune_epochs=choice.fineTuneEpochs,
            batch=choice.batch,
            learning_rate=choice.learningRate,
            augment=choice.augment,
        )
        chosen = {name: path(parameter) for name, parameter in _FIELDS.items()}
        paths = Paths(**chosen, tested_model=self._model.file)
        complete = paths.completed(plan.backbone.value, Step.TRAIN in steps)
        return TrainingRun(steps, complete, plan, choice.hardLinks, choice.pseudonymize)

    def _obstacle(self, run: TrainingRun) -> str:
        if not run.steps:
            return _("Tick a step first.")
        return {
            None: "",
            "source": _("Choose the folder with the DICOM files first."),
            "dataset": _("Choose the folder of the data set first."),
            "slices": _("Choose the folder of the slices first."),
            "parts": _("Choose the folder of the parts first."),
            "model": _("Choose a file for the new model first."),
            "test_data": _("Choose what to evaluate on first."),
            "tested_model": _("Choose a model in the section Localize first."),
            "evaluation": _("Choose the folder for the results first."),
        }[run.missing]

    def _make_work(self) -> Work[None] | None:
        run = self._run()
        run.require_new()
        if not ensure_packages(self._requirements, TITLE):
            return None
        return self._work(run)

    def _work(self, run: TrainingRun) -> Work[None]:
        self._ui.resultLabel.text = ""
        for step in Step:
            if step in run.steps:
                command = self._logic.commandWork(*run.arguments(step))
                result = yield from (self._train(command, run) if step is Step.TRAIN else command)
                lines = [self._ui.resultLabel.text, result_text(step, result)]
                self._ui.resultLabel.text = "\n".join(line for line in lines if line)
                self._use(step, result)

    def _train(self, command: Work[Any], run: TrainingRun) -> Work[Any]:
        """Train with a curve in the scene, which goes again unless the training ends well."""
        assert run.paths.model is not None
        self._curve = LossCurve(run.paths.model.stem)
        self._curve.show()
        try:
            return (yield from command)
        except BaseException:
            self._curve.remove()
            raise
        finally:
            self._curve = None

    def _hear(self, event: dict[str, Any]) -> None:
        if "epoch" in event and self._curve is not None:
            self._curve.add(event["epoch"])

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

    def _browse_folder(self, parameter: str) -> None:
        field = self._widgets[parameter]
        folder = choose_folder(_("Folder"), field.text or field.placeholderText)
        if folder is not None:
            field.text = str(folder)

    def _browse_weights(self) -> None:
        file = choose_file(_("Weights"), _("Weights (*.keras *.h5)"))
        if file is not None:
            self._widgets["weights"].text = str(file)

    def _browse_model(self) -> None:
        field = self._widgets["model"]
        name = field.text or field.placeholderText
        file = choose_new_file(_("New model"), name, _("Keras models (*.keras)"))
        if file is not None:
            field.text = str(file if file.suffix else file.with_suffix(".keras"))


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


def _call(action: Callable[[], object], *_arguments: Any) -> None:
    """Call an action without what a button's signal passes."""
    action()
