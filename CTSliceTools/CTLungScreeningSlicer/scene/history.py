"""Undo for changes of the scene, shared by both modules."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Optional, TypeAlias

MOST_CHANGES = 50
"""Maximum number of changes that can be undone."""

Restore: TypeAlias = Callable[[], Optional["Restore"]]
"""Undoes a change and returns the function that redoes it, or None."""


@dataclass(frozen=True)
class Change:
    """A change of the scene.

    Attributes:
        restore: undoes it.
        kind: consecutive changes of the same kind, such as the steps of a slider, are undone
            together; "" for none.
        what: its description, such as "remove nodule 3 of CT", or "".
    """

    restore: Restore
    kind: str = ""
    what: str = ""


class History:
    """The changes of a scene that can be undone.

    Attributes:
        scene: the vtkMRMLScene.
    """

    def __init__(self, scene: Any) -> None:
        self.scene = scene
        self._past: list[Change] = []
        self._future: list[Change] = []
        self._inside = False

    @property
    def canUndo(self) -> bool:  # noqa: N802 - Slicer's naming
        """Whether there is a change to undo."""
        return bool(self._past)

    @property
    def canRedo(self) -> bool:  # noqa: N802 - Slicer's naming
        """Whether there is a change to redo."""
        return bool(self._future)

    @property
    def lastChange(self) -> str:  # noqa: N802 - Slicer's naming
        """Description of the change that `undo` undoes, such as "remove nodule 3 of CT", or ""."""
        return self._past[-1].what if self._past else ""

    def undo(self) -> None:
        """Undo the last change: new nodes are removed, others are restored."""
        _move(self._past, self._future)

    def redo(self) -> None:
        """Redo the last undone change."""
        _move(self._future, self._past)

    def clear(self) -> None:
        """Forget all changes, for example before the scene is closed."""
        self._past, self._future = [], []

    def remember(self, change: Change) -> None:
        """Add a change that was made; within a `step` it is part of that step."""
        if self._inside:
            return
        self._future = []
        if change.kind and self._past and self._past[-1].kind == change.kind:
            return
        self._past = [*self._past, change][-MOST_CHANGES:]

    @contextmanager
    def step(self, restore: Restore, what: str = "", kind: str = "") -> Iterator[None]:
        """Make a change in a `with` block; `restore` is called by `undo`, or if the block fails.

        Args:
            restore: as in `Change`, as are the others.
            what: see `restore`.
            kind: see `restore`.
        """
        inside, self._inside = self._inside, True
        try:
            yield
        except BaseException:
            restore()
            raise
        finally:
            self._inside = inside
        self.remember(Change(restore, kind, what))

    @contextmanager
    def allOrNothing(  # noqa: N802 - Slicer's naming
        self,
        *changed: Any | None,
        what: str = "",
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Iterator[None]:
        """Make a change as with `step`, restoring added nodes and those named here.

        `around` gives a context for that, which restores what the nodes' content is not.
        """
        snapshot = Snapshot(self.scene, [node for node in changed if node is not None])

        def restore() -> None:
            with around():
                snapshot.restore()

        with self.step(restore, what):
            yield
            snapshot.close()


class Snapshot:
    """The nodes of a scene before a change, and the content of some of them."""

    def __init__(self, scene: Any, changed: Sequence[Any] = ()) -> None:
        """Take a snapshot; `changed` are the nodes whose content is restored."""
        self._scene = scene
        self._before = set(_node_ids(scene))
        self._added: list[str] | None = None
        self._copies = []
        for node in changed:
            copy = node.CreateNodeInstance()
            copy.CopyContent(node)
            self._copies.append((node, copy))

    def close(self) -> None:
        """End the change: nodes added from now on are kept."""
        self._added = self._new()

    def restore(self) -> None:
        """Remove the added nodes and restore the content of the changed ones."""
        remove_nodes(self._scene, self._new() if self._added is None else self._added)
        for node, copy in self._copies:
            if node.GetScene() is not None:
                node.CopyContent(copy)

    def _new(self) -> list[str]:
        return [one for one in _node_ids(self._scene) if one not in self._before]


def remove_nodes(scene: Any, ids: Sequence[str]) -> None:
    """Remove nodes that are still in the scene, the last first, display nodes after others.

    Slicer crashes if a display node is removed before the node it displays, because the 3-D view
    still uses it.
    """
    displays = [one for one in ids if _is_display(scene.GetNodeByID(one))]
    others = [one for one in ids if one not in displays]
    for node_id in (*reversed(others), *displays):
        node = scene.GetNodeByID(node_id)
        if node is not None:
            scene.RemoveNode(node)


def _is_display(node: Any) -> bool:
    return node is not None and node.IsA("vtkMRMLDisplayNode")


def _move(source: list[Change], target: list[Change]) -> None:
    """Undo the last change of a list and add its inverse to the other list."""
    if source:
        change = source.pop()
        again = change.restore()
        if again is not None:
            target.append(replace(change, restore=again))


def _node_ids(scene: Any) -> list[str]:
    return [scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())]
