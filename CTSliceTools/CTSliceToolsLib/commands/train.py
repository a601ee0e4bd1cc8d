"""The command `train`."""

from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption, emit_training
from CTLungScreeningLib.progress import ProgressStyle, shown
from CTSliceToolsLib.localizer.training_plan import Backbone, LocalizerTrainingPlan

_DEFAULT = LocalizerTrainingPlan()


def train(
    data: Annotated[
        Path, typer.Argument(help="Folder of `partition`, with training/ and validation/.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="New .keras file; its card is written beside it, the curves into NAME-training.",
        ),
    ],
    backbone: Annotated[Backbone, typer.Option(help="The network.")] = _DEFAULT.backbone,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Start from a .keras file of a localizer with this backbone, or a .h5 file of the "
            "backbone; default: from ImageNet, and compact at random."
        ),
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="Start at random, nothing frozen.")
    ] = _DEFAULT.random,
    epochs: Annotated[
        int, typer.Option(min=1, help="At most, with a pretrained backbone frozen.")
    ] = _DEFAULT.epochs,
    fine_tune_epochs: Annotated[
        int, typer.Option(min=0, help="At most, of a second stage with nothing frozen.")
    ] = _DEFAULT.fine_tune_epochs,
    batch: Annotated[int, typer.Option(min=1, help="Slices in a batch.")] = _DEFAULT.batch,
    learning_rate: Annotated[
        float, typer.Option(help="At the start of the first stage.")
    ] = _DEFAULT.learning_rate,
    fine_tune_rate: Annotated[
        float, typer.Option(help="At the start of the second.")
    ] = _DEFAULT.fine_tune_rate,
    patience: Annotated[
        int, typer.Option(min=1, help="Epochs without a gain that end a stage.")
    ] = _DEFAULT.patience,
    augment: Annotated[
        bool, typer.Option(help="Change training slices at random.")
    ] = _DEFAULT.augment,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = _DEFAULT.seed,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Train a localizer and keep the epoch that is best on the validation slices.

    Interrupted, it goes on after the last epoch when it is started again with the same options.

    Example: `ct-slice-tools train ~/parts -o ~/models/mine.keras --backbone resnet50`
    """
    plan = LocalizerTrainingPlan(
        backbone=backbone,
        weights=weights,
        random=random,
        epochs=epochs,
        fine_tune_epochs=fine_tune_epochs,
        batch=batch,
        learning_rate=learning_rate,
        fine_tune_rate=fine_tune_rate,
        patience=patience,
        augment=augment,
        seed=seed,
    )
    with shown(progress) as report:
        from CTSliceToolsLib.localizer import training  # noqa: PLC0415 - slow to import

        result = training.train(data, output, plan, report, lambda epoch: report.write(epoch=epoch))
        emit_training(
            report,
            result,
            f"Epoch {result.best['epoch']:.0f} of {len(result.epochs)} was the best: mean error "
            f"{result.best['val_error']:.4f} of the location on the validation slices.",
        )
