"""The command `partition`."""

from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption, exit_if_failed
from CTLungScreeningLib.progress import ProgressStyle, shown


def partition(
    source: Annotated[Path, typer.Argument(help="Folder that `convert` wrote.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the three parts; nothing is lost.")
    ],
    hard_links: Annotated[
        bool, typer.Option("--hard-links", help="Link the files in place of copies: takes no room.")
    ] = False,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Sort the slices into `training`, `validation` and `testing`, whole series together.

    About 70, 20 and 10 % of the series, by the SHA-256 of the Series Instance UID; the same series
    comes into the same part at any time. Files that are there are kept.

    Example: `ct-slice-tools partition ~/npz -o ~/parts`
    """
    with shown(progress) as report:
        from CTSliceToolsLib.dataset import partition as parts  # noqa: PLC0415 - slow to import

        found = parts.partition(source, output, hard_links, report)
        for problem in found.failed:
            report.warn(f"Not sorted: {problem}")
        notes = []
        if empty := [part for part in parts.Part if not found.slices[part]]:
            notes = [f"nothing came into {' and '.join(empty)}: there are too few series."]
        report.emit(
            {
                "output": str(output),
                "slices": found.slices,
                "series": found.series,
                "kept": found.kept,
                "failed": found.failed,
            },
            "\n".join(
                f"{part:<12}{found.slices[part]:>8} slices of {found.series[part]} series"
                for part in parts.Part
            ),
            notes,
        )
    exit_if_failed(found.failed, progress)
