"""What Slicer's PythonQt knows of the classes that we use, as a table for the stand-in.

    python Testing/pythonqt_table.py CLASSES.json

CLASSES.json was read off a running Slicer: properties, methods and getters of an instance of each
class. The table keeps the classes that our .ui files, modules and tests name, and of each what its
base classes do not have.
"""

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_suffix(".json")

MODULES = ("CTSliceTools", "LungNoduleSeg", "Testing")
"""Folders whose files are searched for classes."""

BASES = {
    "QAbstractButton": "QWidget",
    "QAbstractItemView": "QAbstractScrollArea",
    "QAbstractScrollArea": "QFrame",
    "QAbstractSpinBox": "QWidget",
    "QCheckBox": "QAbstractButton",
    "QComboBox": "QWidget",
    "QDialog": "QWidget",
    "QDoubleSpinBox": "QAbstractSpinBox",
    "QFrame": "QWidget",
    "QGroupBox": "QWidget",
    "QHeaderView": "QAbstractItemView",
    "QLabel": "QFrame",
    "QLineEdit": "QWidget",
    "QPlainTextEdit": "QAbstractScrollArea",
    "QProgressBar": "QWidget",
    "QPushButton": "QAbstractButton",
    "QScrollArea": "QAbstractScrollArea",
    "QSpinBox": "QAbstractSpinBox",
    "QTabWidget": "QWidget",
    "QTableView": "QAbstractItemView",
    "QTableWidget": "QTableView",
    "QToolButton": "QAbstractButton",
}
"""Base class of a class of Qt; of others from CTK and Slicer it is QWidget, if they have that."""


UNKNOWN = {"cursorForPosition", "textCursor"}
"""Further methods whose return type PythonQt does not know, QTextCursor."""


@cache
def read_table() -> dict[str, dict[str, set[str]]]:
    """Give the attributes of each class by kind.

    The kinds are properties that are `writable` and those that are only `readable`, `other`
    attributes such as methods, and `unknown`: methods whose return type PythonQt does not know.
    """
    stored = json.loads(TABLE.read_text(encoding="utf-8"))

    @cache
    def whole(name: str) -> dict[str, set[str]]:
        own = {kind: set(names) for kind, names in stored[name].items() if kind != "base"}
        base = stored[name].get("base")
        inherited = whole(base) if base else {}
        return {kind: own[kind] | inherited.get(kind, set()) for kind in own}

    return {name: whole(name) for name in stored}


def used_classes() -> set[str]:
    """Name the widget classes that .ui files and Python files of ours name."""
    names: set[str] = set()
    for module in MODULES:
        for file in (ROOT / module).rglob("*"):
            if file.suffix == ".ui":
                text = file.read_text(encoding="utf-8")
                names |= set(re.findall(r'<(?:widget|layout) class="(\w+)"', text))
            elif file.suffix == ".py":
                text = file.read_text(encoding="utf-8")
                names |= set(re.findall(r"\b(?:qt|ctk|slicer)\.((?:Q|ctk|qMRML|qSlicer)\w+)", text))
    return names


def make_table(classes: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Make the table of these classes, their bases included; those not read are left out."""
    known = {name.split(".")[1]: about for name, about in classes.items()}
    wanted = {name for name in names if name in known} | {"QWidget"}
    while missing := {BASES[name] for name in wanted if name in BASES} - wanted:
        wanted |= missing
    whole = {name: _attributes(known[name]) for name in wanted}
    table = {}
    for name in sorted(wanted):
        base = BASES.get(name)
        if base is None and name != "QWidget" and whole[name]["other"] >= whole["QWidget"]["other"]:
            base = "QWidget"
        inherited = whole[base] if base else {}
        own = {
            kind: sorted(values - inherited.get(kind, set()))
            for kind, values in whole[name].items()
        }
        table[name] = ({"base": base} if base else {}) | own
    return table


def _attributes(about: dict[str, Any]) -> dict[str, set[str]]:
    properties = about["properties"]
    return {
        "writable": {name for name, mode in properties.items() if mode == "rw"},
        "readable": {name for name, mode in properties.items() if mode == "r"},
        "other": set(about["methods"]),
        "unknown": set(about["unknown_return"]) | UNKNOWN & set(about["methods"]),
    }


def main(source: Path) -> None:
    """Write the table."""
    classes = json.loads(source.read_text(encoding="utf-8"))["classes"]
    table = make_table(classes, used_classes())
    lines = (f"{json.dumps(name)}: {json.dumps(about)}" for name, about in table.items())
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
