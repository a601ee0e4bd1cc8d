"""No cell of a table is run by a spreadsheet, and what is read back is what was written."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from CTLungScreeningLib import csv_files

FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-2+3+cmd", "@SUM(1)", "\t=1", "\r=1", "=1", "-", "--1")
NUMBERS = ("-3.5", "+2", "-1e-7", "12", "nan", "-inf", "")


@pytest.mark.parametrize("cell", FORMULAS)
def test_formulas_are_guarded_and_come_back(cell: str) -> None:
    stream = io.StringIO()
    csv_files.Writer(stream).writerow([cell, 1, -2.5, None])
    csv_files.DictWriter(stream, ["a"]).writerow({"a": cell})
    stream.seek(0)
    for row in csv.reader(stream):
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
