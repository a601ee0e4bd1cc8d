"""The command `evaluate dice`."""

from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption
from CTLungScreeningLib.progress import ProgressStyle, shown


def dice(
    predicted: Annotated[
        Path,
        typer.Argument(help="Mask (NIfTI, NRRD, .seg.nrrd), folder of a run, or folder of these."),
    ],
    truth: Annotated[Path, typer.Argument(help="The true mask, or a folder with the same names.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="New JSON file for the means.")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="New CSV file for each slice, scan and nodule.")
    ] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="Bring predictions to the grid of the truth.")
    ] = False,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Compare predicted with true masks: mean Dice coefficient by slice, by scan and by nodule.

    Two .npy files of slices [n, 1, rows, columns] are compared as in the tutorial.

    Example: `lung-nodule-seg evaluate dice ~/results/chest truth.nrrd --json dice.json`
    """
    with shown(progress) as report:
        from CTLungScreeningLib.files import refuse_existing  # noqa: PLC0415
        from LungNoduleSegLib.evaluation import dice as masks  # noqa: PLC0415

        for path in (json_file, csv_file):
            if path is not None:
                refuse_existing(path.parent, [path.name])
        scans = masks.evaluate_dice(predicted, truth, resample, report)
        if json_file is not None:
            masks.write_json(json_file, scans)
        if csv_file is not None:
            masks.write_csv(csv_file, scans)
        report.emit(masks.summary(scans), masks.to_text(scans))
