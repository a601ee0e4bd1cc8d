"""Stand-in for `slicer.ScriptedLoadableModule`."""

import importlib
import unittest
from pathlib import Path
from typing import Any

import slicer

__all__ = [
    "ScriptedLoadableModule",
    "ScriptedLoadableModuleLogic",
    "ScriptedLoadableModuleTest",
    "ScriptedLoadableModuleWidget",
]


def _folder(file: str) -> Path:
    return Path(file).parent / "Resources"


class ScriptedLoadableModule:
    """Describes a module on its `parent`."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title = ""
        parent.categories = []
        parent.dependencies = []
        parent.contributors = []
        parent.helpText = ""
        parent.acknowledgementText = ""
        for suffix in (".svg", ".png"):
            icon = _folder(parent.path) / "Icons" / f"{self.moduleName}{suffix}"
            if icon.is_file():
                import qt

                parent.icon = qt.QIcon(str(icon))
                break
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, name: str) -> str:
        """Return the path of a file in the module's Resources."""
        return str(_folder(self.parent.path) / name)

    def runTest(self, msec: int = 100, **keywords: Any) -> None:
        """Run the test class of the module's file as it is now."""
        module = importlib.import_module(self.__module__)
        name = f"{self.moduleName}Test"
        if not hasattr(module, name):
            raise AssertionError(f"Test case class not found: {self.__module__}.{name} ")
        test = getattr(module, name)()
        test.messageDelay = msec
        test.runTest(**keywords)


class ScriptedLoadableModuleWidget:
    """The panel of a module."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        self.layout = parent.layout()
        slicer.app.moduleManager().connect(
            "moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded
        )

    def resourcePath(self, name: str) -> str:
        """Return the path of a file in the module's Resources."""
        return str(_folder(slicer.util.modulePath(self.moduleName)) / name)

    def setup(self) -> None:
        """Build the panel."""

    def enter(self) -> None:
        """Be told that the panel is shown."""

    def exit(self) -> None:
        """Be told that the panel is left."""

    def cleanup(self) -> None:
        """Be told that the module is unloaded."""

    def onReload(self) -> None:
        """Read the module's file again, as the button Reload of the developer mode does."""
        slicer.util.reloadScriptedModule(self.moduleName)

    def _onModuleAboutToBeUnloaded(self, name: str) -> None:
        if name == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect(
                "moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded
            )


class ScriptedLoadableModuleLogic:
    """Finds the module's parameter node, a singleton, or makes it."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self) -> Any:
        """Return the vtkMRMLScriptedModuleNode of this module."""
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(self.moduleName)
            node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
            node.SetAttribute("ModuleName", self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        node.SetAttribute("ModuleName", self.moduleName)  # lost when a scene is closed
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """What the panel's "Reload and Test" runs."""
