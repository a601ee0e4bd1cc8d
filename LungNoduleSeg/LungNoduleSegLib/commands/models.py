"""The commands `models …`."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.model_card import convert_model

SUMMARY = "Models that find nodules: list, add, check, remove or convert them."

app = typer.Typer(no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="A name listed by `list`.")]


@app.command("list")
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


@app.command()
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
        print(f"{card.name} runs this program on your computer, with your rights:\n  {command}")
        if not sys.stdin.isatty() or not typer.confirm("Allow it?"):
            raise InputError(f"{card.name} was not added: agree to its program, or use --yes.")
    add_model(file, may_run=command)
    print(f"{card.name}: {card.description}")


@app.command()
def check(name: NameArgument) -> None:
    """Run a model on a phantom with known nodules, and compare its cost with its card.

    Example: `lung-nodule-seg models check nodule-unet`
    """
    from LungNoduleSegLib.evaluation.model_check import check_model  # noqa: PLC0415 - slow to import

    began = time.monotonic()
    print(check_model(Path(name)))
    print(f"{time.monotonic() - began:.0f} s in total")


@app.command()
def remove(name: NameArgument) -> None:
    """Remove a model that was added.

    Example: `lung-nodule-seg models remove my-model`
    """
    from LungNoduleSegLib.detectors.models import remove_model  # noqa: PLC0415

    remove_model(name)
    print(f"{name} was removed")


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A .keras file with its .json card.")],
) -> None:
    """Convert a .keras file to an .onnx file, which runs without Keras, and update the card.

    Example: `lung-nodule-seg models convert ~/models/mine.keras`
    """
    card = convert_model(file)
    print(f"{card.name} now runs {file.with_suffix('.onnx')}, which is equivalent to {file.name}")
