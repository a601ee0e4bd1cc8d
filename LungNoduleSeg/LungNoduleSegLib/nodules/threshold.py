"""The nodules of a scan at any threshold, fast enough for a slider."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count, product
from weakref import WeakKeyDictionary

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from CTLungScreeningLib.child_process import Pause, Work
from CTLungScreeningLib.geometry import Box, box_between, grown, image_like, masks_meet, out_of_crop
from LungNoduleSegLib.nodules.finding import Candidates, NoduleRules
from LungNoduleSegLib.nodules.marks import STEPS, connected, down_to_half, steps_of
from LungNoduleSegLib.nodules.measures import NoduleMeter
from LungNoduleSegLib.nodules.outline import NoduleOutline
from LungNoduleSegLib.nodules.region_growing import CLICK_MM, LARGEST_MM
from LungNoduleSegLib.nodules.table import Nodule

LOWEST = 0.05
"""No voxel less probable than this can become part of a nodule."""

MAX_VOXELS = 1_000_000
"""Maximum number of voxels; with a network that marks more, `lowest` is higher."""


def to_steps(probability: sitk.Image) -> sitk.Image:
    """Round probabilities from 0 to 1 down to steps of 1 / `STEPS`, uint8."""
    exact = sitk.GetArrayViewFromImage(probability)
    steps = np.zeros(exact.shape, np.uint8)
    marked = np.nonzero(exact)
    steps[marked] = steps_of(exact[marked])
    return image_like(steps, probability)


@dataclass(frozen=True, eq=False)
class LabelledNodule:
    """A nodule with its voxels: `mask` (z, y, x) lies in `box` of the axial grid."""

    nodule: Nodule
    box: Box
    mask: NDArray[np.bool_]

    def overlaps(self, box: Box, mask: NDArray[np.bool_]) -> bool:
        """Whether it shares a voxel with another mask of the same grid."""
        return masks_meet(box, mask, self.box, self.mask)


class ThresholdedNodules:
    """Finds the nodules that `find_nodules` finds, for one threshold after another.

    The voxels that can matter are few. The tree that joins them over the most probable ways is
    made once: at each threshold those of its branches that reach it join the same voxels as all
    neighbours would (Gower and Ross, Appl Stat 1969;18:54-64, on spanning trees and linkage).

    Attributes:
        lowest: the smallest threshold.
        ruler: measures the nodules.
    """

    def __init__(self, steps: sitk.Image, ruler: NoduleMeter) -> None:
        """Prepare all but the tree; see `work`.

        Args:
            steps: of `to_steps`, axial.
            ruler: of HU and lungs on the same grid, without the probability.
        """
        self._steps = steps
        array = sitk.GetArrayViewFromImage(steps)
        self.lowest = _lowest(array)
        self.ruler = ruler
        self._voxels = np.nonzero(array >= round(self.lowest * STEPS))
        self._probability = array[self._voxels].astype(np.float64) / STEPS
        self._ends: tuple[NDArray[np.int32], NDArray[np.int32]]
        self._reaches: NDArray[np.float64]
        self._measured: WeakKeyDictionary[NoduleOutline, Nodule] = WeakKeyDictionary()

    @classmethod
    def work(
        cls, steps: sitk.Image, hu: sitk.Image, lungs: sitk.Image, original: sitk.Image
    ) -> Work["ThresholdedNodules"]:
        """Prepare in steps, for a window.

        Args:
            steps: of `to_steps`, axial.
            hu: HU on the same grid.
            lungs: 1 in the right and 2 in the left lung, on the same grid.
            original: any image on the input's grid; gives the slice numbers.

        Raises:
            InputError: if the lungs are empty or fill the image.
        """
        ruler = yield from NoduleMeter.work(hu, lungs, None, original)
        found = cls(steps, ruler)
        yield Pause("Preparing", 1, 2)
        size = steps.GetSize()[::-1]
        found._ends, found._reaches = yield from _tree(found._voxels, size, found._probability)
        return found

    def find_work(
        self, rules: NoduleRules, numbers: Sequence[int] = (), avoid: Sequence[LabelledNodule] = ()
    ) -> Work[tuple[LabelledNodule, ...]]:
        """Find and measure the nodules, one after the other.

        A threshold below `lowest` counts as `lowest`. A nodule whose marked voxels and
        surroundings are what they were at an earlier threshold is not outlined again.

        Args:
            rules: what is kept.
            numbers: taken, not to be given to a nodule.
            avoid: nodules that stay: what overlaps one of them is left out.

        Raises:
            InputError: if there are more than a label image can number.
        """
        candidates = self._candidates(max(rules.threshold, self.lowest))
        yield Pause("Outlining", 0, 1)
        broken = candidates.broken_rules(rules)
        marks = [
            (box, mask)
            for box, mask in map(candidates.mask, candidates.ranked(broken, rules.threshold))
            if not any(other.overlaps(box, mask) for other in avoid)
        ]
        free = (number for number in count(1) if number not in numbers)
        found: list[LabelledNodule] = []
        for outline in self.ruler.outlines(marks, [(one.box, one.mask) for one in avoid]):
            yield Pause("Outlining", min(len(found), len(marks)), len(marks))
            if outline not in self._measured:
                self._measured[outline] = self.measure(0, outline)
            nodule = replace(self._measured[outline], id=next(free))
            found.append(LabelledNodule(nodule, outline.box, outline.mask))
        return tuple(found)

    def mark_at(self, point: tuple[float, float, float]) -> tuple[Box, NDArray[np.bool_]] | None:
        """Return the network's mark at a point, one too faint for a nodule too.

        The mark reaches down to half of the highest probability within `CLICK_MM` of the point: a
        candidate that the classifier refused has the same low probability throughout.

        Args:
            point: LPS mm.

        Returns:
            Where the mark lies in the grid, and its voxels in that box; None if there is none of
            `LOWEST`, or one wider than `LARGEST_MM`.
        """
        index = np.array(self._steps.TransformPhysicalPointToIndex(point))[::-1]
        array = sitk.GetArrayViewFromImage(self._steps)
        if (index < 0).any() or (index >= array.shape).any():
            return None
        spacing = np.array(self._steps.GetSpacing())[::-1]

        clicked = box_between(index, index + 1)
        near, whole = (
            grown(clicked, np.ceil(reach_mm / spacing).astype(int), array.shape)
            for reach_mm in (CLICK_MM, LARGEST_MM / 2)
        )
        peak = int(array[near].max())
        if peak < LOWEST * STEPS:
            return None
        start = np.argwhere(array[near] == peak)[0]
        start += [a.start - b.start for a, b in zip(near, whole, strict=True)]
        mark = connected(array[whole] >= peak / 2, tuple(start.tolist()))
        (box,) = ndimage.find_objects(mark.view(np.uint8), 1)
        if (np.array([part.stop - part.start for part in box]) * spacing >= LARGEST_MM).any():
            return None
        return out_of_crop(box, whole), mark[box]

    def measure(self, number: int, outline: NoduleOutline) -> Nodule:
        """Measure any nodule of the scan."""
        odds = sitk.GetArrayViewFromImage(self._steps)[outline.box][outline.mask] / STEPS
        return replace(
            self.ruler.measure(number, outline),
            probability=round(float(odds.max()), 3),
            mean_probability=round(float(odds.mean()), 3),
        )

    def _candidates(self, threshold: float) -> Candidates:
        above = np.flatnonzero(self._probability >= threshold)
        place = np.empty(len(self._probability), np.int64)
        place[above] = np.arange(len(above))
        rows, columns = (place[end[self._reaches >= threshold]] for end in self._ends)
        joined = coo_array((np.ones(len(rows), bool), (rows, columns)), (len(above),) * 2)
        _, owner = connected_components(joined, directed=False)
        steps = sitk.GetArrayViewFromImage(self._steps)
        spacing = self.ruler.border.spacing
        voxels, owner = down_to_half(
            tuple(axis[above] for axis in self._voxels),
            owner.astype(np.int64),
            lambda box: steps[box],
            steps.shape,
            threshold,
            spacing,
        )
        in_lung = sitk.GetArrayViewFromImage(self.ruler.lungs)[voxels] > 0
        return Candidates.of(voxels, owner, steps[voxels] / STEPS, in_lung, spacing)


def _lowest(steps: NDArray[np.uint8]) -> float:
    """Return the smallest threshold at which no more than `MAX_VOXELS` remain."""
    marked = steps[steps > 0]
    reaching = np.bincount(marked, minlength=STEPS + 1)[::-1].cumsum()[::-1]
    few = np.flatnonzero(reaching <= MAX_VOXELS)
    first = int(few[0]) if len(few) else STEPS
    return max(LOWEST, first / STEPS)


def _tree(
    voxels: Sequence[NDArray[np.int64]],
    shape: tuple[int, ...],
    probability: NDArray[np.float64],
) -> Work[tuple[tuple[NDArray[np.int32], NDArray[np.int32]], NDArray[np.float64]]]:
    """Join neighbours (26) over the most probable ways.

    Args:
        voxels: indices along z, y and x in the order of the grid, each (n,).
        shape: of the grid.
        probability: (n,).

    Returns:
        For each branch the numbers of its two voxels, and the highest threshold that it reaches.
    """
    place = np.ravel_multi_index(tuple(voxels), shape)
    rows, columns = [], []
    for step in product((-1, 0, 1), repeat=3):
        if step <= (0, 0, 0):
            continue
        beside = [axis + move for axis, move in zip(voxels, step, strict=True)]
        within = np.logical_and.reduce(
            [(axis >= 0) & (axis < size) for axis, size in zip(beside, shape, strict=True)]
        )
        here = np.flatnonzero(within)
        there = np.ravel_multi_index(tuple(axis[here] for axis in beside), shape)
        found = np.searchsorted(place, there).clip(max=len(place) - 1)
        is_one = place[found] == there
        rows.append(here[is_one])
        columns.append(found[is_one])
        yield Pause("Preparing", 1, 2)
    ends = np.concatenate(rows), np.concatenate(columns)
    weakest = np.minimum(*(probability[end] for end in ends))
    graph = coo_array((2 - weakest, ends), (len(place),) * 2).tocsr()
    yield Pause("Preparing", 1, 2)
    tree = minimum_spanning_tree(graph, overwrite=True).tocoo()
    return (tree.row, tree.col), np.minimum(probability[tree.row], probability[tree.col])
