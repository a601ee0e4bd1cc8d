"""Write the tables of docs/files.md from the code: `.venv/bin/python docs/file_tables.py`."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from CTLungScreeningLib.options import options_of, spellings
from CTSliceToolsLib.localizer.results import COLUMNS as SLICE_COLUMNS
from LungNoduleSegLib.nodules.table import COLUMNS, Column
from LungNoduleSegLib.risk.facts import NoduleFacts, PatientFacts
from LungNoduleSegLib.risk.growth_table import GROWTH_COLUMNS, TIMELINE_COLUMNS

PAGE = Path(__file__).parent / "files.md"
SLICES = {
    "index": "Number of the slice, from 0 at the lowest",
    "file": "DICOM file of the slice, relative to the folder of the scan; empty for a volume file",
    "frame": "Index of the frame in a file with several",
    "sop_instance_uid": "From DICOM",
    "z_mm": "LPS z; larger is superior",
    "raw": "Location by the network alone: 0 at the top of the head, 0.5 at the head of femur",
    "location": "Location after the fit of the whole scan; use this one",
    "uncertainty_mm": "Half the 95 % interval of the location, in mm along z; 1000 if unknown",
    "nearest": "Nearest landmark",
    "description": "The location in words",
    "landmark": "Landmarks on this slice",
}
"""What the columns of a prediction mean."""


def tables() -> dict[str, str]:
    """Return each table of the page by its name."""
    return {
        "nodules.csv": _columns(COLUMNS),
        "growth.csv": _columns(GROWTH_COLUMNS),
        "timeline.csv": _columns(TIMELINE_COLUMNS),
        "predict": _table(("column", "meaning"), [(f"`{n}`", SLICES[n]) for n in SLICE_COLUMNS]),
        "facts of the patient": _facts(PatientFacts),
        "facts of a nodule": _facts(NoduleFacts),
    }


def written(page: str) -> str:
    """Return the page with its tables as the code has them, each between two comments."""
    for name, table in tables().items():
        begin, rest = page.split(f"<!-- {name} -->\n", 1)
        end = rest[rest.index("<!-- to here -->") :]
        page = f"{begin}<!-- {name} -->\n\n{table}\n\n{end}"
    return page


def _columns(columns: Mapping[str, Column]) -> str:
    rows = [(f"`{name}`", one.unit, one.description) for name, one in columns.items()]
    return _table(("column", "unit", "meaning"), rows)


def _facts(kind: type) -> str:
    rows = [(f"`{one.name}`", one.option.help, _values(one.type)) for one in options_of(kind)]
    return _table(("fact", "meaning", "values"), rows)


def _values(kind: Any) -> str:
    if issubclass(kind, StrEnum):
        return ", ".join(f"`{spellings(member)[-1]}`" for member in kind)
    return "`true`, `false`" if kind is bool else "a number"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
