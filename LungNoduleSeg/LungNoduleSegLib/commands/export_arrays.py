"""The command `export-arrays`."""

from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption
from CTLungScreeningLib.progress import ProgressStyle, shown


def export_arrays(
    store: Annotated[Path, typer.Argument(help="Folder of prepare-luna or prepare-lidc.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the files; nothing is overwritten.")
    ],
    tutorial_split: Annotated[
        bool,
        typer.Option("--tutorial-split", help="Test on a fifth of the slices, not of patients."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the split and the order.")] = 1,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Write a store as the tutorial's trainImages, trainMasks, testImages and testMasks .npy.

    Each is float32 [n, 1, 512, 512]; a fifth of the patients is for the test.

    Example: `lung-nodule-seg export-arrays ~/store -o ~/arrays`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.training_data import arrays  # noqa: PLC0415 - slow to import

        split = arrays.export_arrays(store, output, seed, tutorial_split, report)
        counts = {"training": len(split.training), "test": len(split.test)}
        report.emit(
            counts | {"output": str(output)},
            f"{counts['training']} slices for training and {counts['test']} for the test are in "
            f"{output}",
        )
