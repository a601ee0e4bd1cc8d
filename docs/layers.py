"""Draw the layers of the code as they are: `images/layers.svg`, from the imports of every file.

    .venv/bin/python docs/layers.py

`Testing/test_layers.py` holds the imports against `BELOW`, and the picture against the tree.
"""

import ast
from functools import cache
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "layers.svg"
FOLDERS = ("CTSliceTools", "LungNoduleSeg")

BELOW: dict[str, tuple[str, ...]] = {
    "CTLungScreeningLib": (),
    "CTSliceToolsLib": ("CTLungScreeningLib",),
    "LungNoduleSegLib": ("CTSliceToolsLib",),
    "CTSliceToolsLib.commands": ("CTSliceToolsLib",),
    "LungNoduleSegLib.commands": ("LungNoduleSegSlicer.scene",),
    "CTLungScreeningSlicer.scene": ("CTLungScreeningLib",),
    "CTSliceToolsSlicer.scene": ("CTLungScreeningSlicer.scene", "CTSliceToolsLib"),
    "LungNoduleSegSlicer.scene": ("CTLungScreeningSlicer.scene", "LungNoduleSegLib"),
    "CTLungScreeningSlicer.panel": ("CTLungScreeningSlicer.scene",),
    "CTSliceToolsSlicer.panel": ("CTLungScreeningSlicer.panel", "CTSliceToolsSlicer.scene"),
    "LungNoduleSegSlicer.panel": ("CTLungScreeningSlicer.panel", "LungNoduleSegSlicer.scene"),
}
"""The layers, each with those it may import; it may also import whatever lies below these."""

TITLES = {"scene": "Logic", "panel": "Panel", "commands": "Commands", "": "Core"}
COLUMNS = {"CTSliceTools": 0, "CTLungScreening": 1, "LungNoduleSeg": 2}
ROWS = {"panel": 0, "commands": 0, "scene": 1, "": 2}
FILLS = {"panel": "#fbe8c8", "commands": "#f3f3f3", "scene": "#d9edda", "": "#d8e8f5"}
WIDTH, HEIGHT, LEFT, TOP, ACROSS, DOWN = 320, 112, 20, 70, 362, 190


def layer_of(name: str) -> str | None:
    """Return the layer of a dotted module name, or None where it is not ours."""
    top, *rest = name.split(".")
    if top in FOLDERS:
        return f"{top}Slicer.panel"
    part = rest[0] if rest else ""
    if part in ("cli", "__main__", "commands"):
        part = "commands"
    for layer in (f"{top}.{part}", top):
        if layer in BELOW:
            return layer
    return None


def package_of(name: str) -> str:
    """Return the package, or the loose module, that a dotted module name belongs to."""
    return ".".join(name.split(".")[:2])


@cache
def modules() -> dict[str, Path]:
    """Return every module of the product by its dotted name."""
    found = {}
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*.py"):
            path = file.relative_to(ROOT / folder).with_suffix("")
            if path.parts[0] != "Scripts":
                name = ".".join(path.parts)
                found[name.removesuffix(".__init__")] = file
    return found


@cache
def imports() -> list[tuple[str, str]]:
    """Return each import in the product as the dotted names of the importer and the imported."""
    found = []
    for name, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                joined = [f"{node.module}.{one.name}" for one in node.names]
                used = [one if one in modules() else node.module for one in joined]
            else:
                continue
            found += [(name, one) for one in used]
    return found


def reachable(layer: str) -> set[str]:
    """Return a layer and all below it."""
    found = {layer}
    for one in BELOW[layer]:
        found |= reachable(one)
    return found


def draw() -> str:
    """Return the picture as SVG text."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {3 * ACROSS - 10} {3 * DOWN + 10}"'
        ' font-family="Helvetica, Arial, sans-serif" text-anchor="middle">',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8"'
        ' markerHeight="8" orient="auto"><path d="M0 0 10 5 0 10z" fill="#333"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for title, column in (("CT Slice Tools", 0), ("shared", 1), ("Lung Nodule Segmentation", 2)):
        middle = LEFT + column * ACROSS + WIDTH / 2
        parts.append(f'<text x="{middle}" y="36" font-weight="bold" font-size="18">{title}</text>')
    used = {
        (start, end)
        for user, name in imports()
        if (start := layer_of(user)) and (end := layer_of(name)) and start != end
    }
    parts += [_arrow(start, end) for start in BELOW for end in _direct(start, used)]
    parts += [_box(layer) for layer in BELOW]
    return "\n".join([*parts, "</svg>", ""])


def _direct(start: str, used: set[tuple[str, str]]) -> list[str]:
    """Return its own core, and the layers that it imports and reaches through no other."""
    ends = [end for end in BELOW if (start, end) in used]
    core = start.removesuffix(".commands")
    return [
        end for end in ends if end == core or not any(end in reachable(one) - {one} for one in ends)
    ]


def _place(layer: str) -> tuple[int, int, int, int]:
    """Return x, y, width and height of a layer's box."""
    top, _, part = layer.partition(".")
    x = LEFT + COLUMNS[top.removesuffix("Lib").removesuffix("Slicer")] * ACROSS
    width, height = WIDTH, HEIGHT
    if part and not top.startswith("CTLungScreening"):
        width = WIDTH // 2 - 8
        outer = part == "commands"
        x += (WIDTH - width) * (outer == top.startswith("Lung"))
        height += DOWN * outer
    return x, TOP + ROWS[part] * DOWN, width, height


def _box(layer: str) -> str:
    x, y, width, height = _place(layer)
    top, _, part = layer.partition(".")
    lines = [TITLES[part], top, *([f"/{part}"] if part else [])]
    inner = {name.split(".")[1 + bool(part)] for name in modules() if _within(name, layer)}
    texts = [
        f'<text x="{x + width / 2}" y="{y + 24 + 18 * n}" font-size="13.5"'
        f' font-weight="{"bold" if n == 0 else "normal"}">{escape(one)}</text>'
        for n, one in enumerate(lines)
    ]
    if not part:
        packages = sorted(one for one in inner if f"{top}.{one}" in _packages())
        texts += [
            f'<text x="{x + width / 2}" y="{y + 64 + 17 * n}" font-size="12.5">{line}</text>'
            for n, line in enumerate(_wrapped(packages))
        ]
    rect = (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" stroke="#333"'
        f' fill="{FILLS[part]}"/>'
    )
    return "\n".join([rect, *texts])


def _within(name: str, layer: str) -> bool:
    return layer_of(name) == layer and name.count(".") > layer.count(".")


def _packages() -> set[str]:
    return {package_of(name) for name in modules() if name.count(".") > 1}


def _wrapped(names: list[str], length: int = 44) -> list[str]:
    lines = [""]
    for name in names:
        if lines[-1] and len(lines[-1]) + len(name) > length:
            lines.append("")
        lines[-1] += (" · " if lines[-1] else "") + name
    return lines


def _arrow(start: str, end: str) -> str:
    x, y, width, height = _place(start)
    there_x, there_y, there_width, _ = _place(end)
    if y <= there_y < y + height:
        leftwards = there_x < x
        ends = (x if leftwards else x + width, there_x + there_width if leftwards else there_x)
        line = f"M{ends[0]} {there_y + HEIGHT / 2}H{ends[1]}"
    else:
        middle = min(max(x + width / 2, there_x + 20), there_x + there_width - 20)
        line = f"M{x + width / 2} {y + height}L{middle} {there_y}"
    return f'<path d="{line}" stroke="#333" stroke-width="1.8" fill="none" marker-end="url(#tip)"/>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
