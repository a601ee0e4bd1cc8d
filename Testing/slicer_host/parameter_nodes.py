"""Stand-in for `slicer.parameterNodeWrapper`, as far as our panels use it.

As in Slicer: values are kept as text on the node, nodes as references under the parameter's name; a
parameter that is missing is written with its default, and all are read again when the node changes;
a widget whose dynamic property `SlicerParameterName` names a parameter is kept equal to it both
ways by `connectGui`.
"""

import enum
import pathlib
import typing
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import ctk
import qt
import slicer
import vtk


@dataclass(frozen=True)
class WithinRange:
    """Annotation: a number's least and greatest value."""

    minimum: float
    maximum: float

    def check(self, value: float) -> None:
        """Raise ValueError for a value outside."""
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be in range [{self.minimum}, {self.maximum}]: {value}")


class Choice:
    """Annotation: the values that are allowed."""

    def __init__(self, choices: Any) -> None:
        self.choices = list(choices)

    def check(self, value: Any) -> None:
        """Raise ValueError for another value."""
        if value not in self.choices:
            raise ValueError(f"Value must be one of {self.choices}: {value}")


@dataclass(frozen=True)
class Default:
    """Annotation: the value of a parameter that is not set."""

    value: Any


class _Parameter:
    def __init__(self, name: str, hint: Any, default: Any) -> None:
        self.name = name
        self.type, *self.annotations = (
            typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        )
        self.is_node = isinstance(self.type, type) and issubclass(self.type, slicer.vtkMRMLNode)
        self._write, self._read, own_default = self._conversion()
        given = [one.value for one in self.annotations if isinstance(one, Default)]
        self.default = next(
            value for value in (default, *given, own_default) if value is not _MISSING
        )

    def _conversion(self) -> tuple[Callable[[Any], str], Callable[[str], Any], Any]:
        if self.is_node:
            return str, str, None
        if self.type is bool:
            return str, lambda text: text == "True", False
        if self.type in (int, float, str):
            return str, self.type, self.type()
        if isinstance(self.type, type) and issubclass(self.type, pathlib.PurePath):
            return str, self.type, self.type()
        if isinstance(self.type, type) and issubclass(self.type, enum.Enum):
            return lambda value: value.name, lambda text: self.type[text], next(iter(self.type))
        raise TypeError(f"Unable to create serializer for type: {self.type}")

    def read(self, node: Any) -> Any:
        if not node.HasParameter(self.name):
            self.write(node, self.default)
        if self.is_node:
            return node.GetNodeReference(self.name)
        return self._read(node.GetParameter(self.name))

    def write(self, node: Any, value: Any) -> None:
        if self.is_node:
            if value is not None and not isinstance(value, self.type):
                raise TypeError(f"{self.name} must be a {self.type.__name__}: {value}")
            node.SetParameter(self.name, "")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            return
        allowed = (int, float) if self.type is float else self.type
        if not isinstance(value, allowed):
            raise TypeError(f"{self.name} must be {self.type}: {value!r}")
        for annotation in self.annotations:
            if hasattr(annotation, "check"):
                annotation.check(value)
        node.SetParameter(self.name, self._write(value))


_MISSING = object()


class _Cached:
    """A parameter of a node; it observes the node as long as it lives."""

    def __init__(self, parameter: _Parameter, node: Any) -> None:
        self._parameter, self._node = parameter, node
        self.value = parameter.read(node)
        self._writing = False
        own: Any = weakref.ref(self)
        self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: own()._read())

    def __del__(self) -> None:
        self._node.RemoveObserver(self._tag)

    def _read(self) -> None:
        if not self._writing:
            self.value = self._parameter.read(self._node)

    def write(self, value: Any) -> None:
        self._writing = True
        try:
            with slicer.util.NodeModify(self._node):
                self._parameter.write(self._node, value)
                self.value = self._parameter.read(self._node)
        finally:
            self._writing = False


class _Wrapper:
    """What `parameterNodeWrapper` adds to a class."""

    allParameters: typing.ClassVar[dict[str, _Parameter]]

    def __init__(self, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self._guis: dict[int, dict[str, _Connector]] = {}
        self._updating = False
        self._cached = {
            name: _Cached(parameter, parameterNode)
            for name, parameter in self.allParameters.items()
        }

    def getValue(self, name: str) -> Any:
        """Return a parameter by its name."""
        return self._cached[name].value

    def setValue(self, name: str, value: Any) -> None:
        """Set a parameter by its name."""
        self._cached[name].write(value)

    def connectGui(self, gui: Any) -> None:
        """Keep the widgets of `gui` that name a parameter equal to it; as in Slicer, for good."""
        named = [
            (widget.property("SlicerParameterName"), widget) for widget in gui.__dict__.values()
        ]
        self.connectParametersToGui({name: widget for name, widget in named if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        """Keep widgets equal to the parameters they are given for; return a tag."""
        connectors = {}
        for name, widget in mapping.items():
            if name not in self.allParameters:
                raise ValueError(f"Cannot find a param with the given name: {name}")
            connectors[name] = _connector(widget, self.allParameters[name])
        tag = max(self._guis, default=-1) + 1
        self._guis[tag] = connectors
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.connect(partial(self._follow, name, connector))
        self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._show())
        return tag

    def disconnectGui(self, tag: int) -> None:
        """Let go of the widgets."""
        for connector in self._guis.pop(tag, {}).values():
            connector.disconnect()

    def _follow(self, name: str, connector: "_Connector") -> None:
        if not self._updating:
            with slicer.util.NodeModify(self.parameterNode):
                self.setValue(name, connector.read())

    def _show(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for connectors in self._guis.values():
                for name, connector in connectors.items():
                    connector.write(self.getValue(name))
        finally:
            self._updating = False

    def StartModify(self) -> int:
        """Hold back events of the node."""
        return self.parameterNode.StartModify()

    def EndModify(self, was: int) -> int:
        """Let events out again."""
        return self.parameterNode.EndModify(was)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        """Observe the node."""
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        """Stop observing the node."""
        self.parameterNode.RemoveObserver(tag)


def parameterNodeWrapper(cls: type) -> type:
    """Make a class with type hints a typed view of a vtkMRMLScriptedModuleNode."""
    parameters = {
        name: _Parameter(name, hint, getattr(cls, name, _MISSING))
        for name, hint in typing.get_type_hints(cls, include_extras=True).items()
    }

    def accessor(name: str) -> property:
        return property(
            lambda self: self.getValue(name), lambda self, value: self.setValue(name, value)
        )

    members = {name: accessor(name) for name in parameters}
    return type(
        cls.__name__,
        (_Wrapper, cls),
        {**members, "allParameters": parameters, "__doc__": cls.__doc__},
    )


class _Connector:
    """Reads, writes and hears one property of a widget."""

    def __init__(self, widget: Any, name: str, signal: str) -> None:
        self._widget, self._name, self._signal = widget, name, getattr(widget, signal)
        self._slot: Any = None

    def connect(self, callback: Callable[[], None]) -> None:
        self._slot = lambda *_: callback()
        self._signal.connect(self._slot)

    def disconnect(self) -> None:
        self._signal.disconnect(self._slot)

    def read(self) -> Any:
        return getattr(self._widget, self._name)

    def write(self, value: Any) -> None:
        setattr(self._widget, self._name, value)


class _ConvertingConnector(_Connector):
    def __init__(
        self, widget: Any, name: str, signal: str, convert: Any, revert: Any = str
    ) -> None:
        super().__init__(widget, name, signal)
        self._convert, self._revert = convert, revert

    def read(self) -> Any:
        return self._convert(super().read())

    def write(self, value: Any) -> None:
        super().write(self._revert(value))


class _NodeConnector(_Connector):
    def read(self) -> Any:
        return self._widget.currentNode()

    def write(self, value: Any) -> None:
        self._widget.setCurrentNode(value)


def _connector(widget: Any, parameter: _Parameter) -> _Connector:  # noqa: PLR0911
    """Choose the connector by the exact class of the widget, as Slicer does."""
    kind, of = type(widget), parameter.type
    if parameter.is_node and kind is slicer.qMRMLNodeComboBox:
        return _NodeConnector(widget, "", "currentNodeChanged")
    if of is bool and kind in (qt.QCheckBox, qt.QPushButton):
        if kind is qt.QPushButton:
            widget.checkable = True
        return _Connector(widget, "checked", "toggled")
    if (of is int and kind in (qt.QSpinBox, qt.QSlider)) or (
        of is float and kind in (qt.QDoubleSpinBox, ctk.ctkSliderWidget)
    ):
        for limits in parameter.annotations:
            if isinstance(limits, WithinRange):
                widget.minimum, widget.maximum = limits.minimum, limits.maximum
        return _Connector(widget, "value", "valueChanged")
    if of is str and kind is qt.QLineEdit:
        return _Connector(widget, "text", "textChanged")
    if kind is qt.QComboBox:
        return _combo_connector(widget, parameter)
    if kind is ctk.ctkPathLineEdit and issubclass(of, pathlib.PurePath):
        return _ConvertingConnector(widget, "currentPath", "currentPathChanged", of)
    if kind is ctk.ctkDirectoryButton and issubclass(of, pathlib.PurePath):
        return _ConvertingConnector(widget, "directory", "directoryChanged", of)
    raise RuntimeError(f"Unable to create GUI connector from '{of}' to '{kind}'")


def _combo_connector(widget: Any, parameter: _Parameter) -> _Connector:
    if issubclass(parameter.type, enum.Enum):
        choices: list[Any] = list(parameter.type)
        label = getattr(parameter.type, "label", lambda choice: choice.name)
    else:
        choices = next(one.choices for one in parameter.annotations if isinstance(one, Choice))
        label = str
    widget.clear()
    for choice in choices:
        widget.addItem(label(choice))
    return _ConvertingConnector(
        widget, "currentIndex", "currentIndexChanged", choices.__getitem__, choices.index
    )
