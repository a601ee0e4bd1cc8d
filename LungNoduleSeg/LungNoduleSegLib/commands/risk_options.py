"""Options shared by several commands."""

from pathlib import Path
from typing import Annotated

import typer

FactsOption = Annotated[
    Path | None,
    typer.Option(
        "--facts",
        help="JSON file with facts of patient and nodules for the published models.",
    ),
]
