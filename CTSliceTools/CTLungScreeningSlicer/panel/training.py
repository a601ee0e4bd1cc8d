"""A training section: a run of selected steps, each a command of the module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class StepsRun:
    """A run of selected steps.

    Attributes:
        steps: names of commands, in order.
        paths: files and folders by the parameters that choose them, `model` (the new `.keras` file)
            among them; None if neither chosen nor implied by the others.
    """

    steps: Sequence[str]
    paths: Mapping[str, Path | None]

    @property
    def missing(self) -> str | None:
        """The path that a step lacks; None if there is none."""
        needed = (name for step in self.steps for name in self.needed(step))
        return next((name for name in needed if self.paths[name] is None), None)

    def needed(self, step: str) -> Sequence[str]:
        """Return the paths that a step needs."""
        raise NotImplementedError

    def require_new(self) -> None:
        """Check that no step will refuse to overwrite results, hours before its command would.

        Raises:
            InputError: if one will.
        """
        raise NotImplementedError

    def is_done(self, step: str) -> bool:
        """Whether an earlier run that was interrupted did a step, which is then passed over."""
        return False

    def arguments(self, step: str) -> list[str | Path | None]:
        """Return the arguments of a step's command, its name first; None is left out."""
        raise NotImplementedError


class StepsSection(Section):
    """Runs the selected steps one after another.

    Attributes:
        run_bar: runs them.
    """

    TITLE: str
    """Title of the module, for messages."""

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
            keeps=True,
        )
        self.run_bar.runner.event.connect(self._curve.handle)
        self.run_bar.runner.ended.connect(lambda error, details: self.refresh())
        model.changed.connect(lambda file: self.refresh())
        show_text(label, "")

    def chosen_run(self) -> Any:
        """Return the `StepsRun` of the parameters."""
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
        """Stop the run and its child process."""
        self.run_bar.runner.stop()

    def refresh(self, *_arguments: Any) -> None:
        """Show what follows from the parameters."""
        run = self.chosen_run()
        for name, path in run.paths.items():
            if name in self._parameters.widgets:
                text = "" if path is None else str(path)
                self._parameters.widgets[name].placeholderText = text
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
            if run.is_done(step):
                continue
            arguments = [one for one in run.arguments(step) if one is not None]
            command = self._commands.work(*arguments)
            if step == TRAIN:
                command = self._curve.during(command, run.paths["model"].stem)
            result = yield from command
            lines = [self._label.text, self.result_text(run, step, result)]
            show_text(self._label, "\n".join(filter(None, lines)))
            if step == TRAIN:
                with shown_errors():
                    self._model.choose(Path(result["output"]))
            self.use_result(run, step, result)
            self.refresh()
