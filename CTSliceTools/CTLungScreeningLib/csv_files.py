"""The one way in which tables are written and read.

No cell of text is run by a spreadsheet, and a table saved by a spreadsheet can be read, with a byte
order mark and empty cells at its end.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.files import new_file

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


Rows = Iterator[tuple[int, dict[str, str]]]
"""Line number and cells by column of each row of a table; empty lines are left out."""


@contextmanager
def open_table(path: Path) -> Iterator[tuple[list[str], Rows]]:
    """Open a table in UTF-8 to read its header, empty in an empty file, and then its rows.

    Raises:
        InputError: as `refuse_other_separators` does and, on reading a row, `whole_row`.
        OSError, UnicodeDecodeError, csv.Error: if it cannot be read.
    """
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        header = trimmed(next(reader, []))
        refuse_other_separators(path, 1, header)
        yield (
            header,
            (
                (line, dict(zip(header, whole_row(path, line, cells, header), strict=True)))
                for cells in reader
                if any(cells) and (line := reader.line_num)
            ),
        )


def refuse_other_separators(path: Path, line: int, header: Sequence[str]) -> None:
    """Refuse a header whose columns are not separated by commas.

    Raises:
        InputError: if it is one cell with other separators.
    """
    for mark, called in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(header) == 1 and mark in header[0]:
            raise InputError(
                f"{path} line {line} separates its columns by {called}: save it with commas."
            )


def whole_row(path: Path, line: int, cells: Sequence[str], header: Sequence[str]) -> list[str]:
    """Return the cells of a row, one for each column.

    Raises:
        InputError: if there are fewer, or more that are not empty.
    """
    columns = len(header)
    used = list(cells[: max(columns, len(trimmed(cells)))])
    if len(used) == columns:
        return used
    remedy = "complete it"
    if len(used) > columns:
        remedy = "quote a cell that holds a comma, and write decimal numbers with a point"
    raise InputError(
        f"{path} line {line} has {counted(len(used), 'value')} for {counted(columns, 'column')}: "
        f"{remedy}."
    )


def trimmed(cells: Sequence[str]) -> list[str]:
    """Return the cells of a line without empty ones at its end."""
    used = max((number for number, cell in enumerate(cells, 1) if cell.strip()), default=0)
    return list(cells[:used])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def table_text(
    header: Iterable[object], rows: Iterable[Iterable[object]], end: str = "\r\n"
) -> str:
    """Return the text of a table with guarded cells, see `guarded`.

    Args:
        header: names of the columns.
        rows: a cell for each column; None is an empty one.
        end: of each line.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end)
    writer.writerows([guarded(value) for value in row] for row in (header, *rows))
    return text.getvalue()


def write_table(path: Path, header: Iterable[object], rows: Iterable[Iterable[object]]) -> None:
    """Write `table_text` as a new file.

    Raises:
        InputError: if there is something at `path`.
    """
    with new_file(path) as temporary:
        temporary.write_text(table_text(header, rows), encoding="utf-8", newline="")
