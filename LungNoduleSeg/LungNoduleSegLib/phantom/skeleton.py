"""The bones of the phantom: spine, ribs, sternum, clavicles, scapulae."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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
from LungNoduleSegLib.phantom.canvas import Canvas, Floats, blend

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
