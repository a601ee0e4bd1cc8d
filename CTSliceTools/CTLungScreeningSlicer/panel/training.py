"""A training section: a run of selected steps, each a command of the module."""

from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from CTLungScreeningLib.child_process import Work
from CTLungScreeningSlicer.panel.packages import ensure_packages
from CTLungScreeningSlicer.panel.run_bar import RunBar
from CTLungScreeningSlicer.panel.section import Section, SectionParameters
from CTLungScreeningSlicer.panel.widgets import ModelChooser, show_text, shown_errors
from CTLungScreeningSlicer.scene.commands import Commands, TrainingCurve

PROPERTY = "TrainingParameter"
"""Dynamic property of the .ui file that names the parameter of a widget."""

TRAIN = "train"
"""The step that trains."""


class StepsSection(Section):
    """Runs the selected steps one after another.

    Attributes:
        run_bar: runs them.
    """

    TITLE: str
    """Of the module, for messages."""

    def __init__(
        self,
        ui: Any,
        label: Any,
        parameters: Any,
        commands: Commands,
        model: ModelChooser,
        requirements: Path,
    ) -> None:
        """Build the section; call `refresh` at the end of the constructor.

        Args:
            ui: widgets of the .ui file; those with a parameter have it in the property `PROPERTY`.
            label: shows the results of the steps.
            parameters: class made by `parameterNodeWrapper`.
            commands: of the module.
            model: gets the trained model.
            requirements: packages that are installed when a run is first started.
        """
        super().__init__()
        self._ui, self._label, self._commands, self._model = ui, label, commands, model
        self._requirements = requirements
        self._parameters = SectionParameters(parameters, ui, PROPERTY, self.refresh)
        self._curve = TrainingCurve()
        self.run_bar = RunBar(
            ui.trainingRun,
            _("Run selected steps"),
            _("Run the selected steps one after another."),
            self._make_work,
            lambda result: self.refresh(),
        )
        self.run_bar.runner.event.connect(self._curve.handle)
        self.run_bar.runner.ended.connect(lambda error, details: self.refresh())
        model.changed.connect(lambda file: self.refresh())
        show_text(label, "")

    def chosen_run(self) -> Any:
        """Return the run of the parameters.

        It has `steps`, `model` (the new `.keras` file or None), `missing` (the name of a path that
        a step lacks, or None), `require_new()`, which raises `InputError` for existing results, and
        `arguments(step)`, the arguments of a step's command.
        """
        raise NotImplementedError

    def show_run(self, run: Any) -> None:
        """Show what follows from the parameters."""
        raise NotImplementedError

    def obstacles(self) -> dict[str, str]:
        """Return the message for each path that can be missing."""
        raise NotImplementedError

    def result_text(self, run: Any, step: Any, result: dict[str, Any]) -> str:
        """Describe the result of a step."""
        raise NotImplementedError

    def use_result(self, run: Any, step: Any, result: dict[str, Any]) -> None:
        """Show the pictures of a step."""

    def set_parameters(self, parameters: Any | None) -> None:
        """Keep the section and a parameter node equal from now on; a run is not affected."""
        self._parameters.set_node(parameters and parameters.parameterNode)

    def stop(self) -> None:
        """End the run, if there is one, with its child process."""
        self.run_bar.runner.stop()

    def refresh(self, *_arguments: Any) -> None:
        """Show what follows from the parameters."""
        run = self.chosen_run()
        self.show_run(run)
        obstacle = self.obstacles()[run.missing] if run.missing else ""
        self.run_bar.set_obstacle(obstacle if run.steps else _("Select a step first."))

    def _make_work(self) -> Work[None] | None:
        run = self.chosen_run()
        run.require_new()
        return self._work(run) if ensure_packages(self._requirements, self.TITLE) else None

    def _work(self, run: Any) -> Work[None]:
        show_text(self._label, "")
        for step in run.steps:
            command = self._commands.work(*run.arguments(step))
            if step == TRAIN and run.model is not None:
                command = self._curve.during(command, run.model.stem)
            result = yield from command
            lines = [self._label.text, self.result_text(run, step, result)]
            show_text(self._label, "\n".join(filter(None, lines)))
            if step == TRAIN:
                with shown_errors():
                    self._model.choose(Path(result["output"]))
            self.use_result(run, step, result)
            self.refresh()
