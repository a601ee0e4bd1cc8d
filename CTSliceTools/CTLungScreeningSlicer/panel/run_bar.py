"""A run in a child process: its Run/Cancel button, progress with remaining time, and a log."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import qt
import slicer
from slicer.i18n import tr as _

from CTLungScreeningLib.child_process import ChildError, ChildProcess, RunningWork, Work
from CTLungScreeningLib.errors import Cancelled, InputError
from CTLungScreeningSlicer.panel.section import Signal
from CTLungScreeningSlicer.panel.widgets import shown_errors


@dataclass(frozen=True)
class RunProgress:
    """The progress of a stage of a run.

    Attributes:
        stage: its name, such as "Reading".
        percent: of the stage, None while that is not known.
        remaining_s: of the stage in seconds, None while that is not known.
    """

    stage: str
    percent: int | None = None
    remaining_s: float | None = None

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> "RunProgress":
        """Read a progress line of one of our commands, see `progress.JsonLines`."""
        total = event["total"]
        percent = round(100 * event["done"] / total) if total else None
        return cls(event["stage"], percent, event.get("remaining_s"))

    @property
    def text(self) -> str:
        """The stage, percentage and remaining time, as far as known."""
        parts = [self.stage]
        if self.percent is not None:
            parts.append(f"{self.percent} %")
        if self.remaining_s is not None and self.percent != 100:
            parts.append(_("about {time} left").format(time=duration_text(self.remaining_s)))
        return ", ".join(parts)


def duration_text(seconds: float) -> str:
    """Write a duration: "5 s", "3 min", "2 h 10 min"."""
    if seconds < 59.5:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


WIDTH = 400


class ProgressWindow:
    """Used as a context manager around the work, which shows how far it is."""

    def __init__(self, title: str, text: str) -> None:
        """Take the title, and what is done first."""
        self._window = window = qt.QProgressDialog(slicer.util.mainWindow())
        window.windowTitle = title
        window.windowModality = qt.Qt.ApplicationModal
        window.minimumDuration = window.maximum = 0  # shown at once, the end is not known
        window.minimumWidth = WIDTH
        window.labelText = text

    def __enter__(self) -> Self:
        self._window.show()
        slicer.app.processEvents()
        return self

    def __exit__(self, *_exception: Any) -> None:
        self._window.close()
        self._window.deleteLater()

    def show(self, text: str) -> None:
        """Show the current stage.

        Raises:
            Cancelled: if the user has pressed Cancel.
        """
        self._window.labelText = text
        self.keep_alive()

    def keep_alive(self) -> None:
        """Process events of the window; call it ten times a second.

        Raises:
            Cancelled: if the user has pressed Cancel.
        """
        slicer.app.processEvents()
        if self._window.wasCanceled:
            raise Cancelled

    def report(self, stage: str, done: int, total: int) -> None:
        """Show progress as the `ProgressCallback` of a command.

        Raises:
            Cancelled: if the user has pressed Cancel.
        """
        self.show(
            _("{stage}, {percent} %").format(stage=stage, percent=100 * done // max(total, 1))
        )


POLL_MS = 100
"""Interval at which the child is polled; steps without a child follow each other at once."""


class RunState(StrEnum):
    """State of a run."""

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    IMPORTING = "importing"
    CANCELLING = "cancelling"


def _ignore(result: Any) -> None:
    """Ignore a result."""


class WorkRunner:
    """Runs one piece of work at a time.

    Attributes:
        state: where it is.
        progress: of the current stage.
        changed: signal without arguments: `state` or `progress` has changed.
        logged: signal with a text: what the child has just printed.
        event: signal with each JSON object that the child has printed, as a dictionary.
        ended: signal with the error as one sentence and its details, both empty after success and
            after Cancel.
    """

    def __init__(self) -> None:
        self.state = RunState.IDLE
        self.progress = RunProgress("")
        self.changed = Signal()
        self.logged = Signal()
        self.event = Signal()
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
        """Start a piece of work; `done` is called with its result.

        Raises:
            RuntimeError: if there is work already.
        """
        if self.busy:
            raise RuntimeError("the runner is busy")
        self._running, self._done = RunningWork(work, self._handle), done
        self._log_text = ""
        self.progress = RunProgress(_("Starting"))
        self._become(RunState.STARTING)
        self._timer.interval = 0
        self._timer.start()

    def cancel(self) -> None:
        """End the child process and all its descendants; the panel stays responsive."""
        child = None if self._running is None else self._running.child
        if self.state is RunState.STARTING or (self.state is RunState.RUNNING and child is None):
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
            logging.exception("The run failed")
            self._end(_("The run failed: {problem}").format(problem=problem), self._log_text)
            return
        if running.child is None:
            if self.state is not RunState.RUNNING:
                self._become(RunState.RUNNING)
        elif running.child is not child:
            self._log_read = 0
            self.progress = RunProgress(_("Starting"))
            self._become(RunState.RUNNING)
        else:
            self._read_log(running.child)
        if running.importing:
            self.progress = RunProgress(_("Importing"))
            self._become(RunState.IMPORTING)
        elif self.progress != progress:
            self.changed.emit()
        self._timer.interval = 0 if running.child is None else POLL_MS
        self._timer.start()

    def _handle(self, event: dict[str, Any]) -> None:
        if "stage" in event:
            self.progress = RunProgress.from_event(event)
        if "message" in event:
            self._log(f"{event['message']}\n")
        self.event.emit(event)

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


BUTTON_HEIGHT = 32
"""Minimum height of the button in pixels; it is the main control of a section."""


class RunBar:
    """Fills a widget of a .ui file, which has an empty layout, with the controls of a run.

    Attributes:
        runner: does the work; its signals report the progress.
        button: Run, and Cancel while it runs.
    """

    def __init__(
        self,
        place: Any,
        label: str = "",
        tool_tip: str = "",
        make_work: Callable[[], Work[Any] | None] = lambda: None,
        done: Callable[[Any], None] = lambda result: None,
        keeps: bool = False,
    ) -> None:
        """Build the controls.

        Args:
            place: the widget.
            label: of the button while nothing runs; "" if other buttons `start` the work, so that
                this one is only there to cancel it.
            tool_tip: of the button while it can be pressed.
            make_work: gives the work when the button is pressed; None if the user has declined;
                may raise `InputError`.
            done: gets what the work returns.
            keeps: whether a stopped run leaves what it has finished.
        """
        self.runner = WorkRunner()
        self._label, self._tool_tip = label, tool_tip
        self._stop_tip = (
            _("Stop the run. What is finished is kept.")
            if keeps
            else _("Stop the run. Nothing in the scene is changed.")
        )
        self._make_work, self._done = make_work, done
        self._obstacle = ""

        self.button = qt.QPushButton(label)
        self.button.objectName = f"{place.name}Button"
        self.button.minimumHeight = BUTTON_HEIGHT
        bold = qt.QFont(self.button.font)
        bold.setBold(True)
        self.button.font = bold
        self._bar = qt.QProgressBar()
        self._bar.toolTip = _("Progress of the current stage.")
        self._text = qt.QLabel()
        self._log_switch = qt.QToolButton()
        self._log_switch.text = _("Log")
        self._log_switch.checkable = True
        self._log_switch.toolTip = _("Show the output of the run.")
        self._log = qt.QPlainTextEdit()
        self._log.readOnly = True
        self._log.toolTip = _("Output of the run.")
        self._log.minimumHeight = 80

        line = qt.QHBoxLayout()
        line.addWidget(self._text, 1)
        line.addWidget(self._log_switch)
        column = place.layout()
        column.addWidget(self.button)
        column.addWidget(self._bar)
        column.addLayout(line)
        column.addWidget(self._log)

        self.button.clicked.connect(self._press)
        self._log_switch.toggled.connect(self._show)
        self.runner.changed.connect(self._show)
        self.runner.logged.connect(self._append)
        self.runner.ended.connect(self._end)
        self._show()

    def set_obstacle(self, reason: str) -> None:
        """Set the reason why the run cannot start, "" if it can; it becomes the tooltip."""
        self._obstacle = reason
        self._show()

    @property
    def status(self) -> str:
        """The line below the progress bar."""
        return str(self._text.text)

    @property
    def log_text(self) -> str:
        """The output of the run."""
        return str(self._log.plainText)

    def start(self, work: Work[Any], done: Callable[[Any], None]) -> None:
        """Start a piece of work unless one is running; `done` is called with its result."""
        if not self.runner.busy:
            self._log.plainText = ""
            self.runner.start(work, done)

    def _press(self, *_arguments: Any) -> None:
        if self.runner.busy:
            self.runner.cancel()
            return
        with shown_errors():
            work = self._make_work()
            if work is not None:
                self.start(work, self._done)

    def _append(self, text: str) -> None:
        self._log.appendPlainText(text.rstrip("\n"))
        self._log_switch.visible = True

    def _end(self, error: str, details: str) -> None:
        if error:
            options = {"detailedText": details} if details else {}
            slicer.util.errorDisplay(error, windowTitle=_("Run failed"), **options)

    def _show(self, *_arguments: Any) -> None:
        state, progress = self.runner.state, self.runner.progress
        busy = self.runner.busy
        self.button.text = _("Cancel") if busy else self._label
        self.button.visible = busy or bool(self._label)
        self.button.enabled = (
            state in (RunState.STARTING, RunState.RUNNING) if busy else not self._obstacle
        )
        idle_tip = self._obstacle or self._tool_tip
        stops = busy or not self._label
        self.button.toolTip = self._stop_tip if stops else idle_tip
        self._bar.visible = busy
        self._bar.maximum = 0 if progress.percent is None else 100
        self._bar.value = progress.percent or 0
        self._text.text = progress.text
        self._text.visible = busy
        self._log_switch.visible = bool(self.log_text)
        self._log.visible = self._log_switch.checked and bool(self.log_text)
