"""Anatomical anchors: landmarks found without a network, as evidence beside its predictions."""

import numpy as np
from numpy.typing import NDArray

from CTSliceToolsLib.localizer.air_anchors import chest_anchors
from CTSliceToolsLib.localizer.body_grid import Anchor, BodyGrid, find_lungs
from CTSliceToolsLib.localizer.bone_anchors import head_anchors, pelvis_anchors


def find_anchors(pictures: NDArray[np.uint8], z_mm: NDArray[np.float64]) -> tuple[Anchor, ...]:
    """Find landmarks of the head, the chest and the pelvis in the slices of a scan.

    What is outside the field of view, or does not look as expected, is left out. An anchor can be
    wrong, as where gas in the bowel lies like lung: `scan_fit` weighs them against each other.

    Args:
        pictures: slice images of one scan, uint8 (n, `SIZE`, `SIZE`), in any order.
        z_mm: LPS z of their centres in mm, (n,).

    Returns:
        The anchors, from head to feet; none for a single slice or where there is no body.
    """
    if len(z_mm) < 2:
        return ()
    body = BodyGrid.of(pictures, np.asarray(z_mm, float))
    if not body.body.any():
        return ()
    lungs = find_lungs(body)
    found = [*head_anchors(body), *pelvis_anchors(body, lungs)]
    if lungs is not None:
        found += chest_anchors(body, lungs)
    return tuple(sorted(found, key=lambda anchor: -anchor.z_mm))
