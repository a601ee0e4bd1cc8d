"""Parts of a panel's section: signals, parameters of the scene, reload."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import qt
import slicer
import vtk
from slicer.parameterNodeWrapper import WithinRange
from slicer.util import VTKObservationMixin

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.options import OptionField, make_options, options_of
from CTLungScreeningSlicer.panel.slice_views import show_volume, shown_volume
from CTLungScreeningSlicer.scene.mrml_volume import has_voxels, visible_volumes


class Signal:
    """Calls the connected functions in order when it is emitted."""

    def __init__(self) -> None:
        self._slots: list[Callable[..., Any]] = []

    def connect(self, slot: Callable[..., Any]) -> None:
        """Add a function."""
        self._slots.append(slot)

    def emit(self, *arguments: Any) -> None:
        """Call the functions that are connected now."""
        for slot in list(self._slots):
            slot(*arguments)


class Debounced:
    """Calls a function once after the current events, or after a pause in the requests."""

    def __init__(self, function: Callable[[], object], wait_ms: int = 0) -> None:
        """Take the function, and how long to wait after the last request."""
        self._timer = qt.QTimer()
        # Not `.singleShot =`, which is a function as well.
        self._timer.setProperty("singleShot", True)
        self._timer.interval = wait_ms
        self._timer.timeout.connect(function)

    def __call__(self, *_arguments: Any) -> None:
        """Request the call; takes the arguments of any event."""
        self._timer.start()

    @property
    def waiting(self) -> bool:
        """Whether the call is pending."""
        return bool(self._timer.active)

    def cancel(self) -> None:
        """Withdraw the request."""
        self._timer.stop()


class Section:
    """A section of a panel; it overrides the methods it needs.

    While the panel is hidden, and while the scene is being closed or loaded, their argument is
    None.

    Attributes:
        changed: signal without arguments, to be emitted after the section has changed something
            that others show too: results, landmarks, or the history.
    """

    def __init__(self) -> None:
        self.changed = Signal()

    def set_parameters(self, parameters: Any | None) -> None:
        """Use the panel's wrapped parameter node; called again after each change."""

    def set_volume(self, volume: Any | None) -> None:
        """Work on another volume, or on none; a running command keeps its own."""

    def set_results(self, results: Any | None) -> None:
        """Show the results of the volume, None without any; called again when they may change."""

    def stop(self) -> None:
        """Stop all work and child processes before the scene, the module or Slicer closes."""


def for_each(sections: Sequence[Section], call: Callable[[Section], None]) -> None:
    """Call a function with each section, also with those after one with which it fails.

    An `InputError` is shown in the status bar; anything else is raised at the end.
    """
    with ExitStack() as rest:
        for section in reversed(sections):
            rest.callback(_show_problem, call, section)


def _show_problem(call: Callable[[Section], None], section: Section) -> None:
    try:
        call(section)
    except InputError as problem:
        slicer.util.showStatusMessage(str(problem), 5000)


class ParameterBinding(VTKObservationMixin):
    """Keeps a panel and its parameters together as it is shown and hidden, and the scene changes.

    Attributes:
        parameters: the wrapped parameter node, with a parameter `volume`; None while the panel is
            not shown, and while the scene is being closed or loaded.
    """

    def __init__(
        self,
        panel: Any,
        find: Callable[[], Any],
        show: Callable[[Any | None], None],
        stop: Callable[[], None],
    ) -> None:
        """Bind the parameters of the scene.

        Args:
            panel: the module's widget class, whose `ui` names parameters and has a
                `volumeSelector`.
            find: returns the wrapped parameter node of the scene.
            show: called with it whenever a parameter or the scene has changed, with None to
                release it.
            stop: ends all work before the scene, the module or Slicer closes.
        """
        super().__init__()
        self.parameters: Any = None
        self._volume: Any = None
        self._panel, self._find, self._show, self._stop = panel, find, show, stop
        self._disconnect: Callable[[], None]
        # Also where it is the one that was chosen before, which changes no parameter.
        panel.ui.volumeSelector.nodeActivated.connect(_show_activated)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._scene_closes)
        self.addObserver(scene, scene.StartImportEvent, self._scene_loads)
        # After each of them: before, Slicer has no slice views for the layout of a loaded scene.
        self.addObserver(scene, scene.EndBatchProcessEvent, self._scene_changed)
        self.addObserver(scene, scene.NodeRemovedEvent, self.refresh)
        # Not where a script merely asks for the module's widget; Slicer calls `enter` itself.
        if panel.parent.isEntered:
            self.enter()

    def enter(self) -> None:
        """Bind the parameters when the panel is shown; their default is the volume in view.

        While the scene is being changed in a batch, they are bound at its end.
        """
        if slicer.mrmlScene.IsBatchProcessing():
            return
        live = self._live()
        live._bind(live._find())
        if live.parameters.volume is None:
            volume = shown_volume() or next(iter(visible_volumes(slicer.mrmlScene)), None)
            if volume is not None:
                live.parameters.volume = volume

    def leave(self) -> None:
        """Release the parameters when another module is shown."""
        self._live()._bind(None)

    def _live(self) -> "ParameterBinding":
        """Return the binding of the shown panel: Slicer 5.6 keeps notifying the first one."""
        panel = getattr(slicer.modules, f"{self._panel.moduleName}Widget", self._panel)
        return cast("ParameterBinding", panel.binding or self)

    def close(self) -> None:
        """Stop all work and release the scene before the module is unloaded."""
        self._stop()
        self._bind(None)
        self.removeObservers()

    def choose_volume(self, volume: Any) -> None:
        """Select the volume to work on."""
        if self.parameters is not None:
            self.parameters.volume = volume

    def refresh(self, *_arguments: Any) -> None:
        """Show the parameters, and a newly chosen volume in the slice views."""
        self._await_images()
        volume = self.parameters and self.parameters.volume
        if volume is None or has_voxels(volume):
            if volume is not None and volume is not self._volume:
                show_volume(volume)
            self._volume = volume
        self._show(self.parameters)

    def _await_images(self) -> None:
        """Wait for the images of volumes without one: Slicer may add a volume before its image."""
        arrived = slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent
        for name in self.parameters.allParameters if self.parameters is not None else ():
            node = self.parameters.getValue(name)
            waits = isinstance(node, slicer.vtkMRMLVolumeNode) and not has_voxels(node)
            if waits and not self.hasObserver(node, arrived, self._image_arrived):
                self.addObserver(node, arrived, self._image_arrived)

    def _image_arrived(self, volume: Any, *_arguments: Any) -> None:
        arrived = slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent
        if has_voxels(volume):
            self.removeObserver(volume, arrived, self._image_arrived)
            self.refresh()

    def _scene_closes(self, *_arguments: Any) -> None:
        """Release all nodes before the scene closes."""
        self._stop()
        self._bind(None)

    def _scene_loads(self, *_arguments: Any) -> None:
        """Release the widgets, whose lists are filled anew and then choose their first node."""
        self._bind(None)

    def _scene_changed(self, *_arguments: Any) -> None:
        """Bind the parameters again after the scene was closed or loaded."""
        if self.parameters is None and self._panel.parent.isEntered:
            self.enter()

    def _bind(self, parameters: Any | None) -> None:
        modified = vtk.vtkCommand.ModifiedEvent
        if self.parameters is not None:
            self._disconnect()
            self.removeObserver(self.parameters.parameterNode, modified, self.refresh)
        self.parameters = parameters
        self._volume = parameters and parameters.volume  # that the views show, or the user knows
        if parameters is not None:
            widgets = named_widgets(self._panel.ui, "SlicerParameterName")
            self._disconnect = _connect(parameters, widgets)
            self.addObserver(parameters.parameterNode, modified, self.refresh)
        self.refresh()


def named_widgets(ui: Any, mark: str) -> dict[str, Any]:
    """Return the widgets of a .ui file that have a dynamic property, by its value."""
    return {name: one for one in vars(ui).values() if (name := one.property(mark))}


def _connect(parameters: Any, widgets: Mapping[str, Any]) -> Callable[[], None]:
    """Keep widgets and a wrapped parameter node equal; return the function that ends it.

    In many versions of Slicer `disconnectGui` leaves an observer on the node, which keeps the
    wrapper and its own observers: here its tag is caught as it is added.
    """
    node = parameters.parameterNode
    tags = []

    def observe(*arguments: Any) -> int:
        tags.append(node.AddObserver(*arguments))
        return tags[-1]

    parameters.AddObserver = observe
    gui = parameters.connectParametersToGui(widgets)  # not connectGui, which returns no tag
    del parameters.AddObserver

    def disconnect() -> None:
        parameters.disconnectGui(gui)
        for tag in tags:
            node.RemoveObserver(tag)

    return disconnect


def _show_activated(volume: Any | None) -> None:
    if has_voxels(volume):
        show_volume(volume)


T = TypeVar("T")

_LARGEST = 100_000
"""Maximum of a number whose option has none."""

_OPTIONS = "declaredOptions"


def with_parameters(kind: Any, *names: str, **renamed: str) -> Callable[[type[T]], type[T]]:
    """Add a parameter for each of some options to a class, before `parameterNodeWrapper` wraps it.

    A path is kept as text, and an option that was not set as "" or 0.

    Args:
        kind: dataclass that declares the options.
        names: of the options.
        renamed: options by the names of their parameters, if these are not the usual ones: the
            option `empty_scans` has the parameter `emptyScans`.
    """
    options = {one.name: one for one in options_of(kind)}
    parameters = {_parameter(name): name for name in names} | renamed

    def add(cls: type[T]) -> type[T]:
        for parameter, name in parameters.items():
            hint, default = _declared(options[name])
            cls.__annotations__[parameter] = hint
            if default is not None:
                setattr(cls, parameter, default)
        setattr(cls, _OPTIONS, {**getattr(cls, _OPTIONS, {}), kind: parameters})
        return cls

    return add


def _declared(one: OptionField) -> tuple[Any, Any]:
    """Return type and default of the parameter for an option."""
    if one.type is Path:
        return str, None
    if one.type not in (int, float):
        return one.type, one.default
    smallest = 0 if one.optional else (one.option.min or 0)
    limits = WithinRange(smallest, _LARGEST if one.option.max is None else one.option.max)
    return Annotated[one.type, limits], one.type(one.default or 0)


class SectionParameters:
    """Parameters of a section, kept in the panel's parameter node and bound to widgets.

    Attributes:
        values: the wrapped parameter node; None while there is none.
        widgets: by the parameter that each shows.
    """

    def __init__(self, wrapper: Any, ui: Any, mark: str, changed: Callable[[], None]) -> None:
        """Find the widgets.

        Args:
            wrapper: class made by `parameterNodeWrapper`.
            ui: widgets of the .ui file.
            mark: dynamic property of the .ui file that names the parameter of a widget.
            changed: called when a choice has changed.
        """
        self._wrapper, self._changed = wrapper, changed
        self.values: Any = None
        self.widgets = named_widgets(ui, mark)
        self._node: Any = None
        self._observer = -1
        self._disconnect: Callable[[], None]

    def set_node(self, node: Any | None) -> None:
        """Keep the widgets and a parameter node equal from now on."""
        if node is self._node:
            return
        if self._node is not None:
            self._disconnect()
            self._node.RemoveObserver(self._observer)
        self._node, self.values = node, None
        if node is not None:
            self.values = self._wrapper(node)
            self._disconnect = _connect(self.values, self.widgets)
            self._observer = node.AddObserver(
                vtk.vtkCommand.ModifiedEvent, lambda *_: self._changed()
            )
        self._changed()

    def options(self, kind: type[T], **others: Any) -> T:
        """Make a dataclass of options of the parameters that `with_parameters` added for it.

        Args:
            kind: the dataclass.
            others: further fields.
        """
        optional = {one.name for one in options_of(kind) if one.optional}
        chosen = {
            name: self.path(parameter)
            if type(value := self.values.getValue(parameter)) is str
            else value or (None if name in optional else value)
            for parameter, name in getattr(self._wrapper, _OPTIONS)[kind].items()
        }
        return cast("T", make_options(kind, {**chosen, **others}))

    def path(self, name: str) -> Path | None:
        """The path in a parameter of text; None if it is empty."""
        text = self.values.getValue(name).strip()
        if not text:
            return None
        try:
            return Path(text).expanduser()
        except RuntimeError:  # ~ and the name of no user
            return Path(text)


def _parameter(name: str) -> str:
    """Write a name as Slicer does: emptyScans."""
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


PACKAGES = frozenset(
    f"{name}{layer}"
    for name in ("CTLungScreening", "CTSliceTools", "LungNoduleSeg")
    for layer in ("Lib", "Slicer")
)


def forget_packages() -> None:
    """Forget our packages, so that the next import reads their files again.

    Slicer's own reload reads the module's file alone again; call this before it.
    """
    for name in list(sys.modules):
        if name.partition(".")[0] in PACKAGES:
            del sys.modules[name]
