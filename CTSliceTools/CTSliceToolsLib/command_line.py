"""What the commands of both modules share: options, progress and how they end."""

import sys
from collections.abc import Callable, Iterable
from typing import Annotated

import typer

from CTSliceToolsLib.errors import Cancelled, InputError
from CTSliceToolsLib.progress import JsonLines, ProgressStyle, Report

ProgressOption = Annotated[
    ProgressStyle,
    typer.Option(
        help="`bar` for people, `jsonl` prints one JSON object a line for a parent process."
    ),
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


def tell_failures(report: Report, sentences: Iterable[str]) -> None:
    """Name what a command had to leave out: as messages to a parent process, else on stderr."""
    for sentence in sentences:
        if isinstance(report, JsonLines):
            report.write(message=sentence)
        else:
            print(sentence, file=sys.stderr)
