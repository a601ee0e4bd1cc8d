"""The steps, folders and commands of a run of Dataset and training."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from CTLungScreeningLib.child_process import command_options
from CTLungScreeningLib.files import beside, refuse_existing
from CTLungScreeningLib.model_card import require_new_model
from CTSliceToolsLib.localizer.training_plan import LocalizerTrainingPlan


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

    steps: Collection[Step]
    paths: Paths
    plan: LocalizerTrainingPlan
    hard_links: bool = False
    pseudonymize: bool = False

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
        given = (one for one in arguments[step] if one is not None)
        return [step.value, *given, *self._options(step)]

    def _options(self, step: Step) -> list[str]:
        if step is Step.TRAIN:
            return command_options(self.plan)
        links = {Step.ORGANIZE: ["--transfer", "link"], Step.PARTITION: ["--hard-links"]}
        options = links.get(step, []) if self.hard_links else []
        if step is Step.ORGANIZE and self.pseudonymize:
            options = [*options, "--pseudonymize"]
        return options
