"""Every command of both command lines, run in a process to which something real happens.

A process can be killed or stopped at any of its changes to the file system, which Python's audit
events name; it can lose root's right to write everywhere; and the disk it writes to can be full.
"""

import ctypes
import importlib
import multiprocessing
import os
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from CTLungScreeningLib.workers import without_main_module

MODULES = {"ct-slice-tools": "CTSliceToolsLib", "lung-nodule-seg": "LungNoduleSegLib"}
PRELOADED = [
    "command_faults",
    *(f"{name}.cli" for name in MODULES.values()),
    "LungNoduleSegLib.segmenter",
    "LungNoduleSegLib.evaluation.synthetic_lesions",
    "LungNoduleSegLib.results.writing",
    "LungNoduleSegLib.results.growth_results",
    "LungNoduleSegLib.training_data.luna16",
    "CTSliceToolsLib.dataset.conversion",
    "CTSliceToolsLib.dataset.conversion",
    "CTSliceToolsLib.localizer.evaluation",
    "CTSliceToolsLib.localizer.results",
    "CTSliceToolsLib.localizer.plots",
]

SAID, CHANGES, STOPPED = "said", "changes", "stopped"
"""Files beside the folder that a command works in."""

SETTINGS = ".settings"

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.symlink"}


@dataclass(frozen=True)
class Fault:
    """What happens to a command.

    Attributes:
        at: the change to the file system before which it happens, counted from 0; None: never.
        send: what signal the process gets then.
        powerless: whether root's rights are given up, so that permissions hold.
    """

    at: int | None = None
    send: signal.Signals = signal.SIGKILL
    powerless: bool = False


def start(line: str, folder: Path, fault: Fault) -> BaseProcess:
    """Start a command in a folder.

    Args:
        line: the command as it is typed.
        folder: to work in; what the command says is written beside it.
        fault: what happens to it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_command, args=(line, folder, fault))
    with without_main_module():
        process.start()
    return process


def _command(line: str, folder: Path, fault: Fault) -> None:
    program, *arguments = line.split()
    os.chdir(folder)
    os.environ["CTLUNGSCREENING_SETTINGS"] = str(folder / SETTINGS)
    with (folder.parent / SAID).open("wb") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    if fault.powerless:
        _give_up_rights()
    changes = _Changes(folder, fault)
    sys.addaudithook(changes)
    sys.argv = [program, *arguments]
    code: Any = 0
    try:
        importlib.import_module(f"{MODULES[program]}.cli").main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        changes.watching = False
        with suppress(OSError):
            (folder.parent / CHANGES).write_text(str(changes.count))
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


class _Changes:
    """Counts the changes to a folder and lets the fault happen before one of them."""

    def __init__(self, folder: Path, fault: Fault) -> None:
        self.folder, self.fault, self.count, self.watching = str(folder), fault, 0, True

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watching or not (event in _CHANGES or self._opens_to_write(event, arguments)):
            return
        paths = [one for one in arguments[:2] if isinstance(one, str | os.PathLike)]
        if not any(self._inside(os.fspath(path)) for path in paths):
            return
        if self.count == self.fault.at:
            self.watching = False
            Path(self.folder).with_name(STOPPED).touch()
            os.kill(os.getpid(), self.fault.send)
            self.watching = True
        self.count += 1

    def _inside(self, path: str | bytes) -> bool:
        return os.path.abspath(os.fsdecode(path)).startswith(self.folder + os.sep)  # noqa: PTH100

    @staticmethod
    def _opens_to_write(event: str, arguments: tuple[Any, ...]) -> bool:
        return event == "open" and bool((arguments[2] or 0) & _WRITING)


def _give_up_rights() -> None:
    """Drop all capabilities of Linux: permissions hold for root then too."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


def tree(folder: Path) -> dict[str, int]:
    """Names and sizes of all files in a folder."""
    return {
        str(one.relative_to(folder)): one.lstat().st_size
        for one in folder.rglob("*")
        if one.is_file() or one.is_symlink()
    }


def copy(things: list[Path], folder: Path) -> None:
    """Copy files and folders into a new folder."""
    folder.mkdir(parents=True)
    for thing in things:
        target = folder / thing.name
        if thing.is_dir():
            shutil.copytree(thing, target, symlinks=True)
        else:
            shutil.copy(thing, target)
