"""The command `export-dicom`."""

from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption
from CTLungScreeningLib.progress import ProgressStyle, shown


def export_dicom(
    results: Annotated[Path, typer.Argument(help="Folder of a run on a DICOM series.")],
    labelmap: Annotated[
        bool, typer.Option("--labelmap", help="Write the SEG as LABELMAP instead of BINARY.")
    ] = False,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Add DICOM SEG, SR and key images to the results of a run, as `run --dicom` writes them.

    Example: `lung-nodule-seg export-dicom ~/results/chest`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.results.dicom_writing import write_dicom_of_run  # noqa: PLC0415
        from LungNoduleSegLib.results.names import DICOM_NAMES  # noqa: PLC0415

        write_dicom_of_run(results, report, labelmap)
        report.emit({"output": str(results)}, f"{' and '.join(DICOM_NAMES)} are in {results}")
