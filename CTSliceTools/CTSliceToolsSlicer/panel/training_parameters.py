"""Scene parameters of the section Dataset and training."""

from typing import Annotated, Any

from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from CTSliceToolsLib.localizer.training_plan import Backbone, LocalizerTrainingPlan

PROPERTY = "TrainingParameter"
"""Dynamic property of the .ui file that names the parameter of a widget."""

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
