"""Run work in a child process while the panel stays responsive."""

import logging
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import qt
from slicer.i18n import tr as _

from CTLungScreeningLib.child_process import ChildError, ChildProcess
from CTLungScreeningLib.child_work import RunningWork, Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.panel.errors import lacking
from CTLungScreeningSlicer.panel.events import Signal
from CTLungScreeningSlicer.panel.run_progress import RunProgress

POLL_MS = 100
"""How often the child is asked."""


class RunState(StrEnum):
    """Where a run is."""

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    IMPORTING = "importing"
    CANCELLING = "cancelling"


def _ignore(result: Any) -> None:
    """Do nothing with a result."""


class WorkRunner:
    """One piece of work at a time.

    Attributes:
        state: where it is.
        progress: of the current stage.
        changed: signal without arguments: `state` or `progress` is another.
        logged: signal with a text: what the child has just printed.
        told: signal with each JSON object that the child has printed, as a dictionary.
        ended: signal with the error as one sentence and its details, both empty after success and
            after Cancel.
    """

    def __init__(self) -> None:
        self.state = RunState.IDLE
        self.progress = RunProgress("")
        self.changed = Signal()
        self.logged = Signal()
        self.told = Signal()
        self.ended = Signal()
        self._running: RunningWork[Any] | None = None
        self._done: Callable[[Any], None] = _ignore
        self._log_read = 0
        self._log_text = ""
        self._canceller: threading.Thread | None = None
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MS
        self._timer.timeout.connect(self._poll)

    @property
    def busy(self) -> bool:
        """Whether there is work."""
        return self.state is not RunState.IDLE

    def start(self, work: Work[Any], done: Callable[[Any], None] = _ignore) -> None:
        """Begin a piece of work; `done` gets what it returns.

        Raises:
            RuntimeError: if there is work already.
        """
        if self.busy:
            raise RuntimeError("the runner is busy")
        self._running, self._done = RunningWork(work, self._hear), done
        self._log_text = ""
        self.progress = RunProgress(_("Starting"))
        self._become(RunState.STARTING)
        self._timer.start()

    def cancel(self) -> None:
        """End the child process with all its descendants; the panel stays alive meanwhile."""
        child = None if self._running is None else self._running.child
        if self.state is RunState.STARTING:
            self._end()
        elif self.state is RunState.RUNNING and child is not None:
            self._canceller = threading.Thread(target=child.cancel)
            self._canceller.start()
            self.progress = RunProgress(_("Cancelling"))
            self._become(RunState.CANCELLING)

    def stop(self) -> None:
        """Cancel and return when all has ended: before the scene, the module or Slicer goes."""
        self.cancel()
        if self._canceller is not None:
            self._canceller.join()
            self._finish_cancelling()
        elif self.state is RunState.IMPORTING and self._timer.active:  # it has not begun to
            self._end()

    def _poll(self) -> None:
        if self.state is RunState.CANCELLING:
            if self._canceller is not None and not self._canceller.is_alive():
                self._finish_cancelling()
        elif self._running is not None:
            self._timer.stop()  # what the work does may handle events
            self._advance(self._running)

    def _advance(self, running: RunningWork[Any]) -> None:
        child, progress = running.child, self.progress
        try:
            if not running.advance():
                done = self._done
                self._end()
                done(running.result)
                return
        except InputError as problem:
            self._end(str(problem))
            return
        except ChildError as problem:
            self._end(str(problem), self._log_text)
            return
        except Exception as problem:
            text = lacking(problem)
            if not text:
                logging.exception("The run failed")
                text = _("The run failed: {problem}").format(problem=problem)
            self._end(text, self._log_text)
            return
        if running.child is not child:
            self._log_read = 0
            self.progress = RunProgress(_("Starting"))
            self._become(RunState.RUNNING)
        elif running.child is not None:
            self._read_log(running.child)
        if running.importing:
            self.progress = RunProgress(_("Importing"))
            self._become(RunState.IMPORTING)
        elif self.progress != progress:
            self.changed.emit()
        self._timer.start()

    def _hear(self, event: dict[str, Any]) -> None:
        if "stage" in event:
            self.progress = RunProgress.from_event(event)
        if "message" in event:
            self._log(f"{event['message']}\n")
        self.told.emit(event)

    def _read_log(self, child: ChildProcess) -> None:
        if child.log.exists():
            with child.log.open("rb") as log:
                log.seek(self._log_read)
                new = log.read()
            self._log_read += len(new)
            if new:
                self._log(new.decode(errors="replace"))

    def _log(self, text: str) -> None:
        self._log_text += text
        self.logged.emit(text)

    def _finish_cancelling(self) -> None:
        self._canceller = None
        self._end()

    def _end(self, error: str = "", details: str = "") -> None:
        self._timer.stop()
        running, self._running = self._running, None
        if running is not None:
            running.close()
        self.progress = RunProgress("")
        self._become(RunState.IDLE)
        self.ended.emit(error, details)

    def _become(self, state: RunState) -> None:
        self.state = state
        self.changed.emit()
