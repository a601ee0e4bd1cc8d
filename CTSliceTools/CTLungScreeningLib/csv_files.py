"""The one way in which tables are written: no cell of text is run by a spreadsheet."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from CTLungScreeningLib.errors import InputError

_RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters of a cell that a spreadsheet reads as a formula,
https://owasp.org/www-community/attacks/CSV_Injection."""


def guarded(value: object) -> object:
    """Return a cell that a spreadsheet shows as it is: text that looks like a formula gets a `'`.

    Control characters become spaces. Numbers, also those written as text, stay as they are.
    """
    if not isinstance(value, str):
        return value
    text = "".join(c if c.isprintable() else " " for c in value)
    return f"'{text}" if value.startswith(_RUN_BY_SPREADSHEETS) and not _is_number(value) else text


def unguarded(cell: str) -> str:
    """Undo `guarded` for the text of a cell."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_RUN_BY_SPREADSHEETS) else cell


def whole_rows(path: Path, reader: "csv.DictReader[str]") -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells of each row of a table.

    Raises:
        InputError: if a row does not have as many cells as the header of the file at `path`.
    """
    for row in reader:
        if None in row or None in row.values():
            raise InputError(
                f"{path} line {reader.line_num} does not have as many cells as the header: correct "
                "the line."
            )
        yield reader.line_num, row


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class Writer:
    """Like `csv.writer`, with guarded cells."""

    def __init__(self, stream: TextIO, lineterminator: str = "\r\n") -> None:
        self._writer = csv.writer(stream, lineterminator=lineterminator)

    def writerow(self, row: Iterable[object]) -> None:
        """Write one row."""
        self._writer.writerow([guarded(value) for value in row])

    def writerows(self, rows: Iterable[Iterable[object]]) -> None:
        """Write several rows."""
        for row in rows:
            self.writerow(row)


class DictWriter(csv.DictWriter):
    """Like `csv.DictWriter`, with guarded cells."""

    def writerow(self, row: Mapping[str, Any]) -> Any:
        """Write one row."""
        return super().writerow({name: guarded(value) for name, value in row.items()})

    def writerows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write several rows."""
        for row in rows:
            self.writerow(row)
