"""The commands that prepare training data and train on it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption, emit_training, exit_if_failed
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressStyle, Reporter, shown
from LungNoduleSegLib.lungs.segmentation import LungMethod
from LungNoduleSegLib.training_data.training_plan import ExampleChoice, Preset, StoreTrainingPlan

if TYPE_CHECKING:
    from LungNoduleSegLib.training_data.preparation import PreparationOutcome


OutputArgument = Annotated[
    Path, typer.Argument(help="Folder for the store; one with the same options is continued.")
]
NeighboursOption = Annotated[
    int, typer.Option(min=0, help="Further slices on either side of a nodule's central slice.")
]
LargestOption = Annotated[
    bool, typer.Option("--largest-only", help="Only the largest nodule, as in the tutorial.")
]
LungsOption = Annotated[
    LungMethod, typer.Option(case_sensitive=False, help="Method of lung segmentation.")
]
EmptyOption = Annotated[
    bool, typer.Option("--empty-scans", help="Keep scans without nodules, as negatives.")
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
        typer.Option("--tutorial-masks", help="Spheres twice as large, as in the tutorial."),
    ] = False,
    patients: Annotated[
        Path | None,
        typer.Option(help="CSV: seriesuid, patient_id; default: each scan is a patient."),
    ] = None,
    lungs: LungsOption = ExampleChoice.lungs,
    empty_scans: EmptyOption = False,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Prepare LUNA16's scans and annotations for training: lungs, masks and slices with nodules.

    Failures are listed in errors.csv. Started again, it continues.

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
    exit_if_failed(outcome.failed)


def prepare_lidc(
    dicom_dir: Annotated[
        Path, typer.Argument(help="Folder with LIDC-IDRI's DICOM and XML files, in any nesting.")
    ],
    output: OutputArgument,
    agreement: Annotated[
        int,
        typer.Option(min=1, max=4, help="Radiologists, of four, that must have outlined a voxel."),
    ] = 3,
    neighbours: NeighboursOption = ExampleChoice.neighbours,
    largest_only: LargestOption = ExampleChoice.largest_only,
    lungs: LungsOption = ExampleChoice.lungs,
    empty_scans: EmptyOption = False,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Prepare LIDC-IDRI's scans, outlines and ratings for training.

    Failures are listed in errors.csv. Started again, it continues.

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
    exit_if_failed(outcome.failed)


def _emit(report: Reporter, outcome: "PreparationOutcome", output: Path) -> None:
    lines = [f"Note: {scan}: {note}" for scan, notes in outcome.notes.items() for note in notes]
    lines += [f"Failed: {scan}: {text}" for scan, text in outcome.failed.items()]
    lines.append(
        f"{len(outcome.added)} scans added, {len(outcome.kept)} kept, {outcome.without} without a "
        f"nodule left out, {len(outcome.failed)} failed; {outcome.examples} examples are in "
        f"{output}"
    )
    report.emit(asdict(outcome) | {"output": str(output)}, "\n".join(lines))


def export_arrays(
    store: Annotated[Path, typer.Argument(help="Folder of prepare-luna or prepare-lidc.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the files; nothing is overwritten.")
    ],
    tutorial_split: Annotated[
        bool,
        typer.Option("--tutorial-split", help="Hold out slices instead of patients."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the split and the order.")] = 1,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Export a store as the tutorial's trainImages, trainMasks, testImages and testMasks .npy.

    Each is float32 [n, 1, 512, 512]; a fifth of the patients is held out.

    Example: `lung-nodule-seg export-arrays ~/store -o ~/arrays`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.training_data import store as arrays  # noqa: PLC0415 - slow to import

        split = arrays.export_arrays(store, output, seed, tutorial_split, report)
        counts = {"training": len(split.training), "test": len(split.test)}
        report.emit(
            counts | {"output": str(output)},
            f"{counts['training']} slices for training and {counts['test']} for the test are in "
            f"{output}",
        )


def _preset(text: str) -> Preset:
    try:
        return Preset(text.lower())
    except ValueError:
        raise typer.BadParameter(f"choose one of {', '.join(Preset)}") from None


def train(
    store: Annotated[Path, typer.Argument(help="Folder of prepare-luna or prepare-lidc.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="New .keras file; its card is written beside it, the curves to NAME-training.",
        ),
    ],
    preset: Annotated[
        Preset,
        typer.Option(
            parser=_preset,
            metavar=f"[{'|'.join(Preset)}]",
            help="The `tutorial`'s U-Net, Dice loss and slices, or training on `patches`.",
        ),
    ] = Preset.PATCHES,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Maximum; tutorial 20, patches 30.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Slices or patches in a batch; tutorial 2, patches 16."),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Initial; tutorial 1e-5, patches 1e-3, falling.")
    ] = None,
    filters: Annotated[
        int | None,
        typer.Option(min=1, help="Of the network's first level; tutorial 32, patches 12."),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Epochs without improvement that end the training; tutorial none, patches 10.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Batches in an epoch; patches only, 100.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Start from a .keras or .h5 file of the same network.")
    ] = None,
    tutorial_split: Annotated[
        bool, typer.Option("--tutorial-split", help="Hold out slices, not patients; tutorial only.")
    ] = False,
    hard_negatives: Annotated[
        bool,
        typer.Option(
            help="Continue on false positives, and train a classifier on them; patches only."
        ),
    ] = True,
    transplants: Annotated[
        Path | None,
        typer.Option(help="Folder with image/ and mask/ of real nodules to insert; patches only."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all random numbers.")] = 1,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Train a U-Net on a store and keep the best epoch on the held-out patients.

    Started again with the same options, an interrupted training continues after its last epoch.

    Example: `lung-nodule-seg train ~/store -o ~/models/mine.keras`
    """
    if tutorial_split and preset is not Preset.TUTORIAL:
        raise InputError("--tutorial-split is for --preset tutorial: patches are split by patient.")
    plan = StoreTrainingPlan.of(
        preset,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        filters=filters,
        patience=patience,
        steps=steps,
        weights=weights,
        tutorial_split=tutorial_split,
        hard_negatives=hard_negatives,
        transplants=transplants,
        seed=seed,
    )
    with shown(progress) as report:
        from LungNoduleSegLib.training_data import training  # noqa: PLC0415 - slow to import

        result = training.train_on_store(
            store,
            output,
            plan,
            progress=report,
            on_epoch=lambda epoch: report.write(epoch=epoch),
        )
        emit_training(
            report,
            result,
            f"The best of {len(result.epochs)} epochs has a Dice of "
            f"{result.best['val_dice_coefficient']:.3f} on held-out data.",
        )
