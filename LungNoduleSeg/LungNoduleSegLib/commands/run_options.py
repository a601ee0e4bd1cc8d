"""Options of the commands that run the segmentation."""

from pathlib import Path
from typing import Annotated

import typer

from LungNoduleSegLib.lungs.segmentation import LungMethod

LungsOption = Annotated[
    LungMethod, typer.Option(help="How the lungs are found; `tutorial` is slow.")
]

ModelOption = Annotated[
    Path | None,
    typer.Option(help="A model's name, see `models list`, or one of its files; default: bundled."),
]

ThresholdOption = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Probability of a nodule's voxels; default: the model's."),
]

KeepAllOption = Annotated[
    bool,
    typer.Option("--keep-all", help="Keep unsure, small, tube-like and outside findings too."),
]


def rules_of(threshold: float | None, keep_all: bool) -> dict[str, float | None]:
    """Give the fields of `NoduleRules` that overrule those of the model's card."""
    rules: dict[str, float | None] = {} if threshold is None else {"threshold": threshold}
    if keep_all:
        rules |= {
            "min_probability": None,
            "min_diameter_mm": None,
            "min_lung_fraction": None,
            "max_elongation": None,
        }
    return rules
