"""A detector that is any program reading a NIfTI file and writing labels or a table."""

import csv
import tempfile
from pathlib import Path

import SimpleITK as sitk

from CTLungScreeningLib.child_process import ChildError
from CTLungScreeningLib.child_work import run_command
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.model_card import ModelCard
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.detectors.detection import Answer, Detector, Mark

PLACES = ("input", "lungs", "output", "model")
"""What a command may name in braces: the scan and its lungs as NIfTI, the folder for the output,
and the model's own folder."""


class CommandDetector(Detector):
    """Runs the program that a card names."""

    def __init__(self, card: ModelCard, card_file: Path) -> None:
        """Check the card.

        Raises:
            InputError: naming the field that is wrong or missing.
        """
        self.card = card
        self._folder = card_file.parent
        if not card.command or not all(isinstance(one, str) for one in card.command):
            raise InputError(f"The card of {card.name}: `command` must be a list of words.")
        try:
            self._command(Path())
        except (KeyError, ValueError, IndexError) as error:
            raise InputError(
                f"The card of {card.name}: `command` may name {{{'}, {'.join(PLACES)}}} only."
            ) from error
        file = card.output.get("file")
        if not isinstance(file, str) or Path(file).is_absolute() or ".." in Path(file).parts:
            raise InputError(
                f"The card of {card.name}: `output.file` must be a path in the output folder."
            )
        self._file = file

    def detect(
        self, hu: sitk.Image, lungs: sitk.Image, progress: ProgressCallback = silent
    ) -> Answer:
        """Run the program and read what it wrote: an image, or a `.csv` file of marks."""
        with tempfile.TemporaryDirectory(prefix="detector-") as name:
            folder = Path(name)
            (folder / "output").mkdir()
            sitk.WriteImage(sitk.Cast(hu, sitk.sitkInt16), folder / "input.nii.gz")
            sitk.WriteImage(sitk.Cast(lungs, sitk.sitkUInt8), folder / "lungs.nii.gz")
            try:
                run_command(self._command(folder), progress=lambda *_: progress("Nodules", 0, 1))
            except ChildError as error:
                raise InputError(f"{self.card.name} failed: {error}") from error
            progress("Nodules", 1, 1)
            return self._read(folder / "output" / self._file)

    def _command(self, folder: Path) -> list[str]:
        places = {
            "input": folder / "input.nii.gz",
            "lungs": folder / "lungs.nii.gz",
            "output": folder / "output",
            "model": self._folder,
        }
        return [word.format(**places) for word in self.card.command]

    def _read(self, file: Path) -> Answer:
        if not file.is_file():
            raise InputError(
                f"{self.card.name} wrote no {self._file}: see that its program works by itself."
            )
        try:
            if file.suffix == ".csv":
                with file.open(encoding="utf-8", newline="") as rows:
                    return [_mark(row) for row in csv.DictReader(rows)]
            return sitk.ReadImage(file)
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{self.card.name} wrote a {self._file} that cannot be read: it must be an image, "
                "or a table with the columns x, y and z in LPS mm, and where wanted probability "
                "and diameter_mm."
            ) from error


def _mark(row: dict[str, str]) -> Mark:
    diameter = row.get("diameter_mm")
    return Mark(
        float(row["x"]),
        float(row["y"]),
        float(row["z"]),
        float(row.get("probability") or 1.0),
        float(diameter) if diameter else None,
    )
