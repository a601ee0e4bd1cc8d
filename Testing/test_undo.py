"""Changes of the scene are taken back in an order that Slicer's views survive."""

from typing import Any

import pytest

pytest.importorskip("slicer")

import slicer
import vtk

from CTLungScreeningSlicer.scene.undo import Undoable


@pytest.fixture
def logic() -> Any:
    logic = Undoable()
    logic.scene.Clear()
    return logic


def test_display_nodes_go_after_what_they_display(logic: Undoable) -> None:
    """A 3-D view that shows a segmentation crashes Slicer if its display node goes first."""
    with logic.allOrNothing():
        for kind in ("Segmentation", "MarkupsFiducial"):
            node = logic.scene.AddNewNodeByClass(f"vtkMRML{kind}Node")
            if node.GetDisplayNode() is None:
                node.CreateDefaultDisplayNodes()
    gone: list[str] = []

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def note(_scene: Any, _event: str, node: Any) -> None:
        gone.append("display" if node.IsA("vtkMRMLDisplayNode") else "node")

    tag = logic.scene.AddObserver(slicer.vtkMRMLScene.NodeRemovedEvent, note)
    logic.undo()
    logic.scene.RemoveObserver(tag)
    assert gone == ["node", "node", "display", "display"]
