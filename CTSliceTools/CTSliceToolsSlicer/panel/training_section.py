"""The section Dataset and training: from DICOM files to a trained and measured localizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from CTLungScreeningLib.child_process import command_options
from CTLungScreeningLib.files import beside, refuse_existing
from CTLungScreeningLib.model_card import require_new_model
from CTLungScreeningSlicer.panel.training import StepsSection
from CTLungScreeningSlicer.panel.widgets import (
    ModelChooser,
    PictureWindow,
    offer_file,
    offer_folder,
    offer_new_file,
)
from CTSliceToolsLib.localizer.training_plan import Backbone, LocalizerTrainingPlan
from CTSliceToolsSlicer.scene.logic import CTSliceToolsLogic

_PLAN = LocalizerTrainingPlan()
_MANY = 100_000


@parameterNodeWrapper
class TrainingParameters:
    """The choices of the section; a path that is empty stands for the one its field shows in grey.

    Attributes:
        organize: whether the run organizes; likewise the next five.
        normalize: see `organize`.
        convert: see `organize`.
        partition: see `organize`.
        train: see `organize`.
        evaluate: see `organize`.
        source: folder of DICOM files in any order.
        dataset: folder of the series.
        hardLinks: whether files are linked in place of copies.
        pseudonymize: whether folders are named by keyed hashes.
        slices: folder of the converted slices.
        parts: folder of their partitions.
        backbone: the network.
        weights: file with weights to start from.
        randomStart: whether it starts at random.
        epochs: see `LocalizerTrainingPlan`, likewise the next four.
        fineTuneEpochs: see `LocalizerTrainingPlan`.
        batch: see `LocalizerTrainingPlan`.
        learningRate: see `LocalizerTrainingPlan`.
        augment: see `LocalizerTrainingPlan`.
        model: the new `.keras` file.
        testData: what is evaluated on.
        evaluation: folder for the results.
    """

    organize: bool = False
    normalize: bool = True
    convert: bool = True
    partition: bool = True
    train: bool = True
    evaluate: bool = False
    source: str
    dataset: str
    hardLinks: bool = False  # noqa: N815 - Slicer's way of naming, here and below
    pseudonymize: bool = False
    slices: str
    parts: str
    backbone: Backbone = _PLAN.backbone
    weights: str
    randomStart: bool = _PLAN.random  # noqa: N815
    epochs: Annotated[int, WithinRange(1, _MANY)] = _PLAN.epochs
    fineTuneEpochs: Annotated[int, WithinRange(0, _MANY)] = _PLAN.fine_tune_epochs  # noqa: N815
    batch: Annotated[int, WithinRange(1, _MANY)] = _PLAN.batch
    learningRate: Annotated[float, WithinRange(1e-7, 1.0)] = _PLAN.learning_rate  # noqa: N815
    augment: bool = _PLAN.augment
    model: str
    testData: str  # noqa: N815
    evaluation: str


def training_parameters(node: Any) -> Any:
    """Give the TrainingParameters that a parameter node holds."""
    wrapper: Any = TrainingParameters
    return wrapper(node)


class Step(StrEnum):
    """A command of `ct-slice-tools`, in the order in which they are run."""

    ORGANIZE = "organize"
    NORMALIZE = "normalize"
    CONVERT = "convert"
    PARTITION = "partition"
    TRAIN = "train"
    EVALUATE = "evaluate"


_NEEDS = {
    Step.ORGANIZE: ("source", "dataset"),
    Step.NORMALIZE: ("dataset",),
    Step.CONVERT: ("dataset", "slices"),
    Step.PARTITION: ("slices", "parts"),
    Step.TRAIN: ("parts", "model"),
    Step.EVALUATE: ("test_data", "tested_model", "evaluation"),
}
"""Which paths a step cannot do without."""


@dataclass(frozen=True)
class Paths:
    """Where things are; None where nothing was chosen and nothing follows from the others.

    Attributes:
        source: folder of DICOM files in any order.
        dataset: folder of the series.
        slices: folder of the converted slices.
        parts: folder of their partitions.
        model: the new `.keras` file.
        test_data: what is evaluated on.
        tested_model: the model that is evaluated.
        evaluation: folder for the results.
    """

    source: Path | None = None
    dataset: Path | None = None
    slices: Path | None = None
    parts: Path | None = None
    model: Path | None = None
    test_data: Path | None = None
    tested_model: Path | None = None
    evaluation: Path | None = None

    def completed(self, backbone: str, training: bool) -> "Paths":
        """Fill in what was not chosen: beside the data set, named after it.

        Args:
            backbone: names the model.
            training: whether the model that is evaluated is the one that is trained.
        """
        parts = self.parts or beside(self.dataset, "-parts")
        models = beside(self.dataset or self.parts, "-models")
        model = self.model or (models and models / f"{backbone}.keras")
        tested = model if training else self.tested_model
        results = models and tested and models / f"{tested.stem}-evaluation"
        return Paths(
            self.source,
            self.dataset,
            self.slices or beside(self.dataset, "-slices"),
            parts,
            model,
            self.test_data or parts,
            tested,
            self.evaluation or results,
        )


@dataclass(frozen=True)
class TrainingRun:
    """The steps of a run, how they are done and where.

    Attributes:
        steps: which.
        paths: those that the steps need.
        plan: of the training.
        hard_links: whether files are linked in place of copies.
        pseudonymize: whether folders are named by keyed hashes.
    """

    steps: Sequence[Step]
    paths: Paths
    plan: LocalizerTrainingPlan
    hard_links: bool = False
    pseudonymize: bool = False

    @property
    def model(self) -> Path | None:
        """The new `.keras` file."""
        return self.paths.model

    @property
    def missing(self) -> str | None:
        """The path, by its name in `Paths`, that a step lacks; None if there is none."""
        needed = (name for step in Step if step in self.steps for name in _NEEDS[step])
        return next((name for name in needed if getattr(self.paths, name) is None), None)

    def require_new(self) -> None:
        """See that nothing is there yet that the last steps would refuse to overwrite.

        Raises:
            InputError: if there is; hours before the command would say so.
        """
        model, results = self.paths.model, self.paths.evaluation
        if Step.TRAIN in self.steps and model is not None:
            require_new_model(model)
        if Step.EVALUATE in self.steps and results is not None and results.is_dir():
            refuse_existing(results, [file.name for file in results.glob("*.csv")])

    def arguments(self, step: Step) -> list[str | Path]:
        """Give the arguments of a step's command, its name first."""
        paths = self.paths
        arguments: dict[Step, list[str | Path | None]] = {
            Step.ORGANIZE: [paths.source, paths.dataset],
            Step.NORMALIZE: [paths.dataset],
            Step.CONVERT: [paths.dataset, "-o", paths.slices],
            Step.PARTITION: [paths.slices, "-o", paths.parts],
            Step.TRAIN: [paths.parts, "-o", paths.model],
            Step.EVALUATE: [paths.test_data, "-o", paths.evaluation, "--model", paths.tested_model],
        }
        chosen = (one for one in arguments[step] if one is not None)
        return [step.value, *chosen, *self._options(step)]

    def _options(self, step: Step) -> list[str]:
        if step is Step.TRAIN:
            return command_options(self.plan)
        links = {Step.ORGANIZE: ["--transfer", "link"], Step.PARTITION: ["--hard-links"]}
        options = links.get(step, []) if self.hard_links else []
        if step is Step.ORGANIZE and self.pseudonymize:
            options = [*options, "--pseudonymize"]
        return options


def _organized(result: dict[str, Any]) -> str:
    return _("Organized: {series} series of {patients} patients, {placed} files.").format(**result)


def _normalized(result: dict[str, Any]) -> str:
    text = _("Normalized: {slices} slices of {series} series.").format(**result)
    if result["refused"]:
        text += " " + _("{count} series were refused; see the log.").format(
            count=len(result["refused"])
        )
    return text


def _converted(result: dict[str, Any]) -> str:
    text = _("Converted: {made} new slices, {kept} already converted.").format(**result)
    return text + _failures(result)


def _partitioned(result: dict[str, Any]) -> str:
    parts = ", ".join(
        _("{part} {slices} slices from {series} series").format(
            part=part, slices=slices, series=result["series"][part]
        )
        for part, slices in result["slices"].items()
    )
    return _("Partitioned: {parts}.").format(parts=parts) + _failures(result)


def _trained(result: dict[str, Any]) -> str:
    best = result["best"]
    return _("Trained: best epoch {epoch:.0f}, validation mean error {error:.4f}.").format(
        epoch=best["epoch"], error=best["val_error"]
    )


def _evaluated(result: dict[str, Any]) -> str:
    return "\n".join(
        _("Evaluated ({way}): mean error {mean_error:.4f}, {mean_error_mm:.0f} mm.").format(**row)
        for row in result["summary"]
    )


def _failures(result: dict[str, Any]) -> str:
    count = len(result["failed"])
    return " " + _("{count} failed; see the log.").format(count=count) if count else ""


_TEXTS = {
    Step.ORGANIZE: _organized,
    Step.NORMALIZE: _normalized,
    Step.CONVERT: _converted,
    Step.PARTITION: _partitioned,
    Step.TRAIN: _trained,
    Step.EVALUATE: _evaluated,
}


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


class TrainingSection(StepsSection):
    """The six steps from DICOM files to an evaluated localizer.

    Attributes:
        pictures: the window with the plots of an evaluation.
    """

    TITLE = TITLE

    def __init__(
        self, ui: Any, logic: CTSliceToolsLogic, model: ModelChooser, requirements: Path
    ) -> None:
        """Build the section.

        Args:
            ui: see `StepsSection`.
            logic: runs the commands.
            model: gets the trained model, and provides the one to evaluate if none is trained.
            requirements: see `StepsSection`.
        """
        super().__init__(
            ui, ui.resultLabel, training_parameters, logic.commands, model, requirements
        )
        self.pictures = PictureWindow(_("Evaluation"))
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
        self.refresh()

    def stop(self) -> None:
        """End the run and close the pictures."""
        super().stop()
        self.pictures.close()

    def show_run(self, run: TrainingRun) -> None:
        """Show what follows from the parameters."""
        for name, parameter in _FIELDS.items():
            path = getattr(run.paths, name)
            self._parameters.widgets[parameter].placeholderText = "" if path is None else str(path)
        ui = self._ui
        ui.trainingBox.visible = Step.TRAIN in run.steps
        ui.evaluationBox.visible = Step.EVALUATE in run.steps
        ui.picturesButton.visible = Step.EVALUATE in run.steps
        ui.picturesButton.enabled = bool(self._pictures())

    def show_pictures(self, *_arguments: Any) -> None:
        """Show the plots of the evaluation."""
        self.pictures.show(self._pictures())

    def chosen_run(self) -> TrainingRun:
        """Return the run of the parameters."""
        choice, path = self._parameters.values, self._parameters.path
        if choice is None:
            return TrainingRun((), Paths(), LocalizerTrainingPlan())
        steps = [step for step in Step if choice.getValue(step.value)]
        plan = self._parameters.settings(LocalizerTrainingPlan, random=choice.randomStart)
        chosen = {name: path(parameter) for name, parameter in _FIELDS.items()}
        paths = Paths(**chosen, tested_model=self._model.file)
        complete = paths.completed(plan.backbone.value, Step.TRAIN in steps)
        return TrainingRun(steps, complete, plan, choice.hardLinks, choice.pseudonymize)

    def obstacles(self) -> dict[str, str]:
        """Return the message for each path that can be missing."""
        return {
            "source": _("Choose the folder with the DICOM files first."),
            "dataset": _("Choose the folder of the data set first."),
            "slices": _("Choose the folder of the slices first."),
            "parts": _("Choose the folder of the partitions first."),
            "model": _("Choose a file for the new model first."),
            "test_data": _("Choose the test data first."),
            "tested_model": _("Choose a model under Localize first."),
            "evaluation": _("Choose the folder for the results first."),
        }

    def result_text(self, run: TrainingRun, step: Step, result: dict[str, Any]) -> str:
        """Describe the result of a step."""
        return _TEXTS[step](result)

    def use_result(self, run: TrainingRun, step: Step, result: dict[str, Any]) -> None:
        """Show the plots of an evaluation."""
        if step is Step.EVALUATE:
            self.pictures.show(_pictures_in(Path(result["output"])))

    def _pictures(self) -> list[Path]:
        folder = self.chosen_run().paths.evaluation
        return [] if folder is None else _pictures_in(folder)


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))
