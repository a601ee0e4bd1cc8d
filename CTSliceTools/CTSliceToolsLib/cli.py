"""The command `ct-slice-tools`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption, new_app, run_app
from CTLungScreeningLib.progress import ProgressStyle, shown
from CTSliceToolsLib.commands.dataset import annotate, convert, normalize, organize, partition
from CTSliceToolsLib.commands.localizer import align, evaluate, match, predict, train

app = new_app("CT slices: organize DICOM files and locate slices in the body.")


@app.command()
def series(
    folder: Annotated[Path, typer.Argument(help="Folder with DICOM files, in any nesting.")],
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """List the image series in a folder, starting with the one that would be read.

    Example: `ct-slice-tools series ~/dicom`
    """
    with shown(progress) as report:
        from CTLungScreeningLib.reading.dicom_series import (  # noqa: PLC0415 - slow to import
            format_series,
            list_series,
        )

        found = list_series(folder, report)
        report.emit(list(map(asdict, found)), format_series(found))


app.command()(organize)
app.command()(annotate)
app.command()(normalize)
app.command()(convert)
app.command()(partition)
app.command()(predict)
app.command()(match)
app.command()(align)
app.command()(train)
app.command()(evaluate)


def main() -> None:
    """Run the command line."""
    run_app(app)
