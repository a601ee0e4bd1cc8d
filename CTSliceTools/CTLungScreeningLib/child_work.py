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

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from CTLungScreeningLib import child_process
from CTLungScreeningLib.progress import ProgressCallback, silent

T = TypeVar("T")


@dataclass(frozen=True)
class ChildCommand:
    """A command line and the variables added to its environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


Work: TypeAlias = Generator[ChildCommand, Any, T]


def complete(work: Work[T], progress: ProgressCallback = silent) -> T:
    """Run a piece of work to its end and return what it returns.

    Args:
        work: the generator, not begun.
        progress: as in `child_process.run`.

    Raises:
        Cancelled, InputError, ChildError: as `child_process.run`, unless the work handles them.
    """
    try:
        command = next(work)
        while True:
            try:
                result = child_process.run(command.arguments, command.environment, progress)
            except BaseException as problem:
                command = work.throw(problem)
            else:
                command = work.send(result)
    except StopIteration as end:
        return end.value
