"""Dice coefficients of masks by slice, scan and nodule, and of lungs."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.files import new_file, refuse_existing
from CTLungScreeningLib.geometry import AxialView, image_like
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.volume_files import write_image
from LungNoduleSegLib.evaluation import subgroups
from LungNoduleSegLib.evaluation.masks import (
    find_pairs,
    is_stack,
    numbered,
    read_pair,
    read_stacks,
)
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG, LungMethod, lung_volumes_ml
from LungNoduleSegLib.lungs.programs import require_method
from LungNoduleSegLib.lungs.segmentation import read_lungs, segment_lungs
from LungNoduleSegLib.nodules.table import sphere_diameter

SMOOTH = 1.0
"""Smoothing term of a slice's coefficient in the Data Science Bowl 2017 tutorial."""

DIFFERENCE_SUFFIXES = (".nii.gz", ".nrrd")


class Level(StrEnum):
    """The unit that a coefficient is computed for."""

    SLICE = "slice"
    SCAN = "scan"
    NODULE = "nodule"


@dataclass(frozen=True)
class Overlap:
    """One coefficient.

    Attributes:
        level: slice, scan or nodule.
        number: of the slice, from 0 at the feet, or of the true nodule; 0 for a scan.
        truth: true volume in mm³, or pixels if the spacing is unknown.
        predicted: likewise of the prediction.
        dice: 0…1.
    """

    level: Level
    number: int
    truth: float
    predicted: float
    dice: float


@dataclass(frozen=True)
class ScanDice:
    """The agreement of one scan's mask with the truth.

    Attributes:
        name: of the pair of masks.
        slices: those with truth; all slices of arrays.
        false_slices: those with a prediction but no truth.
        scan: None if both masks are empty, and for arrays, whose slices are of many scans.
        nodules: one per true nodule.
        false_positives: number of predicted nodules that touch no true one.
    """

    name: str
    slices: tuple[Overlap, ...]
    false_slices: tuple[Overlap, ...]
    scan: Overlap | None
    nodules: tuple[Overlap, ...]
    false_positives: int


def slice_dice(truth: NDArray[np.generic], predicted: NDArray[np.generic]) -> NDArray[np.float64]:
    """The tutorial's coefficient of each slice of two stacks (n, rows, columns), 0…1.

    Probabilities are not thresholded, as in the tutorial's evaluation.
    """
    return np.array(
        [
            (2 * np.sum(true * found, dtype=float) + SMOOTH)
            / (np.sum(true, dtype=float) + np.sum(found, dtype=float) + SMOOTH)
            for true, found in zip(truth, predicted, strict=True)
        ]
    )


def compare_masks(name: str, predicted: sitk.Image, truth: sitk.Image) -> ScanDice:
    """Compare two label images on one axial grid, 0 for background.

    Each label is a nodule; a binary mask is divided, see `masks.numbered`. A predicted nodule is
    assigned to the true one with the largest overlap, and a true nodule is compared with all
    predictions assigned to it.
    """
    return _compare(name, numbered(predicted), numbered(truth))


def _compare(name: str, predicted: sitk.Image, truth: sitk.Image) -> ScanDice:
    """Compare two label images of which each label is a nodule."""
    true, found = (sitk.GetArrayFromImage(image) for image in (truth, predicted))
    voxel = float(np.prod(truth.GetSpacing()))
    both = true.astype(bool), found.astype(bool)
    scan = _dice(*both)
    volumes = [float(np.count_nonzero(mask) * voxel) for mask in both]
    nodules, false_positives = _by_nodule(true, found, voxel)
    marked = np.flatnonzero((both[0] | both[1]).any(axis=(1, 2)))
    slices = _slices(both[0][marked], both[1][marked], marked, voxel)
    return ScanDice(
        name,
        tuple(one for one in slices if one.truth),
        tuple(one for one in slices if not one.truth),
        Overlap(Level.SCAN, 0, volumes[0], volumes[1], scan) if any(volumes) else None,
        nodules,
        false_positives,
    )


def evaluate_dice(
    predicted: Path, truth: Path, resample: bool = False, progress: ProgressCallback = silent
) -> list[ScanDice]:
    """Compare two masks, or the masks of two folders; see `masks.find_pairs`.

    Raises:
        InputError: naming the file that cannot be used.
    """
    pairs = find_pairs(predicted, truth)
    result = []
    for number, pair in enumerate(pairs):
        progress("Masks", number, len(pairs))
        if is_stack(pair):
            found, true = read_stacks(pair)
            slices = _slices(true, found, np.arange(len(true)), 1.0)
            result.append(ScanDice(pair.name, slices, (), None, (), 0))
        else:
            result.append(_compare(pair.name, *read_pair(pair, resample)))
    progress("Masks", len(pairs), len(pairs))
    return result


@dataclass(frozen=True)
class LungAgreement:
    """How this project's lungs agree with others of the same scan.

    Attributes:
        dice: by side, and of "both" together.
        own_ml, other_ml: volumes by side.
        only_own_ml, only_other_ml: what only one of them has.
        largest_ml: the largest connected piece that only one has.
        largest_in: "own" or "other"; None if they are equal.
        largest_at: its middle in LPS mm.
    """

    dice: dict[str, float]
    own_ml: dict[str, float]
    other_ml: dict[str, float]
    only_own_ml: float
    only_other_ml: float
    largest_ml: float
    largest_in: str | None
    largest_at: tuple[float, float, float] | None

    def to_text(self) -> str:
        """Format as text."""
        lines = ["            Dice   own ml  other ml"]
        for side, value in self.dice.items():
            own, other = (
                volumes.get(side, sum(volumes.values())) for volumes in (self.own_ml, self.other_ml)
            )
            lines.append(f"{side:<8}{value:8.4f}{own:9.0f}{other:10.0f}")
        lines.append(f"only own {self.only_own_ml:.1f} ml, only other {self.only_other_ml:.1f} ml")
        if self.largest_at is not None:
            x, y, z = self.largest_at
            lines.append(
                f"largest difference: {self.largest_ml:.1f} ml, only {self.largest_in}, about "
                f"({x:.1f}, {y:.1f}, {z:.1f}) mm"
            )
        return "\n".join(lines)


def compare_lungs(
    source: Path,
    other: Path | LungMethod,
    differences: Path | None = None,
    series: str | None = None,
    progress: ProgressCallback = silent,
) -> LungAgreement:
    """Compare the lungs that this project finds in a scan with others.

    Args:
        source: the scan, see `read_ct`.
        other: a label image of the lungs, see `read_lungs`, or a method that finds them.
        differences: new `.nii.gz` or `.nrrd` file: 1 where only our lungs are, 2 only the others.
        series: SeriesInstanceUID, if `source` has several.
        progress: callback.

    Raises:
        InputError: if the scan or the other lungs cannot be obtained, or `differences` exists or
            has another suffix.
    """
    if differences is not None:
        if not differences.name.lower().endswith(DIFFERENCE_SUFFIXES):
            raise InputError(
                f"{differences} does not end in {' or '.join(DIFFERENCE_SUFFIXES)}: give it "
                "another name."
            )
        refuse_existing(differences.parent, [differences.name])
    if isinstance(other, LungMethod):
        require_method(other)
    view = AxialView.of(read_ct(source, series, progress).image, AIR_HU)
    own = segment_lungs(view.image, progress=progress)
    if isinstance(other, LungMethod):
        others = segment_lungs(view.image, other, progress)
    else:
        others = read_lungs(other, view.image)
    mine, theirs = sitk.GetArrayViewFromImage(own), sitk.GetArrayViewFromImage(others)
    dice = {
        side: _dice(mine == label, theirs == label)
        for side, label in (("right", RIGHT_LUNG), ("left", LEFT_LUNG))
    }
    apart = image_like(
        (((mine > 0) & (theirs == 0)) + 2 * ((mine == 0) & (theirs > 0))).astype(np.uint8), own
    )
    if differences is not None:
        with new_file(differences) as temporary:
            write_image(view.restore(apart), temporary)
    ml = float(np.prod(own.GetSpacing())) / 1000
    sizes, at = {"own": 0, "other": 0}, {}
    for value, name in ((1, "own"), (2, "other")):
        pieces = sitk.RelabelComponent(sitk.ConnectedComponent(apart == value))
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.Execute(pieces)
        if shape.HasLabel(1):
            sizes[name], at[name] = shape.GetNumberOfPixels(1), shape.GetCentroid(1)
    largest = max(sizes, key=lambda name: sizes[name])
    counts = np.bincount(sitk.GetArrayViewFromImage(apart).ravel(), minlength=3)
    return LungAgreement(
        dice | {"both": _dice(mine > 0, theirs > 0)},
        lung_volumes_ml(own),
        lung_volumes_ml(others),
        float(counts[1] * ml),
        float(counts[2] * ml),
        sizes[largest] * ml,
        largest if at else None,
        at.get(largest),
    )


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """2·both / (one + other); 1 where both are empty."""
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / total if total else 1.0


def by_size(scans: Sequence[ScanDice]) -> list[subgroups.Subgroup]:
    """Nodules found and their coefficients by the diameter of a sphere of the true volume."""
    nodules = [
        subgroups.TrueNodule(
            float(sphere_diameter(one.truth)),
            texture=None,
            place=None,
            probability=1.0 if one.predicted else -math.inf,
            dice=one.dice,
        )
        for scan in scans
        for one in scan.nodules
    ]
    return subgroups.subgroups(nodules, 0.0)


def summary(scans: Sequence[ScanDice]) -> dict[str, Any]:
    """Means over all slices, scans and nodules, the results of each scan, and those by size.

    `mean_slice_dice` is over slices with truth, as in the tutorial; `mean_slice_dice_marked` also
    includes slices with only a prediction. The mean of nothing is None.
    """
    slices = [one for scan in scans for one in scan.slices]
    false_slices = [one for scan in scans for one in scan.false_slices]
    nodules = [one for scan in scans for one in scan.nodules]
    each = [
        {
            "name": scan.name,
            "dice": scan.scan.dice if scan.scan else None,
            "mean_slice_dice": _mean(scan.slices),
            "nodules": len(scan.nodules),
            "found": sum(one.predicted > 0 for one in scan.nodules),
            "mean_nodule_dice": _mean(scan.nodules),
            "false_positives": scan.false_positives,
        }
        for scan in scans
    ]
    return {
        "mean_slice_dice": _mean(slices),
        "mean_slice_dice_marked": _mean(slices + false_slices),
        "mean_scan_dice": _mean(scan.scan for scan in scans if scan.scan),
        "mean_nodule_dice": _mean(nodules),
        "slices": len(slices),
        "nodules": len(nodules),
        "found": sum(one.predicted > 0 for one in nodules),
        "false_positives": sum(scan.false_positives for scan in scans),
        "scans": each,
        **subgroups.to_dict(by_size(scans), None, 0.0),
    }


def to_text(scans: Sequence[ScanDice]) -> str:
    """Format the means as text."""
    totals = summary(scans)
    lines = [
        f"Mean Dice by {level:7} {_shown(totals[f'mean_{level}_dice'])}"
        for level in (Level.SLICE, Level.SCAN, Level.NODULE)
    ]
    lines.append(
        f"{counted(totals['slices'], 'slice')} with truth; {totals['found']} of "
        f"{counted(totals['nodules'], 'nodule')} "
        f"found, {totals['false_positives']} predicted elsewhere"
    )
    if len(scans) > 1:
        lines += [f"  {_shown(scan['dice'])} {scan['name']}" for scan in totals["scans"]]
    if totals["nodules"]:
        lines.append(subgroups.to_text(by_size(scans), None))
    return "\n".join(lines)


def write_csv(path: Path, scans: Iterable[ScanDice]) -> None:
    """Write all coefficients as CSV.

    Raises:
        InputError: if `path` exists.
    """
    rows: list[tuple[object, ...]] = []
    for scan in scans:
        whole = (scan.scan,) if scan.scan else ()
        for one in (*whole, *scan.nodules, *scan.slices, *scan.false_slices):
            numbers = (f"{value:.6g}" for value in (one.truth, one.predicted, one.dice))
            rows.append((scan.name, one.level, one.number, *numbers))
    header = ("name", "level", "number", "true_mm3", "predicted_mm3", "dice")
    csv_files.write_table(path, header, rows)


def _shown(value: float | None) -> str:
    return "     –" if value is None else f"{value:.4f}"


def _mean(overlaps: Iterable[Overlap]) -> float | None:
    values = [one.dice for one in overlaps]
    return float(np.mean(values)) if values else None


def _slices(
    true: NDArray[np.generic],
    found: NDArray[np.generic],
    numbers: NDArray[np.integer],
    pixel: float,
) -> tuple[Overlap, ...]:
    sizes = (np.sum(stack, axis=(1, 2), dtype=float) * pixel for stack in (true, found))
    rows = zip(
        numbers.tolist(),
        *map(np.ndarray.tolist, sizes),
        slice_dice(true, found).tolist(),
        strict=True,
    )
    return tuple(Overlap(Level.SLICE, *row) for row in rows)


def _by_nodule(
    true: NDArray[np.integer], found: NDArray[np.integer], voxel: float
) -> tuple[tuple[Overlap, ...], int]:
    """Compare nodule by nodule, and count predicted nodules without overlap."""
    marked = (true > 0) | (found > 0)
    true_labels, row = np.unique(np.append(0, true[marked]), return_inverse=True)
    found_labels, column = np.unique(np.append(0, found[marked]), return_inverse=True)
    shape = len(true_labels), len(found_labels)
    shared = np.zeros(shape, np.int64)
    np.add.at(shared, (row[1:], column[1:]), 1)
    true_size, found_size = shared.sum(axis=1), shared.sum(axis=0)
    within = shared[1:, 1:]
    touching = within.any(axis=0)
    owner = within.argmax(axis=0) if len(within) else np.zeros(len(found_labels) - 1, np.intp)
    nodules = []
    for n, label in enumerate(true_labels[1:].tolist()):
        parts = touching & (owner == n)
        size = int(found_size[1:][parts].sum())
        dice = 2 * int(within[n, parts].sum()) / (int(true_size[n + 1]) + size)
        nodules.append(
            Overlap(Level.NODULE, label, float(true_size[n + 1] * voxel), size * voxel, dice)
        )
    return tuple(nodules), int((~touching).sum())
