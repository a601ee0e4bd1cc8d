"""Long work in child processes: JSON lines come back, and Cancel ends the whole process tree.

A piece of work is a generator. It prepares what the child needs, yields a `ChildCommand`, is sent
the child's result (or thrown its error), brings that into the scene and returns. What takes long
and no child can do is divided by `Pause`s, in which a panel handles its events. `with` and
`finally` clean up however it ends:

    def predict(volume: Any) -> Work[Nodes]:
        with work_folder() as folder:
            yield from export_work(volume, folder / "scan.nrrd")
            result = yield ChildCommand(module_command(...), module_environment(...))
            return import_result(result)
"""

import contextlib
import json
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import Any, Generic, Self, TypeAlias, TypeVar

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressCallback, silent

FAILED_IN_PART, BAD_INPUT_STATUS = 1, 2
"""Exit statuses of our commands: some of the work failed, or an `InputError` ended it."""

_GRACE_S = 3.0
"""Time for cancelled processes to end by themselves before they are killed."""

_LAST_WORDS_S = 1.0
"""Time to wait for output after the end, if a descendant keeps the pipe open."""

_POLL_S = 0.1

_TEMPORARY = "CTLUNGSCREENING_TEMPORARY"
"""Environment variable: a folder that the parent process removes, however this one ends."""


def own_temporary(folder: Path) -> dict[str, str]:
    """Return the environment in which a child makes each `temporary_folder` in a folder."""
    return {_TEMPORARY: str(folder)}


def temporary_folder(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """Make a folder for copies of a scan, which a parent process removes if this one is killed."""
    parent = os.environ.get(_TEMPORARY)
    return tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True)


def module_command(module: str, *arguments: str | Path) -> list[str]:
    """Return the command line of `python -m module arguments`, with Slicer's Python in Slicer.

    Nothing is imported from the current folder, which may hold any user's files.
    """
    python = shutil.which("PythonSlicer") if "qt" in sys.modules else None
    return [python or sys.executable, "-P", "-m", module, *map(str, arguments)]


def module_environment(*packages: ModuleType) -> dict[str, str]:
    """Return the environment in which a child can import `packages` from where they are now."""
    folders = [str(Path(str(package.__file__)).parents[1]) for package in packages]
    inherited = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([*folders, *([inherited] if inherited else [])])}


class ChildError(RuntimeError):
    """A child process failed; the message is one sentence that names the log.

    Attributes:
        log: file with all that the child wrote but JSON lines.
    """

    def __init__(self, message: str, log: Path) -> None:
        super().__init__(message)
        self.log = log


class ChildProcess:
    """A command that prints JSON objects, one per line, on its standard output.

    Its standard error, and lines that are not JSON objects, go to `log`. Use it as a context
    manager: leaving the block ends the whole process tree if it still runs.

    Attributes:
        log: the log file; deleted when the command succeeds.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start `command`; `environment` is added to this process's own."""
        handle, name = tempfile.mkstemp(prefix="child-", suffix=".log")
        self.log = Path(name)
        self._temporary = temporary_folder("child-")
        own = own_temporary(Path(self._temporary.name))
        self._name = " ".join(map(str, command[:3]))
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._result: Any = None
        self._error: str | None = None
        with open(handle, "wb") as log:  # noqa: PTH123 - a descriptor
            try:
                self._process = subprocess.Popen(
                    [str(part) for part in command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env={**os.environ, **own, **(environment or {})},
                    start_new_session=True,
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
            except OSError as problem:
                self._temporary.cleanup()
                self.log.unlink()
                raise InputError(
                    f"{command[0]} could not be started ({problem.strerror}): install it, or "
                    "choose another model."
                ) from None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.cancel()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines, self.log.open("ab") as log:
            for line in lines:
                try:
                    event = json.loads(line)
                except ValueError:
                    event = None
                if isinstance(event, dict):
                    self._events.put(event)
                else:
                    log.write(line)
                    log.flush()

    @property
    def running(self) -> bool:
        """Whether there may be further events."""
        if self._process.poll() is None:
            return True
        self._reader.join(_LAST_WORDS_S)
        return not self._events.empty()

    def poll(self, timeout_s: float = 0) -> list[dict[str, Any]]:
        """Return the events that came since the last call, waiting `timeout_s` for the first."""
        events = []
        with contextlib.suppress(queue.Empty):
            events.append(self._events.get(block=timeout_s > 0, timeout=timeout_s))
            while True:
                events.append(self._events.get_nowait())
        for event in events:
            self._result = event.get("result", self._result)
            self._error = event.get("error", self._error)
        return events

    def result(self) -> Any:
        """Wait for the end and return the value of the last `{"result": ...}` line.

        A command that failed in part has a result, which says what failed.

        Raises:
            InputError: with the child's own sentence if it refused its input.
            ChildError: if it failed otherwise; its log stays.
        """
        while self.running:
            self.poll(_POLL_S)
        self._temporary.cleanup()
        status = self._process.returncode
        if status == 0 or (status == FAILED_IN_PART and self._result is not None):
            self.log.unlink(missing_ok=True)
            return self._result
        if status == BAD_INPUT_STATUS and self._error:
            self.log.unlink(missing_ok=True)
            raise InputError(self._error)
        self._kill_session()
        reason = (self._error or f"{self._name} ended with {_status_text(status)}").rstrip(".")
        raise ChildError(f"{reason}; its log is {self.log}.", self.log)

    def cancel(self) -> None:
        """End the process and all its descendants, and wait for them."""
        import psutil  # noqa: PLC0415 - Slicer installs it with the packages the child needs

        try:
            root = psutil.Process(self._process.pid)
            tree = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            tree = []
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(tree, timeout=_GRACE_S)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._kill_session()
        self._process.wait()
        self._reader.join(_LAST_WORDS_S)
        self._temporary.cleanup()
        self.log.unlink(missing_ok=True)

    def _kill_session(self) -> None:
        """Kill descendants that no tree shows any more, as their parent has ended (POSIX)."""
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _status_text(status: int) -> str:
    if status < 0:
        try:
            return f"signal {signal.Signals(-status).name}"
        except ValueError:
            return f"signal {-status}"
    return f"status {status}"


T = TypeVar("T")


@dataclass(frozen=True)
class ChildCommand:
    """A command line and the variables added to its environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def program_command(program: str, *arguments: str) -> ChildCommand:
    """Return the command of another program, without the settings that Slicer makes for its own.

    A program that belongs to this Python keeps them: it needs its `PYTHONHOME`.

    Args:
        program: its name on the PATH, or its file.
        arguments: of the command line.
    """
    found = shutil.which(program) or program
    of_this_python = Path(found).parent.resolve().is_relative_to(Path(sys.prefix).resolve())
    in_slicer = bool(os.environ.get("PYTHONHOME"))
    environment = _environment_before_slicer() if in_slicer and not of_this_python else {}
    return ChildCommand([found, *arguments], environment)


def _environment_before_slicer() -> dict[str, str]:
    """Return the variables that Slicer sets as they were; its launcher saves those it extends."""
    libraries = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {
        **dict.fromkeys(("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE"), ""),
        **{name: os.environ.get(f"APPLAUNCHER_0_{name}", "") for name in libraries},
        "PATH": os.environ.get("APPLAUNCHER_0_PATH", os.environ.get("PATH", "")),
    }


@dataclass(frozen=True)
class Pause:
    """A moment between two steps in which the window answers: `done` of `total` are over."""

    stage: str
    done: int
    total: int


Work: TypeAlias = Generator[ChildCommand | Pause, Any, T]


class RunningWork(Generic[T]):
    """A piece of work under way: the one loop that follows its child processes.

    Attributes:
        child: the process of the current command; None while there is none.
        importing: whether that has ended, and the work takes its result next.
        result: what the work has returned, once `advance` has given False.
    """

    def __init__(self, work: Work[T], listen: Callable[[dict[str, Any]], None]) -> None:
        """Take a generator that has not started, and a function that is called with each JSON
        object of the children; a pause counts as one."""
        self._work, self._listen = work, listen
        self.child: ChildProcess | None = None
        self.importing = False
        self.result: T

    def advance(self, timeout_s: float = 0) -> bool:
        """Take the next step of the work, or poll the child that it waits for.

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
            step = next(self._work) if child is None else self._go_on(child)
        except StopIteration as end:
            self.result = end.value
            return False
        if isinstance(step, Pause):
            self._listen(asdict(step))
        else:
            self.child = ChildProcess(step.arguments, step.environment)
        return True

    def close(self) -> None:
        """Stop the work, with its child process and all descendants."""
        if self.child is not None and self.child.running:
            self.child.cancel()
        self._work.close()

    def _go_on(self, child: ChildProcess) -> ChildCommand | Pause:
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
        child = None
        while running.advance(_POLL_S):
            if running.child is not child and running.child is not None:
                last = ("start", 0, 1)
            child = running.child
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

    with unwinding_at_signals():
        return complete(work(), progress)


@contextlib.contextmanager
def unwinding_at_signals() -> Iterator[None]:
    """Have SIGTERM, and SIGHUP of a closed terminal, do what Ctrl-C does in this block.

    For where this process waits for others, which it ends too. Each counts once, as a closing shell
    repeats SIGHUP; what is ignored, as under nohup, stays so.
    """

    def unwind(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    signals = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
    if threading.current_thread() is not threading.main_thread():
        signals.clear()
    before = {one: signal.getsignal(one) for one in signals}
    changed = [one for one in signals if before[one] is not signal.SIG_IGN]
    try:
        for one in changed:
            signal.signal(one, unwind)
        yield
    finally:
        for one in changed:
            signal.signal(one, before[one])
