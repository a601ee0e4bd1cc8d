"""Changes of the scene are taken back in an order that Slicer's views survive."""

from typing import Any

import pytest

pytest.importorskip("slicer")

import slicer
import vtk

from CTLungScreeningSlicer.scene import mrml_host
from CTLungScreeningSlicer.scene.history import History


@pytest.fixture
def history() -> Any:
    history = History(mrml_host.start())
    history.scene.Clear()
    return history


def test_display_nodes_go_after_what_they_display(history: History) -> None:
    """A 3-D view that shows a segmentation crashes Slicer if its display node goes first."""
    with history.allOrNothing():
        for kind in ("Segmentation", "MarkupsFiducial"):
            node = history.scene.AddNewNodeByClass(f"vtkMRML{kind}Node")
            if node.GetDisplayNode() is None:
                node.CreateDefaultDisplayNodes()
    gone: list[str] = []

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def note(_scene: Any, _event: str, node: Any) -> None:
        gone.append("display" if node.IsA("vtkMRMLDisplayNode") else "node")

    tag = history.scene.AddObserver(slicer.vtkMRMLScene.NodeRemovedEvent, note)
    history.undo()
    history.scene.RemoveObserver(tag)
    assert gone == ["node", "node", "display", "display"]
