"""The command `annotate`."""

from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption
from CTLungScreeningLib.progress import ProgressStyle, shown


def annotate(
    series: Annotated[Path, typer.Argument(help="Folder of one DICOM series.")],
    heights: Annotated[Path, typer.Argument(help="JSON file of `predict` for that series.")],
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Turn predicted landmarks of a series into its annotation, to be checked by a person.

    Writes `annotation.json` into the folder: for each landmark the nearest slice. Any JSON file
    with `{"landmarks": {"C7": {"z_mm": -30.0}}}` will do.

    Example: `ct-slice-tools annotate ~/dataset/P1/study/series ~/results/P1.json`
    """
    with shown(progress) as report:
        from CTSliceToolsLib.dataset.annotation import annotate_series  # noqa: PLC0415 - slow

        annotation = annotate_series(series, heights)
        lines = [
            f"{landmark:<24}{name:<20} {annotation.z_mm[landmark]:>9.1f} mm"
            for landmark, name in annotation.slices.items()
        ]
        report.emit({"slices": dict(annotation.slices)}, "\n".join(lines))
