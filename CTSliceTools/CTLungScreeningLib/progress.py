"""Progress of long work: a callback type, shown as bars or printed as JSON lines."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, TextIO

from CTLungScreeningLib.errors import is_of_users, missing_packages_named, one_line, sentence_of

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

ProgressCallback = Callable[[str, int, int], None]
"""`progress(stage, done, total)`; it may raise `Cancelled` to stop the caller."""


class ProgressStyle(StrEnum):
    """How a command shows its progress."""

    BAR = "bar"
    JSONL = "jsonl"
    NONE = "none"


def silent(stage: str, done: int, total: int) -> None:
    """Show no progress."""


class Reporter:
    """Output of a command: progress, which this class does not show, and the result as text."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show the progress."""

    def write(self, **fields: object) -> None:
        """Send an event to a parent process, if there is one."""

    def say(self, text: str) -> None:
        """Print a text, unless the reader is a parent process."""
        print(text)

    def warn(self, sentence: str) -> None:
        """Print a warning."""
        print(one_line(sentence), file=sys.stderr)

    def emit(self, result: object, text: str, notes: Iterable[str] = ()) -> None:
        """Output the result of the command, as its last step.

        Args:
            result: for a parent process, as JSON.
            text: the result as text.
            notes: remarks, one sentence each.
        """
        self.say(text)
        for note in notes:
            self.say(f"Note: {one_line(note)}")


class JsonLines(Reporter):
    """Prints one JSON object per line for a parent process.

    Keys of progress: `stage`, `done`, `total`, `elapsed_s` (since the stage began) and
    `remaining_s` (of the stage, null until something is done since it began: a resumed one begins
    in its middle). Keys of the rest: `message` or `result`.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._began: dict[str, tuple[float, int]] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Print the line."""
        began, before = self._began.setdefault(stage, (time.monotonic(), done))
        elapsed = time.monotonic() - began
        remaining = elapsed * (total - done) / (done - before) if done > before else None
        self.write(
            stage=stage,
            done=done,
            total=total,
            elapsed_s=round(elapsed, 3),
            remaining_s=None if remaining is None else round(remaining, 3),
        )

    def write(self, **fields: object) -> None:
        """Print any other event in the same format."""
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


def new_bars() -> "Progress":
    """Make bars on stderr, with the time left at the mean speed of the last 1000 steps of each."""
    # Imported here because Slicer imports this module before packages are installed.
    from rich import progress  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    return progress.Progress(
        progress.TextColumn("{task.description:<12}", markup=False),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
        speed_estimate_period=float("inf"),
    )


class Bars(Reporter):
    """Shows a bar for each stage on stderr, until a text is printed."""

    def __init__(self) -> None:
        self._tasks: dict[str, TaskID] = {}
        self._bars = new_bars()
        self._bars.start()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Update the bar of the stage."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def say(self, text: str) -> None:
        """Print a text to stdout, below the bars."""
        self.close()
        print(text)

    def close(self) -> None:
        """Stop updating the bars."""
        self._bars.stop()


@contextmanager
def shown(style: ProgressStyle) -> Iterator[Reporter]:
    """Yield a reporter of the given style: bars on stderr, or JSON on stdout.

    With JSON lines, an error of the input inside the context is also printed, as
    `{"error": sentence}`. A missing optional package is raised as an `InputError`.
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
    """Yield `progress`; for None, bars if stderr is a terminal, else `silent`."""
    if progress is not None:
        yield progress
    else:
        style = ProgressStyle.BAR if sys.stderr.isatty() else ProgressStyle.NONE
        with shown(style) as bars:
            yield bars
