"""The air around the body, with what lies in it: table, clothes, padding."""

import numpy as np
from scipy import ndimage

from LungNoduleSegLib.coarse import IN_PLANE, Coarse, Mask

OPEN_AIR_HU = -930
"""Where the air at the edge of the picture is denser than this, it is lung cut by the edge."""


def find_outside_air(coarse: Coarse, air: Mask) -> Mask:
    """Find the air that reaches the edge of the picture within its slice.

    The edge is the border of the slice, or of the reconstructed circle where the rest is padding
    of one value. Lung that is cut by the edge is not outside. Walls of less than three blocks
    (table top, clothes) do not hold the air back.

    Args:
        coarse: the volume.
        air: where it is air rather than tissue.
    """
    padding = _padding(coarse, air)
    # A wedge of tissue at the edge is thick: it goes on beyond.
    core = ndimage.binary_erosion(~air | padding, border_value=1)
    passable = ~ndimage.binary_dilation(core, mask=~air | padding) & ~padding
    reached = ndimage.binary_dilation(padding, IN_PLANE, border_value=1)
    edge = ndimage.binary_dilation(reached, IN_PLANE, 2, border_value=1) & ~reached & passable & air
    in_slice, _ = ndimage.label(passable, IN_PLANE)
    at_edge = in_slice[edge]
    number = np.maximum(np.bincount(at_edge), 1)
    open_there = np.bincount(at_edge, coarse.hu[edge]) / number < OPEN_AIR_HU
    outside = _touched(in_slice, edge & np.isin(in_slice, np.flatnonzero(open_there)))
    # Blocks half padding, half tissue look like air; half padding, half lung have air beside them.
    rind = reached & air & ~padding
    rind &= ~ndimage.binary_dilation(air & ~reached, IN_PLANE)
    return (outside | padding | rind) & air


def _padding(coarse: Coarse, air: Mask) -> Mask:
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
