"""From the probability of each voxel to nodules: threshold, connected components, rules."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from LungNoduleSegLib.nodules.candidates import Candidates, NoduleRules
from LungNoduleSegLib.nodules.measures import NoduleMeter
from LungNoduleSegLib.nodules.table import Nodule

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
    labels: sitk.Image | None = None,
) -> NoduleFindings:
    """Find and measure the nodules in a probability volume.

    Voxels that reach the threshold are joined over faces, edges and corners (26 neighbours): with
    thick slices the parts of one nodule often meet only there, and a nodule counted twice is
    worse than two that touch counted once. What the rules keep is numbered from 1 as
    `Candidates.ranked` says.

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
        for number, one in enumerate(meter.outline(marks), start=1):
            array[one.box][one.mask] = number
            nodules.append(meter.measure(number, one))
    numbers = sitk.GetImageFromArray(array)
    numbers.CopyInformation(probability)
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


def _candidates(
    probability: sitk.Image, lungs: sitk.Image, threshold: float, labels: sitk.Image | None
) -> Candidates:
    above = sitk.BinaryThreshold(probability, threshold, float("inf"))
    if labels is None:
        components = sitk.GetArrayFromImage(sitk.ConnectedComponent(above, True))
    else:
        kept = sitk.Mask(labels, above)
        components = sitk.GetArrayFromImage(sitk.RelabelComponent(kept, sortByObjectSize=False))
    voxels = np.nonzero(components)
    return Candidates.of(
        voxels,
        components[voxels].astype(np.int64) - 1,
        sitk.GetArrayViewFromImage(probability)[voxels],
        sitk.GetArrayViewFromImage(lungs)[voxels] > 0,
        np.array(probability.GetSpacing())[::-1],
    )
