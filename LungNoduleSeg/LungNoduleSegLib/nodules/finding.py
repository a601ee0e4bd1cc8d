"""From the probability of each voxel to nodules: threshold, connected components, rules."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTSliceToolsLib.errors import InputError
from LungNoduleSegLib.nodules.measures import measure_labels, sphere_diameter
from LungNoduleSegLib.nodules.table import Nodule

MAX_NODULES = np.iinfo(np.uint16).max
"""What the label image has numbers for."""

IN_SLICE = np.array([[[0, 0, 0]] * 3, [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0, 0, 0]] * 3], bool)
"""Neighbours (z, y, x) over edges of the pixels of an axial slice."""


@dataclass(frozen=True)
class NoduleRules:
    """How components of the thresholded probability become nodules; None turns a rule off.

    Attributes:
        threshold: voxels whose probability reaches it belong to a component.
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
    """What was found in a scan.

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
        """How many candidates each rule dropped."""
        return dict(Counter(candidate.rule for candidate in self.rejected))


def find_nodules(
    probability: sitk.Image,
    hu: sitk.Image,
    lungs: sitk.Image,
    rules: NoduleRules,
    original: sitk.Image,
) -> NoduleFindings:
    """Find and measure the nodules in a probability volume.

    Voxels that reach the threshold are joined over faces, edges and corners (26 neighbours): with
    thick slices the parts of one nodule often meet only there, and a nodule counted twice is
    worse than two that touch counted once. What the rules keep is numbered from 1 by highest
    probability, in steps of 0.01, then by volume, the largest first.

    Args:
        probability: float, axial (`AxialView`).
        hu: HU on the same grid.
        lungs: 1 in the right and 2 in the left lung, on the same grid.
        rules: what is kept.
        original: any image on the input's grid; gives the slice numbers.

    Raises:
        InputError: if more nodules remain than the label image can number, or if the lungs are
            empty or fill the image.
    """
    candidates = _Candidates.of(probability, lungs, rules.threshold)
    broken = _broken_rule(candidates, rules)
    kept, dropped = np.flatnonzero(broken == ""), np.flatnonzero(broken != "")
    if len(kept) > MAX_NODULES:
        raise InputError(
            f"The network marked {len(kept)} nodules at a threshold of {rules.threshold:g}, more "
            f"than {MAX_NODULES}: raise the threshold or choose another model."
        )
    ranked = kept[
        np.lexsort((-candidates.volume_mm3[kept], -candidates.probability[kept].round(2)))
    ]
    labels = candidates.label_image(ranked, probability)
    nodules = measure_labels(labels, hu, lungs, probability, original)
    rejected = []
    for i in dropped:
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
    return NoduleFindings(labels, nodules, tuple(rejected))


@dataclass(frozen=True)
class _Candidates:
    """Connected components; arrays with one entry a component, in the order of the grid.

    Attributes:
        components: (z, y, x), 1 for the first component, 0 for background.
        spacing: mm along (z, y, x).
        centre: (n, 3) mean voxel index along (z, y, x).
        length_mm: along the longest principal axis: √12 times the standard deviation of the
            voxels' centres, which is the length of a straight rod.
        volume_mm3: voxels times the volume of one.
        lung_fraction: part of the voxels inside the lungs.
        probability: the highest.
    """

    components: NDArray[np.uint32]
    spacing: NDArray[np.float64]
    centre: NDArray[np.float64]
    length_mm: NDArray[np.float64]
    volume_mm3: NDArray[np.float64]
    lung_fraction: NDArray[np.float64]
    probability: NDArray[np.float64]

    @classmethod
    def of(cls, probability: sitk.Image, lungs: sitk.Image, threshold: float) -> "_Candidates":
        above = sitk.BinaryThreshold(probability, threshold, float("inf"))
        components = sitk.GetArrayFromImage(sitk.ConnectedComponent(above, True))
        spacing = np.array(probability.GetSpacing())[::-1]
        voxels = np.nonzero(components)
        owner = components[voxels].astype(np.int64) - 1
        n = int(owner.max(initial=-1)) + 1
        size = np.bincount(owner, minlength=n)

        def mean(values: NDArray[np.generic]) -> NDArray[np.float64]:
            return np.bincount(owner, weights=values, minlength=n) / size

        centre = np.stack([mean(axis) for axis in voxels], axis=1)
        offset = [(axis - centre[owner, d]) * spacing[d] for d, axis in enumerate(voxels)]
        spread = np.stack(
            [np.stack([mean(a * b) for a in offset], axis=-1) for b in offset], axis=-1
        )
        highest = np.zeros(n)
        np.maximum.at(highest, owner, sitk.GetArrayViewFromImage(probability)[voxels])
        return cls(
            components,
            spacing,
            centre,
            length_mm=np.sqrt(12 * np.linalg.eigvalsh(spread)[:, -1].clip(min=0)),
            volume_mm3=size * spacing.prod(),
            lung_fraction=mean(sitk.GetArrayViewFromImage(lungs)[voxels] > 0),
            probability=highest,
        )

    def label_image(self, ranked: NDArray[np.int64], grid: sitk.Image) -> sitk.Image:
        """Number the components listed from 1 in their order; uint16 on `grid`."""
        numbers = np.zeros(len(self.volume_mm3) + 1, np.uint16)
        numbers[ranked + 1] = np.arange(1, len(ranked) + 1)
        labels = sitk.GetImageFromArray(numbers[self.components])
        labels.CopyInformation(grid)
        return labels


def _broken_rule(candidates: _Candidates, rules: NoduleRules) -> NDArray[np.str_]:
    """Name the first rule that each candidate breaks, "" if none."""
    broken = np.full(len(candidates.volume_mm3), "", dtype="U32")
    if rules.min_probability is not None:
        broken[candidates.probability < rules.min_probability] = "min_probability"
    if rules.min_diameter_mm is not None:
        small = sphere_diameter(candidates.volume_mm3) < rules.min_diameter_mm
        broken[small & (broken == "")] = "min_diameter_mm"
    if rules.min_lung_fraction is not None:
        outside = candidates.lung_fraction < rules.min_lung_fraction
        broken[outside & (broken == "")] = "min_lung_fraction"
    if rules.max_elongation is not None:
        for i in np.flatnonzero(_is_tube(candidates, broken == "", rules.max_elongation)):
            broken[i] = "max_elongation"
    return broken


def _is_tube(
    candidates: _Candidates, among: NDArray[np.bool_], max_elongation: float
) -> NDArray[np.bool_]:
    """Tell which candidates are longer than `max_elongation` times their thickness.

    Thickness is the diameter of the largest ball that fits inside, with holes in the slices filled
    so that the wall of a cavity is not taken for a vessel, but at least the
    coarsest spacing, since nothing finer is resolved: so a small nodule on two thick slices is no
    tube, and a nodule with a vessel's stump stays a nodule, whereas branches and bends do not hide
    a vessel. An ellipsoid of 2:1 has an elongation of 1.5, two balls that touch 1.9, a straight
    tube its length over its width.
    """
    coarsest = candidates.spacing.max()
    at_most = np.maximum(sphere_diameter(candidates.volume_mm3), coarsest)
    longer = candidates.length_mm > max_elongation * coarsest
    tube = among & (candidates.length_mm > max_elongation * at_most)
    boxes = ndimage.find_objects(candidates.components)
    for i in np.flatnonzero(among & longer & ~tube):
        mask = np.pad(candidates.components[boxes[i]] == i + 1, 1)
        filled = ndimage.binary_fill_holes(mask, structure=IN_SLICE)
        depth = ndimage.distance_transform_edt(filled, sampling=candidates.spacing)
        thickness = 2 * depth.max() - candidates.spacing.min() / 2
        tube[i] = candidates.length_mm[i] > max_elongation * max(thickness, coarsest)
    return tube
