"""Common parts of all commands: options, progress, exit status."""

import io
import os
import sys
from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Annotated

# Matrices are small here: threads for each would only wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from CTLungScreeningLib.child_process import BAD_INPUT_STATUS, FAILED_IN_PART
from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.errors import Cancelled, is_of_users, sentence_of
from CTLungScreeningLib.progress import ProgressStyle, Reporter

if TYPE_CHECKING:
    from CTLungScreeningLib.keras_training import TrainingResult

ProgressOption = Annotated[
    ProgressStyle,
    typer.Option(
        case_sensitive=False,
        help="`bar`, or `jsonl` for one JSON object per line for a parent process, or `none`.",
    ),
]

DeviceOption = Annotated[
    Device | None,
    typer.Option(
        case_sensitive=False, help="Device for the networks; default: a GPU if available."
    ),
]

FAULT, INTERRUPTED = 70, 130
"""Exit statuses besides `BAD_INPUT_STATUS` and `FAILED_IN_PART`."""


def new_app(summary: str) -> typer.Typer:
    """Make a command-line application that shows its help if called without a command."""
    return typer.Typer(
        help=summary,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )


def run_app(app: Callable[[], object]) -> None:
    """Run an application; bad input ends it with one sentence and status 2.

    Ctrl-C ends it with status 130, and a bug with status 70 and its location.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be Unicode
    try:
        app()
    except BrokenPipeError:  # as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BAD_INPUT_STATUS)
    except (Cancelled, KeyboardInterrupt):
        print("Cancelled.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        print(f"Error: {sentence_of(error)}", file=sys.stderr)
        sys.exit(BAD_INPUT_STATUS if is_of_users(error) else FAULT)


def exit_if_failed(failures: Sized) -> None:
    """End a partly failed command with status `FAILED_IN_PART`.

    Raises:
        typer.Exit: if there are failures.
    """
    if failures:
        raise typer.Exit(FAILED_IN_PART)


def emit_training(report: Reporter, result: "TrainingResult", sentence: str) -> None:
    """Output the result of a training, as the last step of its command.

    Args:
        report: of the command.
        result: of the training.
        sentence: describes the best epoch.
    """
    report.emit(
        {"output": str(result.model), "folder": str(result.folder), "best": result.best},
        f"{sentence}\nThe model is {result.model}; its curves are in {result.folder}",
        result.notes,
    )
