"""The module `qt`: all of PySide6 under one name, in the manner of Slicer's PythonQt.

Under PySide6's feature `true_property`, which is set for each module by name, `widget.text` is a
property as in PythonQt.
"""

import sys
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import shibokensupport.feature as switches
from PySide6 import QtCore, QtGui, QtTest, QtUiTools, QtWidgets

from slicer_host.pythonqt import wrapped

PROPERTY_STYLE = ("slicer_host", "slicer.util", "CTSliceTools", "LungNoduleSeg", "test_")
"""Beginnings of the names of modules that are written in property style."""


class PropertyStyleFinder:
    """Sees each module of ours before it is imported and switches it to property style."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Switch; never find anything."""
        use_property_style(name)


def use_property_style(name: str) -> None:
    """Make properties of Qt classes Python properties in the module `name`, if it is ours."""
    if name.startswith(PROPERTY_STYLE):
        switches.set_selection(switches.true_property, name)


class UiLoader(QtUiTools.QUiLoader):
    """Loads .ui files; classes that Qt does not know are looked up in `custom_classes`."""

    custom_classes: dict[str, type[QtWidgets.QWidget]] = {}  # noqa: RUF012

    def createWidget(
        self, class_name: str, parent: QtWidgets.QWidget | None = None, name: str = ""
    ) -> QtWidgets.QWidget:
        """Make a widget of the .ui file."""
        custom = self.custom_classes.get(class_name)
        if custom is None:
            if class_name.startswith(("qMRML", "qSlicer", "ctk")):
                raise NotImplementedError(f"{class_name} has no stand-in in Testing/slicer_host")
            return super().createWidget(class_name, parent, name)
        widget = custom(parent)
        widget.setProperty("objectName", name)
        return widget

    def load(self, device: QtCore.QIODevice, parent: QtWidgets.QWidget | None = None) -> Any:
        """Load a .ui file; its connections are made in Python, their C++ types are not there."""
        document = ElementTree.fromstring(device.readAll().data())
        connections = document.find("connections")
        if connections is not None:
            document.remove(connections)
        without = QtCore.QBuffer()
        without.setData(ElementTree.tostring(document))
        widget = super().load(without, parent)
        for connection in connections if connections is not None else ():
            sender, signal, receiver, slot = (
                str(connection.findtext(tag)) for tag in ("sender", "signal", "receiver", "slot")
            )
            getattr(_find(widget, sender), signal.split("(")[0]).connect(
                getattr(_find(widget, receiver), slot.split("(")[0])
            )
        for one in widget.findChildren(QtWidgets.QWidget):
            one.setProperty("toolTip", wrapped(one.property("toolTip")))
        return widget


class FileDialog(QtWidgets.QFileDialog):
    """Gives the path alone, as PythonQt does; PySide6 gives the filter as well."""

    @staticmethod
    def getOpenFileName(*arguments: Any) -> str:
        return QtWidgets.QFileDialog.getOpenFileName(*arguments)[0]


def _find(root: QtWidgets.QWidget, name: str) -> Any:
    found = root if root.property("objectName") == name else root.findChild(QtWidgets.QWidget, name)
    if found is None:
        raise LookupError(f"a connection of the .ui file names {name}, which is not there")
    return found


def install() -> ModuleType:
    """Make `import qt` work, and return the module."""
    for name in list(sys.modules):
        use_property_style(name)
    sys.meta_path.insert(0, PropertyStyleFinder())

    module = ModuleType("qt")
    for part in (QtCore, QtGui, QtWidgets):
        for name in dir(part):
            if not name.startswith("_"):
                setattr(module, name, getattr(part, name))
    module.QFileDialog = FileDialog  # type: ignore[attr-defined]
    module.QUiLoader = UiLoader  # type: ignore[attr-defined]
    module.QTest = QtTest.QTest  # type: ignore[attr-defined]
    _add_pythonqt_names()
    sys.modules["qt"] = module
    return module


def _add_pythonqt_names() -> None:
    """Give every object `name` and `className()`, as PythonQt does."""
    QtCore.QObject.name = property(lambda it: it.property("objectName"))
    QtCore.QObject.className = lambda it: it.metaObject().className()
