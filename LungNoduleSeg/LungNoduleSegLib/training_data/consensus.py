"""One nodule from the outlines of several radiologists."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from LungNoduleSegLib.training_data.lidc_xml import ScanReadings, finding_mask, read_lidc_xml

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class ConsensusNodule:
    """A nodule as the radiologists together saw it.

    Attributes:
        box: (z, y, x) of the image's array.
        votes: (z, y, x) within the box: how many radiologists outlined each voxel.
        readers: how many outlined it at all.
        ratings: of each radiologist who outlined it, see `lidc_xml.CHARACTERISTICS`.
    """

    box: Box
    votes: NDArray[np.uint8]
    readers: int
    ratings: tuple[Mapping[str, int], ...]


def consensus_nodules(scan: ScanReadings, image: sitk.Image) -> tuple[ConsensusNodule, ...]:
    """Bring together the outlines that overlap: those of one nodule.

    Args:
        scan: the readings.
        image: the scan, see `lidc_xml.finding_mask`.

    Raises:
        InputError: if an outline does not fit the image.
    """
    found = []
    for reader, reading in enumerate(scan.readings):
        for nodule in reading.nodules:
            if nodule.outlined:
                box, mask = finding_mask(nodule, image)
                if mask.any():
                    found.append((reader, nodule.characteristics, box, mask))
    count = len(found)
    pairs = [
        (a, b)
        for a in range(count)
        for b in range(a)
        if _overlap(found[a][2], found[a][3], found[b][2], found[b][3])
    ]
    ends = np.array(pairs, np.intp).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs), bool), tuple(ends)), (count, count))
    clusters, cluster_of = connected_components(graph, directed=False)
    nodules = []
    for cluster in range(clusters):
        members = [found[n] for n in np.flatnonzero(cluster_of == cluster)]
        low = np.min([[part.start for part in box] for _, _, box, _ in members], axis=0)
        high = np.max([[part.stop for part in box] for _, _, box, _ in members], axis=0)
        outlined = np.zeros((len(scan.readings), *(high - low)), bool)
        for reader, _, box, mask in members:
            outlined[reader][_within(box, low)] |= mask
        z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        ratings = tuple(ratings for _, ratings, _, _ in members)
        votes = outlined.sum(axis=0, dtype=np.uint8)
        readers = len({reader for reader, *_ in members})
        nodules.append(ConsensusNodule((z, y, x), votes, readers, ratings))
    return tuple(nodules)


def consensus_labels(
    nodules: tuple[ConsensusNodule, ...], image: sitk.Image, agreement: int
) -> sitk.Image:
    """Mark the voxels that at least `agreement` radiologists outlined.

    Returns:
        uint16 on the grid of `image`: the number of the nodule, from 1, or 0; the number of one on
        which too few agree is not used.
    """
    labels = np.zeros(image.GetSize()[::-1], np.uint16)
    for number, nodule in enumerate(nodules, 1):
        labels[nodule.box][nodule.votes >= agreement] = number
    marked = sitk.GetImageFromArray(labels)
    marked.CopyInformation(image)
    return marked


def outlined_nodules(xml: Path, image: sitk.Image, agreement: int) -> sitk.Image:
    """Read one of LIDC-IDRI's XML files and mark its nodules, see `consensus_labels`.

    Raises:
        InputError: if the file is damaged or does not fit the image.
    """
    return consensus_labels(consensus_nodules(read_lidc_xml(xml), image), image, agreement)


def _overlap(a: Box, mask_a: NDArray[np.bool_], b: Box, mask_b: NDArray[np.bool_]) -> bool:
    low = np.array([max(p.start, q.start) for p, q in zip(a, b, strict=True)])
    high = np.array([min(p.stop, q.stop) for p, q in zip(a, b, strict=True)])
    if np.any(low >= high):
        return False
    common: Box = tuple(slice(p, q) for p, q in zip(low, high, strict=True))  # type: ignore[assignment]
    inside_a = mask_a[_within(common, [part.start for part in a])]
    inside_b = mask_b[_within(common, [part.start for part in b])]
    return bool((inside_a & inside_b).any())


def _within(box: Box, start: "NDArray[np.intp] | list[int]") -> Box:
    """The box as it lies in an array that begins at `start`."""
    z, y, x = (
        slice(int(part.start - s), int(part.stop - s)) for part, s in zip(box, start, strict=True)
    )
    return z, y, x
