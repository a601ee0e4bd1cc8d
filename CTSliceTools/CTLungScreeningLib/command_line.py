"""What the commands of both modules share: options, progress and how they end."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.errors import Cancelled, InputError
from CTLungScreeningLib.progress import ProgressStyle, Reporter

if TYPE_CHECKING:
    from CTLungScreeningLib.keras_training import TrainingResult

ProgressOption = Annotated[
    ProgressStyle,
    typer.Option(
        help="`bar` for people, `jsonl` prints one JSON object a line for a parent process."
    ),
]

DeviceOption = Annotated[
    Device | None, typer.Option(help="Where the networks run; default: a GPU if there is one.")
]

BAD_INPUT, INTERRUPTED = 2, 130
"""Exit statuses."""


def new_app(summary: str) -> typer.Typer:
    """Make a command-line application that shows its help when called without a command."""
    return typer.Typer(
        help=summary,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )


def run_app(app: Callable[[], object]) -> None:
    """Run an application; bad input ends it with one sentence and status 2, Ctrl-C with 130."""
    try:
        app()
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except (Cancelled, KeyboardInterrupt):
        print("Cancelled.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def emit_training(report: Reporter, result: "TrainingResult", sentence: str) -> None:
    """Give the result of a training, as the last step of its command.

    Args:
        report: of the command.
        result: of the training.
        sentence: says how good the best epoch is.
    """
    report.emit(
        {"output": str(result.model), "folder": str(result.folder), "best": result.best},
        f"{sentence}\nThe model is {result.model}, its curves are in {result.folder}",
        result.notes,
    )
