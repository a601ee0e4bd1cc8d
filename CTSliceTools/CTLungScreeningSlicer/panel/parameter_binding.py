"""Keep a module's panel and its parameter node in sync."""

from collections.abc import Callable
from typing import Any, cast

import slicer
import vtk
from slicer.util import VTKObservationMixin

from CTLungScreeningSlicer.panel.slice_views import show_volume, shown_volume, visible_volumes


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
            panel: the module's widget class, whose `ui` names parameters and has a
                `volumeSelector`.
            find: gives the wrapped parameter node of the scene.
            show: gets it whenever a parameter or the scene has changed, None to let go of it.
            stop: ends all work before the scene, the module or Slicer goes.
        """
        super().__init__()
        self.parameters: Any = None
        self._volume: Any = None
        self._panel, self._find, self._show, self._stop = panel, find, show, stop
        self._tag: int | None = None
        self._held_node: Any = None
        # Also where it is the one that was chosen before, which changes no parameter.
        panel.ui.volumeSelector.nodeActivated.connect(_show_activated)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._scene_goes)
        self.addObserver(scene, scene.EndCloseEvent, self._scene_came)
        self.addObserver(scene, scene.EndImportEvent, self._scene_came)
        self.addObserver(scene, scene.NodeRemovedEvent, self.refresh)
        self.enter()

    def enter(self) -> None:
        """The panel is shown: take the parameters, with the volume in view if they have none."""
        live = self._live()
        live._bind(live._find())
        if live.parameters.volume is None:
            volume = shown_volume() or next(iter(visible_volumes()), None)
            if volume is not None:
                live.parameters.volume = volume

    def leave(self) -> None:
        """Another module is shown: the scene may change unheard."""
        self._live()._bind(None)

    def _live(self) -> "ParameterBinding":
        """Give the binding of the panel that is shown: Slicer 5.6 keeps telling the first one."""
        panel = getattr(slicer.modules, f"{self._panel.moduleName}Widget", self._panel)
        return cast("ParameterBinding", getattr(panel, "binding", self))

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
        """Show what the parameters say, and a volume that was chosen in the slice views."""
        self._await_images()
        volume = self.parameters and self.parameters.volume
        if volume is None or volume.GetImageData() is not None:
            if volume is not None and volume is not self._volume:
                show_volume(volume)
            self._volume = volume
        self._show(self.parameters)

    def _await_images(self) -> None:
        """Hear of the images of volumes that have none yet: Slicer may add a volume before it."""
        arrived = slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent
        for name in self.parameters.allParameters if self.parameters is not None else ():
            node = self.parameters.getValue(name)
            waits = isinstance(node, slicer.vtkMRMLVolumeNode) and node.GetImageData() is None
            if waits and not self.hasObserver(node, arrived, self._image_arrived):
                self.addObserver(node, arrived, self._image_arrived)

    def _image_arrived(self, volume: Any, *_arguments: Any) -> None:
        arrived = slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent
        if volume.GetImageData() is not None:
            self.removeObserver(volume, arrived, self._image_arrived)
            self.refresh()

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
        self._volume = parameters and parameters.volume  # that the views show, or the user knows
        if parameters is not None:
            # What connectGui observes with is never taken away: without a reference to the node,
            # Python's garbage collector clears it, and VTK calls what is no more.
            self._held_node = parameters.parameterNode
            self._tag = parameters.connectGui(self._panel.ui)
            self.addObserver(parameters.parameterNode, modified, self.refresh)
        self.refresh()


def _show_activated(volume: Any | None) -> None:
    if volume is not None and volume.GetImageData() is not None:
        show_volume(volume)
