"""The commands that prepare training data, train on it, and manage models."""

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from CTLungScreeningLib.command_line import (
    NewModel,
    ProgressOption,
    emit_training,
    exit_if_failed,
    with_options,
)
from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.model_card import convert_model
from CTLungScreeningLib.options import MAX_SEED
from CTLungScreeningLib.progress import ProgressStyle, Reporter, shown
from LungNoduleSegLib.options import (
    ExampleChoice,
    LidcOptions,
    LunaOptions,
    Preset,
    StoreTrainingPlan,
)

if TYPE_CHECKING:
    from LungNoduleSegLib.training_data.preparation import PreparationOutcome


OutputArgument = Annotated[
    Path, typer.Argument(help="Folder for the store; one with the same options is continued.")
]


@with_options
def prepare_luna(
    luna_dir: Annotated[
        Path, typer.Argument(help="Folder with the .mhd files, named by series, in any nesting.")
    ],
    annotations: Annotated[
        Path, typer.Argument(help="CSV: seriesuid, coordX … coordZ (LPS mm), diameter_mm.")
    ],
    output: OutputArgument,
    choice: ExampleChoice,
    options: LunaOptions,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Prepare LUNA16's scans and annotations for training: lungs, masks and slices with nodules.

    Failures are listed in errors.csv. Started again, it continues.

    Example: `lung-nodule-seg prepare-luna ~/luna16 ~/luna16/annotations.csv ~/store`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.training_data import luna16  # noqa: PLC0415 - slow to import

        outcome = luna16.prepare_luna(
            luna_dir, annotations, output, choice, **vars(options), progress=report
        )
        _emit(report, outcome, output)
    exit_if_failed(outcome.failed)


@with_options
def prepare_lidc(
    dicom_dir: Annotated[
        Path, typer.Argument(help="Folder with LIDC-IDRI's DICOM and XML files, in any nesting.")
    ],
    output: OutputArgument,
    choice: ExampleChoice,
    options: LidcOptions,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Prepare LIDC-IDRI's scans, outlines and ratings for training.

    Failures are listed in errors.csv. Started again, it continues.

    Example: `lung-nodule-seg prepare-lidc ~/LIDC-IDRI ~/store --agreement 2`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.training_data import lidc_idri  # noqa: PLC0415 - slow to import

        outcome = lidc_idri.prepare_lidc(
            dicom_dir, output, choice=choice, **vars(options), progress=report
        )
        _emit(report, outcome, output)
    exit_if_failed(outcome.failed)


def _emit(report: Reporter, outcome: "PreparationOutcome", output: Path) -> None:
    lines = [f"Note: {scan}: {note}" for scan, notes in outcome.notes.items() for note in notes]
    lines += [f"Failed: {scan}: {text}" for scan, text in outcome.failed.items()]
    lines.append(
        f"{counted(len(outcome.added), 'scan')} added, {len(outcome.kept)} kept, "
        f"{outcome.without} without a nodule left out, {len(outcome.failed)} failed; "
        f"{counted(outcome.examples, 'example')} now in {output}"
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
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Random seed for the split and order.")
    ] = 1,
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
            f"{counted(counts['training'], 'slice')} for training and {counts['test']} for the "
            f"test written to {output}",
        )


@with_options
def train(
    store: Annotated[Path, typer.Argument(help="Folder of prepare-luna or prepare-lidc.")],
    output: NewModel,
    plan: StoreTrainingPlan,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Train a U-Net on a store and keep the best epoch on the held-out patients.

    Started again with the same options, an interrupted training continues after its last epoch.

    Example: `lung-nodule-seg train ~/store -o ~/models/mine.keras`
    """
    if plan.tutorial_split and plan.preset is not Preset.TUTORIAL:
        raise InputError("--tutorial-split is for --preset tutorial: patches are split by patient.")
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
            f"Epoch {result.best['epoch']:.0f} of {len(result.epochs)}, the best of the last "
            f"stage, has a Dice of {result.best['val_dice_coefficient']:.3f} on held-out data.",
        )


models = typer.Typer(
    help="Models that find nodules: list, add, check, remove or convert them.",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(help="A name listed by `list`.")]


@models.command("list")
def list_models() -> None:
    """List the available models.

    Example: `lung-nodule-seg models list`
    """
    from LungNoduleSegLib.detectors.models import find_card, model_names  # noqa: PLC0415 - slow

    for name in model_names():
        try:
            print(f"{name}: {find_card(Path(name)).summary}")
        except InputError as error:
            print(f"{name} cannot be used: {error}")


@models.command()
def add(
    file: Annotated[Path, typer.Argument(help="The model's .zip file, with its model.json.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Agree to the program of a model of kind `command`.")
    ] = False,
) -> None:
    """Add a model from its zip file; one that runs a program needs your agreement.

    Example: `lung-nodule-seg models add ~/Downloads/model.zip`
    """
    from LungNoduleSegLib.detectors.models import (  # noqa: PLC0415 to import
        add_model,
        read_zip_card,
        what_runs,
    )

    card = read_zip_card(file)
    command = what_runs(card)
    if command and not yes:
        print(f"{card.name} runs this program here, with your permissions:\n  {command}")
        if not sys.stdin.isatty() or not typer.confirm("Allow it?"):
            raise InputError(f"{card.name} was not added: agree to its program, or use --yes.")
    add_model(file, may_run=command)
    print(f"{card.name}: {card.description}")


@models.command()
def check(name: NameArgument) -> None:
    """Run a model on a phantom with known nodules, and compare its cost with its card.

    Example: `lung-nodule-seg models check nodule-unet`
    """
    from LungNoduleSegLib.evaluation.model_check import check_model  # noqa: PLC0415 - slow to import

    began = time.monotonic()
    print(check_model(Path(name)))
    print(f"{time.monotonic() - began:.0f} s in total")


@models.command()
def remove(name: NameArgument) -> None:
    """Remove a model that was added.

    Example: `lung-nodule-seg models remove my-model`
    """
    from LungNoduleSegLib.detectors.models import remove_model  # noqa: PLC0415

    remove_model(name)
    print(f"{name} was removed")


@models.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A .keras file with its .json card.")],
) -> None:
    """Convert a .keras file to an .onnx file, which runs without Keras, and update the card.

    Example: `lung-nodule-seg models convert ~/models/mine.keras`
    """
    card = convert_model(file)
    print(f"{card.name} now runs {file.with_suffix('.onnx')}, which is equivalent to {file.name}")
