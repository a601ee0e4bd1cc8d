"""The command `normalize`."""

from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption, exit_if_failed
from CTLungScreeningLib.progress import ProgressStyle, shown


def normalize(
    dataset: Annotated[
        Path, typer.Argument(help="Folder with annotated DICOM series, in any nesting.")
    ],
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Give each slice of the annotated series its normalized location, by those annotated.

    Writes `normalized_locations.json` for each series and `combined_normalized_locations.json`
    for all of them; run it again after a change of the annotations. A series whose annotation
    cannot be used is named, and the others go on.

    Example: `ct-slice-tools normalize ~/dataset`
    """
    with shown(progress) as report:
        from CTSliceToolsLib.dataset import normalization  # noqa: PLC0415 - slow to import

        found = normalization.normalize(dataset, report)
        failures = [
            *(f"Series refused: {problem}" for problem in found.refused),
            *(f"Left out: {problem}" for problem in found.left_out),
        ]
        for failure in failures:
            report.warn(failure)
        output = dataset / normalization.COMBINED_LOCATIONS
        text = f"{len(found.locations)} slices of {found.series} series are in {output}."
        if found.refused:
            text += f"\n{len(found.refused)} series were refused, see above."
        report.emit(
            {
                "output": str(output),
                "series": found.series,
                "slices": len(found.locations),
                "refused": found.refused,
            },
            text,
        )
    exit_if_failed(found.refused, progress)
