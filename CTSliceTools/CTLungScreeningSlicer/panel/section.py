"""What a panel tells each of its sections, and what a section tells the panel."""

from typing import Any

from CTLungScreeningSlicer.panel.events import Signal


class Section:
    """A section of a panel; it overrides what it needs to be told.

    While the panel is not shown, and while the scene is being closed, it is told None.

    Attributes:
        changed: signal without arguments, to be emitted after the section has changed what others
            show as well: results, landmarks, or changes that can be undone.
    """

    def __init__(self) -> None:
        self.changed = Signal()

    def set_parameters(self, parameters: Any | None) -> None:
        """Take the panel's wrapped parameter node, again after each change of a parameter."""

    def set_volume(self, volume: Any | None) -> None:
        """Work on a volume from now on, or on none; a run goes on with the one it began with."""

    def set_results(self, results: Any | None) -> None:
        """Show the results of the volume, None without any; called again when they may differ."""

    def stop(self) -> None:
        """End all work, with its child processes: the scene, the module or Slicer goes."""
