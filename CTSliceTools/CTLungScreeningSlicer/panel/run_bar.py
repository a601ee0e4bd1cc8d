"""The controls of a run: one Run/Cancel button, progress with remaining time, a log."""

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from CTLungScreeningLib.child_work import Work
from CTLungScreeningSlicer.panel.errors import shown_errors
from CTLungScreeningSlicer.panel.work_runner import RunState, WorkRunner

BUTTON_HEIGHT = 32
"""Of the button, in pixels: it is what most people come to a section for."""


class RunBar:
    """Fills a widget of a .ui file, which has an empty layout, with the controls of a run.

    Attributes:
        runner: does the work; its signals tell how it goes.
        button: Run, and Cancel while it runs.
    """

    def __init__(
        self,
        place: Any,
        label: str,
        tool_tip: str,
        make_work: Callable[[], Work[Any] | None],
        done: Callable[[Any], None],
    ) -> None:
        """Build the controls.

        Args:
            place: the widget.
            label: of the button while nothing runs.
            tool_tip: of the button while it can be pressed.
            make_work: gives the work when the button is pressed; None if the user has declined;
                may raise `InputError`.
            done: gets what the work returns.
        """
        self.runner = WorkRunner()
        self._label, self._tool_tip = label, tool_tip
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
        """Say what keeps the run from starting, "" if nothing does; it becomes the tool tip."""
        self._obstacle = reason
        self._show()

    @property
    def status(self) -> str:
        """The line below the progress bar."""
        return str(self._text.text)

    @property
    def log_text(self) -> str:
        """What the run has printed."""
        return str(self._log.plainText)

    def _press(self, *_arguments: Any) -> None:
        if self.runner.busy:
            self.runner.cancel()
            return
        with shown_errors():
            work = self._make_work()
            if work is not None:
                self._log.plainText = ""
                self.runner.start(work, self._done)

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
        self.button.enabled = (
            state in (RunState.STARTING, RunState.RUNNING) if busy else not self._obstacle
        )
        idle_tip = self._obstacle or self._tool_tip
        self.button.toolTip = (
            _("Stop the run. Nothing in the scene is changed.") if busy else idle_tip
        )
        self._bar.visible = busy
        self._bar.maximum = 0 if progress.percent is None else 100
        self._bar.value = progress.percent or 0
        self._text.text = progress.text
        self._text.visible = busy
        self._log_switch.visible = bool(self.log_text)
        self._log.visible = self._log_switch.checked and bool(self.log_text)
