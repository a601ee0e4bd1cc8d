"""The detector protocol: its inputs and the forms of its answer."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import box_of, cut_out, image_like, onto_grid
from CTLungScreeningLib.model_card import ModelCard
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.nodules.cavities import fill_cavities
from LungNoduleSegLib.nodules.region_growing import grow_nodule


@dataclass(frozen=True)
class Mark:
    """A place where a detector sees a nodule.

    Attributes:
        x, y, z: LPS mm.
        probability: that it is one, 0…1.
        diameter_mm: of a ball that stands for a nodule which cannot be grown from the place.
    """

    x: float
    y: float
    z: float
    probability: float = 1.0
    diameter_mm: float | None = None


Answer: TypeAlias = sitk.Image | Sequence[Mark]
"""Output of a detector: probabilities, as an image of floats; voxels of nodules, as an image of
whole numbers, 0 for none, in which voxels of one value that touch are one nodule; or marks. Images
may have any grid in LPS mm."""


class Detector(ABC):
    """Finds nodules in a CT."""

    card: ModelCard
    """Its model card; missing `rules` have their defaults."""

    @abstractmethod
    def detect(
        self, hu: sitk.Image, lungs: sitk.Image, progress: ProgressCallback = silent
    ) -> Answer:
        """Find nodules.

        Args:
            hu: axial HU image around the lungs; its spacing is in mm.
            lungs: 1 in the right and 2 in the left lung, on the same grid.
            progress: `progress(stage, done, total)`, which may raise `Cancelled`.
        """

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each problem."""
        return ()

    def record(self) -> dict[str, Any]:
        """Return what names the model in `run.json`."""
        return {"name": self.card.name, "kind": self.card.kind, "sha256": self.card.sha256}


@dataclass(frozen=True, eq=False)
class Detection:
    """The findings of a detector, on the grid of the scan.

    Attributes:
        probability: that a voxel belongs to a nodule, float32.
        labels: the number of the nodule of each voxel; None if voxels that touch are one nodule.
        notes: one sentence for each mark that shows no nodule.
    """

    probability: sitk.Image
    labels: sitk.Image | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, answer: Answer, hu: sitk.Image, lungs: sitk.Image) -> "Detection":
        """Resample the output of a detector to the grid of the scan.

        Args:
            answer: of `Detector.detect`.
            hu, lungs: what it was asked with.

        Raises:
            InputError: if an image of floats, or a mark, has another value than a probability, or a
                mark a place or diameter that is none.
        """
        if not isinstance(answer, sitk.Image):
            return cls._of_marks(answer, hu, lungs)
        if "float" in answer.GetPixelIDTypeAsString():
            return cls(_probabilities(answer, hu))
        whole = sitk.Cast(answer, sitk.sitkUInt32)
        box = box_of(sitk.GetArrayViewFromImage(whole) > 0)
        if box is not None:
            part = cut_out(whole, box)
            whole = sitk.ScalarConnectedComponent(part, part > 0, 0, True)
        labels = onto_grid(whole, hu)
        return cls(sitk.Cast(labels > 0, sitk.sitkFloat32), labels)

    @classmethod
    def _of_marks(cls, marks: Sequence[Mark], hu: sitk.Image, lungs: sitk.Image) -> "Detection":
        """Grow each mark, the most probable first, as a click in the panel is grown."""
        hu = fill_cavities(hu, lungs)
        marks = sorted(marks, key=lambda one: -one.probability)
        for mark in marks:
            _require_sound(mark)
        numbers = np.zeros(hu.GetSize()[::-1], np.uint32)
        probability = np.zeros(numbers.shape, np.float32)
        notes = []
        for number, mark in enumerate(marks, start=1):
            try:
                grown = grow_nodule(hu, lungs, (mark.x, mark.y, mark.z))
                box: Any = grown.box
                voxels = grown.mask
            except InputError as error:
                box, voxels = ..., _ball(hu, mark)
                if not voxels.any():
                    notes.append(f"The model's mark at {_place(mark)} is left out: {error}")
                    continue
            free = voxels & (numbers[box] == 0)
            numbers[box][free] = number
            probability[box][free] = mark.probability
        return cls(image_like(probability, hu), image_like(numbers, hu), tuple(notes))


def _place(mark: Mark) -> str:
    return f"({mark.x:.1f}, {mark.y:.1f}, {mark.z:.1f})"


def _require_sound(mark: Mark) -> None:
    if not all(map(math.isfinite, (mark.x, mark.y, mark.z))):
        raise InputError(
            f"The model's mark at {_place(mark)} has no place: have it give x, y and z in LPS mm."
        )
    if not 0 <= mark.probability <= 1:
        raise InputError(
            f"The model's mark at {_place(mark)} has a probability of {mark.probability:g}: have "
            "it give 0 to 1."
        )
    if mark.diameter_mm is not None and not 0 < mark.diameter_mm < math.inf:
        raise InputError(
            f"The model's mark at {_place(mark)} has a diameter of {mark.diameter_mm:g} mm: have "
            "it give a length above 0, or none."
        )


def _probabilities(image: sitk.Image, grid: sitk.Image) -> sitk.Image:
    values = sitk.GetArrayViewFromImage(image)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"The model gives values from {low:g} to {high:g}, which are not probabilities: "
            "declare them as logits in its card, or have it return 0 to 1."
        )
    image = sitk.Cast(image, sitk.sitkFloat32)
    if image.IsSameImageGeometryAs(grid):
        return image
    return sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, 0.0)


def _ball(grid: sitk.Image, mark: Mark) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Voxels (z, y, x) of the grid within a mark's radius and that of its middle.

    None without a diameter, or if the ball lies outside the grid.
    """
    if mark.diameter_mm is None:
        return np.zeros(grid.GetSize()[::-1], bool)
    middle = grid.TransformPhysicalPointToContinuousIndex((mark.x, mark.y, mark.z))
    offsets = [
        (np.arange(n) - c) * s
        for n, c, s in zip(grid.GetSize(), middle, grid.GetSpacing(), strict=True)
    ][::-1]
    z, y, x = np.meshgrid(*offsets, indexing="ij", sparse=True)
    distance = np.hypot(np.hypot(z, y), x)
    inside = all(-0.5 <= c <= n - 0.5 for c, n in zip(middle, grid.GetSize(), strict=True))
    reach = max(mark.diameter_mm / 2, distance.min() if inside else 0.0)
    return np.asarray(distance <= reach)
