"""The command `evaluate synthetic`."""

from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption
from CTLungScreeningLib.progress import ProgressStyle, shown


def synthetic(
    source: Annotated[
        Path, typer.Argument(help="Chest CT that the model was not trained on, in any form.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results; nothing is overwritten.")
    ],
    model: Annotated[
        Path | None,
        typer.Option(help="A model: its .json card or a file beside it; default: bundled."),
    ] = None,
    nodules: Annotated[
        Path | None, typer.Option(help="Mask of the scan's own nodules, which are left out.")
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="Copies of the scan, each with 40 lesions of its own.")
    ] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Fixes all that is random.")] = 0,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Insert lesions of known sizes and types into a scan and report which of them are found.

    Writes the sensitivity by size and type, the FROC curve, pictures of the lesions and the files
    of a submission, which `evaluate detection` scores alike.

    Example: `lung-nodule-seg evaluate synthetic ~/dicom/chest -o ~/synthetic --nodules own.nrrd`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.default_model import DEFAULT_MODEL  # noqa: PLC0415
        from LungNoduleSegLib.evaluation import synthetic_lesions  # noqa: PLC0415 - slow to import

        result = synthetic_lesions.evaluate_synthetic_lesions(
            source,
            output,
            model_file=model or DEFAULT_MODEL,
            nodules=nodules,
            rounds=rounds,
            seed=seed,
            progress=report,
        )
        report.emit(
            result.to_dict() | {"output": str(output)},
            f"{synthetic_lesions.to_text(result)}\nTables, curves and pictures are in {output}",
        )
