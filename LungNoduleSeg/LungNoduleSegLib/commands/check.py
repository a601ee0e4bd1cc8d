"""The command `check`."""

from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption
from CTLungScreeningLib.progress import ProgressStyle, shown


def check(
    store: Annotated[Path, typer.Argument(help="Folder of prepare-luna or prepare-lidc.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the pages; nothing is overwritten.")
    ],
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Draw each example of a store: slice, mask, masked slice, close-up and prepared slice.

    Example: `lung-nodule-seg check ~/store -o ~/pages`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.training_data.pictures import draw_pages  # noqa: PLC0415 - slow to import

        pages = draw_pages(store, output, report)
        report.emit(
            {"pages": [str(page) for page in pages]},
            f"{len(pages)} page{'s' * (len(pages) != 1)}: look at {pages[0]}",
        )
