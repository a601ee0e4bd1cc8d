"""Common parts of all commands: options, progress, exit status."""

import functools
import inspect
import io
import math
import os
import sys
from collections.abc import Callable, Sized
from dataclasses import is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

# Matrices are small here: threads for each would only wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from CTLungScreeningLib.child_process import BAD_INPUT_STATUS, FAILED_IN_PART
from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.errors import Cancelled, is_of_users, sentence_of
from CTLungScreeningLib.options import OptionField, make_options, options_of, spellings
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

OutputFolder = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for the results; nothing is overwritten.")
]

NewModel = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="New .keras file; its card is written beside it, the curves to NAME-training.",
    ),
]

ModelOption = Annotated[
    Path | None,
    typer.Option(help="A model: its .json card or a file beside it; default: bundled."),
]

SeriesOption = Annotated[
    str | None, typer.Option(help="SeriesInstanceUID, if the folder has several.")
]


def finite(value: float | None) -> float | None:
    """Refuse NaN and infinity, which the limits of an option let through: its `callback`."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


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


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is a dataclass by the options it declares."""
    hints = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    kinds = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for one in signature.parameters.values():
        parameters += (
            [_parameter(field) for field in options_of(kinds[one.name])]
            if one.name in kinds
            else [one.replace(kind=one.KEYWORD_ONLY, annotation=hints[one.name])]
        )

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, kind in kinds.items():
            chosen = {
                field.name: values.pop(field.name, field.default) for field in options_of(kind)
            }
            values[name] = make_options(kind, chosen)
        command(**values)

    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def _parameter(field: OptionField) -> inspect.Parameter:
    """Make the parameter by which typer knows an option."""
    option, kind = field.option, field.type
    name = f"--{field.name.replace('_', '-')}"
    settings: dict[str, Any] = {"help": f"{option.help[0].upper()}{option.help[1:].rstrip('.')}."}
    if issubclass(kind, StrEnum):
        words = [spellings(member)[-1] for member in kind]
        settings |= {"parser": _parser(kind, words), "metavar": f"[{'|'.join(words)}]"}
    if issubclass(kind, int | float):
        settings |= {"min": option.min, "max": option.max, "callback": finite}
    names = [name] if field.default is False else []
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=field.default,
        annotation=Annotated[
            kind | None if field.optional else kind, typer.Option(*names, **settings)
        ],
    )


def _parser(kind: Any, words: list[str]) -> Callable[[str], Any]:
    members = dict(zip(map(str.lower, words), kind, strict=True))

    def parse(text: str) -> Any:
        try:
            return members.get(text.lower()) or kind(text.lower())
        except ValueError:
            raise typer.BadParameter(f"choose one of {', '.join(words)}") from None

    return parse


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
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer's for Ctrl-C
            print("Cancelled.", file=sys.stderr)
        raise
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
