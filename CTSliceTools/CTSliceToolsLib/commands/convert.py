"""The command `convert`."""

from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption, exit_if_failed
from CTLungScreeningLib.progress import ProgressStyle, shown


def convert(
    dataset: Annotated[Path, typer.Argument(help="Folder on which `normalize` was run.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the files; nothing is overwritten.")
    ],
    three_channels: Annotated[
        bool, typer.Option("--three-channels", help="Store each picture three times, as RGB.")
    ] = False,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Make an `.npz` file for training of each slice that has a normalized location.

    It holds `pixels`, 256 × 256 of 2 mm, −1000 to 600 HU as 0 to 255; `norm_loc`; and
    `series_instance_UID`. Files that are there are kept: started again, it goes on where it ended.

    Example: `ct-slice-tools convert ~/dataset -o ~/npz`
    """
    with shown(progress) as report:
        from CTSliceToolsLib.dataset import conversion  # noqa: PLC0415 - slow to import

        found = conversion.convert(dataset, output, three_channels, report)
        for problem in found.failed:
            report.warn(f"Not converted: {problem}")
        report.emit(
            {
                "output": str(output),
                "made": found.made,
                "kept": found.kept,
                "failed": found.failed,
            },
            f"{found.made} files made in {output}, {found.kept} were there, "
            f"{len(found.failed)} could not be converted.",
        )
    exit_if_failed(found.failed, progress)
