"""The command `train`."""

from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption, emit_training
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressStyle, shown
from LungNoduleSegLib.training_data.training_plan import Preset, StoreTrainingPlan


def train(
    store: Annotated[Path, typer.Argument(help="Folder of prepare-luna or prepare-lidc.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="New .keras file; its card is written beside it, the curves into NAME-training.",
        ),
    ],
    preset: Annotated[
        Preset, typer.Option(help="The `tutorial`'s U-Net, Dice loss and slices, or `ours`.")
    ] = Preset.OURS,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most; 20, ours 30.")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Slices or patches in a batch; 2, ours 16.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="At the start; 1e-5, ours 1e-3, which falls.")
    ] = None,
    filters: Annotated[
        int | None, typer.Option(min=1, help="Of the network's first level; 32, ours 12.")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs without a gain that end a training; none, ours 10."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Batches an epoch; ours, 100.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Start from a .keras or .h5 file of the same network.")
    ] = None,
    tutorial_split: Annotated[
        bool, typer.Option("--tutorial-split", help="Hold out slices, not patients; tutorial.")
    ] = False,
    hard_negatives: Annotated[
        bool,
        typer.Option(help="Go on where it was mistaken, and train a classifier on that; ours."),
    ] = True,
    transplants: Annotated[
        Path | None,
        typer.Option(help="Folder with image/ and mask/ of real nodules to transplant; ours."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 1,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Train a U-Net on a store and keep the epoch that is best on the held-out patients.

    An interrupted training continues after its last epoch when started again with the same options.

    Example: `lung-nodule-seg train ~/store -o ~/models/mine.keras`
    """
    if tutorial_split and preset is not Preset.TUTORIAL:
        raise InputError("--tutorial-split is for --preset tutorial: ours is split by patient.")
    plan = StoreTrainingPlan.of(
        preset,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        filters=filters,
        patience=patience,
        steps=steps,
        weights=weights,
        tutorial_split=tutorial_split,
        hard_negatives=hard_negatives,
        transplants=transplants,
        seed=seed,
    )
    with shown(progress) as report:
        from LungNoduleSegLib.training_data import training  # noqa: PLC0415 - slow to import

        result = training.train_on_store(
            store,
            output,
            plan,
            progress=report,
            on_epoch=lambda epoch: report.write(epoch=epoch),
        )
        emit_training(
            report,
            result,
            f"Of {len(result.epochs)} epochs the best has a Dice of "
            f"{result.best['val_dice_coefficient']:.3f} on what was held out.",
        )
