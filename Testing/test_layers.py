"""The layers of the code, held against every import: who may use whom, and no circles."""

from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

import pytest
from layers import BELOW, PICTURE, ROOT, draw, imports, layer_of, modules, package_of, reachable

from extension_files import PACKAGES

SLICER = {
    "Lib": set[str](),
    "scene": {"slicer", "vtk"},
    "panel": {"slicer", "vtk", "qt", "ctk"},
}
"""What a layer may import of Slicer, by the end of its name."""


def test_every_package_is_in_a_layer() -> None:
    assert {layer.split(".")[0] for layer in BELOW} == set(PACKAGES)
    assert {name for name in modules() if layer_of(name) is None} == {
        name for name in PACKAGES if name.endswith("Slicer")
    }


def test_imports_lead_to_lower_layers_only() -> None:
    upwards = [
        f"{user} imports {used}"
        for user, used in imports()
        if (start := layer_of(user)) and (end := layer_of(used)) and end not in reachable(start)
    ]
    assert not upwards


def test_no_circle_between_packages() -> None:
    graph: dict[str, set[str]] = {}
    for user, used in imports():
        if layer_of(used) and package_of(user) != package_of(used):
            graph.setdefault(package_of(user), set()).add(package_of(used))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1][::-1]
        pairs = set(pairwise(circle))
        lines = [
            f"{a} imports {b}" for a, b in imports() if (package_of(a), package_of(b)) in pairs
        ]
        pytest.fail("\n".join([" → ".join(circle), *lines]))


@pytest.mark.parametrize("end", SLICER)
def test_slicer_is_imported_where_it_may_be(end: str) -> None:
    found = {
        f"{user} imports {used}"
        for user, used in imports()
        if (layer_of(user) or "").removesuffix(".commands").endswith(end)
        and used.split(".")[0] in SLICER["panel"] - SLICER[end]
    }
    assert not found


def test_typer_is_imported_by_commands_only() -> None:
    found = {user for user, used in imports() if used.split(".")[0] == "typer"}
    assert {user for user in found if not (layer_of(user) or "").endswith(".commands")} == {
        "CTLungScreeningLib.command_line"
    }


def test_the_picture_in_the_docs_is_of_the_tree_as_it_is() -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(), "run docs/layers.py"
    assert "images/layers.svg" in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
