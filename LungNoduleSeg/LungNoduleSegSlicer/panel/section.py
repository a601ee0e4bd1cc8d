"""What the panel tells each of its sections, and what a section tells the panel."""

from typing import Any

from CTLungScreeningSlicer.panel.signals import Signal
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes


class Section:
    """A section of the panel; it overrides what it needs to be told.

    While the panel is not shown, and while the scene is being closed, it is told None.

    Attributes:
        changed: signal without arguments, to be emitted after the section has changed results, or
            the logic's changes that can be undone; all sections are then told the results again.
    """

    def __init__(self) -> None:
        self.changed = Signal()

    def set_parameters(self, parameters: Any | None) -> None:
        """Hear the panel's LungNoduleSegParameterNode, again after each change of a parameter."""

    def set_volume(self, volume: Any | None) -> None:
        """Work on a volume from now on, or on none; a run goes on with the one it began with."""

    def set_results(self, results: ResultNodes | None) -> None:
        """Show the results of the volume, None without any; called again when they may differ."""

    def stop(self) -> None:
        """End all work, with its child processes: the scene, the module or Slicer goes."""
