"""A run of the section Training: its parameters, folders and commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from pathlib import Path

from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import parameterNodeWrapper

from CTLungScreeningLib.files import beside, refuse_existing
from CTLungScreeningLib.model_card import require_new_model, training_folder
from CTLungScreeningLib.options import arguments_of
from CTLungScreeningSlicer.panel.section import SectionParameters, with_parameters
from CTLungScreeningSlicer.panel.training import StepsRun
from CTLungScreeningSlicer.panel.widgets import pictures_in
from LungNoduleSegLib.options import (
    DetectionOptions,
    DiceOptions,
    ExampleChoice,
    LidcOptions,
    LunaOptions,
    Preset,
    StoreTrainingPlan,
    SyntheticOptions,
)


class Collection(Enum):
    """A collection of annotated scans."""

    LUNA16 = "LUNA16"
    LIDC_IDRI = "LIDC-IDRI"

    def label(self) -> str:
        """Its name in a combo box."""
        return self.value


class Measure(Enum):
    """A command of `evaluate`."""

    DICE = "dice"
    DETECTION = "detection"
    SYNTHETIC = "synthetic"

    def label(self) -> str:
        """Its name in a combo box."""
        return {
            Measure.DICE: _("Masks (Dice)"),
            Measure.DETECTION: _("Detections (FROC)"),
            Measure.SYNTHETIC: _("Synthetic lesions"),
        }[self]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The paths it needs, by parameter."""
        return {
            Measure.DICE: ("predicted", "truth"),
            Measure.DETECTION: ("submission", "nodules", "series"),
            Measure.SYNTHETIC: ("scan",),
        }[self]


@parameterNodeWrapper
@with_parameters(ExampleChoice, "neighbours", "largest_only")
@with_parameters(LunaOptions, "empty_scans", "tutorial_masks", "patients")
@with_parameters(LidcOptions, "empty_scans", "agreement")
@with_parameters(
    StoreTrainingPlan,
    *("weights", "epochs", "steps", "batch", "filters", "learning_rate"),
    *("tutorial_split", "hard_negatives"),
)
@with_parameters(DiceOptions, "resample")
@with_parameters(DetectionOptions, "excluded")
@with_parameters(SyntheticOptions, "rounds", ownNodules="nodules")
class TrainingParameters:
    """The choices of the section.

    An empty path stands for the one that its field shows in grey, a number of 0 for the preset's.

    Attributes:
        prepareStep: whether the run prepares a store; likewise the next three.
        checkStep: see `prepareStep`.
        trainStep: see `prepareStep`.
        evaluateStep: see `prepareStep`.
        collection: to prepare.
        scans: their folder.
        annotations: CSV of LUNA16's nodules.
        store: folder of the training data.
        pages: folder for pictures of them.
        preset: see `StoreTrainingPlan`.
        model: the new `.keras` file.
        measure: of the evaluation.
        predicted: predicted masks.
        truth: reference masks.
        submission: CSV of detections.
        nodules: CSV of the reference nodules.
        series: CSV of all scans.
        scan: for the synthetic lesions.
        results: folder for the evaluation.
    """

    prepareStep: bool = True  # noqa: N815 - Slicer's way of naming, here and below
    checkStep: bool = True  # noqa: N815
    trainStep: bool = False  # noqa: N815
    evaluateStep: bool = False  # noqa: N815
    collection: Collection = Collection.LUNA16
    scans: str
    annotations: str
    store: str
    pages: str
    preset: Preset = Preset.PATCHES
    model: str
    measure: Measure = Measure.DICE
    predicted: str
    truth: str
    submission: str
    nodules: str
    series: str
    scan: str
    results: str


PATHS = (
    *("scans", "annotations", "store", "pages", "model"),
    *(name for measure in Measure for name in measure.inputs),
    "results",
)


class Step(StrEnum):
    """A step of a run, in this order."""

    PREPARE = "prepare"
    CHECK = "check"
    TRAIN = "train"
    EVALUATE = "evaluate"


@dataclass(frozen=True)
class TrainingRun(StepsRun):
    """The steps of a run, with the options of each.

    Attributes:
        collection: to prepare.
        examples: options of the preparation, like the next two.
        luna: see `examples`.
        lidc: see `examples`.
        plan: of the training.
        measure: of the evaluation.
        dice: options of the evaluation, like the next two.
        detection: see `dice`.
        synthetic: see `dice`.
        tested: model to evaluate; None for the bundled one.
    """

    collection: Collection = Collection.LUNA16
    examples: ExampleChoice = field(default_factory=ExampleChoice)
    luna: LunaOptions = field(default_factory=LunaOptions)
    lidc: LidcOptions = field(default_factory=LidcOptions)
    plan: StoreTrainingPlan = field(default_factory=StoreTrainingPlan.of)
    measure: Measure = Measure.DICE
    dice: DiceOptions = field(default_factory=DiceOptions)
    detection: DetectionOptions = field(default_factory=DetectionOptions)
    synthetic: SyntheticOptions = field(default_factory=SyntheticOptions)
    tested: Path | None = None

    def needed(self, step: str) -> Sequence[str]:
        """Return the paths that a step needs."""
        luna = self.collection is Collection.LUNA16
        return {
            Step.PREPARE: ("scans", *["annotations"] * luna, "store"),
            Step.CHECK: ("store", "pages"),
            Step.TRAIN: ("store", "model"),
            Step.EVALUATE: (*self.measure.inputs, "results"),
        }[Step(step)]

    @property
    def unfinished(self) -> bool:
        """Whether this run goes on with a training that was begun and not finished."""
        model = self.paths["model"]
        if Step.TRAIN not in self.steps or model is None:
            return False
        try:
            return training_folder(model).is_dir() and not model.exists()
        except OSError:  # a folder that cannot be read
            return False

    @property
    def pages(self) -> list[Path]:
        """The pictures that `check` drew of the store."""
        return pictures_in(self.paths["pages"], "page-*.png")

    def is_done(self, step: str) -> bool:
        """Whether the pictures were drawn before the training that goes on was interrupted."""
        return step == Step.CHECK and self.unfinished and bool(self.pages)

    def require_new(self) -> None:
        """Check that nothing exists that a later step would refuse to overwrite."""
        at = self.paths
        if Step.CHECK in self.steps and at["pages"] is not None and not self.is_done(Step.CHECK):
            refuse_existing(at["pages"], [page.name for page in self.pages])
        if Step.TRAIN in self.steps and at["model"] is not None:
            require_new_model(at["model"])
        results = at["results"]
        if Step.EVALUATE in self.steps and results is not None and results.is_dir():
            there = [
                one.name for one in results.iterdir() if one.suffix in (".json", ".csv", ".png")
            ]
            refuse_existing(results, there)

    def arguments(self, step: str) -> list[str | Path | None]:
        """Return the arguments of a step's command."""
        at, examples = self.paths, arguments_of(self.examples)
        if step == Step.CHECK:
            return ["check", at["store"], "-o", at["pages"]]
        if step == Step.TRAIN:
            return ["train", at["store"], "-o", at["model"], *arguments_of(self.plan)]
        if step == Step.EVALUATE:
            return ["evaluate", self.measure.value, *self._evaluation(at["results"] or Path())]
        if self.collection is Collection.LIDC_IDRI:
            options = arguments_of(self.lidc)
            return ["prepare-lidc", at["scans"], at["store"], *examples, *options]
        options = arguments_of(self.luna)
        return ["prepare-luna", at["scans"], at["annotations"], at["store"], *examples, *options]

    def _evaluation(self, results: Path) -> list[str | Path | None]:
        at = self.paths
        if self.measure is Measure.DICE:
            return [
                *(at["predicted"], at["truth"]),
                *("--json", results / "dice.json", "--csv", results / "dice.csv"),
                *arguments_of(self.dice),
            ]
        if self.measure is Measure.DETECTION:
            return [
                *("--submission", at["submission"], "--annotations", at["nodules"]),
                *("--seriesuids", at["series"], "--json", results / "detection.json"),
                *("--curve", results / "froc.csv", "--plot", results / "froc.png"),
                *("--nodules", results / "nodules.csv"),
                *arguments_of(self.detection),
            ]
        model = () if self.tested is None else ("--model", self.tested)
        return [at["scan"], "-o", results, *arguments_of(self.synthetic), *model]


OF_PRESET = {
    "epochs": "epochs",
    "steps": "steps",
    "batch": "batch",
    "filters": "filters",
    "learning_rate": "learningRate",
}
"""Numbers of `StoreTrainingPlan` by parameter; 0 stands for that of the preset."""


def chosen_run(parameters: SectionParameters, model: Path | None) -> TrainingRun:
    """Return the run of the parameters, with the paths that follow from the chosen ones.

    Args:
        parameters: with `TrainingParameters`.
        model: to be evaluated unless one is trained.
    """
    choice, options = parameters.values, parameters.options
    if choice is None:
        return TrainingRun((), dict.fromkeys(PATHS))
    plan = options(StoreTrainingPlan, preset=choice.preset)
    if plan.preset is not Preset.TUTORIAL:
        plan = replace(plan, tutorial_split=False)
    steps = [step for step in Step if choice.getValue(f"{step.value}Step")]
    chosen = {name: parameters.path(name) for name in PATHS}
    store = chosen["store"] or beside(chosen["scans"], "-store")
    models = beside(store, "-models")
    new_model = chosen["model"] or (models and models / f"{plan.preset}.keras")
    tested = new_model if Step.TRAIN in steps else model
    return TrainingRun(
        steps,
        {
            **chosen,
            "store": store,
            "pages": chosen["pages"] or beside(store, "-pages"),
            "model": new_model,
            "results": chosen["results"] or _results(choice.measure, chosen, tested),
        },
        choice.collection,
        options(ExampleChoice),
        options(LunaOptions),
        options(LidcOptions),
        plan,
        choice.measure,
        options(DiceOptions),
        options(DetectionOptions),
        options(SyntheticOptions),
        tested,
    )


def _results(measure: Measure, at: Mapping[str, Path | None], tested: Path | None) -> Path | None:
    """Return the folder for the results of an evaluation: beside its input, named after it."""
    end = f"-synthetic-{tested.stem if tested else ''}"
    return {
        Measure.DICE: beside(at["predicted"], "-dice"),
        Measure.DETECTION: beside(at["submission"], "-detection"),
        Measure.SYNTHETIC: beside(at["scan"], end),
    }[measure]
