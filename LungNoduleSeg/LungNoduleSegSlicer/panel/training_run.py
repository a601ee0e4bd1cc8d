"""What a run of the section Training does: steps, folders and their commands."""

from collections.abc import Collection as Several
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from CTLungScreeningLib.child_process import command_options
from CTLungScreeningLib.files import beside, refuse_existing
from CTLungScreeningLib.model_card import require_new_model
from LungNoduleSegLib.training_data.training_plan import ExampleChoice, StoreTrainingPlan
from LungNoduleSegSlicer.panel.evaluation_run import Evaluation
from LungNoduleSegSlicer.panel.training_parameters import Collection


class Step(StrEnum):
    """What a run does, in this order."""

    PREPARE = "prepare"
    CHECK = "check"
    TRAIN = "train"
    EVALUATE = "evaluate"


@dataclass(frozen=True)
class Preparation:
    """How annotated scans become a store, see `ExampleChoice`.

    Attributes:
        collection: which they are of.
        scans: their folder.
        annotations: CSV of LUNA16's nodules.
        patients: CSV that tells whose LUNA16's scans are.
        tutorial_masks: whether LUNA16's spheres are twice as large.
        agreement: of LIDC-IDRI's radiologists.
        empty_scans: whether scans without a nodule are kept.
        examples: what becomes of a scan.
    """

    collection: Collection = Collection.LUNA16
    scans: Path | None = None
    annotations: Path | None = None
    patients: Path | None = None
    tutorial_masks: bool = False
    agreement: int = 3
    empty_scans: bool = False
    examples: ExampleChoice = field(default_factory=ExampleChoice)

    def arguments(self, store: Path | None) -> list[str | Path | None]:
        """Give the arguments of the command that makes a store."""
        options: list[str | Path] = [*command_options(self.examples)]
        if self.empty_scans:
            options.append("--empty-scans")
        if self.collection is Collection.LIDC_IDRI:
            options += ["--agreement", str(self.agreement)]
            return ["prepare-lidc", self.scans, store, *options]
        if self.tutorial_masks:
            options.append("--tutorial-masks")
        if self.patients is not None:
            options += ["--patients", self.patients]
        return ["prepare-luna", self.scans, self.annotations, store, *options]


@dataclass(frozen=True)
class TrainingRun:
    """The steps of a run, how they are done and where.

    Attributes:
        steps: which.
        preparation: of the store.
        store: its folder.
        pages: folder for pictures of it.
        plan: of the training.
        model: the new `.keras` file.
        evaluation: what is measured.
    """

    steps: Several[Step]
    preparation: Preparation
    store: Path | None
    pages: Path | None
    plan: StoreTrainingPlan
    model: Path | None
    evaluation: Evaluation

    def completed(self) -> "TrainingRun":
        """Fill in the paths that were not chosen: beside the scans, the store and what is tested.

        The model that is tested is the one that is trained, if one is.
        """
        store = self.store or beside(self.preparation.scans, "-store")
        models = beside(store, "-models")
        model = self.model or (models and models / f"{self.plan.preset}.keras")
        evaluation = self.evaluation
        if Step.TRAIN in self.steps:
            evaluation = replace(evaluation, model=model)
        return replace(
            self,
            store=store,
            pages=self.pages or beside(store, "-pages"),
            model=model,
            evaluation=evaluation.completed(),
        )

    @property
    def missing(self) -> str | None:
        """The path, by its parameter's name, that a step lacks; None if there is none."""
        preparation, evaluation = self.preparation, self.evaluation
        luna = preparation.collection is Collection.LUNA16
        needed = {
            Step.PREPARE: {
                "scans": preparation.scans,
                **({"annotations": preparation.annotations} if luna else {}),
                "store": self.store,
            },
            Step.CHECK: {"store": self.store, "pages": self.pages},
            Step.TRAIN: {"store": self.store, "model": self.model},
            Step.EVALUATE: evaluation.needed(),
        }
        return next(
            (
                name
                for step in Step
                if step in self.steps
                for name, path in needed[step].items()
                if path is None
            ),
            None,
        )

    @property
    def unfinished(self) -> bool:
        """Whether a training of that name was begun and not finished."""
        return (
            self.model is not None
            and not self.model.exists()
            and self.model.with_name(f"{self.model.stem}-training").is_dir()
        )

    def require_new(self) -> None:
        """See that nothing is there yet that a later step would refuse to overwrite.

        Raises:
            InputError: if there is; hours before the command would say so.
        """
        if Step.CHECK in self.steps and self.pages is not None:
            refuse_existing(self.pages, [page.name for page in pages_in(self.pages)])
        if Step.TRAIN in self.steps and self.model is not None:
            require_new_model(self.model)
        if Step.EVALUATE in self.steps:
            self.evaluation.require_new()

    def arguments(self, step: Step) -> list[str | Path]:
        """Give the arguments of a step's command, its name first."""
        arguments = {
            Step.PREPARE: self.preparation.arguments(self.store),
            Step.CHECK: ["check", self.store, "-o", self.pages],
            Step.TRAIN: ["train", self.store, "-o", self.model, *command_options(self.plan)],
            Step.EVALUATE: self.evaluation.arguments(),
        }[step]
        return [one for one in arguments if one is not None]


def pages_in(folder: Path) -> list[Path]:
    """Give the pictures of a store that `check` has drawn."""
    return sorted(folder.glob("page-*.png"))
