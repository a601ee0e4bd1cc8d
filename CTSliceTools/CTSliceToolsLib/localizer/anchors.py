"""Anatomical anchors: landmarks found without a network, as evidence beside its predictions."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from CTSliceToolsLib.localizer.air_anchors import chest_anchors
from CTSliceToolsLib.localizer.body_grid import (
    PIXEL_CM2,
    TISSUE,
    Anchor,
    BodyGrid,
    find_lungs,
)
from CTSliceToolsLib.localizer.bone_anchors import BONE, head_anchors, pelvis_anchors

LEAST_BONE_CM2 = 1.0
"""Of bone in a section of a body, anywhere between the vertex and the feet."""

ADULT_CM2 = 100.0
"""The section of an adult's neck; other parts of the trunk are larger."""


@dataclass(frozen=True)
class Anatomy:
    """What the slices of a scan show by themselves.

    Attributes:
        anchors: landmarks that were found, from head to feet.
        doubts: one sentence for each reason to think that this is no CT of an adult.
    """

    anchors: tuple[Anchor, ...] = ()
    doubts: tuple[str, ...] = ()


def examine(pictures: NDArray[np.uint8], z_mm: NDArray[np.float64]) -> Anatomy:
    """Find landmarks of the head, the chest and the pelvis in the slices of a scan.

    What is outside the field of view, or does not look as expected, is left out. An anchor can be
    wrong, as where gas in the bowel lies like lung: `scan_fit` weighs them against each other.

    Args:
        pictures: slice images of one scan, uint8 (n, `SIZE`, `SIZE`), in any order.
        z_mm: LPS z of their centres in mm, (n,).
    """
    if len(z_mm) < 2:
        return Anatomy()
    body = BodyGrid.of(pictures, np.asarray(z_mm, float))
    if not body.body.any():
        return Anatomy(doubts=("There is no body in the slices.",) if pictures.any() else ())
    lungs = find_lungs(body)
    found = [*head_anchors(body), *pelvis_anchors(body, lungs)]
    if lungs is not None:
        found += chest_anchors(body, lungs)
    anchors = tuple(sorted(found, key=lambda anchor: -anchor.z_mm))
    return Anatomy(anchors, tuple(_doubts(body)))


def _doubts(body: BodyGrid) -> Iterator[str]:
    tissue = body.coarse > TISSUE
    if tissue[:, [0, -1]].mean() > 0.9 and tissue[:, :, [0, -1]].mean() > 0.9:
        yield (
            "There is no air around the body: these are no HU of CT, or a part of the body far "
            "from its skin, and the locations are not to be trusted."
        )
    section = np.median(np.count_nonzero(body.body, axis=(1, 2))) * PIXEL_CM2
    bone = np.median(np.count_nonzero(body.coarse > BONE, axis=(1, 2))) * PIXEL_CM2
    if bone < LEAST_BONE_CM2:
        yield (
            f"Half of the slices show less than {LEAST_BONE_CM2:g} cm² of bone: this is no body "
            "as the localizer knows them, and the locations are not to be trusted."
        )
    if section < ADULT_CM2:
        yield (
            f"The body has a section of {section:.0f} cm², too little for an adult: the locations "
            "are not to be trusted."
        )
