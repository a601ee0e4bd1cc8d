"""Tubes and solids painted into a CT volume: bones, and the trees that fill a lung."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.geometry import Box
from LungNoduleSegLib.phantom.anatomy import (
    CAGE_CENTRE_Y,
    CAGE_HALF_DEPTH,
    CAGE_HALF_WIDTH,
    LEFT,
    RIGHT,
    SPINE_CENTRE_Y,
    Anatomy,
    ellipse,
    profile,
)

Floats = NDArray[np.floating[Any]]

MOST_SAMPLES = 4
"""Points sampled in a voxel along each axis at most."""


def coverage(distance: Floats, edge_mm: float) -> Floats:
    """Return the share of a voxel inside, from its centre's distance to the surface (mm)."""
    return np.clip(0.5 - distance / edge_mm, 0, 1).astype(np.float32)


def blend(hu: Floats, share: Floats, value: Floats | float) -> None:
    """Mix `value` into `hu`, in place, by each voxel's share."""
    hu += share * (value - hu)


@dataclass(frozen=True)
class Canvas:
    """An axial volume that is painted in place.

    Attributes:
        geometry: its grid; axes along LPS.
        hu: float32 (z, y, x).
    """

    geometry: sitk.Image
    hu: Floats

    @cached_property
    def _axes(self) -> dict[tuple[int, int], Floats]:
        return {}

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along x, y, z in mm."""
        x, y, z = self.geometry.GetSpacing()
        return x, y, z

    @cached_property
    def origin(self) -> tuple[float, float, float]:
        """Centre of the first voxel in LPS mm."""
        x, y, z = self.geometry.GetOrigin()
        return x, y, z

    def axis(self, axis: int, within: slice = slice(None), per_voxel: int = 1) -> Floats:
        """Return world coordinates (mm) along x, y or z (0, 1, 2), `per_voxel` to each voxel."""
        if (axis, per_voxel) not in self._axes:
            index = (np.arange(self.hu.shape[2 - axis] * per_voxel) + 0.5) / per_voxel - 0.5
            places = self.origin[axis] + self.spacing[axis] * index
            self._axes[axis, per_voxel] = places.astype(np.float32)
        start, stop, _ = within.indices(self.hu.shape[2 - axis])
        return self._axes[axis, per_voxel][start * per_voxel : stop * per_voxel]

    def box(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> Box | None:
        """Return the voxels between two corners (mm), None where that is off the volume."""
        size = self.hu.shape[::-1]
        first, last = low.tolist(), high.tolist()
        x, y, z = (
            slice(max(math.floor((a - o) / s), 0), min(math.ceil((b - o) / s) + 1, n))
            for a, b, o, s, n in zip(first, last, self.origin, self.spacing, size, strict=True)
        )
        return None if any(one.start >= one.stop for one in (x, y, z)) else (z, y, x)

    def cover(
        self,
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        distance: Callable[[Floats, Floats, Floats], Floats],
        finest_mm: float,
    ) -> tuple[Box, Floats] | None:
        """Return the box between two corners and the share of its voxels within a surface.

        Voxels are sampled at points about `finest_mm` apart, `MOST_SAMPLES` along an axis at most.
        """
        box = self.box(low, high)
        if box is None:
            return None
        parts = [min(max(1, round(s / finest_mm)), MOST_SAMPLES) for s in self.spacing]
        x, y, z = (self.axis(i, box[2 - i], parts[i]) for i in range(3))
        edge = min(s / n for s, n in zip(self.spacing, parts, strict=True))
        share = coverage(distance(x[None, None], y[None, :, None], z[:, None, None]), edge)
        if max(parts) > 1:
            nz, ny, nx = (s.stop - s.start for s in box)
            share = share.reshape(nz, parts[2], ny, parts[1], nx, parts[0]).mean((1, 3, 5))
        return box, share

    def segment(
        self,
        start: NDArray[np.float64],
        end: NDArray[np.float64],
        radii: tuple[float, float],
    ) -> tuple[Box, Floats] | None:
        """Return the box and coverage of a tapering tube with round ends."""
        reach = max(radii) + max(self.spacing[:2])
        low, high = np.minimum(start, end) - reach, np.maximum(start, end) + reach
        finest = float(np.clip(max(radii), 0.8, 2.5))
        along = (end - start).astype(np.float32)
        square = float(along @ along) or 1e-6

        def distance(x: Floats, y: Floats, z: Floats) -> Floats:
            dx, dy, dz = (p - np.float32(s) for p, s in zip((x, y, z), start, strict=True))
            t = np.clip((dx * along[0] + dy * along[1] + dz * along[2]) / square, 0, 1)
            square_gap = (dx - t * along[0]) ** 2 + (dy - t * along[1]) ** 2
            gap = np.sqrt(square_gap + (dz - t * along[2]) ** 2)
            return gap - (radii[0] + np.float32(radii[1] - radii[0]) * t)

        return self.cover(low, high, distance, finest)

    def tube(
        self,
        points: NDArray[np.float64],
        radii: float | NDArray[np.float64],
        value: float,
        into: NDArray[np.uint8] | None = None,
    ) -> None:
        """Paint a tube along `points` (n, 3) mm; mark its voxels in the mask `into` as well."""
        radius = np.zeros(len(points)) + radii
        for i in range(len(points) - 1):
            painted = self.segment(points[i], points[i + 1], (radius[i], radius[i + 1]))
            if painted is None:
                continue
            box, share = painted
            blend(self.hu[box], share, value)
            if into is not None:
                into[box] |= share >= 0.5


BRANCH_FRACTION = 0.4
"""A branch covers this share of the way to the centre of what it supplies (Tawhai et al., Annals of
Biomedical Engineering 28:793, 2000)."""

END_RADIUS_MM = 0.42
"""Of the last branches."""

DIAMETER_EXPONENT = 2.8
"""Murray's law has 3; measured pulmonary arteries lie a little below (Huang et al., Journal of
Applied Physiology 81:2123, 1996)."""


CURVE_PARTS = 3
CURVED_LEAVES = 8
"""Straight pieces of a branch, and the least number of ends it supplies to be bent at all."""


@dataclass(frozen=True)
class Tree:
    """Straight segments, parents before children.

    Attributes:
        start, end: (n, 3) LPS mm.
        radius: (n,) mm.
        leaves: (n,) how many end branches each segment supplies.
    """

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    radius: NDArray[np.float64]
    leaves: NDArray[np.int64]


def grow_tree(root: NDArray[np.float64], ends: NDArray[np.float64]) -> Tree:
    """Grow a tree from `root` (3,) to every one of `ends` (n, 3), LPS mm.

    Each branch leaves in the direction of its parent, bends towards the centre of its end points,
    stops `BRANCH_FRACTION` of the way there and divides them by a plane across the line to the
    farthest of them. Radii follow from the number of ends, each of `END_RADIUS_MM`.
    """
    points: list[NDArray[np.float64]] = []
    leaves: list[int] = []
    pending = [(root, np.zeros(3), ends)]
    while pending:
        start, heading, supplied = pending.pop()
        centre = supplied.mean(0)
        last = len(supplied) == 1
        tip = centre if last else start + BRANCH_FRACTION * (centre - start)
        curve = _bend(start, heading, tip, CURVE_PARTS if len(supplied) >= CURVED_LEAVES else 1)
        points += [curve[i : i + 2] for i in range(len(curve) - 1)]
        leaves += [len(supplied)] * (len(curve) - 1)
        if last:
            continue
        spread = supplied - centre
        along = spread @ spread[np.argmax(np.einsum("ij,ij->i", spread, spread))]
        upper = np.zeros(len(supplied), bool)
        upper[np.argsort(along)[len(supplied) // 2 :]] = True
        heading = curve[-1] - curve[-2]
        pending += [(tip, heading, supplied[upper]), (tip, heading, supplied[~upper])]
    start_end = np.array(points)
    count = np.array(leaves)
    radius = END_RADIUS_MM * count ** (1 / DIAMETER_EXPONENT)
    return Tree(start_end[:, 0], start_end[:, 1], radius, count)


def _bend(
    start: NDArray[np.float64], heading: NDArray[np.float64], end: NDArray[np.float64], parts: int
) -> NDArray[np.float64]:
    """Return points (parts + 1, 3) on a parabola that leaves `start` along `heading`."""
    length = np.linalg.norm(end - start)
    bend = start + heading / max(float(np.linalg.norm(heading)), 1e-9) * length / 3
    if not heading.any():
        bend = (start + end) / 2
    t = np.linspace(0, 1, parts + 1)[:, None]
    return start * (1 - t) ** 2 + 2 * bend * t * (1 - t) + end * t**2


def bronchi_along(arteries: Tree, least_leaves: int) -> Tree:
    """Return the bronchi that run behind the arteries that supply at least so many ends."""
    kept = arteries.leaves >= least_leaves
    radius = 0.85 * arteries.radius[kept]
    shift = (arteries.radius[kept] + radius + 1.2)[:, None] * [0.0, 1.0, 0.0]
    parent_shift = np.zeros_like(shift)
    ends = {tuple(e): s for e, s in zip(arteries.end[kept], shift, strict=True)}
    for i, point in enumerate(arteries.start[kept]):
        parent_shift[i] = ends.get(tuple(point), shift[i])
    return Tree(
        arteries.start[kept] + parent_shift,
        arteries.end[kept] + shift,
        radius,
        arteries.leaves[kept],
    )


CORTEX, MARROW, CARTILAGE, DISC, CANAL = 650.0, 170.0, 115.0, 80.0, 25.0
VERTEBRA_MM = 25.0


def paint_skeleton(canvas: Canvas, anatomy: Anatomy) -> None:
    """Paint spine, ribs, cartilage, sternum, clavicles and scapulae."""
    _paint_spine(canvas, anatomy)
    _paint_sternum(canvas, anatomy)
    bones: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for side in (RIGHT, LEFT):
        for rib in range(1, 13):
            bone, cartilage = _rib(anatomy, side, rib)
            bones.append((bone, np.full(len(bone), 4.6)))
            if len(cartilage):
                canvas.tube(anatomy.world(cartilage), 5.0, CARTILAGE)
        clavicle = [(side * 22, -46, 84), (side * 60, -50, 98), (side * 125, -12, 118)]
        bones.append((_smooth(clavicle, 12), np.full(12, 5.5)))
        inner = [(side * 92, 92, 88), (side * 88, 100, 40), (side * 98, 98, -5)]
        outer = [(side * 138, 38, 92), (side * 132, 62, 40), (side * 100, 96, -8)]
        for a, b in zip(_smooth(inner, 9), _smooth(outer, 9), strict=True):
            bones.append((np.linspace(a, b, 5), np.linspace(2.6, 4.2, 5)))
        spine_of_scapula = np.linspace((side * 92, 98, 78), (side * 142, 62, 108), 6)
        bones.append((spine_of_scapula, np.linspace(3, 6, 6)))
    for points, radii in bones:
        canvas.tube(anatomy.world(points), radii, CORTEX)
    for points, radii in bones:
        canvas.tube(anatomy.world(points), np.maximum(radii - 1.5, 0.6), MARROW)


def _paint_sternum(canvas: Canvas, anatomy: Anatomy) -> None:
    low, high = anatomy.world([(-25, -120, -80), (25, -50, 75)])
    for shrink, value in ((0.0, CORTEX - 100), (1.5, MARROW)):

        def distance(x: Floats, y: Floats, z: Floats, shrink: float = shrink) -> Floats:
            x, y, z = anatomy.reference(x, y, z)
            front = profile(CAGE_CENTRE_Y, z) - profile(CAGE_HALF_DEPTH, z) - 7.5
            half_width = np.interp(z, (-75, -60, 20, 45, 70), (5, 13, 11, 17, 20))
            plate = ellipse(x, y - front, half_width, 5.2, 3.0)
            return np.maximum(plate, np.abs(z + 3) - 72) + shrink

        if found := canvas.cover(low, high, distance, 1.2):
            box, share = found
            blend(canvas.hu[box], share, value)


def _smooth(points: Sequence[tuple[float, float, float]], count: int) -> NDArray[np.float64]:
    """Return a parabola through three points."""
    t = np.linspace(0, 1, count)[:, None]
    a, b, c = (np.array(p, float) for p in points)
    return a * (1 - t) * (1 - 2 * t) + 4 * b * t * (1 - t) + c * t * (2 * t - 1)


def _rib(
    anatomy: Anatomy, side: int, number: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the bone and the cartilage of a rib in the frame of the tables, back to front."""
    head_z = 105 - VERTEBRA_MM * (number - 1)
    drop = np.interp(number, (1, 4, 8, 12), (38, 68, 92, 70))
    length = np.interp(number, (1, 7, 10, 11, 12), (0.8, 0.82, 0.72, 0.5, 0.36))
    turn = np.linspace(0.1, 1, 40)
    z = head_z - drop * turn**1.1
    angle = np.pi * turn
    half_width, half_depth = profile(CAGE_HALF_WIDTH, z), profile(CAGE_HALF_DEPTH, z)
    sine, cosine = np.sin(angle), np.cos(angle)
    exponent = 2 / 2.25
    x = side * (half_width + 6) * sine**exponent
    y = profile(CAGE_CENTRE_Y, z) + (half_depth + 6) * np.sign(cosine) * np.abs(cosine) ** exponent
    spine_y = float(profile(SPINE_CENTRE_Y, np.array(head_z)))
    neck = [(side * 14, spine_y + 16, head_z + 2), (side * 27, spine_y + 36, head_z + 1)]
    points = np.concatenate([neck, np.stack([x, y, z], -1)[(turn > 0.3) | (np.abs(x) > 40)]])
    bone = len(points) - int((turn > length).sum())
    cartilage = points[bone - 1 :][np.abs(points[bone - 1 :, 0]) > 10]
    return points[:bone], cartilage if number <= 7 else cartilage[:0]


def _paint_spine(canvas: Canvas, anatomy: Anatomy) -> None:
    axis_z = np.arange(-230.0, 161.0, 10)
    line = anatomy.world(
        np.stack([np.zeros_like(axis_z), profile(SPINE_CENTRE_Y, axis_z), axis_z], -1)
    )
    low, high = line.min(0) - 34, line.max(0) + 34
    period = VERTEBRA_MM * anatomy.scale[2]

    for shrink, disc, value in ((0.0, True, DISC), (0.0, False, 420.0), (1.8, False, 165.0)):

        def distance(
            x: Floats, y: Floats, z: Floats, shrink: float = shrink, disc: bool = disc
        ) -> Floats:
            centre = profile(SPINE_CENTRE_Y, z / np.float32(anatomy.scale[2]))
            dy = y - centre * np.float32(anatomy.scale[1])
            phase = np.abs((z / period + 0.5) % 1 - 0.5) * period
            waist = 2.0 * (1 - (2 * phase / period) ** 2)
            body = np.sqrt((x / 18.5) ** 2 + (dy / 15.5) ** 2) * 16 - 16 + waist + shrink
            return body if disc else np.maximum(body, phase - (period / 2 - 2.6) + shrink)

        if found := canvas.cover(low, high, distance, 1.2):
            box, share = found
            blend(canvas.hu[box], share, value)

    heights = np.arange(-225.0, 160.0, VERTEBRA_MM)
    back = profile(SPINE_CENTRE_Y, heights)
    for radius, value in ((0.0, CORTEX - 150), (-1.4, MARROW)):
        for z, y in zip(heights, back, strict=True):
            for side in (RIGHT, LEFT):
                arch = [(side * 11, y + 13, z), (side * 12, y + 24, z - 2), (0, y + 34, z - 6)]
                canvas.tube(anatomy.world(arch), 3.6 + radius, value)
                wing = [(side * 13, y + 24, z), (side * 31, y + 37, z + 4)]
                canvas.tube(anatomy.world(wing), 3.6 + radius, value)
            process = [(0, y + 34, z - 6), (0, y + 49, z - 22)]
            canvas.tube(anatomy.world(process), 3.4 + radius, value)
    canal = line + np.array((0, 24, 0)) * anatomy.scale
    canvas.tube(canal, 7.5, CANAL)
