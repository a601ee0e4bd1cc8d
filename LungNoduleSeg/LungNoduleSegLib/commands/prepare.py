"""The commands `prepare-luna` and `prepare-lidc`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption, exit_if_failed
from CTLungScreeningLib.progress import ProgressStyle, Reporter, shown
from LungNoduleSegLib.lungs.segmentation import LungMethod
from LungNoduleSegLib.training_data.training_plan import ExampleChoice

if TYPE_CHECKING:
    from LungNoduleSegLib.training_data.preparation import PreparationOutcome

OutputArgument = Annotated[
    Path, typer.Argument(help="Folder for the store; one made with the same options goes on.")
]
NeighboursOption = Annotated[
    int, typer.Option(min=0, help="Slices on either side of a nodule's centre, also examples.")
]
LargestOption = Annotated[
    bool, typer.Option("--largest-only", help="Only the largest nodule of a scan, as the tutorial.")
]
LungsOption = Annotated[LungMethod, typer.Option(help="How the lungs are found.")]
EmptyOption = Annotated[
    bool, typer.Option("--empty-scans", help="Keep scans without a nodule too, as negatives.")
]


def prepare_luna(
    luna_dir: Annotated[
        Path, typer.Argument(help="Folder with the .mhd files, named by series, in any nesting.")
    ],
    annotations: Annotated[
        Path, typer.Argument(help="CSV: seriesuid, coordX … coordZ (LPS mm), diameter_mm.")
    ],
    output: OutputArgument,
    neighbours: NeighboursOption = ExampleChoice.neighbours,
    largest_only: LargestOption = ExampleChoice.largest_only,
    tutorial_masks: Annotated[
        bool,
        typer.Option("--tutorial-masks", help="Spheres twice as large, as the tutorial has them."),
    ] = False,
    patients: Annotated[
        Path | None,
        typer.Option(help="CSV: seriesuid, patient_id; else each scan counts as a patient."),
    ] = None,
    lungs: LungsOption = ExampleChoice.lungs,
    empty_scans: EmptyOption = False,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Prepare LUNA16's scans and annotations for training: lungs, masks and slices with nodules.

    What fails is listed in errors.csv and stops nothing; started again, it goes on.

    Example: `lung-nodule-seg prepare-luna ~/luna16 ~/luna16/annotations.csv ~/store`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.training_data import luna16  # noqa: PLC0415 - slow to import

        outcome = luna16.prepare_luna(
            luna_dir,
            annotations,
            output,
            ExampleChoice(neighbours, largest_only, lungs),
            tutorial_masks=tutorial_masks,
            empty_scans=empty_scans,
            patients=patients,
            progress=report,
        )
        _emit(report, outcome, output)
    exit_if_failed(outcome.failed, progress)


def prepare_lidc(
    dicom_dir: Annotated[
        Path, typer.Argument(help="Folder with LIDC-IDRI's DICOM and XML files, in any nesting.")
    ],
    output: OutputArgument,
    agreement: Annotated[
        int,
        typer.Option(min=1, max=4, help="Of four radiologists, how many outlined a voxel."),
    ] = 3,
    neighbours: NeighboursOption = ExampleChoice.neighbours,
    largest_only: LargestOption = ExampleChoice.largest_only,
    lungs: LungsOption = ExampleChoice.lungs,
    empty_scans: EmptyOption = False,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Prepare LIDC-IDRI's scans and its radiologists' outlines and ratings for training.

    What fails is listed in errors.csv and stops nothing; started again, it goes on.

    Example: `lung-nodule-seg prepare-lidc ~/LIDC-IDRI ~/store --agreement 2`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.training_data import lidc_idri  # noqa: PLC0415 - slow to import

        outcome = lidc_idri.prepare_lidc(
            dicom_dir,
            output,
            agreement,
            ExampleChoice(neighbours, largest_only, lungs),
            empty_scans=empty_scans,
            progress=report,
        )
        _emit(report, outcome, output)
    exit_if_failed(outcome.failed, progress)


def _emit(report: Reporter, outcome: "PreparationOutcome", output: Path) -> None:
    lines = [f"Note: {scan}: {note}" for scan, notes in outcome.notes.items() for note in notes]
    lines += [f"Failed: {scan}: {text}" for scan, text in outcome.failed.items()]
    lines.append(
        f"{len(outcome.added)} scans added, {len(outcome.kept)} kept, {outcome.without} without a "
        f"nodule left out, {len(outcome.failed)} failed; {outcome.examples} examples are in "
        f"{output}"
    )
    report.emit(asdict(outcome) | {"output": str(output)}, "\n".join(lines))
