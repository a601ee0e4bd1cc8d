"""Progress of long work: one callback type, shown as bars or printed as JSON lines."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TextIO

from CTLungScreeningLib.errors import InputError, missing_packages_named

ProgressCallback = Callable[[str, int, int], None]
"""`report(stage, done, total)`; it may raise `Cancelled` to stop the caller."""


class ProgressStyle(StrEnum):
    """How a command shows its progress."""

    BAR = "bar"
    JSONL = "jsonl"
    NONE = "none"


def silent(stage: str, done: int, total: int) -> None:
    """ProgressCallback nothing."""


class JsonLines:
    """A `Report` that prints one JSON object a line for a parent process.

    Keys: `stage`, `done`, `total`, `elapsed_s` (since the stage began) and `remaining_s` (of the
    stage, null until something is done).
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._began: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Print the line."""
        elapsed = time.monotonic() - self._began.setdefault(stage, time.monotonic())
        remaining = elapsed * (total - done) / done if done else None
        self.write(
            stage=stage,
            done=done,
            total=total,
            elapsed_s=round(elapsed, 3),
            remaining_s=None if remaining is None else round(remaining, 3),
        )

    def write(self, **fields: object) -> None:
        """Print any other event (a message, the result) in the same form."""
        print(json.dumps(fields), file=self._stream, flush=True)


@contextmanager
def shown(style: ProgressStyle) -> Iterator[ProgressCallback]:
    """Yield a `Report` that shows progress in the given style: bars on stderr, JSON on stdout.

    In JSON lines an `InputError` inside the context is also printed, as `{"error": sentence}`. A
    missing package of an optional set is an `InputError` too.
    """
    with _shown(style) as progress, missing_packages_named():
        yield progress


@contextmanager
def _shown(style: ProgressStyle) -> Iterator[ProgressCallback]:
    if style is ProgressStyle.JSONL:
        lines = JsonLines()
        try:
            yield lines
        except InputError as error:
            lines.write(error=str(error))
            raise
    elif style is ProgressStyle.NONE:
        yield silent
    else:
        with _bars() as report:
            yield report


@contextmanager
def in_terminal(progress: ProgressCallback | None) -> Iterator[ProgressCallback]:
    """Yield `progress`; for None bars on stderr where that is a terminal, else `silent`."""
    if progress is not None:
        yield progress
    else:
        style = ProgressStyle.BAR if sys.stderr.isatty() else ProgressStyle.NONE
        with shown(style) as bars:
            yield bars


@contextmanager
def _bars() -> Iterator[ProgressCallback]:
    # Not at the top: the logic is imported in Slicer before any package is installed.
    from rich import progress  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    columns = (
        progress.TextColumn("{task.description:<12}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, progress.TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report
