"""Detectors that a user may add: any ONNX network with a card, and any program."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.special import expit, softmax

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.child_process import (
    ChildError,
    program_command,
    run_command,
    temporary_folder,
)
from CTLungScreeningLib.engine import Device, OnnxNetwork, first_line, takes
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import is_path_below
from CTLungScreeningLib.geometry import image_like, onto_grid
from CTLungScreeningLib.json_files import is_number
from CTLungScreeningLib.model_card import RUN, ModelCard
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.volume_files import read_labels
from LungNoduleSegLib.detectors.detection import Answer, Detector, Mark

DIMENSIONS = "bczyx"
"""Batch, channel and the axes of the patient; a card names those that its network has, in order."""

OUTPUTS = ("probability", "logits")


@dataclass(frozen=True)
class NetworkInput:
    """The input of a network, from the card's field `input`.

    Attributes:
        spacing_mm: along z, y and x; None for the scan's own.
        window_hu: lowest and highest HU that it distinguishes.
        range: what these two become.
        axes: of `DIMENSIONS`, such as `bczyx`, or `bcyx` for a network of single slices.
        patch: lengths along z, y and x; 1 along z if the network has no such axis.
        overlap: share of a patch that its neighbour sees too.
    """

    spacing_mm: Sequence[float] | None
    window_hu: tuple[float, float]
    range: tuple[float, float]
    axes: str
    patch: Sequence[int]
    overlap: float = 0.5

    @classmethod
    def of(cls, card: ModelCard) -> "NetworkInput":
        """Read it from a card.

        Raises:
            InputError: naming the field that is wrong or missing.
        """

        def wrong(field: str, expected: str) -> InputError:
            return InputError(f"The card of {card.name}: `input.{field}` must be {expected}.")

        def numbers(field: str, count: int) -> bool:
            value = card.input.get(field)
            return isinstance(value, list) and len(value) == count and all(map(is_number, value))

        given = card.input
        if given.get("spacing_mm") is not None and not (
            numbers("spacing_mm", 3) and min(given["spacing_mm"]) > 0
        ):
            raise wrong("spacing_mm", "three lengths in mm along z, y and x, or null")
        for field in ("window_hu", "range"):
            if not numbers(field, 2) or given[field][0] >= given[field][1]:
                raise wrong(field, "two numbers, the smaller one first")
        axes = given.get("axes")
        if not isinstance(axes, str) or not {*"bcyx"} <= {*axes} <= {*DIMENSIONS}:
            raise wrong("axes", f"letters of {DIMENSIONS}, such as bczyx or bcyx")
        if not numbers("patch", 3) or not all(isinstance(n, int) and n > 0 for n in given["patch"]):
            raise wrong("patch", "three whole numbers, voxels along z, y and x")
        if "z" not in axes and given["patch"][0] != 1:
            raise wrong("patch", "1 along z, as the network has no such axis")
        overlap = given.get("overlap", 0.5)
        if not is_number(overlap) or not 0 <= overlap < 1:
            raise wrong("overlap", "a share from 0 to below 1")
        unknown = sorted(given.keys() - cls.__dataclass_fields__.keys())
        if unknown:
            raise wrong(unknown[0], "left out: there is no such field")
        return cls(**{"spacing_mm": None, **given})


class OnnxDetector(Detector):
    """Runs a network patch by patch over the lungs and averages where patches overlap."""

    def __init__(self, card: ModelCard, card_file: Path, device: Device | None = None) -> None:
        """Load the network.

        Args:
            card: of kind `onnx`.
            card_file: its file; the network lies beside it.
            device: where it runs; None for a GPU if there is one.

        Raises:
            InputError: if the card is incomplete or the network cannot be run.
        """
        self.card = card
        self._input = NetworkInput.of(card)
        _require_output(card, "values", "channel")
        values = card.output.get("values")
        if values not in OUTPUTS:
            raise InputError(
                f"The card of {card.name}: `output.values` must be {' or '.join(OUTPUTS)}."
            )
        self._logits, self._channel = values == "logits", card.output.get("channel", 0)
        if type(self._channel) is not int or self._channel < 0:
            raise InputError(
                f"The card of {card.name}: `output.channel` must be a whole number, 0 or more."
            )
        name = card.file(RUN)
        if name is None:
            raise InputError(f"The card of {card.name}: `files` must name an .onnx file.")
        self._network = OnnxNetwork(card_file.parent / name, device)
        batch, *others, channels = self._network.input_shape
        own, lengths = (batch, channels, *others), {"b": 1, "c": 1}
        lengths |= dict(zip("zyx", self._input.patch, strict=True))
        needed = tuple(lengths[axis] for axis in self._input.axes)
        if not takes(own, needed):
            raise InputError(
                f"The card of {card.name}: `input` gives arrays of {needed}, but {name} takes "
                f"{own}: correct `axes` and `patch`."
            )

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each GPU that was found and is not used."""
        return tuple(self._network.notes)

    def record(self) -> dict[str, Any]:
        """Name the model and what it runs on."""
        return {**super().record(), "device": self._network.device}

    def detect(
        self, hu: sitk.Image, lungs: sitk.Image, progress: ProgressCallback = silent
    ) -> sitk.Image:
        """Return the probability of each voxel, at the spacing of the network."""
        spacing = self._input.spacing_mm
        grid = hu if spacing is None else _with_spacing(hu, spacing)
        low, high = self._input.window_hu
        first, last = self._input.range
        image = sitk.Resample(
            sitk.Cast(hu, sitk.sitkFloat32), grid, sitk.Transform(), sitk.sitkLinear, low
        )
        array = np.clip(sitk.GetArrayFromImage(image), low, high)
        array = (array - low) / (high - low) * (last - first) + first
        inside = onto_grid(sitk.Cast(lungs > 0, sitk.sitkUInt8), grid)
        found = self._over_patches(array, sitk.GetArrayViewFromImage(inside) > 0, progress)
        return image_like(found, grid)

    def _over_patches(
        self,
        array: NDArray[np.float32],
        inside: NDArray[np.bool_],
        progress: ProgressCallback,
    ) -> NDArray[np.float32]:
        missing = [(0, max(0, p - n)) for p, n in zip(self._input.patch, array.shape, strict=True)]
        padded = np.pad(array, missing, constant_values=self._input.range[0])
        total, count = np.zeros_like(padded), np.zeros(padded.shape, np.uint16)
        patches = list(self._patches(padded.shape))
        for done, patch in enumerate(patches):
            progress("Nodules", done, len(patches))
            if inside[patch].any():
                total[patch] += self._predict(padded[patch])
                count[patch] += 1
        progress("Nodules", len(patches), len(patches))
        z, y, x = array.shape
        return (total / np.maximum(count, 1)).astype(np.float32)[:z, :y, :x]

    def _patches(self, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
        """Cover a volume with patches that overlap."""
        starts = []
        for length, size in zip(shape, self._input.patch, strict=True):
            step = max(1, round(size * (1 - self._input.overlap)))
            starts.append(sorted({*range(0, length - size, step), length - size}))
        for corner in product(*starts):
            yield tuple(slice(a, a + n) for a, n in zip(corner, self._input.patch, strict=True))

    def _predict(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        axes = self._input.axes
        missing = tuple(i for i, name in enumerate(DIMENSIONS) if name not in axes)
        kept = [name for name in DIMENSIONS if name in axes]
        batch = np.squeeze(patch[None, None], missing).transpose([kept.index(a) for a in axes])
        try:
            found = self._network.predict_on_batch(np.moveaxis(batch, 1, -1))
        except Exception as error:  # what engines raise has no class in common
            size = " × ".join(map(str, patch.shape))
            raise InputError(
                f"{self.card.name} cannot run on patches of {size} "
                f"({first_line(error).rstrip('.')}): correct `input.patch` in its card."
            ) from error
        if found.ndim != len(axes):
            raise InputError(
                f"{self.card.name} gives {found.ndim} dimensions, not those of its input ({axes})."
            )
        found = np.moveaxis(found, -1, 1)
        volume = np.expand_dims(found.transpose([axes.index(name) for name in kept]), missing)[0]
        if self._channel >= len(volume) or volume.shape[1:] != patch.shape:
            raise InputError(
                f"{self.card.name} gives {volume.shape} for {patch.shape}: it must give channels "
                "of the same size, and `output.channel` must be one of them."
            )
        if self._logits:
            volume = softmax(volume, axis=0) if len(volume) > 1 else expit(volume)
        return volume[self._channel]


def _require_output(card: ModelCard, *fields: str) -> None:
    unknown = sorted(card.output.keys() - fields)
    if unknown:
        raise InputError(
            f"The card of {card.name}: `output.{unknown[0]}` must be left out: there is no such "
            "field."
        )


def _with_spacing(image: sitk.Image, spacing_mm: Sequence[float]) -> sitk.Image:
    """Return an empty grid over the same field of view with another spacing along z, y and x."""
    old = np.array(image.GetSpacing())
    new = np.array(spacing_mm[::-1], float)
    size = np.maximum(1, np.ceil(np.array(image.GetSize()) * old / new - 1e-6).astype(int))
    grid = sitk.Image([int(n) for n in size], sitk.sitkUInt8)
    grid.SetSpacing(new.tolist())
    grid.SetDirection(image.GetDirection())
    shift = (new / old - 1) / 2  # the corner of the field of view stays
    grid.SetOrigin(image.TransformContinuousIndexToPhysicalPoint(shift.tolist()))
    return grid


PLACES = ("input", "lungs", "output", "model")
"""Placeholders of a command: the scan and its lungs as NIfTI, the folder for the output,
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
        _require_output(card, "file")
        file = card.output.get("file")
        if not isinstance(file, str) or not is_path_below(file):
            raise InputError(
                f"The card of {card.name}: `output.file` must be a path in the output folder."
            )
        self._file = file

    def detect(
        self, hu: sitk.Image, lungs: sitk.Image, progress: ProgressCallback = silent
    ) -> Answer:
        """Run the program and read what it wrote: an image, or a `.csv` file of marks."""
        with temporary_folder("detector-") as name:
            folder = Path(name)
            (folder / "output").mkdir()
            sitk.WriteImage(sitk.Cast(hu, sitk.sitkInt16), folder / "input.nii.gz")
            sitk.WriteImage(sitk.Cast(lungs, sitk.sitkUInt8), folder / "lungs.nii.gz")
            command = program_command(*self._command(folder))
            try:
                run_command(
                    command.arguments,
                    command.environment,
                    progress=lambda *_: progress("Nodules", 0, 1),
                )
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
                f"{self.card.name} wrote no {self._file}: check that its program works by itself."
            )
        try:
            if file.suffix.lower() == ".csv":
                with csv_files.open_table(file) as (_, rows):
                    return [_mark(row) for _, row in rows]
            return read_labels(file)
        except InputError as error:
            why = str(error).replace(str(file), self._file)
            raise InputError(
                f"{self.card.name} wrote a {self._file} that cannot be read: {why}"
            ) from error
        except (RuntimeError, ValueError, KeyError, csv.Error) as error:
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
