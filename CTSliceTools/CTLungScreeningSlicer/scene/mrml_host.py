"""Slicer's MRML without its application: scene, logics and file formats of slicer-core."""

import atexit
import functools
import importlib.metadata
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

from CTLungScreeningLib.child_process import Work, complete
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import new_file
from CTLungScreeningLib.progress import ProgressCallback, silent

T = TypeVar("T")

# Available as `slicer.modules.<lower-case name>.logic()`. Terminologies is missing, because the
# wheel lacks the terms that its logic loads; segments keep their codes without it.
MODULE_LOGICS = {
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Volumes": "vtkSlicerVolumesLogic",
}


_NOT_IN_XML = frozenset(map(chr, (*range(32), 0xFFFE, 0xFFFF))) - set("\t\n\r")
"""Characters that no XML file can hold, so no scene."""


class HeadlessApplication:
    """The part of `slicer.app` that logic classes use."""

    def __init__(self, scene: Any, application_logic: Any, temporary_path: str) -> None:
        self.temporaryPath = temporary_path
        self._scene = scene
        self._application_logic = application_logic

    def applicationLogic(self) -> Any:  # noqa: N802 - Slicer's names
        """Return the vtkSlicerApplicationLogic."""
        return self._application_logic

    def mrmlScene(self) -> Any:  # noqa: N802
        """Return the scene."""
        return self._scene

    def processEvents(self) -> None:  # noqa: N802
        """Do nothing: there are no windows."""


def start() -> Any:
    """Return the MRML scene of Slicer, or of a headless host outside Slicer.

    The first call outside Slicer makes the host and sets `slicer.mrmlScene`, `slicer.app` and
    `slicer.modules` for scripts and logic classes written for Slicer; further calls return the same
    scene.

    Raises:
        InputError: if neither Slicer nor slicer-core is available.
    """
    if not hasattr(sys.modules.get("slicer"), "app"):
        try:
            importlib.metadata.version("slicer-core")  # PyPI's slicer is another project
        except importlib.metadata.PackageNotFoundError as error:
            raise InputError(
                "A Slicer scene needs slicer-core, which is not installed: run "
                "`pip install '.[host]'` in a clone of CTLungScreening; there is none for "
                "Python 3.14, Linux on ARM and Intel Macs."
            ) from error
        import slicer  # noqa: PLC0415 - optional

        _make_host(slicer)
    return sys.modules["slicer"].mrmlScene


def save_scene(path: Path) -> None:
    """Write the scene with all its data as a new `.mrb` file.

    Control characters in the names of nodes become spaces: no scene file can hold them.

    Raises:
        InputError: if `path` exists or cannot be written.
    """
    scene = start()
    # Slicer names the folder inside the file after the file.
    with (
        new_file(path) as temporary,
        tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder,
        _safe_file_names(scene),
    ):
        for index in range(scene.GetNumberOfNodes()):
            node = scene.GetNthNode(index)
            name = node.GetName() or ""
            if _NOT_IN_XML & set(name):
                node.SetName("".join(" " if one in _NOT_IN_XML else one for one in name))
        written = Path(folder) / path.name
        if not scene.WriteToMRB(str(written)):
            raise InputError(f"{path} could not be written: see that the disk has room.")
        written.rename(temporary)


def safe_file_name(name: str) -> str:
    """Replace in the name of a node what may not stand in that of a file, or of a scene's file."""
    return "".join(one if one.isalnum() or one in " .-_" else "_" for one in name)


@contextmanager
def _safe_file_names(scene: Any) -> Iterator[None]:
    """Name the files of nodes after the nodes, without signs such as `&`.

    Slicer writes that one into the XML of the scene as it is, which then cannot be opened.
    """
    nodes = scene.GetNodesByClass("vtkMRMLStorableNode")
    before = []
    for index in range(nodes.GetNumberOfItems()):
        node = nodes.GetItemAsObject(index)
        if node.GetSaveWithScene() and (node.GetStorageNode() or node.AddDefaultStorageNode()):
            storage, name = node.GetStorageNode(), node.GetName() or ""
            if storage is not None:
                before.append((storage, storage.GetFileName() or ""))
                suffix = storage.GetDefaultWriteFileExtension()
                storage.SetFileName(f"{safe_file_name(name)}.{suffix}")
    try:
        yield
    finally:
        for storage, file in before:
            storage.SetFileName(file)


def keeping_alive(progress: ProgressCallback) -> ProgressCallback:
    """Make a progress callback that also keeps the application responsive."""
    import slicer  # noqa: PLC0415 - optional

    def alive(stage: str, done: int, total: int) -> None:
        slicer.app.processEvents()
        progress(stage, done, total)

    return alive


def at_once(work: Callable[..., Work[T]]) -> Callable[..., T]:
    """Return a method that runs the work of another method to its end, for scripts.

    It takes the same arguments, and `progress`, a callback that is called at least ten times a
    second: a `Cancelled` that it raises ends the child process with all its descendants, and leaves
    the scene as it was.
    """

    @functools.wraps(work, assigned=("__module__", "__doc__"))
    def method(*arguments: Any, progress: ProgressCallback = silent, **keywords: Any) -> T:
        return complete(work(*arguments, **keywords), keeping_alive(progress))

    return method


def _make_host(slicer: Any) -> None:
    temporary_path = tempfile.mkdtemp(prefix="mrml-")
    atexit.register(shutil.rmtree, temporary_path, ignore_errors=True)

    scene = slicer.vtkMRMLScene()
    application_logic = slicer.vtkSlicerApplicationLogic()
    application_logic.SetMRMLScene(scene)
    application_logic.SetTemporaryPath(temporary_path)
    colors = application_logic.GetColorLogic()
    colors.SetMRMLScene(scene)
    colors.AddDefaultColorNodes()

    modules = ModuleType("slicer.modules")
    for name, class_name in MODULE_LOGICS.items():
        logic = getattr(slicer, class_name)()
        logic.SetMRMLApplicationLogic(application_logic)
        logic.SetMRMLScene(scene)
        application_logic.SetModuleLogic(name, logic)
        setattr(modules, name.lower(), SimpleNamespace(name=name, logic=lambda logic=logic: logic))
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)

    slicer.mrmlScene = scene
    slicer.modules = sys.modules["slicer.modules"] = modules
    slicer.app = HeadlessApplication(scene, application_logic, temporary_path)
    slicer.app.dataInputOutput = _data_input_output(slicer, scene, application_logic)


def _data_input_output(slicer: Any, scene: Any, application_logic: Any) -> tuple[Any, Any]:
    """Add the data manager that the scene needs to open `.mrb` files."""
    remote = slicer.vtkMRMLRemoteIOLogic()
    remote.SetMRMLScene(scene)
    remote.SetMRMLApplicationLogic(application_logic)
    remote.GetCacheManager().SetRemoteCacheDirectory(application_logic.GetTemporaryPath())
    manager = slicer.vtkDataIOManagerLogic()
    manager.SetMRMLScene(scene)
    manager.SetMRMLApplicationLogic(application_logic)
    manager.SetAndObserveDataIOManager(remote.GetDataIOManager())
    remote.AddDataIOToScene()
    return remote, manager
