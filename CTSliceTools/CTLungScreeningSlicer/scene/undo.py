"""Changes of the scene that can be taken back."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import slicer

from CTLungScreeningSlicer.scene import mrml_host

MOST_CHANGES = 50
"""That are remembered."""


@dataclass(frozen=True)
class Change:
    """A change that was made.

    Attributes:
        restore: takes it back.
        kind: changes of the same kind that follow each other, such as the steps of a slider, are
            taken back together; "" for one of its own.
        what: it was, such as "remove nodule 3", for people; "" if there is no more to say.
    """

    restore: Callable[[], None]
    kind: str = ""
    what: str = ""


class Undoable:
    """A logic whose changes of the scene can be taken back, the last one first."""

    def __init__(self) -> None:
        self.scene = mrml_host.start()
        self._changes: list[Change] = []

    @property
    def canUndo(self) -> bool:  # noqa: N802 - Slicer's naming
        """Whether there is a change to take back."""
        return bool(self._changes)

    @property
    def lastChange(self) -> str:  # noqa: N802 - Slicer's naming
        """What `undo` takes back, such as "remove nodule 3"; "" if that is not known."""
        return self._changes[-1].what if self._changes else ""

    def undo(self) -> None:
        """Take back the last change: new nodes go, given nodes become what they were before it."""
        if self._changes:
            self._changes.pop().restore()

    def forgetChanges(self) -> None:  # noqa: N802 - Slicer's naming
        """Make all changes so far lasting: the scene that they are of goes."""
        self._changes = []

    def remember(self, change: Change) -> None:
        """Make a change one that `undo` takes back."""
        if change.kind and self._changes and self._changes[-1].kind == change.kind:
            return
        self._changes = [*self._changes, change][-MOST_CHANGES:]

    @contextmanager
    def allOrNothing(  # noqa: N802 - Slicer's naming
        self, *given: Any | None, what: str = ""
    ) -> Iterator[None]:
        """Leave the scene and the given nodes as they were if the block fails; else remember.

        `what` is as in `Change`.
        """
        snapshot = Snapshot(self.scene, [node for node in given if node is not None])
        try:
            yield
        except BaseException:
            snapshot.close()
            snapshot.restore()
            raise
        snapshot.close()
        self.remember(Change(snapshot.restore, what=what))


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
        remove_nodes(self._scene, self._added)
        for history in self._segmentations:
            history.RestorePreviousState()
        for node, copy in self._copies:
            if node.GetScene() is not None:
                node.CopyContent(copy)


def remove_nodes(scene: Any, ids: Sequence[str]) -> None:
    """Remove those nodes that are still in the scene, the last first, display nodes after others.

    Slicer crashes when a display node goes before the node that it displays: the 3-D view still
    asks for it.
    """
    displays = [one for one in ids if _is_display(scene.GetNodeByID(one))]
    others = [one for one in ids if one not in displays]
    for node_id in (*reversed(others), *displays):
        node = scene.GetNodeByID(node_id)
        if node is not None:
            scene.RemoveNode(node)


def _is_display(node: Any) -> bool:
    return node is not None and node.IsA("vtkMRMLDisplayNode")


def _node_ids(scene: Any) -> list[str]:
    return [scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())]
