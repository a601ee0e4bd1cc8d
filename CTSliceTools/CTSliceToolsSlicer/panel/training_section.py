"""The section Dataset and training: from DICOM files to a trained and measured localizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import parameterNodeWrapper

from CTLungScreeningLib.files import beside, refuse_existing
from CTLungScreeningLib.model_card import require_new_model
from CTLungScreeningLib.options import arguments_of
from CTLungScreeningSlicer.panel.section import with_parameters
from CTLungScreeningSlicer.panel.training import StepsRun, StepsSection
from CTLungScreeningSlicer.panel.widgets import (
    ModelChooser,
    PictureWindow,
    offer_file,
    offer_folder,
    offer_new_model,
    pictures_in,
)
from CTSliceToolsLib.options import (
    LocalizerTrainingPlan,
    OrganizeOptions,
    PartitionOptions,
    Transfer,
)
from CTSliceToolsSlicer.panel.localize_section import TITLE
from CTSliceToolsSlicer.scene.logic import CTSliceToolsLogic


class Step(StrEnum):
    """A command of `ct-slice-tools`, in the order in which they are run."""

    ORGANIZE = "organize"
    NORMALIZE = "normalize"
    CONVERT = "convert"
    PARTITION = "partition"
    TRAIN = "train"
    EVALUATE = "evaluate"


@parameterNodeWrapper
@with_parameters(
    LocalizerTrainingPlan,
    *("backbone", "weights", "epochs", "fine_tune_epochs", "batch", "learning_rate", "augment"),
    randomStart="random",
)
@with_parameters(PartitionOptions, "hard_links")
@with_parameters(OrganizeOptions, "pseudonymize")
class TrainingParameters:
    """The choices of the section; an empty path stands for the one that its field shows in grey.

    Attributes:
        organize: whether the run includes this step; likewise the next five.
        normalize: see `organize`.
        convert: see `organize`.
        partition: see `organize`.
        train: see `organize`.
        evaluate: see `organize`.
        source: folder of DICOM files in any order.
        dataset: folder of the series.
        slices: folder of the converted slices.
        parts: folder of their partitions.
        model: the new `.keras` file.
        testData: folder to evaluate on.
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
    slices: str
    parts: str
    model: str
    testData: str  # noqa: N815 - Slicer's way of naming
    evaluation: str


PATHS = ("source", "dataset", "slices", "parts", "model", "testData", "evaluation")
TESTED = "testedModel"


def complete_paths(
    chosen: Mapping[str, Path | None], tested: Path | None, backbone: str
) -> dict[str, Path | None]:
    """Fill in what was not chosen: beside the data set, named after it.

    Args:
        chosen: by `PATHS`.
        tested: model to evaluate; None for the one that is trained.
        backbone: names the model.
    """
    dataset = chosen["dataset"]
    parts = chosen["parts"] or beside(dataset, "-parts")
    models = beside(dataset or chosen["parts"], "-models")
    model = chosen["model"] or (models and models / f"{backbone}.keras")
    tested = tested or model
    results = models and tested and models / f"{tested.stem}-evaluation"
    return {
        "source": chosen["source"],
        "dataset": dataset,
        "slices": chosen["slices"] or beside(dataset, "-slices"),
        "parts": parts,
        "model": model,
        "testData": chosen["testData"] or parts,
        TESTED: tested,
        "evaluation": chosen["evaluation"] or results,
    }


@dataclass(frozen=True)
class TrainingRun(StepsRun):
    """A run of selected steps.

    Attributes:
        plan: of the training.
        organize: options of the step, like the next one.
        partition: see `organize`.
    """

    plan: LocalizerTrainingPlan
    organize: OrganizeOptions
    partition: PartitionOptions

    def needed(self, step: str) -> Sequence[str]:
        """Return the paths that a step needs."""
        return {
            Step.ORGANIZE: ("source", "dataset"),
            Step.NORMALIZE: ("dataset",),
            Step.CONVERT: ("dataset", "slices"),
            Step.PARTITION: ("slices", "parts"),
            Step.TRAIN: ("parts", "model"),
            Step.EVALUATE: ("testData", TESTED, "evaluation"),
        }[Step(step)]

    def require_new(self) -> None:
        """Check that nothing exists that a step would refuse to overwrite."""
        model, results = self.paths["model"], self.paths["evaluation"]
        if Step.TRAIN in self.steps and model is not None:
            require_new_model(model)
        if Step.EVALUATE in self.steps and results is not None and results.is_dir():
            refuse_existing(results, [file.name for file in results.glob("*.csv")])

    def arguments(self, step: str) -> list[str | Path | None]:
        """Return the arguments of a step's command."""
        at = self.paths
        return {
            Step.ORGANIZE: [step, at["source"], at["dataset"], *arguments_of(self.organize)],
            Step.NORMALIZE: [step, at["dataset"]],
            Step.CONVERT: [step, at["dataset"], "-o", at["slices"]],
            Step.PARTITION: [
                *(step, at["slices"], "-o", at["parts"]),
                *arguments_of(self.partition),
            ],
            Step.TRAIN: [step, at["parts"], "-o", at["model"], *arguments_of(self.plan)],
            Step.EVALUATE: [*(step, at["testData"], "-o", at["evaluation"], "--model", at[TESTED])],
        }[Step(step)]


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
    text = _(
        "Trained: best epoch {epoch:.0f}, validation mean error {error} (normalized location)."
    )
    return text.format(epoch=best["epoch"], error=f"{best['val_error']:.4f}")


def _evaluated(result: dict[str, Any]) -> str:
    text = _("Evaluated ({way}): mean error {error} (normalized location), {mm:.0f} mm.")
    return "\n".join(
        text.format(way=row["way"], error=f"{row['mean_error']:.4f}", mm=row["mean_error_mm"])
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
            ui, ui.resultLabel, TrainingParameters, logic.commands, model, requirements
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
        offer_new_model(ui.newModelBrowse, ui.newModelFile)
        ui.picturesButton.clicked.connect(self.show_pictures)
        self.refresh()

    def stop(self) -> None:
        """Stop the run and close the pictures."""
        super().stop()
        self.pictures.close()

    def show_run(self, run: TrainingRun) -> None:
        """Show what follows from the parameters."""
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
        choice, options = self._parameters.values, self._parameters.options
        if choice is None:
            nothing = dict.fromkeys((*PATHS, TESTED))
            return TrainingRun(
                (), nothing, LocalizerTrainingPlan(), OrganizeOptions(), PartitionOptions()
            )
        steps = [step for step in Step if choice.getValue(step.value)]
        plan, partition = options(LocalizerTrainingPlan), options(PartitionOptions)
        transfer = Transfer.LINK if partition.hard_links else Transfer.COPY
        chosen = {name: self._parameters.path(name) for name in PATHS}
        tested = None if Step.TRAIN in steps else self._model.file
        paths = complete_paths(chosen, tested, plan.backbone)
        return TrainingRun(
            steps, paths, plan, options(OrganizeOptions, transfer=transfer), partition
        )

    def obstacles(self) -> dict[str, str]:
        """Return the message for each path that can be missing."""
        return {
            "source": _("Choose the folder with the DICOM files first."),
            "dataset": _("Choose the folder of the dataset first."),
            "slices": _("Choose the folder of the slices first."),
            "parts": _("Choose the folder of the partitions first."),
            "model": _("Choose a file for the new model first."),
            "testData": _("Choose the test data first."),
            TESTED: _("Choose a model under Localize first."),
            "evaluation": _("Choose the folder for the results first."),
        }

    def result_text(self, run: TrainingRun, step: Step, result: dict[str, Any]) -> str:
        """Describe the result of a step."""
        return _TEXTS[step](result)

    def use_result(self, run: TrainingRun, step: Step, result: dict[str, Any]) -> None:
        """Show the plots of an evaluation."""
        if step is Step.EVALUATE:
            self.pictures.show(pictures_in(Path(result["output"])))

    def _pictures(self) -> list[Path]:
        return pictures_in(self.chosen_run().paths["evaluation"])
