"""What the commands of both modules share: options, progress and how they end."""

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.errors import Cancelled, InputError
from CTLungScreeningLib.progress import JsonLines, ProgressCallback, ProgressStyle

if TYPE_CHECKING:
    from CTLungScreeningLib.keras_training import Epoch, TrainingResult

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


def emit_failures(report: ProgressCallback, sentences: Iterable[str]) -> None:
    """Name what a command had to leave out: as messages to a parent process, else on stderr."""
    for sentence in sentences:
        if isinstance(report, JsonLines):
            report.write(message=sentence)
        else:
            print(sentence, file=sys.stderr)


def epoch_emitter(report: ProgressCallback) -> "Callable[[Epoch], None]":
    """Give what tells a parent process the figures of each epoch of a training as it ends."""

    def tell(epoch: "Epoch") -> None:
        if isinstance(report, JsonLines):
            report.write(epoch=epoch)

    return tell


def emit_training(report: ProgressCallback, result: "TrainingResult", sentence: str) -> None:
    """Tell what a training gave: to a parent process as its result, else in words.

    Args:
        report: of the command.
        result: of the training.
        sentence: how good the best epoch is.
    """
    if isinstance(report, JsonLines):
        for note in result.notes:
            report.write(message=note)
        report.write(
            result={"output": str(result.model), "folder": str(result.folder), "best": result.best}
        )
        return
    for note in result.notes:
        print(f"Note: {note}")
    print(sentence)
    print(f"The model is {result.model}, its curves are in {result.folder}")
