"""What the section Training evaluates: three measures, their files and their commands."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from CTLungScreeningLib.files import beside, refuse_existing
from LungNoduleSegSlicer.panel.training_parameters import Measure

DICE_JSON, DICE_CSV = "dice.json", "dice.csv"
DETECTION_JSON, CURVE, PLOT, FOUND = "detection.json", "froc.csv", "froc.png", "nodules.csv"


@dataclass(frozen=True)
class Evaluation:
    """What is held against what; None where nothing was chosen.

    Attributes:
        measure: which of the three.
        predicted: masks that were found; of the Dice coefficient, as are the next two.
        truth: those that are true.
        resample: whether the first are brought to the grids of the second.
        submission: CSV of findings; of detection, as are the next three.
        nodules: CSV of the true nodules.
        excluded: CSV of findings to be ignored.
        series: CSV of all scans.
        scan: to insert lesions into; of inserted lesions, as are the next three.
        own_nodules: mask of those it has itself.
        rounds: copies of that scan.
        model: to be tried.
        results: folder for what is measured.
    """

    measure: Measure = Measure.DICE
    predicted: Path | None = None
    truth: Path | None = None
    resample: bool = False
    submission: Path | None = None
    nodules: Path | None = None
    excluded: Path | None = None
    series: Path | None = None
    scan: Path | None = None
    own_nodules: Path | None = None
    rounds: int = 3
    model: Path | None = None
    results: Path | None = None

    def completed(self) -> "Evaluation":
        """Fill in the folder for the results: beside what is measured, named after it."""
        tested = self.model.stem if self.model is not None else ""
        results = {
            Measure.DICE: beside(self.predicted, "-dice"),
            Measure.DETECTION: beside(self.submission, "-detection"),
            Measure.INSERTED: beside(self.scan, f"-inserted-{tested}"),
        }[self.measure]
        return replace(self, results=self.results or results)

    def needed(self) -> dict[str, Path | None]:
        """Give the paths without which nothing can be measured, by their parameters' names."""
        return {
            Measure.DICE: {"predicted": self.predicted, "truth": self.truth},
            Measure.DETECTION: {
                "submission": self.submission,
                "nodules": self.nodules,
                "series": self.series,
            },
            Measure.INSERTED: {"scan": self.scan},
        }[self.measure] | {"results": self.results}

    def require_new(self) -> None:
        """See that the folder for the results holds none.

        Raises:
            InputError: if it does.
        """
        if self.results is not None and self.results.is_dir():
            there = [file.name for file in self.results.iterdir() if file.suffix in _SUFFIXES]
            refuse_existing(self.results, there)

    def arguments(self) -> list[str | Path | None]:
        """Give the arguments of the command."""
        results = self.results or Path()
        arguments: list[Any] = ["evaluate", self.measure.value]
        if self.measure is Measure.DICE:
            arguments += [self.predicted, self.truth]
            arguments += ["--json", results / DICE_JSON, "--csv", results / DICE_CSV]
            return arguments + ["--resample"] * self.resample
        if self.measure is Measure.DETECTION:
            arguments += ["--submission", self.submission, "--annotations", self.nodules]
            arguments += ["--seriesuids", self.series, "--json", results / DETECTION_JSON]
            arguments += ["--curve", results / CURVE, "--plot", results / PLOT]
            return [*arguments, "--nodules", results / FOUND, *_given("--excluded", self.excluded)]
        arguments += [self.scan, "-o", results, "--rounds", str(self.rounds)]
        own = _given("--nodules", self.own_nodules)
        return arguments + own + _given("--model", self.model)


_SUFFIXES = (".json", ".csv", ".png")


def pictures_in(folder: Path) -> list[Path]:
    """Give the plots that an evaluation has drawn."""
    return sorted(folder.glob("*.png"))


def _given(option: str, value: Path | None) -> list[str | Path]:
    return [] if value is None else [option, value]
