"""Vessels and strands of pleura attached to a nodule, cut off where they are thin."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from LungNoduleSegLib.nodules.region_growing import climb

NECK = 0.65
"""What is thinner than this share of the nodule, vessels and strands of pleura, is cut off."""

VESSEL_MM = 3.0
"""Half the width of what is cut off at most: lobes of a mass are wider than its vessels."""

BUMP = 1.0
"""What is cut off, but reaches no farther than this share of the nodule's radius, is a bump."""

BLUR_MM = 1.4
"""The scanner's blur spreads an edge about this far to either side."""


def cut_free(
    dense: NDArray[np.bool_],
    seed: tuple[int, ...],
    spacing: NDArray[np.float64],
    mark: NDArray[np.bool_],
    vessel_mm: float,
    on_wall: bool,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], bool]:
    """Separate the body of the piece with the seed from parts attached by a neck.

    By an opening in proportion to the nodule, after Kuhnigk et al., IEEE Trans Med Imaging
    2006;25:417-434.

    Args:
        dense: what may belong to it.
        seed: a voxel of it.
        spacing: mm along (z, y, x).
        mark: the rough mask.
        vessel_mm: half the width of what is cut off at most.
        on_wall: whether the blur of the wall may join all that lies on it.

    Returns:
        The body, what was cut off or lies beside it, and whether anything was cut off.
    """
    pieces, _ = ndimage.label(dense)
    piece = pieces == pieces[seed]
    (box,) = ndimage.find_objects(piece.view(np.uint8), 1)
    inner = np.pad(piece[box], 1)
    start = tuple(i - part.start + 1 for i, part in zip(seed, box, strict=True))
    opened, cut = _opened(inner, start, spacing, np.pad(mark[box], 1), vessel_mm, on_wall)
    body = np.zeros_like(dense)
    body[box] = opened[1:-1, 1:-1, 1:-1]
    return body, dense & ~body, cut


def _opened(
    piece: NDArray[np.bool_],
    seed: tuple[int, ...],
    spacing: NDArray[np.float64],
    mark: NDArray[np.bool_],
    vessel_mm: float,
    on_wall: bool,
) -> tuple[NDArray[np.bool_], bool]:
    """Give the body around the seed, and whether something was cut off.

    Bumps stay, and so does what the mark holds for the most part. The blur of a wall is a thin film
    that joins them to one large part: there, what is thin is looked at apart.
    """
    depth = ndimage.distance_transform_edt(piece, sampling=spacing)
    deepest = climb(np.where(mark, depth, 0), seed, spacing, 1.0)
    most = float(depth[deepest])
    reach = min(NECK * most, vessel_mm)
    bodies, _ = ndimage.label(depth >= reach)
    body = bodies == bodies[deepest]
    away = ndimage.distance_transform_edt(~body, sampling=spacing)
    opened = piece & (away <= reach)
    bodies, _ = ndimage.label(opened)
    opened = bodies == bodies[deepest]
    thin = np.zeros_like(piece)
    if on_wall:
        thin = ndimage.distance_transform_edt(depth <= BLUR_MM, sampling=spacing) > BLUR_MM
    kept, cut = opened, False
    for some in (piece & ~opened & ~thin, piece & ~opened & thin):
        parts, count = ndimage.label(some)
        farthest = np.zeros(count + 1)
        where = np.flatnonzero(parts)
        np.maximum.at(farthest, parts.ravel()[where], away.ravel()[where])
        bumps = farthest - reach <= max(BUMP * most, 1.0)
        bumps |= np.bincount(parts.ravel(), mark.ravel()) >= 0.5 * np.bincount(parts.ravel())
        bumps[0] = False
        kept = kept | bumps[parts]
        cut |= not bumps[1:].all()
    return kept, cut
