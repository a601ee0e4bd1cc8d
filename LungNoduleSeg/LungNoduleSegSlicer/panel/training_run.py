"""What a run of the section Training does: steps, folders, commands, and what it evaluates."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any

from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from CTLungScreeningLib.child_process import command_options
from CTLungScreeningLib.files import beside, refuse_existing
from CTLungScreeningLib.model_card import require_new_model
from CTLungScreeningSlicer.panel.section import SectionParameters
from LungNoduleSegLib.training_data.training_plan import ExampleChoice, Preset, StoreTrainingPlan

_MANY = 100_000


class Collection(Enum):
    """Where annotated scans come from."""

    LUNA16 = "LUNA16"
    LIDC_IDRI = "LIDC-IDRI"

    def label(self) -> str:
        """Its name for the box that chooses it."""
        return self.value


class Measure(Enum):
    """What an evaluation holds against what."""

    DICE = "dice"
    DETECTION = "detection"
    SYNTHETIC = "synthetic"
    INSERTED = SYNTHETIC
    """Its name in scenes of earlier versions."""

    def label(self) -> str:
        """Its name for the box that chooses it."""
        return {
            Measure.DICE: _("Masks (Dice)"),
            Measure.DETECTION: _("Detections (FROC)"),
            Measure.SYNTHETIC: _("Synthetic lesions"),
        }[self]


@parameterNodeWrapper
class TrainingParameters:
    """The choices of the section.

    A path that is empty stands for the one its field shows in grey, a number of 0 for that of the
    preset.

    Attributes:
        prepareStep: whether the run prepares a store; likewise the next three.
        checkStep: see `prepareStep`.
        trainStep: see `prepareStep`.
        evaluateStep: see `prepareStep`.
        collection: what is prepared.
        scans: folder of the scans.
        annotations: CSV of LUNA16's nodules.
        patients: CSV that tells whose LUNA16's scans are.
        tutorialMasks: whether spheres are twice as large; LUNA16.
        agreement: of radiologists, see `prepare_lidc`; LIDC-IDRI.
        neighbours: see `ExampleChoice`.
        largestOnly: see `ExampleChoice`.
        emptyScans: whether scans without a nodule are kept.
        store: folder of what is prepared.
        pages: folder for pictures of it.
        preset: see `StoreTrainingPlan`, likewise the next eight.
        weights: see `preset`.
        epochs: see `preset`.
        steps: see `preset`.
        batch: see `preset`.
        filters: see `preset`.
        learningRate: see `preset`.
        tutorialSplit: see `preset`.
        hardNegatives: see `preset`.
        model: the new `.keras` file.
        measure: how good what is.
        predicted: masks that were found.
        truth: those that are true.
        resample: whether the first are brought to the grids of the second.
        submission: CSV of findings.
        nodules: CSV of the true nodules.
        excluded: CSV of findings to be ignored.
        series: CSV of all scans.
        scan: to insert lesions into.
        ownNodules: mask of those it has itself.
        rounds: copies of that scan.
        results: folder for the evaluation.
    """

    prepareStep: bool = True  # noqa: N815 - Slicer's way of naming, here and below
    checkStep: bool = True  # noqa: N815
    trainStep: bool = False  # noqa: N815
    evaluateStep: bool = False  # noqa: N815
    collection: Collection = Collection.LUNA16
    scans: str
    annotations: str
    patients: str
    tutorialMasks: bool = False  # noqa: N815
    agreement: Annotated[int, WithinRange(1, 4)] = 3
    neighbours: Annotated[int, WithinRange(0, 100)] = ExampleChoice.neighbours
    largestOnly: bool = False  # noqa: N815
    emptyScans: bool = False  # noqa: N815
    store: str
    pages: str
    preset: Preset = Preset.PATCHES
    weights: str
    epochs: Annotated[int, WithinRange(0, _MANY)] = 0
    steps: Annotated[int, WithinRange(0, _MANY)] = 0
    batch: Annotated[int, WithinRange(0, _MANY)] = 0
    filters: Annotated[int, WithinRange(0, 1024)] = 0
    learningRate: Annotated[float, WithinRange(0, 1)] = 0.0  # noqa: N815
    tutorialSplit: bool = False  # noqa: N815
    hardNegatives: bool = True  # noqa: N815
    model: str
    measure: Measure = Measure.DICE
    predicted: str
    truth: str
    resample: bool = False
    submission: str
    nodules: str
    excluded: str
    series: str
    scan: str
    ownNodules: str  # noqa: N815
    rounds: Annotated[int, WithinRange(1, 100)] = 3
    results: str


def training_parameters(node: Any) -> Any:
    """Give the TrainingParameters that a parameter node holds."""
    wrapper: Any = TrainingParameters
    return wrapper(node)


DICE_JSON, DICE_CSV = "dice.json", "dice.csv"
DETECTION_JSON, CURVE, PLOT, FOUND = "detection.json", "froc.csv", "froc.png", "nodules.csv"


@dataclass(frozen=True)
class Evaluation:
    """What is held against what; None where nothing was chosen.

    Attributes:
        measure: which of the three.
        predicted: masks that were found; of the Dice coefficient, as are the next two.
        truth: those that are true.
        resample: whether the first are brought to the grids of the second.
        submission: CSV of findings; of detection, as are the next three.
        nodules: CSV of the true nodules.
        excluded: CSV of findings to be ignored.
        series: CSV of all scans.
        scan: to insert lesions into; of inserted lesions, as are the next three.
        own_nodules: mask of those it has itself.
        rounds: copies of that scan.
        model: to be tried.
        results: folder for what is measured.
    """

    measure: Measure = Measure.DICE
    predicted: Path | None = None
    truth: Path | None = None
    resample: bool = False
    submission: Path | None = None
    nodules: Path | None = None
    excluded: Path | None = None
    series: Path | None = None
    scan: Path | None = None
    own_nodules: Path | None = None
    rounds: int = 3
    model: Path | None = None
    results: Path | None = None

    def completed(self) -> "Evaluation":
        """Fill in the folder for the results: beside what is measured, named after it."""
        tested = self.model.stem if self.model is not None else ""
        results = {
            Measure.DICE: beside(self.predicted, "-dice"),
            Measure.DETECTION: beside(self.submission, "-detection"),
            Measure.SYNTHETIC: beside(self.scan, f"-synthetic-{tested}"),
        }[self.measure]
        return replace(self, results=self.results or results)

    def needed(self) -> dict[str, Path | None]:
        """Give the paths without which nothing can be measured, by their parameters' names."""
        return {
            Measure.DICE: {"predicted": self.predicted, "truth": self.truth},
            Measure.DETECTION: {
                "submission": self.submission,
                "nodules": self.nodules,
                "series": self.series,
            },
            Measure.SYNTHETIC: {"scan": self.scan},
        }[self.measure] | {"results": self.results}

    def require_new(self) -> None:
        """See that the folder for the results holds none.

        Raises:
            InputError: if it does.
        """
        if self.results is not None and self.results.is_dir():
            there = [file.name for file in self.results.iterdir() if file.suffix in _SUFFIXES]
            refuse_existing(self.results, there)

    def arguments(self) -> list[str | Path | None]:
        """Give the arguments of the command."""
        results = self.results or Path()
        arguments: list[Any] = ["evaluate", self.measure.value]
        if self.measure is Measure.DICE:
            arguments += [self.predicted, self.truth]
            arguments += ["--json", results / DICE_JSON, "--csv", results / DICE_CSV]
            return arguments + ["--resample"] * self.resample
        if self.measure is Measure.DETECTION:
            arguments += ["--submission", self.submission, "--annotations", self.nodules]
            arguments += ["--seriesuids", self.series, "--json", results / DETECTION_JSON]
            arguments += ["--curve", results / CURVE, "--plot", results / PLOT]
            return [*arguments, "--nodules", results / FOUND, *_given("--excluded", self.excluded)]
        arguments += [self.scan, "-o", results, "--rounds", str(self.rounds)]
        own = _given("--nodules", self.own_nodules)
        return arguments + own + _given("--model", self.model)


_SUFFIXES = (".json", ".csv", ".png")


def pictures_in(folder: Path) -> list[Path]:
    """Give the plots that an evaluation has drawn."""
    return sorted(folder.glob("*.png"))


def _given(option: str, value: Path | None) -> list[str | Path]:
    return [] if value is None else [option, value]


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

    steps: Sequence[Step]
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


OF_PRESET = {
    "epochs": "epochs",
    "steps": "steps",
    "batch": "batch",
    "filters": "filters",
    "learning_rate": "learningRate",
}
"""Numbers of `StoreTrainingPlan` and their parameters, of which 0 stands for that of the preset."""

NOTHING = TrainingRun(
    (), Preparation(), None, None, StoreTrainingPlan.of(Preset.PATCHES), None, Evaluation()
)


def chosen_run(parameters: SectionParameters, model: Path | None) -> TrainingRun:
    """Give the run, with the paths that follow from those that were chosen.

    Args:
        parameters: with `TrainingParameters`.
        model: to be evaluated unless one is trained.
    """
    choice, path = parameters.values, parameters.path
    if choice is None:
        return NOTHING
    numbers = {name: choice.getValue(parameter) or None for name, parameter in OF_PRESET.items()}
    preparation = parameters.settings(Preparation, examples=parameters.settings(ExampleChoice))
    plan = StoreTrainingPlan.of(
        choice.preset,
        weights=path("weights"),
        tutorial_split=choice.preset is Preset.TUTORIAL and choice.tutorialSplit,
        hard_negatives=choice.hardNegatives,
        **numbers,
    )
    evaluation = parameters.settings(Evaluation, model=model)
    steps = [step for step in Step if choice.getValue(f"{step.value}Step")]
    run = TrainingRun(
        steps, preparation, path("store"), path("pages"), plan, path("model"), evaluation
    )
    return run.completed()
