"""Progress of long work: one callback type, shown as bars or printed as JSON lines."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from typing import TextIO

from CTLungScreeningLib.errors import is_of_users, missing_packages_named, one_line, sentence_of

ProgressCallback = Callable[[str, int, int], None]
"""`report(stage, done, total)`; it may raise `Cancelled` to stop the caller."""


class ProgressStyle(StrEnum):
    """How a command shows its progress."""

    BAR = "bar"
    JSONL = "jsonl"
    NONE = "none"


def silent(stage: str, done: int, total: int) -> None:
    """Show no progress."""


class Reporter:
    """The `ProgressCallback` of a command that also says what came out: here without progress."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far the work is."""

    def write(self, **fields: object) -> None:
        """Tell a parent process, if there is one, of an event."""

    def say(self, text: str) -> None:
        """Print a text for a person, if one is there to read it."""
        print(text)

    def warn(self, sentence: str) -> None:
        """Name something that the command had to leave out."""
        print(one_line(sentence), file=sys.stderr)

    def emit(self, result: object, text: str, notes: Iterable[str] = ()) -> None:
        """Give the result of the command, as its last step.

        Args:
            result: for a parent process; JSON is made of it.
            text: the same for a person.
            notes: what either should know of it, one sentence each.
        """
        self.say(text)
        for note in notes:
            self.say(f"Note: {one_line(note)}")


class JsonLines(Reporter):
    """Prints one JSON object a line for a parent process.

    Keys of progress: `stage`, `done`, `total`, `elapsed_s` (since the stage began) and
    `remaining_s` (of the stage, null until something is done). Keys of the rest: `message` or
    `result`.
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
        """Print any other event in the same form."""
        print(json.dumps(fields), file=self._stream, flush=True)

    def say(self, text: str) -> None:
        """Print nothing."""

    def warn(self, sentence: str) -> None:
        """Print it as a message."""
        self.write(message=sentence)

    def emit(self, result: object, text: str, notes: Iterable[str] = ()) -> None:
        """Print the notes as messages, and the result."""
        for note in notes:
            self.write(message=note)
        self.write(result=result)


class Bars(Reporter):
    """Shows a bar for each stage on stderr, until something is said."""

    def __init__(self) -> None:
        # Not at the top: the logic is imported in Slicer before any package is installed.
        from rich import progress  # noqa: PLC0415
        from rich.console import Console  # noqa: PLC0415

        self._tasks: dict[str, progress.TaskID] = {}
        self._bars = progress.Progress(
            progress.TextColumn("{task.description:<12}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(stderr=True),
        )
        self._bars.start()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far the stage is."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def say(self, text: str) -> None:
        """Print a text on stdout, below the bars."""
        self.close()
        print(text)

    def close(self) -> None:
        """Leave the bars as they are."""
        self._bars.stop()


@contextmanager
def shown(style: ProgressStyle) -> Iterator[Reporter]:
    """Yield what shows progress in the given style: bars on stderr, JSON on stdout.

    In JSON lines an error inside the context that a user can cause is also printed, as
    `{"error": sentence}`. A missing package of an optional set is an `InputError` too.
    """
    with _shown(style) as progress, missing_packages_named():
        yield progress


@contextmanager
def _shown(style: ProgressStyle) -> Iterator[Reporter]:
    if style is ProgressStyle.JSONL:
        lines = JsonLines()
        try:
            yield lines
        except Exception as error:
            if is_of_users(error):
                lines.write(error=sentence_of(error))
            raise
    elif style is ProgressStyle.NONE:
        yield Reporter()
    else:
        with closing(Bars()) as bars:
            yield bars


@contextmanager
def in_terminal(progress: ProgressCallback | None) -> Iterator[ProgressCallback]:
    """Yield `progress`; for None bars on stderr where that is a terminal, else `silent`."""
    if progress is not None:
        yield progress
    else:
        style = ProgressStyle.BAR if sys.stderr.isatty() else ProgressStyle.NONE
        with shown(style) as bars:
            yield bars
