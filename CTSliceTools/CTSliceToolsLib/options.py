"""Options of the commands, which the panel shares; nothing here is slow to import."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from CTLungScreeningLib.options import MAX_SEED, Option, settle_choices


class Transfer(StrEnum):
    """Transfer of a file from the source to the destination."""

    COPY = "copy"
    LINK = "link"
    MOVE = "move"


@dataclass(frozen=True)
class OrganizeOptions:
    """Options of `organize`."""

    transfer: Annotated[
        Transfer,
        Option(
            "`link` makes hard links to the source; `move` removes each source file after its "
            "copy is complete."
        ),
    ] = Transfer.COPY
    pseudonymize: Annotated[
        bool,
        Option("Name folders by keyed hashes. The files and their headers are not changed."),
    ] = False
    key_file: Annotated[
        Path | None,
        Option(
            "Key of the hashes, made if missing; the same key gives the same names. Default: a "
            "file in the user's settings."
        ),
    ] = None


@dataclass(frozen=True)
class PartitionOptions:
    """Options of `partition`."""

    hard_links: Annotated[bool, Option("Link the files instead of copying, to save space.")] = False


class Backbone(StrEnum):
    """The network below the head: ours for CT, or one of those pretrained on photographs."""

    COMPACT = "compact"
    INCEPTION = "inception"
    XCEPTION = "xception"
    RESNET50 = "resnet50"
    VGG19 = "vgg19"

    def label(self) -> str:
        """Its name in a combo box of Slicer."""
        return self.value


@dataclass(frozen=True)
class LocalizerTrainingPlan:
    """Settings of the training of a localizer, kept in its model card.

    In the first stage a pretrained backbone is frozen, in the second nothing is. In each, the
    learning rate falls to a hundredth along a cosine.
    """

    backbone: Annotated[Backbone, Option("The network.")] = Backbone.COMPACT
    weights: Annotated[
        Path | None,
        Option(
            "Initial weights: a .keras file of a localizer with this backbone, or a .h5 file of "
            "the backbone; default: ImageNet, and random for compact."
        ),
    ] = None
    random: Annotated[bool, Option("Random initial weights, nothing frozen.")] = False
    epochs: Annotated[
        int, Option("Maximum number of epochs; a pretrained backbone is frozen.", 1)
    ] = 50
    fine_tune_epochs: Annotated[
        int, Option("Maximum number of epochs of a second stage, nothing frozen.", 0)
    ] = 0
    batch: Annotated[int, Option("Slices in a batch, over all GPUs.", 1)] = 32
    learning_rate: Annotated[float, Option("Initial rate of the first stage.", 0, 1)] = 1e-3
    fine_tune_rate: Annotated[float, Option("Initial rate of the second stage.", 0, 1)] = 1e-5
    patience: Annotated[int, Option("Epochs without improvement that end a stage.", 1)] = 10
    unlabelled: Annotated[
        Path | None,
        Option("Folder of scans without annotation, for training on slice order too."),
    ] = None
    augment: Annotated[bool, Option("Augment training slices.")] = True
    seed: Annotated[int, Option("Random seed.", 0, MAX_SEED)] = 1

    def __post_init__(self) -> None:
        settle_choices(self)
