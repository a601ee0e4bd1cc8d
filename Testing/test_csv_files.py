"""No cell of a table is run by a spreadsheet, and what is read back is what was written."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import InputError

FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-2+3+cmd", "@SUM(1)", "\t=1", "\r=1", "=1", "-", "--1")
NUMBERS = ("-3.5", "+2", "-1e-7", "12", "nan", "-inf", "")


@pytest.mark.parametrize("cell", FORMULAS)
def test_formulas_are_guarded_and_come_back(cell: str) -> None:
    text = csv_files.table_text((cell,), [(cell, 1, -2.5, None)])
    for row in csv.reader(io.StringIO(text)):
        assert row[0].startswith("'")
    if cell.isprintable():
        assert csv_files.unguarded(row[0]) == cell


@pytest.mark.parametrize("cell", NUMBERS)
def test_numbers_stay(cell: str) -> None:
    assert csv_files.guarded(cell) == cell


@given(st.text())
def test_no_cell_is_run(cell: str) -> None:
    found = csv_files.guarded(cell)
    assert isinstance(found, str) and found.isprintable()
    assert not found.startswith(("=", "@"))
    if found.startswith(("+", "-")):
        float(found)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_rows_have_a_cell_for_each_column(mark: str, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text(f"{mark}a,b,\n1,,\n\n,,,\n2,3,,,\n4,\n", encoding="utf-8")
    with csv_files.open_table(file) as (header, rows):
        assert header == ["a", "b"]
        assert list(rows) == [
            (2, {"a": "1", "b": ""}),
            (5, {"a": "2", "b": "3"}),
            (6, {"a": "4", "b": ""}),
        ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2,3", "line 2 has 3 values for 2 columns: quote a cell that holds a comma, and"),
        ("a,b\n1,2\n3", "line 3 has 1 value for 2 columns: complete it."),
        ("a;b\n1;2", "line 1 separates its columns by semicolons: save it with commas."),
    ],
)
def test_what_is_no_such_table_is_named(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text(text)
    with (
        pytest.raises(InputError, match=rf"t\.csv {words}"),
        csv_files.open_table(file) as (_, rows),
    ):
        list(rows)
