"""Panels use of Qt, CTK and Slicer's widgets only what these have in Slicer's PythonQt.

Read from the source, so that lines that no test runs are held against the table as well. A name is
known to be a widget where it is one of the .ui file, or was made or looked up in the same file.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pythonqt_table import ROOT, read_table

UI_FILES = sorted(ROOT.glob("*/Resources/UI/*.ui"))
MODULES = sorted(
    file
    for module in ("CTSliceTools", "LungNoduleSeg")
    for file in (ROOT / module).rglob("*.py")
    if file.parent.name == "panel" or file.stem == module
)
FURTHER = {"name", "data", "toString"}
"""What PythonQt gives every object, and methods of values that are no widgets."""

VALUES = {
    *("QBrush", "QColor", "QFont", "QFontMetrics", "QIcon", "QKeySequence", "QPainter", "QPixmap"),
    *("QTableWidgetItem", "QUrl"),
}
"""Classes of values, which the table leaves out."""


def widgets_of(file: Path) -> dict[str, str]:
    """Give the class of each widget of a .ui file by its name."""
    found = ElementTree.parse(file).getroot().iter("widget")
    return {one.attrib["name"]: one.attrib["class"] for one in found}


UI_WIDGETS = {name: kind for file in UI_FILES for name, kind in widgets_of(file).items()}


@pytest.mark.parametrize("file", UI_FILES, ids=lambda file: file.stem)
def test_properties_of_the_ui_file_can_be_set(file: Path) -> None:
    table = read_table()
    for widget in ElementTree.parse(file).getroot().iter("widget"):
        kind = widget.attrib["class"]
        if kind == "Line":  # Qt makes a frame of it
            continue
        assert kind in table, f"{kind}: run Testing/pythonqt_table.py"
        for one in widget.findall("property"):
            if one.get("stdset") != "0":
                assert one.attrib["name"] in table[kind]["writable"], (kind, one.attrib["name"])


def classes_in(tree: ast.AST) -> dict[str, str]:
    """Give the class of each name and attribute that is made or looked up in a module."""
    found = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign):
            continue
        kind = class_of(node.value, {})
        for target in node.targets if kind else ():
            if isinstance(target, ast.Name | ast.Attribute):
                found[ast.unparse(target)] = str(kind)
    return found


def class_of(node: ast.expr, known: dict[str, str]) -> str | None:
    """Give the class of what an expression is, None if that is not known."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if ast.unparse(node.func.value) in ("qt", "ctk"):
            return node.func.attr
        if node.func.attr in ("horizontalHeader", "verticalHeader"):
            return "QHeaderView"
    if isinstance(node, ast.Attribute) and re.fullmatch(r"(self\.)?_?ui", ast.unparse(node.value)):
        return UI_WIDGETS.get(node.attr)
    return known.get(ast.unparse(node))


def uses(tree: ast.AST) -> Iterator[tuple[int, str, str, bool]]:
    """Give line, class, attribute and whether it is set, of each use of a widget."""
    body = getattr(tree, "body", [])
    scopes: list[ast.AST] = [one for one in body if isinstance(one, ast.ClassDef | ast.FunctionDef)]
    for scope in scopes or [tree]:  # the same name may be another widget in another class
        known = classes_in(scope)
        for node in ast.walk(scope):
            if isinstance(node, ast.Attribute):
                kind = class_of(node.value, known)
                if kind is not None and kind not in VALUES:
                    yield node.lineno, kind, node.attr, isinstance(node.ctx, ast.Store)


@pytest.mark.parametrize("file", MODULES, ids=lambda file: f"{file.parent.parent.name}-{file.stem}")
def test_modules_use_what_pythonqt_has(file: Path) -> None:
    table = read_table()
    wrong = []
    for line, kind, name, is_set in uses(ast.parse(file.read_text(encoding="utf-8"))):
        if kind not in table:
            wrong.append(f"{line}: {kind} is not in the table: run Testing/pythonqt_table.py")
        elif is_set and name not in table[kind]["writable"]:
            wrong.append(f"{line}: {kind}.{name} cannot be set")
        elif name in table[kind]["unknown"]:
            wrong.append(f"{line}: PythonQt does not know what {kind}.{name} returns")
        elif name not in FURTHER and not any(name in names for names in table[kind].values()):
            wrong.append(f"{line}: {kind} has no {name}")
    assert not wrong, "\n".join([str(file), *wrong])


def test_what_was_wrong_is_seen() -> None:
    source = """
header = widget.horizontalHeader()
header.sortIndicatorShown = True
self.line = qt.QLineEdit()
self.line.fontMetrics()
ui.noduleTable.rowcount
ui.noduleTable.rowCount = 3
"""
    found = list(uses(ast.parse(source)))
    table = read_table()
    assert ("QHeaderView", "sortIndicatorShown", True) in [one[1:] for one in found]
    assert "sortIndicatorShown" not in table["QHeaderView"]["writable"]
    assert "fontMetrics" in table["QLineEdit"]["unknown"]
    assert ("QTableWidget", "rowcount", False) in [one[1:] for one in found]
