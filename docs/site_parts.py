"""Pages of the site that are generated from the code for each build.

`docs/generated` gets a page for each command line, by its own help, and the cards of the models.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
GENERATED = Path(__file__).parent / "generated"
SECTIONS = ("results", "training", "preparation", "rules")
MOST_COLUMNS = 12
FOUND_OF, FOUND_OF_WORDS = "found_of", "found of"
"""Begins the names of counts in cards: how many were found, of how many."""
COMMANDS = {"lung-nodule-seg": "LungNoduleSegLib.cli", "ct-slice-tools": "CTSliceToolsLib.cli"}


def repository() -> str:
    """Return the address of the repository, which stands in `CITATION.cff`."""
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    found = re.search(r"^repository-code: (\S+)$", citation, re.MULTILINE)
    assert found
    return found[1]


def model_cards() -> dict[str, dict[str, Any]]:
    """Return the cards of the bundled networks by name; a risk model's card has none of its own."""
    files = sorted(ROOT.glob("*/*Lib/Resources/Models/*.json"), reverse=True)
    cards = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    return {name: card for name, card in cards.items() if "name" in card}


def make_pages(_: Sphinx) -> None:
    """Write the pages."""
    GENERATED.mkdir(exist_ok=True)
    for name, module in COMMANDS.items():
        command = [sys.executable, "-m", "typer", module, "utils", "docs", "--name", name]
        page = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        # Typer cuts the sentences of this list; each stands whole below.
        write(f"{name}.md", re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n", "", page))
    write("model-cards.md", "\n\n".join(["# Model cards", *map(card_text, model_cards().values())]))


def card_text(card: dict[str, Any]) -> str:
    """Return a card as Markdown, its limitations first."""
    parts = [
        f"## {card['name']}",
        f"{card['summary']} Its output is the {card['label']}.",
        f"### Limits of {card['name']}",
        "\n".join(f"- {one}" for one in card["limitations"]),
    ]
    for section in SECTIONS:
        if values := card.get(section):
            parts += [f"### {section.capitalize()} of {card['name']}", tables(values, 4)]
    hashes = "\n".join(f"- {name}: `{sha256}`" for name, sha256 in card["files"].items())
    return "\n\n".join([*parts, "SHA-256 of the files:", hashes, ""])


def write(name: str, text: str) -> None:
    """Write a generated file, unless it says the same already: Sphinx then leaves its page."""
    file = GENERATED / name
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")


def tables(values: dict[str, Any], level: int) -> str:
    """Return nested values as Markdown: tables of plain ones under headings of the outer keys."""
    inner = {key: value for key, value in values.items() if is_table(value)}
    parts = []
    if plain := {key: cell(value) for key, value in values.items() if key not in inner}:
        parts.append(table(["", ""], plain.items()))
    if columns := shared_columns(list(inner.values())):
        parts.append(rows_of(columns, inner.items()))
        return "\n\n".join(parts) + "\n"
    for key, value in inner.items():
        title = in_words(key).replace(FOUND_OF_WORDS, "found,")
        parts.append(f"{'#' * min(level, 6)} {title}")
        if isinstance(value, list):
            numbered = [(str(number), one) for number, one in enumerate(value, 1)]
            parts.append(rows_of(list(value[0]), numbered))
        elif key.startswith(FOUND_OF):
            parts.append(
                table(["", ""], [(name, "{} of {}".format(*n)) for name, n in value.items()])
            )
        else:
            parts.append(tables(value, level + 1))
    return "\n\n".join(parts) + "\n"


def is_table(value: object) -> bool:
    """Whether a value of a card holds names with values, or is a list of such."""
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)
    )


def rows_of(columns: list[str], rows: Any) -> str:
    """Return a Markdown table of named rows."""
    cells = [[key, *(cell(one.get(name)) for name in columns)] for key, one in rows]
    return table(["", *map(in_words, columns)], cells)


def shared_columns(rows: list[dict[str, Any]]) -> list[str]:
    """Return the keys of plain values that make one table: each in more than one row; else none."""
    if not all(isinstance(row, dict) and not any(map(is_table, row.values())) for row in rows):
        return []
    count = Counter(name for row in rows for name in row)
    return list(count) if len(count) <= MOST_COLUMNS and min(count.values(), default=0) > 1 else []


def table(head: list[str], rows: Any) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *([in_words(row[0]), *row[1:]] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def in_words(key: str) -> str:
    """Return a key of a card as a person would write it."""
    if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", key):
        return key
    return re.sub(r" mm\b", " (mm)", key.replace("_", " "))


def cell(value: object) -> str:
    """Return a plain value of a card as the text of a cell."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "; ".join(map(cell, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def escape_markup(
    _app: Sphinx, what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    """Take a docstring as plain text with code in backticks, so `*`, `|` and a last `_` as such."""
    markup = re.compile(r"(`[^`]*`|^ +\*+\w+)|([*|]|(?<=\w)_(?!\w))", re.MULTILINE)
    escaped = markup.sub(lambda found: found[1] or f"\\{found[2]}", "\n".join(lines))
    lines[:] = escaped.split("\n")
    if what in {"attribute", "data"}:
        lines.insert(0, "\\")  # nothing; else Napoleon takes what precedes a colon for a type


def shorten_arrays(*event: Any) -> tuple[str | None, str | None]:
    """Name arrays in a signature as the code does, such as `NDArray[np.uint8]`."""
    array = re.compile(r"~?numpy\.ndarray\[[^\]]+\], ~?numpy\.dtype\[(?:~?[\w.]+\.)?(\w+)\]\]")
    arguments, returned = (part and array.sub(r"NDArray[\1]", part) for part in event[-2:])
    return arguments, returned


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", make_pages, priority=100)
    app.connect("autodoc-process-docstring", escape_markup, priority=100)
    app.connect("autodoc-process-signature", shorten_arrays)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
