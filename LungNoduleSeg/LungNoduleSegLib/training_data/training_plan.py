"""The settings of a training on a store; nothing here loads Keras."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from LungNoduleSegLib.lungs.labels import LungMethod


class Preset(StrEnum):
    """A training recipe."""

    TUTORIAL = "tutorial"
    """The U-Net of the Data Science Bowl tutorial on its examples, with Dice loss."""
    PATCHES = "patches"
    """Five slices at once, patches with and without nodules, inserted lesions, hard negatives."""
    OURS = PATCHES
    """Its name in scenes of earlier versions."""

    @classmethod
    def _missing_(cls, value: object) -> "Preset | None":
        return cls.PATCHES if value == "ours" else None

    def label(self) -> str:
        """Its name in a combo box of Slicer."""
        return self.value


@dataclass(frozen=True)
class ExampleChoice:
    """How an annotated scan is turned into training examples.

    Attributes:
        neighbours: slices on either side of a nodule's central slice that are examples too.
        largest_only: only the largest nodule of each scan, as in the tutorial.
        lungs: how the lungs are segmented.
    """

    neighbours: int = 1
    largest_only: bool = False
    lungs: LungMethod = LungMethod.VOLUME


@dataclass(frozen=True)
class StoreTrainingPlan:
    """Settings of a training on a store, kept in the model card.

    Attributes:
        preset: the recipe.
        epochs: maximum; the preset patches adds half as many with hard negatives.
        batch: slices or patches in a batch, over all GPUs.
        learning_rate: initial. The preset patches lowers it to a hundredth along a cosine, and
            starts at half of it with hard negatives.
        filters: of the network's first level.
        patience: epochs without improvement that end the training; None for no early stop.
        weights: file of an earlier training to start from.
        tutorial_split: hold out a fifth of the slices, not of the patients; tutorial only.
        seed: of all random numbers.
        steps: batches in an epoch; patches only, as are the next three and `transplants`.
        patch: side of a patch in pixels, a multiple of 16.
        lesions: inserted into a scan each time it is prepared.
        hard_negatives: continue on false positives, and train a classifier that separates them
            from nodules.
        classifier_steps: batches of the classifier's training.
        transplants: folder of real nodules that are inserted beside artificial lesions and the
            store's own outlined nodules, see `transplants.read_cubes`.
    """

    preset: Preset
    epochs: int
    batch: int
    learning_rate: float
    filters: int
    patience: int | None = None
    weights: Path | None = None
    tutorial_split: bool = False
    seed: int = 1
    steps: int = 100
    patch: int = 128
    lesions: int = 40
    hard_negatives: bool = True
    classifier_steps: int = 1600
    transplants: Path | None = None

    @classmethod
    def of(cls, preset: Preset, **changes: Any) -> "StoreTrainingPlan":
        """The preset with changes; a value of None keeps the preset's."""
        plain: dict[str, Any] = (
            {"epochs": 20, "batch": 2, "learning_rate": 1e-5, "filters": 32}
            if preset is Preset.TUTORIAL
            else {"epochs": 30, "batch": 16, "learning_rate": 1e-3, "filters": 12, "patience": 10}
        )
        chosen = {name: value for name, value in changes.items() if value is not None}
        return cls(preset, **{**plain, **chosen})
