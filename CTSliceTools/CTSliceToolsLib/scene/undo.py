"""Changes of the scene that can be taken back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import slicer

from CTSliceToolsLib.scene import mrml_host


class Undoable:
    """A logic whose last change of the scene can be taken back."""

    def __init__(self) -> None:
        self.scene = mrml_host.start()
        self._undo: Snapshot | None = None

    def undo(self) -> None:
        """Take back the last change: new nodes go, given nodes become what they were before it."""
        if self._undo is not None:
            self._undo.restore()
            self._undo = None

    @contextmanager
    def allOrNothing(self, *given: Any | None) -> Iterator[None]:  # noqa: N802 - Slicer's naming
        """Leave the scene and the given nodes as they were if the block fails; else remember."""
        snapshot = Snapshot(self.scene, [node for node in given if node is not None])
        try:
            yield
        except BaseException:
            snapshot.close()
            snapshot.restore()
            raise
        snapshot.close()
        self._undo = snapshot


class Snapshot:
    """What a change of the scene began with, to go back to."""

    def __init__(self, scene: Any, given: Sequence[Any]) -> None:
        self._scene = scene
        self._before = set(_node_ids(scene))
        self._added: list[str] = []
        self._segmentations = []
        self._copies = []
        for node in given:
            if node.IsA("vtkMRMLSegmentationNode"):
                history = slicer.vtkSegmentationHistory()
                history.SetSegmentation(node.GetSegmentation())
                history.SaveState()
                self._segmentations.append(history)
            else:
                copy = node.CreateNodeInstance()
                copy.CopyContent(node)
                self._copies.append((node, copy))

    def close(self) -> None:
        """Note what was added up to now."""
        self._added = [one for one in _node_ids(self._scene) if one not in self._before]

    def restore(self) -> None:
        """Remove what was added, and give each given node back what it held."""
        for node_id in reversed(self._added):
            node = self._scene.GetNodeByID(node_id)
            if node is not None:
                self._scene.RemoveNode(node)
        for history in self._segmentations:
            history.RestorePreviousState()
        for node, copy in self._copies:
            node.CopyContent(copy)


def _node_ids(scene: Any) -> list[str]:
    return [scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())]
