"""Vessels and strands of pleura attached to a nodule, cut off where they are thin."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.geometry import Box
from LungNoduleSegLib.nodules.table import sphere_diameter

NECK = 0.65
"""What is thinner than this share of the nodule, vessels and strands of pleura, is cut off."""

VESSEL_MM = 3.0
"""Half the width of what is cut off at most: lobes of a mass are wider than its vessels."""

BUMP = 1.0
"""What is cut off, but reaches no farther than this share of the nodule's radius, is a bump. The
radius is that of a sphere as large, as an irregular nodule holds a much smaller ball; where that
ball is no wider than a vessel, it counts. What reaches the end of the surroundings is no bump."""

BLUR_MM = 1.4
"""The scanner's blur spreads an edge about this far to either side."""


def cut_free(
    dense: NDArray[np.bool_],
    seed: tuple[int, ...],
    spacing: NDArray[np.float64],
    mark: NDArray[np.bool_],
    rim: NDArray[np.bool_],
    vessel_mm: float,
    on_wall: bool,
    rough: bool = False,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], bool]:
    """Separate the body of the piece with the seed from parts attached by a neck.

    By an opening in proportion to the nodule, after Kuhnigk et al., IEEE Trans Med Imaging
    2006;25:417-434.

    Args:
        dense: what may belong to it.
        seed: a voxel of it.
        spacing: mm along (z, y, x).
        mark: the rough mask.
        rim: the end of the surroundings, beyond which the scan goes on.
        vessel_mm: half the width of what is cut off at most.
        on_wall: whether the blur of the wall may join all that lies on it.
        rough: whether its surface is known to be rough.

    Returns:
        The body, what was cut off or lies beside it, and whether anything was cut off.
    """
    box, piece, start = piece_at(dense, seed)
    marked, ends = (np.pad(part[box], 1) for part in (mark, rim))
    opened, cut = _with_bumps(piece, start, spacing, marked, ends, vessel_mm, on_wall, rough)
    body = np.zeros_like(dense)
    body[box] = opened[1:-1, 1:-1, 1:-1]
    return body, dense & ~body, cut


def piece_at(
    dense: NDArray[np.bool_], seed: tuple[int, ...]
) -> tuple[Box, NDArray[np.bool_], tuple[int, ...]]:
    """Cut out the connected piece of a mask (z, y, x) that holds a voxel.

    Returns:
        Its box, the piece within the box with a margin of one voxel, and the voxel in that.
    """
    pieces, _ = ndimage.label(dense)
    piece = pieces == pieces[seed]
    (box,) = ndimage.find_objects(piece.view(np.uint8), 1)
    start = tuple(i - part.start + 1 for i, part in zip(seed, box, strict=True))
    return box, np.pad(piece[box], 1), start


def opened_at(
    deepest: tuple[int, ...],
    piece: NDArray[np.bool_],
    depth: NDArray[np.float64],
    reach_mm: float,
    spacing: NDArray[np.float64],
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Open a piece (z, y, x) with a ball, and keep the body around its deepest voxel.

    Args:
        deepest: that voxel.
        piece: the mask.
        depth: mm from each of its voxels to its surface.
        reach_mm: radius of the ball.
        spacing: mm along (z, y, x).

    Returns:
        The body, and the distance (mm) of each voxel from what lies deeper than the radius.
    """
    bodies, _ = ndimage.label(depth >= reach_mm)
    away = ndimage.distance_transform_edt(bodies != bodies[deepest], sampling=spacing)
    bodies, _ = ndimage.label(piece & (away <= reach_mm))
    return bodies == bodies[deepest], away


def _with_bumps(
    piece: NDArray[np.bool_],
    seed: tuple[int, ...],
    spacing: NDArray[np.float64],
    mark: NDArray[np.bool_],
    rim: NDArray[np.bool_],
    vessel_mm: float,
    on_wall: bool,
    rough: bool,
) -> tuple[NDArray[np.bool_], bool]:
    """Return the body around the seed, and whether something was cut off.

    Bumps stay, and so does what the mark holds for the most part. The blur of a wall is a thin film
    that joins them to one large part: there, what is thin is looked at apart. What a wide opening
    leaves of a rough surface is such a film, too: it stays, save beside what is cut off.
    """
    depth = ndimage.distance_transform_edt(piece, sampling=spacing)
    deepest = climb(np.where(mark, depth, 0), seed, spacing, 1.0)
    most = float(depth[deepest])
    reach = min(NECK * most, vessel_mm)
    opened, away = opened_at(deepest, piece, depth, reach, spacing)
    rest = piece & ~opened
    thin = film = np.zeros_like(piece)
    if on_wall:
        thin = ndimage.distance_transform_edt(depth <= BLUR_MM, sampling=spacing) > BLUR_MM
    elif rough and reach > VESSEL_MM:
        film = rest & (away <= reach + BLUR_MM)
    radius = most
    if most > VESSEL_MM:
        radius = sphere_diameter(opened.sum() * spacing.prod()) / 2
    kept, off = opened, np.zeros_like(piece)
    for some in (rest & ~film & ~thin, rest & ~film & thin):
        parts, count = ndimage.label(some)
        farthest = np.zeros(count + 1)
        where = np.flatnonzero(parts)
        np.maximum.at(farthest, parts.ravel()[where], away.ravel()[where])
        bumps = farthest - reach <= max(BUMP * radius, 1.0)
        bumps[parts[rim]] = False
        bumps |= np.bincount(parts.ravel(), mark.ravel()) >= 0.5 * np.bincount(parts.ravel())
        kept = kept | (some & bumps[parts])
        off |= some & ~bumps[parts]
    if film.any() and off.any():
        film &= ndimage.distance_transform_edt(~off, sampling=spacing) > BLUR_MM
    return kept | film, bool(off.any())


def climb(
    depth: NDArray[np.floating[Any]],
    seed: tuple[int, ...],
    spacing: NDArray[np.float64],
    least_mm: float,
) -> tuple[int, ...]:
    """Climb from the seed to the deepest place nearby, until there is none deeper.

    Args:
        depth: (z, y, x), mm below the surface of a body.
        seed: voxel to begin at.
        spacing: mm along (z, y, x).
        least_mm: how far to look at least; farther where it is deeper.
    """
    here = seed
    while True:
        reach = np.ceil(max(float(depth[here]), least_mm) / spacing).astype(int)
        low = np.maximum(np.array(here) - reach, 0)
        part = depth[tuple(slice(a, i + r + 1) for a, i, r in zip(low, here, reach, strict=True))]
        found = tuple(int(i) for i in np.unravel_index(part.argmax(), part.shape) + low)
        if depth[found] <= depth[here]:
            return here
        here = found
