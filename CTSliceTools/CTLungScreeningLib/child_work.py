"""Work with child processes in its middle: scripts run it to its end, a panel step by step.

A piece of work is a generator. It prepares what the child needs, yields a `ChildCommand`, is sent
the child's result (or thrown its error), brings that into the scene and returns. `with` and
`finally` clean up however it ends:

    def predict(volume: Any) -> Work[Nodes]:
        with work_folder() as folder:
            export_volume(volume, folder / "scan.nrrd")
            result = yield ChildCommand(module_command(...), module_environment(...))
            return import_result(result)
"""

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from CTLungScreeningLib.child_process import ChildError, ChildProcess
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressCallback, silent

T = TypeVar("T")

_POLL_S = 0.1


@dataclass(frozen=True)
class ChildCommand:
    """A command line and the variables added to its environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


Work: TypeAlias = Generator[ChildCommand, Any, T]


class RunningWork(Generic[T]):
    """A piece of work under way: the one loop that follows its child processes.

    Attributes:
        child: the process of the current command; None before the first one.
        importing: whether that has ended, and the work takes its result next.
        result: what the work has returned, once `advance` has given False.
    """

    def __init__(self, work: Work[T], listen: Callable[[dict[str, Any]], None]) -> None:
        """Take a generator that has not begun; `listen` gets each JSON object of the children."""
        self._work, self._listen = work, listen
        self.child: ChildProcess | None = None
        self.importing = False
        self.result: T

    def advance(self, timeout_s: float = 0) -> bool:
        """Start the first command, hear the child, or let the work go on after it has ended.

        Args:
            timeout_s: how long to wait for the child to say something.

        Returns:
            Whether there is more to do.

        Raises:
            InputError, ChildError: as `ChildProcess` and its `result`, unless the work handles
                them.
        """
        if self.child is not None and not self.importing:
            alive = self.child.running
            for event in self.child.poll(timeout_s):
                self._listen(event)
            self.importing = not alive and not self.child.running
            return True
        child, self.child, self.importing = self.child, None, False
        try:
            command = next(self._work) if child is None else self._go_on(child)
        except StopIteration as end:
            self.result = end.value
            return False
        self.child = ChildProcess(command.arguments, command.environment)
        return True

    def close(self) -> None:
        """End it wherever it is: the child process with all its descendants, and the work."""
        if self.child is not None and self.child.running:
            self.child.cancel()
        self._work.close()

    def _go_on(self, child: ChildProcess) -> ChildCommand:
        try:
            result = child.result()
        except (InputError, ChildError) as problem:
            return self._work.throw(problem)
        return self._work.send(result)


def complete(work: Work[T], progress: ProgressCallback = silent) -> T:
    """Run a piece of work to its end and return what it returns; messages are logged.

    Args:
        work: the generator, not begun.
        progress: called on each progress line of a child and, with the last one again, ten times a
            second, so that a `Cancelled` it raises takes effect at once.

    Raises:
        Cancelled, or whatever `progress` raises: after the whole process tree has ended.
        InputError, ChildError: as `RunningWork.advance`.
    """
    last = ("start", 0, 1)

    def listen(event: dict[str, Any]) -> None:
        nonlocal last
        if "stage" in event:
            last = (event["stage"], event["done"], event["total"])
            progress(*last)
        if "message" in event:
            logging.info(event["message"])

    running = RunningWork(work, listen)
    try:
        while running.advance(_POLL_S):
            progress(*last)
    except BaseException:
        running.close()
        raise
    return running.result


def run_command(
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    progress: ProgressCallback = silent,
) -> Any:
    """Run one command to its end and return its result, as `complete` does."""

    def work() -> Work[Any]:
        return (yield ChildCommand(arguments, environment or {}))

    return complete(work(), progress)
