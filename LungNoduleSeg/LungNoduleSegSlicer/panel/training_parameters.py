"""Scene parameters of the section Training."""

from enum import Enum
from typing import Annotated, Any

from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from LungNoduleSegLib.training_data.training_plan import ExampleChoice, Preset

PROPERTY = "TrainingParameter"
"""Dynamic property of the .ui file that names the parameter of a widget."""

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
    INSERTED = "inserted"

    def label(self) -> str:
        """Its name for the box that chooses it."""
        return {
            Measure.DICE: _("Masks (Dice)"),
            Measure.DETECTION: _("Detections (FROC, as in LUNA16)"),
            Measure.INSERTED: _("Model on synthetic lesions"),
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
    preset: Preset = Preset.OURS
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
