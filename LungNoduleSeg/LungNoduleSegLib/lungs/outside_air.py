"""The air around the body, including table, clothes and padding."""

import numpy as np
from scipy import ndimage

from LungNoduleSegLib.lungs.coarse_grid import IN_PLANE, CoarseGrid, Mask

OPEN_AIR_HU = -930
"""Where the air at the edge of the picture is denser than this, it is lung cut by the edge."""
LEAST_BACKED = 0.3
"""Share of a lung cut by the edge that has tissue behind it."""


def find_outside_air(coarse: CoarseGrid, air: Mask) -> Mask:
    """Find the air that reaches the edge of the picture within its slice.

    The edge is the border of the slice, or of the reconstructed circle where the rest is padding
    of one value. Lung that is cut by the edge is not outside: it is denser than air, and unlike
    the foam of a mattress it has tissue behind it. Walls of less than three blocks (table top,
    clothes) do not hold the air back.

    Args:
        coarse: the volume.
        air: where it is air rather than tissue.
    """
    padding = _padding(coarse, air)
    # A wedge of tissue at the edge is thick: it goes on beyond.
    core = ndimage.binary_erosion(~air | padding, border_value=1)
    solid = ndimage.binary_dilation(core, mask=~air | padding)
    regions, count = ndimage.label(~solid & ~padding, IN_PLANE)

    beside_edge = ndimage.binary_dilation(padding, IN_PLANE, border_value=1)
    edge = ndimage.binary_dilation(beside_edge, IN_PLANE, 2, border_value=1) & ~beside_edge & air
    at_edge = regions[edge]
    touches = np.bincount(at_edge, minlength=count + 1)
    touches[0] = 0
    mean = np.bincount(at_edge, coarse.hu[edge], count + 1) / np.maximum(touches, 1)
    outside = (touches > 0) & (mean < OPEN_AIR_HU)
    cut = ((touches > 0) & ~outside)[regions]
    if cut.any():
        tissue = solid & ~padding
        before_tissue = np.logical_or.accumulate(tissue[:, ::-1], axis=1)[:, ::-1]
        size = np.maximum(np.bincount(regions[cut], minlength=count + 1), 1)
        backed = np.bincount(regions[cut], before_tissue[cut], count + 1) / size
        outside |= (touches > 0) & (backed < LEAST_BACKED)

    # Blocks half padding, half tissue look like air; half padding, half lung have air beside them.
    rind = beside_edge & air & ~padding
    rind &= ~ndimage.binary_dilation(air & ~beside_edge, IN_PLANE)
    return (outside[regions] | padding | rind) & air


def _padding(coarse: CoarseGrid, air: Mask) -> Mask:
    """What has exactly the value of the slice's corners and is joined to the slice's border."""
    corner = coarse.hu[:, :1, :1]
    same = (coarse.hu == corner) & air
    labels, _ = ndimage.label(same, IN_PLANE)
    border = np.zeros_like(air)
    border[:, [0, -1]] = border[:, :, [0, -1]] = True
    return _touched(labels, same & border)


def _touched(labels: np.ndarray, seeds: Mask) -> Mask:
    """The components that hold a seed."""
    chosen = np.zeros(labels.max() + 1, bool)
    chosen[labels[seeds]] = True
    chosen[0] = False
    return chosen[labels]
