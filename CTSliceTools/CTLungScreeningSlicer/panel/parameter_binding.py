"""Keeps a module's panel and its parameter node in the scene equal."""

from collections.abc import Callable
from typing import Any

import slicer
import vtk
from slicer.util import VTKObservationMixin


class ParameterBinding(VTKObservationMixin):
    """What every panel does with its parameters as it is shown and left, and as the scene changes.

    Attributes:
        parameters: the wrapped parameter node, with a parameter `volume`; None while the panel is
            not shown, and while the scene is being closed.
    """

    def __init__(
        self,
        panel: Any,
        find: Callable[[], Any],
        show: Callable[[Any | None], None],
        stop: Callable[[], None],
    ) -> None:
        """Begin with the parameters of the scene.

        Args:
            panel: the module's widget class, whose `ui` names parameters.
            find: gives the wrapped parameter node of the scene.
            show: gets it whenever a parameter or the scene has changed, None to let go of it.
            stop: ends all work before the scene, the module or Slicer goes.
        """
        super().__init__()
        self.parameters: Any = None
        self._panel, self._find, self._show, self._stop = panel, find, show, stop
        self._tag: int | None = None
        self._held_node: Any = None
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._scene_goes)
        self.addObserver(scene, scene.EndCloseEvent, self._scene_came)
        self.addObserver(scene, scene.EndImportEvent, self._scene_came)
        self.addObserver(scene, scene.NodeRemovedEvent, self.refresh)
        self.enter()

    def enter(self) -> None:
        """The panel is shown: take the parameters, with the scene's first volume if it has none."""
        self._bind(self._find())
        if self.parameters.volume is None:
            first = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            if first is not None:
                self.parameters.volume = first

    def leave(self) -> None:
        """Another module is shown: the scene may change unheard."""
        self._bind(None)

    def close(self) -> None:
        """Stop all work and let go of the scene: the module is unloaded, or Slicer quits."""
        self._stop()
        self._bind(None)
        self.removeObservers()

    def choose_volume(self, volume: Any) -> None:
        """Make a volume the one to work on."""
        if self.parameters is not None:
            self.parameters.volume = volume

    def refresh(self, *_arguments: Any) -> None:
        """Show what the parameters say."""
        self._show(self.parameters)

    def _scene_goes(self, *_arguments: Any) -> None:
        """Nothing may hold on to the nodes of the scene."""
        self._stop()
        self._bind(None)

    def _scene_came(self, *_arguments: Any) -> None:
        """The scene was closed, or another read into it."""
        if self._panel.parent.isEntered:
            self.enter()

    def _bind(self, parameters: Any | None) -> None:
        modified = vtk.vtkCommand.ModifiedEvent
        if self.parameters is not None:
            self.parameters.disconnectGui(self._tag)
            self.removeObserver(self.parameters.parameterNode, modified, self.refresh)
        self.parameters = parameters
        if parameters is not None:
            # What connectGui observes with is never taken away: without a reference to the node,
            # Python's garbage collector clears it, and VTK calls what is no more.
            self._held_node = parameters.parameterNode
            self._tag = parameters.connectGui(self._panel.ui)
            self.addObserver(parameters.parameterNode, modified, self.refresh)
        self.refresh()
