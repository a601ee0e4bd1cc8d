"""The settings of a training; nothing here loads Keras."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Backbone(StrEnum):
    """The network below the head: ours for CT, or one of those pretrained on photographs."""

    COMPACT = "compact"
    INCEPTION = "inception"
    XCEPTION = "xception"
    RESNET50 = "resnet50"
    VGG19 = "vgg19"

    def label(self) -> str:
        """Give its name as a combo box of Slicer shows it."""
        return self.value


@dataclass(frozen=True)
class LocalizerTrainingPlan:
    """How a localizer is trained; kept in its model card.

    Attributes:
        backbone: the network.
        weights: file with pretrained weights, see `backbones.build_localizer`; None takes those of
            ImageNet where there are any.
        random: start the backbone at random instead.
        epochs: at most, of the first stage, in which a pretrained backbone is frozen.
        fine_tune_epochs: at most, of a second stage in which everything is trained; 0 leaves it
            out.
        batch: slices in a batch, over all GPUs.
        learning_rate: at the start of the first stage; it falls to a hundredth along a cosine.
        fine_tune_rate: the same of the second stage.
        patience: epochs without a better validation loss that end a stage.
        unlabelled: folder of scans without annotation that the order and the distances of their
            slices are learnt from as well.
        augment: whether training slices are changed at random.
        seed: of everything random.
    """

    backbone: Backbone = Backbone.COMPACT
    weights: Path | None = None
    random: bool = False
    epochs: int = 50
    fine_tune_epochs: int = 0
    batch: int = 32
    learning_rate: float = 1e-3
    fine_tune_rate: float = 1e-5
    patience: int = 10
    unlabelled: Path | None = None
    augment: bool = True
    seed: int = 1
