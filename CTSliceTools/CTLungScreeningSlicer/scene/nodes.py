"""New nodes of a scene, with names that tell them apart. Needs slicer."""

from typing import Any


def unique_name(scene: Any, name: str) -> str:
    """Give a name, with a number behind it only if a node of the scene has it.

    Slicer's own `GenerateUniqueName` also numbers the names of nodes that are gone.
    """
    taken = scene.GetFirstNodeByName(name) is not None
    return str(scene.GenerateUniqueName(name)) if taken else name


def add_node(scene: Any, kind: str, name: str) -> Any:
    """Add a node of a kind, such as "Table", with a name of its own."""
    return scene.AddNewNodeByClass(f"vtkMRML{kind}Node", unique_name(scene, name))
