"""A stack sheared by a tilted gantry, put on an orthogonal grid."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.reading.slice_stack import SliceStack


def tilt_degrees(stack: SliceStack) -> float:
    """Angle between the slices' normal and the line along which they lie."""
    across = stack.step @ stack.direction[:, 2]
    along = np.linalg.norm(stack.step @ stack.direction[:, :2])
    return float(np.degrees(np.arctan2(along, across)))


def rectify(hu: NDArray[Any], stack: SliceStack) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Shift each slice in its plane, interpolating linearly, to where its position says it lies.

    Args:
        hu: (slices, rows, columns).
        stack: their geometry.

    Returns:
        A larger volume that covers all the slices, air around them, and the position of its first
        voxel in LPS mm.
    """
    last = len(hu) - 1
    shifts = np.arange(len(hu))[:, None] * np.array(stack.drift)[::-1]
    start = np.floor(np.minimum(0, shifts[last]))
    extra = np.ceil(np.maximum(0, shifts[last])) - start
    shape = tuple(np.array(hu.shape[1:]) + extra.astype(int))
    rectified = np.empty((len(hu), *shape), hu.dtype)
    for k, shift in enumerate(shifts):
        moved = ndimage.affine_transform(
            hu[k].astype(np.float32),
            np.ones(2),
            start - shift,
            output_shape=shape,
            order=1,
            mode="constant",
            cval=AIR_HU,
        )
        rectified[k] = np.rint(moved) if hu.dtype.kind == "i" else moved
    in_plane = stack.direction[:, :2] @ (start[::-1] * stack.spacing[:2])
    return rectified, stack.frames[0].position + in_plane
