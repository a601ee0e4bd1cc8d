"""Scene parameters that belong to one section of a panel."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import vtk

T = TypeVar("T")


class SectionParameters:
    """Choices of a section, kept in the panel's parameter node and equal to their widgets.

    Attributes:
        values: the wrapped parameter node; None while there is none.
        widgets: by the parameter that each shows.
    """

    def __init__(
        self, wrapper: Callable[[Any], Any], ui: Any, mark: str, changed: Callable[[], None]
    ) -> None:
        """Find the widgets.

        Args:
            wrapper: class made by `parameterNodeWrapper`.
            ui: widgets of the .ui file.
            mark: dynamic property of the .ui file that names the parameter of a widget.
            changed: called when a choice has changed.
        """
        self._wrapper, self._changed = wrapper, changed
        self.values: Any = None
        self.widgets = {name: one for one in vars(ui).values() if (name := one.property(mark))}
        self._node: Any = None
        self._tags = (-1, -1)

    def set_node(self, node: Any | None) -> None:
        """Keep the widgets and a parameter node equal from now on."""
        if node is self._node:
            return
        if self._node is not None:
            gui, observer = self._tags
            self.values.disconnectGui(gui)
            self._node.RemoveObserver(observer)
        self._node, self.values = node, None
        if node is not None:
            self.values = self._wrapper(node)
            gui = self.values.connectParametersToGui(self.widgets)
            observer = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._changed())
            self._tags = gui, observer
        self._changed()

    def settings(self, kind: type[T], **others: Any) -> T:
        """Make a dataclass of the choices that are named as its fields.

        A field `empty_scans` has the parameter `emptyScans`; an empty text stands for no path.

        Args:
            kind: the dataclass.
            others: fields that are not chosen here, or not under their own name.
        """
        parameters = {field.name: _parameter(field.name) for field in fields(kind)}  # type: ignore[arg-type]
        chosen = {
            name: self._value(parameter)
            for name, parameter in parameters.items()
            if parameter in self.widgets and name not in others
        }
        return kind(**chosen, **others)

    def _value(self, name: str) -> Any:
        value = self.values.getValue(name)
        return self.path(name) if type(value) is str else value

    def path(self, name: str) -> Path | None:
        """The path in a parameter of text; None if it is empty."""
        text = self.values.getValue(name).strip()
        return Path(text).expanduser() if text else None


def _parameter(name: str) -> str:
    """Give a name in Slicer's way of writing: emptyScans."""
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))
