"""The commands of `lung-nodule-seg` from a Slicer scene, in child processes."""

from pathlib import Path
from typing import Any

import CTSliceToolsLib
import LungNoduleSegLib
from CTLungScreeningLib.child_process import module_command, module_environment
from CTLungScreeningLib.child_work import ChildCommand, Work, complete
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningSlicer.scene.mrml_host import keeping_alive
from CTLungScreeningSlicer.scene.undo import Undoable


class CommandLogic(Undoable):
    """Runs commands that leave the scene as it is: preparation, training, evaluation, batches."""

    def runCommand(self, *arguments: str | Path, progress: ProgressCallback = silent) -> Any:
        """Run a command of `lung-nodule-seg`, such as "train", and return its result.

        Args:
            *arguments: its name, its arguments and options, see `lung-nodule-seg --help`.
            progress: called at least ten times a second; a `Cancelled` it raises ends the child
                with all its descendants.

        Raises:
            InputError: with the command's sentence if it refused its input.
            ChildError: if it failed otherwise; its log is named.
            Cancelled: if `progress` raised it.
        """
        return complete(self.commandWork(*arguments), keeping_alive(progress))

    def commandWork(self, *arguments: str | Path) -> Work[Any]:
        """Give the work of `runCommand`, for a panel."""
        return (
            yield ChildCommand(
                module_command("LungNoduleSegLib", *arguments, "--progress", "jsonl"),
                module_environment(CTSliceToolsLib, LungNoduleSegLib),
            )
        )
