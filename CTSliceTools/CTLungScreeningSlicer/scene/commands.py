"""Run a module's commands from a Slicer scene, in child processes."""

from pathlib import Path
from types import ModuleType
from typing import Any

from CTLungScreeningLib.child_process import module_command, module_environment
from CTLungScreeningLib.child_work import ChildCommand, Work, complete
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningSlicer.scene.mrml_host import keeping_alive


class Commands:
    """Runs the commands of a module: of those that leave the scene as it is, this is all."""

    def __init__(self, module: ModuleType, *needed: ModuleType) -> None:
        """Run `python -m module`, which imports `needed` as well."""
        self._module, self._packages = module.__name__, (*needed, module)

    def run(self, *arguments: str | Path, progress: ProgressCallback = silent) -> Any:
        """Run a command and return its result, mostly a dictionary.

        Args:
            *arguments: its name, such as "train", its arguments and options, as on the command
                line, whose `--help` lists them.
            progress: called at least ten times a second; a `Cancelled` it raises ends the child
                with all its descendants.

        Raises:
            InputError: with the command's sentence if it refused its input.
            ChildError: if it failed otherwise; its log is named.
            Cancelled: if `progress` raised it.
        """
        return complete(self.work(*arguments), keeping_alive(progress))

    def work(self, *arguments: str | Path) -> Work[Any]:
        """Give the work of `run`, for a panel."""
        return (
            yield ChildCommand(
                module_command(self._module, *arguments, "--progress", "jsonl"),
                module_environment(*self._packages),
            )
        )
