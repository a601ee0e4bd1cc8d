"""The threshold of the nodules as a slider; they follow it while it is moved."""

from typing import Any

import qt
import slicer

from CTLungScreeningSlicer.panel.errors import shown_errors
from CTLungScreeningSlicer.panel.events import Debounced, Signal
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes
from LungNoduleSegSlicer.scene.review_logic import ReviewLogic

REST_MS = 300
"""How long it must rest to count as let go."""


class ThresholdSlider:
    """Finds the nodules again wherever it is moved to.

    It never lags behind the mouse: places that it passed while nodules were found are left out.

    Attributes:
        rested: signal without arguments: it was moved, and has come to rest.
    """

    def __init__(self, slider: Any, hint: Any, logic: ReviewLogic) -> None:
        """Take the widgets; `hint` is shown where there is nothing to move."""
        self.rested = Signal()
        self._slider, self._hint, self._logic = slider, hint, logic
        self._results: ResultNodes | None = None
        self._showing = False
        self._apply_soon = Debounced(self._apply)
        self._rest = qt.QTimer()
        # Not `.singleShot =`, which is a function as well.
        self._rest.setProperty("singleShot", True)
        self._rest.interval = REST_MS
        self._rest.timeout.connect(self.rested.emit)
        slider.valueChanged.connect(self._move)

    def show(self, results: ResultNodes | None) -> None:
        """Show the threshold of results, and change that of no others."""
        self._results = results
        threshold = None if results is None else self._logic.threshold(results)
        self._slider.enabled = threshold is not None
        self._hint.visible = threshold is None
        if results is None or threshold is None:
            return
        self._showing = True
        if self._logic.isReady(results):
            self._slider.minimum = self._logic.lowestThreshold(results)
        if not self._apply_soon.waiting:
            self._slider.value = threshold
        self._showing = False

    def stop(self) -> None:
        """Leave the nodules as they are."""
        self._apply_soon.cancel()
        self._rest.stop()

    def _move(self, value: float) -> None:
        if not self._showing:
            self._apply_soon()

    def _apply(self) -> None:
        if self._results is None:
            return
        with shown_errors(), slicer.util.WaitCursor(not self._logic.isReady(self._results)):
            self._logic.setThreshold(self._results, self._slider.value)
        self._rest.start()
