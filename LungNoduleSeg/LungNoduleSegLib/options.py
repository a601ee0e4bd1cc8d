"""Options of the commands, which the panel shares, and the models of the package."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.options import MAX_SEED, Option, choice_of, settle_choices
from LungNoduleSegLib.lungs.labels import LungMethod

_MODELS = Path(__file__).parent / "Resources" / "Models"

DEFAULT_MODEL = _MODELS / "nodule-unet.onnx"
"""Finds nodules."""

SUSPICION_MODEL = _MODELS / "nodule-suspicion.ubj"
"""Rates how suspicious a nodule is, as radiologists do."""

KEEP_ALL = dict.fromkeys(
    ("min_probability", "min_diameter_mm", "min_lung_fraction", "max_elongation")
)
"""Fields of `NoduleRules` without which every finding is kept."""


@dataclass(frozen=True)
class RunOptions:
    """Settings of a run, for `run`, `batch` and the panel."""

    lungs: Annotated[
        LungMethod, Option("Method of lung segmentation; the last two are separate programs.")
    ] = LungMethod.VOLUME
    model: Annotated[
        Path | None,
        Option("A model's name, see `models list`, or one of its files; default: bundled."),
    ] = None
    threshold: Annotated[
        float | None, Option("Probability of a nodule's voxels; default: the model's.", 0, 1)
    ] = None
    keep_all: Annotated[
        bool, Option("Keep uncertain, small, tubular and extrapulmonary findings.")
    ] = False
    device: Annotated[
        Device | None, Option("Device for the networks; default: a GPU if available.")
    ] = None

    def __post_init__(self) -> None:
        settle_choices(self)

    @property
    def rules(self) -> dict[str, float | None]:
        """The fields of `NoduleRules` that override the model's card."""
        rules: dict[str, float | None] = {}
        if self.threshold is not None:
            rules["threshold"] = self.threshold
        return rules | KEEP_ALL if self.keep_all else rules


BUNDLED = RunOptions()
"""The bundled model and lung segmentation."""


@dataclass(frozen=True)
class OutputOptions:
    """Further files of a run, for `run` and the panel."""

    dicom: Annotated[bool, Option("Also write DICOM SEG and SR; needs a DICOM series.")] = False
    probability: Annotated[bool, Option("Also write probability.nrrd for other thresholds.")] = (
        False
    )
    masks: Annotated[bool, Option("Also write masks.npz, which Slicer loads at once.")] = False


@dataclass(frozen=True)
class BatchOptions:
    """Options of `batch` besides those of each run."""

    workers: Annotated[
        int | None, Option("Parallel scans; default: as memory and cores allow.", 1)
    ] = None
    scheduler: Annotated[
        str | None, Option("Address of your Dask scheduler, such as tcp://host:8786.")
    ] = None


@dataclass(frozen=True)
class DiceOptions:
    """Options of `evaluate dice`."""

    resample: Annotated[bool, Option("Resample predictions to the grid of the truth.")] = False


@dataclass(frozen=True)
class DetectionOptions:
    """Options of `evaluate detection`."""

    excluded: Annotated[Path | None, Option("CSV of findings to ignore, in the same format.")] = (
        None
    )
    max_marks: Annotated[
        int, Option("Most probable marks per scan that count, as in the challenge; 0: all.", 0)
    ] = 100
    resamples: Annotated[int, Option("Resamples for the confidence band; 0: none.", 0)] = 1000
    seed: Annotated[int, Option("Random seed of the resamples.", 0, MAX_SEED)] = 0


@dataclass(frozen=True)
class SyntheticOptions:
    """Options of `evaluate synthetic`."""

    nodules: Annotated[
        Path | None, Option("Mask of the scan's own nodules, which are ignored.")
    ] = None
    rounds: Annotated[int, Option("Copies of the scan, each with 40 lesions.", 1, 100)] = 3
    seed: Annotated[int, Option("Random seed.", 0, MAX_SEED)] = 0


class Preset(StrEnum):
    """A training recipe."""

    TUTORIAL = "tutorial"
    """The U-Net of the Data Science Bowl tutorial on its examples, with Dice loss."""
    PATCHES = "patches"
    """Five slices at once, patches with and without nodules, inserted lesions, hard negatives."""

    def label(self) -> str:
        """Its name in a combo box of Slicer."""
        return self.value


@dataclass(frozen=True)
class ExampleChoice:
    """Selection of training examples from an annotated scan."""

    neighbours: Annotated[
        int, Option("Further slices on either side of a nodule's central slice.", 0, 100)
    ] = 1
    largest_only: Annotated[bool, Option("Only the largest nodule, as in the tutorial.")] = False
    lungs: Annotated[LungMethod, Option("Method of lung segmentation.")] = LungMethod.VOLUME

    def __post_init__(self) -> None:
        settle_choices(self)


@dataclass(frozen=True)
class PreparationOptions:
    """Further options of the preparation of any collection."""

    empty_scans: Annotated[bool, Option("Keep scans without nodules, as negatives.")] = False


@dataclass(frozen=True)
class LunaOptions(PreparationOptions):
    """Options of the preparation of LUNA16."""

    tutorial_masks: Annotated[bool, Option("Spheres twice as large, as in the tutorial.")] = False
    patients: Annotated[
        Path | None, Option("CSV: seriesuid, patient_id; a scan not in it is a patient.")
    ] = None


@dataclass(frozen=True)
class LidcOptions(PreparationOptions):
    """Options of the preparation of LIDC-IDRI."""

    agreement: Annotated[
        int, Option("Radiologists, of four, that must have outlined a voxel.", 1, 4)
    ] = 3


@dataclass(frozen=True)
class StoreTrainingPlan:
    """Settings of a training on a store, kept in the model card.

    The preset `patches` adds half as many epochs with hard negatives. It lowers the learning rate
    to a hundredth along a cosine, and starts at half of it with hard negatives.

    Attributes:
        preset: the recipe.
        patience: None for no early stop.
        patch: side of a patch in pixels, a multiple of 16.
        lesions: inserted into a scan each time it is prepared.
        classifier_steps: batches of the classifier's training.
        transplants: inserted beside artificial lesions and the store's own outlined nodules, see
            `transplants.read_cubes`.
    """

    preset: Annotated[
        Preset,
        Option(
            "The `tutorial`'s U-Net, Dice loss and slices, or training on `patches`, the default."
        ),
    ]
    epochs: Annotated[int, Option("Maximum number of epochs; tutorial 20, patches 30.", 1)]
    batch: Annotated[
        int, Option("Slices or patches in a batch, over all GPUs; tutorial 2, patches 16.", 1)
    ]
    learning_rate: Annotated[
        float, Option("Initial rate; tutorial 1e-5, patches 1e-3, falling.", 0, 1)
    ]
    filters: Annotated[int, Option("Filters in the first level; tutorial 32, patches 12.", 1, 1024)]
    patience: Annotated[
        int | None,
        Option("Epochs without improvement that end the training; tutorial none, patches 10.", 1),
    ] = None
    weights: Annotated[
        Path | None, Option("Start from a .keras or .h5 file of the same network.")
    ] = None
    tutorial_split: Annotated[bool, Option("Hold out slices, not patients; tutorial only.")] = False
    seed: Annotated[int, Option("Random seed.", 0, MAX_SEED)] = 1
    steps: Annotated[int, Option("Batches in an epoch; patches only.", 1)] = 100
    patch: int = 128
    lesions: int = 40
    hard_negatives: Annotated[
        bool,
        Option("Continue on false positives, and train a classifier on them; patches only."),
    ] = True
    classifier_steps: int = 1600
    transplants: Annotated[
        Path | None,
        Option("Folder with image/ and mask/ of real nodules to insert; patches only."),
    ] = None

    def __post_init__(self) -> None:
        settle_choices(self)

    @classmethod
    def of(cls, preset: Preset | None = None, **changes: Any) -> "StoreTrainingPlan":
        """Return a preset, `PATCHES` by default, with changes; None keeps the preset's value."""
        preset = choice_of(Preset, preset or Preset.PATCHES, "preset")
        plain: dict[str, Any] = (
            {"epochs": 20, "batch": 2, "learning_rate": 1e-5, "filters": 32}
            if preset is Preset.TUTORIAL
            else {"epochs": 30, "batch": 16, "learning_rate": 1e-3, "filters": 12, "patience": 10}
        )
        chosen = {name: value for name, value in changes.items() if value is not None}
        return cls(preset, **{**plain, **chosen})


CLASSES = ("No Cancer", "Cancer")
"""Names of the labels 0 and 1."""


class Weighting(StrEnum):
    """Weight of scans with cancer in XGBoost."""

    TUTORIAL = "tutorial"
    BALANCED = "balanced"
    NONE = "none"


@dataclass(frozen=True)
class RiskTrainingPlan:
    """Settings of the training of classifiers.

    Attributes:
        weighting: 3 as in the tutorial, scans without cancer over scans with cancer, or none.
        xgboost: further parameters of XGBoost, of single `gbtree` trees whose nodes are not pruned;
            none in the tutorial.
        unit: name of a table row, for the report.
        classes: names of the labels 0 and 1, for the report.
    """

    folds: Annotated[int, Option("Folds of the cross-validation by patient.")] = 3
    seed: Annotated[int, Option("Random seed of folds, trees, shuffles.", 0, MAX_SEED)] = 0
    weighting: Weighting = Weighting.TUTORIAL
    xgboost: Mapping[str, Any] = field(default_factory=dict)
    unit: str = "scan"
    classes: tuple[str, str] = CLASSES

    def __post_init__(self) -> None:
        settle_choices(self)
