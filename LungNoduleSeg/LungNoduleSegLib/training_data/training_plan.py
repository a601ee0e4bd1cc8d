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
    OURS = "ours"
    """Five slices at once, patches with and without nodules, inserted lesions, hard negatives."""

    def label(self) -> str:
        """Give its name as a combo box of Slicer shows it."""
        return self.value


@dataclass(frozen=True)
class ExampleChoice:
    """What becomes of an annotated scan.

    Attributes:
        neighbours: slices on either side of a nodule's central one that become examples too.
        largest_only: examples of the largest nodule of each scan only, as in the tutorial.
        lungs: how the lungs are found.
    """

    neighbours: int = 1
    largest_only: bool = False
    lungs: LungMethod = LungMethod.VOLUME


@dataclass(frozen=True)
class StoreTrainingPlan:
    """How a network is trained on a store; kept in its model card.

    Attributes:
        preset: the way.
        epochs: at most; of ours also half as many with hard negatives.
        batch: slices or patches in a batch, over all GPUs.
        learning_rate: at the start; ours falls to a hundredth along a cosine, and starts at half
            of it with hard negatives.
        filters: of the network's first level.
        patience: epochs without a better one that end a training; None goes on to the last.
        weights: file of an earlier training to start from.
        tutorial_split: a fifth of the slices for the test, not of the patients; tutorial only.
        seed: of everything random.
        steps: batches in an epoch of ours.
        patch: side of a patch in pixels, a multiple of 16; of ours.
        lesions: inserted into each scan each time it is prepared; of ours.
        hard_negatives: continue on false positives, and train a classifier to separate such
            places from nodules; of ours.
        classifier_steps: batches of the classifier's training.
        transplants: folder of real nodules that are put into the scans beside artificial lesions
            and those of the store that radiologists outlined, see `transplants.read_cubes`; of
            ours.
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
        """The preset, changed where a value is given that is not None."""
        plain: dict[str, Any] = (
            {"epochs": 20, "batch": 2, "learning_rate": 1e-5, "filters": 32}
            if preset is Preset.TUTORIAL
            else {"epochs": 30, "batch": 16, "learning_rate": 1e-3, "filters": 12, "patience": 10}
        )
        given = {name: value for name, value in changes.items() if value is not None}
        return cls(preset, **{**plain, **given})
