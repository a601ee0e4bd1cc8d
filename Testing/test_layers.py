"""The picture of layers in the docs, held against the imports of the code."""

import ast
from functools import cache
from xml.etree import ElementTree

import pytest

from extension_files import MODULES, ROOT

PICTURE = ROOT / "docs" / "images" / "layers.svg"
LAYER_OF_FOLDER = {
    "__main__": "commands",
    "cli": "commands",
    "commands": "commands",
    "panel": "panel",
    "scene": "logic",
    "widgets": "panel",
}
"""Layers of the parts of a Lib; every other part is of the core."""

SLICER_MODULES: dict[str, set[str]] = {
    "core": set(),
    "commands": set(),
    "logic": {"slicer", "vtk"},
    "panel": {"slicer", "vtk", "qt", "ctk"},
}
"""What a layer may import of Slicer."""

Arrow = tuple[str, str]


def layer_of(name: str) -> str:
    """Give module and layer of a dotted name, such as `LungNoduleSeg core`."""
    library, *parts = name.split(".")
    if library in MODULES:
        return f"{library} panel"
    module = library.removesuffix("Lib")
    return f"{module} {LAYER_OF_FOLDER.get(parts[0] if parts else '', 'core')}"


@cache
def imports() -> list[tuple[str, str]]:
    """Give each import in the modules, as the dotted names of who imports and of what."""
    found = []
    for module in MODULES:
        for file in (ROOT / module).rglob("*.py"):
            path = file.relative_to(ROOT / module).with_suffix("")
            if path.parts[0] == "Scripts":
                continue
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names = [one.name for one in node.names]
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names = [f"{node.module}.{one.name}" for one in node.names]
                else:
                    continue
                found += [(".".join(path.parts), name) for name in names]
    return found


@pytest.fixture(scope="module")
def drawn() -> set[Arrow]:
    """The arrows in the picture that stand for imports."""
    paths = ElementTree.parse(PICTURE).iter("{http://www.w3.org/2000/svg}path")
    arrows = [one.attrib for one in paths if "import" in one.get("class", "").split()]
    return {(one["data-from"], one["data-to"]) for one in arrows}


@pytest.fixture(scope="module")
def real() -> dict[Arrow, str]:
    """The imports across layers, each with one example."""
    libraries = {f"{module}Lib" for module in MODULES}
    return {
        (layer_of(user), layer_of(used)): f"{user} imports {used}"
        for user, used in imports()
        if used.split(".")[0] in libraries and layer_of(user) != layer_of(used)
    }


def below(layer: str, drawn: set[Arrow]) -> set[str]:
    """Give all layers that one reaches by arrows, but none by way of an arrow upwards."""
    found = {layer}
    upwards = {("LungNoduleSeg core", "LungNoduleSeg logic")}
    while more := {end for start, end in drawn - upwards if start in found} - found:
        found |= more
    return found


def test_arrows_are_imports(drawn: set[Arrow], real: dict[Arrow, str]) -> None:
    assert drawn <= set(real)


def test_imports_follow_the_arrows(drawn: set[Arrow], real: dict[Arrow, str]) -> None:
    against = [
        example
        for (start, end), example in real.items()
        if (start, end) not in drawn and end not in below(start, drawn)
    ]
    assert not against


def test_only_the_scene_file_is_written_by_the_layer_above() -> None:
    upwards = {
        user
        for user, used in imports()
        if layer_of(user).endswith("core")
        and layer_of(used).endswith(("logic", "panel"))
        and used.split(".")[0].endswith("Lib")
    }
    assert upwards == {"LungNoduleSegLib.results.writing"}


@pytest.mark.parametrize("layer", SLICER_MODULES)
def test_slicer_is_imported_where_it_may_be(layer: str) -> None:
    every = SLICER_MODULES["panel"]
    found = {
        used.split(".")[0]: user
        for user, used in imports()
        if layer_of(user).endswith(layer) and used.split(".")[0] in every
    }
    assert set(found) <= SLICER_MODULES[layer], found


def test_packages_in_the_picture_are_there() -> None:
    texts = [one.text or "" for one in ElementTree.parse(PICTURE).iter()]
    named = {name for text in texts if " · " in text for name in text.split(" · ")}
    for module in MODULES:
        library = ROOT / module / f"{module}Lib"
        inner = {
            one.stem
            for one in library.iterdir()
            if (one / "__init__.py").exists() and one.name not in LAYER_OF_FOLDER
        }
        assert inner <= named, f"draw them in {PICTURE}"


def test_the_picture_stands_in_the_docs() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert "images/layers.svg" in page
