"""From the probability of each voxel to nodules: threshold, connected components, rules."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import Box, box_between, grown, image_like, in_crop
from LungNoduleSegLib.lungs.labels import LOBES, Lobe
from LungNoduleSegLib.nodules.marks import down_to_half, pieces_of, steps_of
from LungNoduleSegLib.nodules.measures import NoduleMeter
from LungNoduleSegLib.nodules.table import Nodule, sphere_diameter

MAX_NODULES = np.iinfo(np.uint16).max
"""Maximum number of labels in the label image."""

_FIRST_REACH_MM = 20.0
"""How far around a nodule outside the lobes the nearest is looked for at first."""

IN_SLICE = np.array([[[0, 0, 0]] * 3, [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0, 0, 0]] * 3], bool)
"""Neighbours (z, y, x) over edges of the pixels of an axial slice."""


@dataclass(frozen=True)
class NoduleRules:
    """Rules by which components of the thresholded probability become nodules; None disables one.

    Attributes:
        threshold: voxels whose probability reaches it belong to a component, and with them what
            `down_to_half` adds.
        min_probability: drops components whose highest probability is smaller.
        min_diameter_mm: drops components whose sphere of equal volume is smaller. Below 3 mm a
            finding is a micronodule: Hansell et al., Fleischner glossary, Radiology 2008;246:697.
        min_lung_fraction: drops components with less of their volume inside the lungs.
        max_elongation: drops vessels: components that are longer, measured in thicknesses, than
            this. A nodule of 2:1 has 1.5, two balls that touch 1.9.
    """

    threshold: float = 0.5
    min_probability: float | None = None
    min_diameter_mm: float | None = 3.0
    min_lung_fraction: float | None = 0.5
    max_elongation: float | None = 3.0

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if value is None and name != "threshold":
                continue
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float, np.floating))
                or not 0 <= value <= most
            ):
                raise InputError(f"`{name}` must be a number from 0 to {most}, not {value!r}.")


_MOST = {
    "threshold": 1,
    "min_probability": 1,
    "min_diameter_mm": 1000,
    "min_lung_fraction": 1,
    "max_elongation": 1000,
}
"""The largest value of each rule."""


@dataclass(frozen=True)
class Candidates:
    """Connected components; arrays have one entry per component, in the order of the grid.

    Attributes:
        voxels: (n, 3) indices along (z, y, x), those of one component after those of another.
        first: where each component begins in `voxels`; at the end n.
        spacing: mm along (z, y, x).
        centre: (m, 3) mean voxel index along (z, y, x).
        length_mm: along the longest principal axis: √12 times the standard deviation of the
            voxels' centres, which is the length of a straight rod.
        volume_mm3: voxels times the volume of one.
        lung_fraction: part of the voxels inside the lungs.
        probability: the highest.
    """

    voxels: NDArray[np.int64]
    first: NDArray[np.int64]
    spacing: NDArray[np.float64]
    centre: NDArray[np.float64]
    length_mm: NDArray[np.float64]
    volume_mm3: NDArray[np.float64]
    lung_fraction: NDArray[np.float64]
    probability: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        voxels: Sequence[NDArray[np.int64]],
        owner: NDArray[np.int64],
        probability: NDArray[np.floating],
        in_lung: NDArray[np.bool_],
        spacing: NDArray[np.float64],
    ) -> "Candidates":
        """Describe components given by their voxels.

        Args:
            voxels: indices along z, y and x, each (n,).
            owner: component of each voxel, 0 for the first.
            probability: of each voxel.
            in_lung: whether each voxel lies in a lung.
            spacing: mm along (z, y, x).
        """
        m = int(owner.max(initial=-1)) + 1
        size = np.bincount(owner, minlength=m)

        def mean(values: NDArray[np.generic]) -> NDArray[np.float64]:
            return np.bincount(owner, weights=values, minlength=m) / size

        centre = np.stack([mean(axis) for axis in voxels], axis=1)
        offset = [(axis - centre[owner, d]) * spacing[d] for d, axis in enumerate(voxels)]
        spread = np.stack(
            [np.stack([mean(a * b) for a in offset], axis=-1) for b in offset], axis=-1
        )
        highest = np.zeros(m)
        np.maximum.at(highest, owner, probability)
        return cls(
            np.stack(voxels, axis=1)[np.argsort(owner, kind="stable")],
            np.concatenate([[0], np.cumsum(size)]),
            spacing,
            centre,
            length_mm=np.sqrt(12 * np.linalg.eigvalsh(spread)[:, -1].clip(min=0)),
            volume_mm3=size * spacing.prod(),
            lung_fraction=mean(in_lung),
            probability=highest,
        )

    def mask(self, index: int | np.integer) -> tuple[Box, NDArray[np.bool_]]:
        """Return the box around a component in the grid, and its voxels in that box."""
        voxels = self.voxels[self.first[index] : self.first[index + 1]]
        low, high = voxels.min(axis=0), voxels.max(axis=0) + 1
        mask = np.zeros(high - low, bool)
        mask[tuple((voxels - low).T)] = True
        return box_between(low, high), mask

    def broken_rules(self, rules: NoduleRules) -> NDArray[np.str_]:
        """Name the first rule that each component breaks, "" if none."""
        broken = np.full(len(self.volume_mm3), "", dtype="U32")
        if rules.min_probability is not None:
            broken[self.probability < rules.min_probability] = "min_probability"
        if rules.min_diameter_mm is not None:
            small = sphere_diameter(self.volume_mm3) < rules.min_diameter_mm
            broken[small & (broken == "")] = "min_diameter_mm"
        if rules.min_lung_fraction is not None:
            outside = self.lung_fraction < rules.min_lung_fraction
            broken[outside & (broken == "")] = "min_lung_fraction"
        if rules.max_elongation is not None:
            broken[self._tubes(broken == "", rules.max_elongation)] = "max_elongation"
        return broken

    def ranked(self, broken: NDArray[np.str_], threshold: float) -> NDArray[np.int64]:
        """Return the components that break no rule in the order of their numbers as nodules.

        That is by highest probability, rounded to 0.01, then by volume, the largest first.

        Args:
            broken: of `broken_rules`.
            threshold: that they were found at, for the message.

        Raises:
            InputError: if there are more than a label image can number.
        """
        kept = np.flatnonzero(broken == "")
        if len(kept) > MAX_NODULES:
            raise InputError(
                f"The network marked {len(kept)} nodules at a threshold of {threshold:g}, more "
                f"than {MAX_NODULES}: raise the threshold or choose another model."
            )
        hundredths = (steps_of(self.probability[kept]).astype(int) + 1) // 2
        return kept[np.lexsort((-self.volume_mm3[kept], -hundredths))]

    def _tubes(self, among: NDArray[np.bool_], max_elongation: float) -> NDArray[np.bool_]:
        """Return which components are longer than `max_elongation` times their thickness.

        Thickness is the diameter of the largest ball that fits inside, with holes in the slices
        filled so that the wall of a cavity does not count as a vessel, but at least the coarsest
        spacing, since nothing finer is resolved: so a small nodule on two thick slices is not a
        tube, and a nodule with a vessel's stump stays a nodule, whereas branches and bends do not
        hide a vessel. An ellipsoid of 2:1 has an elongation of 1.5, two balls that touch 1.9, a
        straight tube its length over its width.
        """
        coarsest = self.spacing.max()
        at_most = np.maximum(sphere_diameter(self.volume_mm3), coarsest)
        longer = self.length_mm > max_elongation * coarsest
        tube = among & (self.length_mm > max_elongation * at_most)
        for i in np.flatnonzero(among & longer & ~tube):
            filled = ndimage.binary_fill_holes(np.pad(self.mask(i)[1], 1), structure=IN_SLICE)
            depth = ndimage.distance_transform_edt(filled, sampling=self.spacing)
            thickness = 2 * depth.max() - self.spacing.min() / 2
            tube[i] = self.length_mm[i] > max_elongation * max(thickness, coarsest)
        return tube


__all__ = ["NoduleFindings", "NoduleRules", "RejectedCandidate", "find_nodules"]


@dataclass(frozen=True)
class RejectedCandidate:
    """A component that a rule dropped.

    Attributes:
        rule: the field of `NoduleRules` that dropped it; the first in the order of the fields.
        x: LPS mm of its centre, as `y` and `z`.
        volume_mm3: its voxels' volume.
        probability: the highest in it.
    """

    rule: str
    x: float
    y: float
    z: float
    volume_mm3: float
    probability: float


@dataclass(frozen=True)
class NoduleFindings:
    """The findings in a scan.

    Attributes:
        labels: uint16, the ids of the nodules in their voxels, on the grid of the probability.
        nodules: in the order of their ids, 1, 2, ...
        rejected: what the rules dropped, in the order of the grid.
    """

    labels: sitk.Image
    nodules: tuple[Nodule, ...]
    rejected: tuple[RejectedCandidate, ...]

    @property
    def rejected_by_rule(self) -> dict[str, int]:
        """Number of candidates dropped by each rule."""
        return dict(Counter(candidate.rule for candidate in self.rejected))


def find_nodules(
    probability: sitk.Image,
    hu: sitk.Image,
    lungs: sitk.Image,
    rules: NoduleRules,
    original: sitk.Image,
    labels: sitk.Image | None = None,
) -> NoduleFindings:
    """Find and measure the nodules in a probability volume.

    Voxels that reach the threshold are joined over faces, edges and corners (26 neighbours): with
    thick slices the parts of one nodule often meet only there, and a nodule counted twice is
    worse than two that touch counted once. What the rules keep is numbered from 1 as
    `Candidates.ranked` says; nodules that share a mark with one of these, but not its outline, come
    after them.

    Args:
        probability: float, axial (`AxialView`).
        hu: HU on the same grid.
        lungs: 1 in the right and 2 in the left lung, on the same grid.
        rules: what is kept.
        original: any image on the input's grid; gives the slice numbers.
        labels: whole numbers on the same grid, which keep apart what touches: voxels are joined if
            they have the same; None joins what touches.

    Raises:
        InputError: if more nodules remain than the label image can number, or if the lungs are
            empty or fill the image.
    """
    candidates = _candidates(probability, lungs, rules.threshold, labels)
    broken = candidates.broken_rules(rules)
    ranked = candidates.ranked(broken, rules.threshold)
    array = np.zeros(probability.GetSize()[::-1], np.uint16)
    nodules: list[Nodule] = []
    if len(ranked):
        marks = [candidates.mask(i) for i in ranked]
        for box, mask in marks:
            array[box] |= mask
        meter = NoduleMeter.of(hu, lungs, probability, original, array)
        array[:] = 0
        for number, one in enumerate(meter.outlines(marks), start=1):
            array[one.box][one.mask] = number
            nodules.append(meter.measure(number, one))
    numbers = image_like(array, probability)
    rejected = []
    for i in np.flatnonzero(broken != ""):
        centre = candidates.centre[i, ::-1].tolist()
        x, y, z = probability.TransformContinuousIndexToPhysicalPoint(centre)
        rejected.append(
            RejectedCandidate(
                rule=str(broken[i]),
                x=round(x, 3),
                y=round(y, 3),
                z=round(z, 3),
                volume_mm3=round(float(candidates.volume_mm3[i]), 3),
                probability=round(float(candidates.probability[i]), 3),
            )
        )
    return NoduleFindings(numbers, tuple(nodules), tuple(rejected))


def with_lobes(findings: NoduleFindings, lobes: sitk.Image) -> NoduleFindings:
    """Name the lobe of each nodule: the one with most of its voxels, else the nearest.

    Args:
        findings: on a grid.
        lobes: of `lungs.programs.find_lobes`, not empty, on the same grid.
    """
    labels = sitk.GetArrayViewFromImage(findings.labels)
    boxes = ndimage.find_objects(labels)
    nodules = []
    for nodule in findings.nodules:
        box = boxes[nodule.id - 1]
        nodules.append(replace(nodule, lobe=lobe_of(lobes, box, labels[box] == nodule.id)))
    return replace(findings, nodules=tuple(nodules))


def lobe_of(lobes: sitk.Image, box: Box, mask: NDArray[np.bool_]) -> Lobe:
    """Return the lobe with most voxels of a nodule, else the nearest.

    Args:
        lobes: of `lungs.programs.find_lobes`, not empty.
        box: the part of their array (z, y, x) that holds the nodule.
        mask: the nodule's voxels in the box.
    """
    array = sitk.GetArrayViewFromImage(lobes)
    spacing = np.array(lobes.GetSpacing())[::-1]
    voxels, reach_mm = array[box][mask], _FIRST_REACH_MM
    while not voxels.any():
        around = grown(box, np.ceil(reach_mm / spacing).astype(int), array.shape)
        outside = array[around] == 0
        distance, nearest = ndimage.distance_transform_edt(outside, spacing, return_indices=True)
        inner = in_crop(box, around)
        if not outside.all() and distance[inner][mask].max() <= reach_mm:
            voxels = array[around][tuple(axis[inner][mask] for axis in nearest)]
        reach_mm *= 2
    return LOBES[int(np.bincount(voxels, minlength=len(LOBES) + 1)[1:].argmax())]


def _candidates(
    probability: sitk.Image, lungs: sitk.Image, threshold: float, labels: sitk.Image | None
) -> Candidates:
    values = sitk.GetArrayViewFromImage(probability)
    above = values >= np.float32(threshold)
    if labels is None:
        components, _ = pieces_of(above)
    else:
        kept = sitk.Mask(labels, image_like(above.astype(np.uint8), labels))
        components = sitk.GetArrayFromImage(sitk.RelabelComponent(kept, sortByObjectSize=False))
    voxels = np.unravel_index(np.flatnonzero(components > 0), components.shape)  # fast
    owner = components[voxels].astype(np.int64) - 1
    spacing = np.array(probability.GetSpacing())[::-1]
    if labels is None:
        voxels, owner = down_to_half(
            voxels, owner, lambda box: steps_of(values[box]), components.shape, threshold, spacing
        )
    in_lung = sitk.GetArrayViewFromImage(lungs)[voxels] > 0
    return Candidates.of(voxels, owner, values[voxels], in_lung, spacing)
