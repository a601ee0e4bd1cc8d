"""The organs of the phantom, painted from the outside in: tissue, vessels, airways."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from LungNoduleSegLib.phantom.anatomy import (
    LEFT,
    RIGHT,
    SPINE_CENTRE_Y,
    Anatomy,
    ellipsoid,
    profile,
)
from LungNoduleSegLib.phantom.canvas import (
    Canvas,
    Floats,
    Tree,
    blend,
    bronchi_along,
    coverage,
    grow_tree,
)

FAT, MUSCLE, SKIN, GAS = -105.0, 52.0, 5.0, -980.0
SIDES = {RIGHT: 1, LEFT: 2}
"""Label of each lung."""


THREADS = min(os.cpu_count() or 1, 4)
"""Slices that are painted at once."""

Slab = tuple[Floats, Floats, Floats]
"""World x (1, n), y (m, 1) and z (1, 1) of a slice, mm."""


WAVES = 8
"""Plane waves of a `Wobble`."""


class Wobble:
    """A smooth random field of deviation 1: plane waves of the given length, quick on a slice."""

    def __init__(self, rng: np.random.Generator, length_mm: float) -> None:
        heading = rng.normal(size=(WAVES, 3))
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
        self._wave = 2 * np.pi * heading / (length_mm * rng.uniform(0.6, 1.6, (WAVES, 1)))
        self._phase = rng.uniform(0, 2 * np.pi, WAVES)

    def __call__(self, x: Floats, y: Floats, z: float) -> Floats:
        """Return the field on the slice at z spanned by x (1, n) and y (m, 1), in mm."""
        a, b, c = self._wave.T
        across, down = np.outer(a, x), b * y + c * z + self._phase
        first = np.concatenate([np.cos(across), -np.sin(across)]).astype(np.float32)
        second = np.concatenate([np.cos(down), np.sin(down)], 1).astype(np.float32)
        return np.float32(np.sqrt(2 / len(a))) * (second @ first)


def paint_tissue(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint table, chest wall, abdomen, heart and lung tissue; return the lungs (1 right, 2 left).

    Vessels, airways and bones are not yet there.
    """
    lungs = np.zeros(canvas.hu.shape, np.uint8)
    wobble, streaks = Wobble(rng, 90), Wobble(rng, 22)
    edge = canvas.spacing[0]
    x, y = canvas.axis(0)[None], canvas.axis(1)[:, None]
    skin_y = float(anatomy.world((0, 121, 0))[1])
    chest = canvas.box(*anatomy.world([(-142, -110, -999), (142, 122, 999)]))
    within = chest[1:] if chest else (slice(0), slice(0))

    def paint(k: int) -> None:
        hu, z = canvas.hu[k], canvas.axis(2)[k]
        hu[:] = -1000
        _paint_table(hu, x, y, skin_y + 6, edge)
        slab = (x, y, np.full((1, 1), z, np.float32))
        uneven = wobble(x, y, float(z))
        cage = anatomy.cage(*slab)
        _paint_chest_wall(hu, anatomy, slab, cage, uneven, streaks(x, y, float(z)), edge)
        slab = (x[:, within[1]], y[within[0]], slab[2])
        inside = hu[within], lungs[k][within], anatomy, slab, cage[within], uneven[within]
        _paint_inside(*inside, edge)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(paint, range(len(lungs))))
    return lungs


def _paint_chest_wall(
    hu: Floats,
    anatomy: Anatomy,
    slab: Slab,
    cage: Floats,
    uneven: Floats,
    streaks: Floats,
    edge: float,
) -> None:
    """Paint skin, fat and muscle, and fat where the ribs will lie."""
    body = anatomy.body(*slab)
    blend(hu, coverage(body, edge), SKIN)
    blend(hu, coverage(body + 2, edge), FAT + 6 * uneven)
    deep = body + 2 + anatomy.fat_mm * (1 + 0.35 * uneven)
    muscle = np.maximum(np.minimum(deep, cage - 11 - 4 * uneven), body + 4)
    muscle = np.maximum(muscle, 0.8 - 16 * np.abs(streaks))
    blend(hu, coverage(muscle, edge), MUSCLE)
    for shape in anatomy.breast_shapes():
        breast = np.maximum(shape.distance(*anatomy.reference(*slab)) - 4, body + 3)
        breast = np.maximum(breast, 13 - cage)
        blend(hu, coverage(breast, edge), FAT)
        gland = np.maximum(breast + 9 + 5 * uneven, 4 - 9 * np.abs(streaks))
        blend(hu, coverage(gland, edge), 25.0)


def _paint_inside(
    hu: Floats,
    lungs: NDArray[np.uint8],
    anatomy: Anatomy,
    slab: Slab,
    cage: Floats,
    uneven: Floats,
    edge: float,
) -> None:
    """Paint abdomen, mediastinal fat, heart and lung tissue on one slice; label the lungs."""
    x, y, z = slab
    above = anatomy.diaphragm(*slab)
    abdomen = np.maximum(cage, above)
    blend(hu, coverage(abdomen, edge), MUSCLE)
    _paint_abdomen(hu, anatomy, slab, abdomen + 3, uneven, edge)
    heart = anatomy.heart_shape().distance(*anatomy.reference(*slab))
    heart = np.maximum(heart, 3 - above)
    below_neck = edge / 16 * (z - np.float32(82 * anatomy.scale[2]))
    mediastinum = anatomy.mediastinum(*slab)
    middle = np.maximum(np.maximum(mediastinum, cage), np.maximum(2 - above, below_neck))
    blend(hu, coverage(middle, edge), FAT + 12 * uneven)
    _paint_heart(hu, anatomy, slab, heart, edge)
    for side, lung in anatomy.lungs_between(cage, mediastinum, above, *slab).items():
        tissue = -872 + 0.22 * (y - 20) + 7 * uneven
        fissure = _fissure(side, anatomy, x, y, z)
        tissue = tissue + 110 * np.clip(1.2 - fissure / 0.6, 0, 1)
        blend(hu, coverage(lung, edge), tissue)
        lungs[lung < 0] = SIDES[side]


def _fissure(side: int, anatomy: Anatomy, x: Floats, y: Floats, z: Floats) -> Floats:
    """Return the distance from the nearest fissure."""
    x, y, z = anatomy.reference(x, y, z)
    oblique = np.abs(0.57 * (z + 18) + 0.82 * (y - 12) + 0.0012 * (x - side * 70) ** 2)
    if side == LEFT:
        return oblique
    in_front = 0.57 * (z + 18) + 0.82 * (y - 12) < 0
    horizontal = np.abs(z + 12 + 0.1 * (y + 40) + 0.0015 * (x + 60) ** 2)
    return np.minimum(oblique, np.where(in_front, horizontal, 99))


def _paint_table(hu: Floats, x: Floats, y: Floats, top: float, edge: float) -> None:
    surface = y - top + 16 * (x / 170) ** 2
    wide = np.abs(x) - 205
    blend(hu, coverage(np.maximum(np.abs(surface - 1) - 0.9, wide), edge), -480.0)
    blend(hu, coverage(np.maximum(np.abs(surface - 13) - 11, wide), edge), -965.0)
    blend(hu, coverage(np.maximum(np.abs(surface - 25) - 1.2, wide), edge), 120.0)


def _paint_abdomen(
    hu: Floats,
    anatomy: Anatomy,
    slab: Slab,
    within: Floats,
    uneven: Floats,
    edge: float,
) -> None:
    """Paint liver, spleen, stomach, colon and kidneys where `within` is negative."""
    if within.min() > 0:
        return
    x, y, z = anatomy.reference(*slab)
    down = z - anatomy.dome_z
    blend(hu, coverage(within, edge), FAT + 10 * uneven)
    kidneys = [ellipsoid((s * 62, 38, -205), (27, 25, 50), (1, 0.5, 0)) for s in (RIGHT, LEFT)]
    for kidney in kidneys:
        blend(
            hu,
            coverage(np.maximum(within, kidney.distance(x, y, z)), edge),
            anatomy.blood_hu(170) - 12,
        )
    slope = 0.62 * x + 0.22 * (y - 10) + 0.42 * (down + 40) - 4
    liver = np.maximum(np.maximum(within, slope), x - 70)
    liver = np.maximum(liver, -kidneys[0].distance(x, y, z) + 3)
    blend(hu, coverage(liver, edge), (108.0 if anatomy.contrast else 62.0) + 3 * uneven)
    spleen = ellipsoid((96, 38, anatomy.dome_z - 60), (42, 28, 48), (0.5, 1, 0.2))
    spleen_edge = np.maximum(within, spleen.distance(x, y, z))
    blend(hu, coverage(spleen_edge, edge), 115.0 if anatomy.contrast else 52.0)
    stomach = ellipsoid((66, -22, anatomy.dome_z - 52), (52, 40, 38), (0.8, -0.6, -0.2))
    outer = np.maximum(np.maximum(within, stomach.distance(x, y, z)), 3 - spleen_edge)
    blend(hu, coverage(outer, edge), 45.0)
    gas = y < -30
    blend(hu, coverage(outer + 3.5, edge), np.where(gas, GAS, 20.0).astype(np.float32))
    for centre, radii in (((30, -62, -205), (60, 20, 20)), ((-90, -20, -215), (24, 26, 26))):
        colon = ellipsoid(centre, radii, (1, 0.1, 0.1))
        bowel = np.maximum(within + 4, colon.distance(x, y, z)) + 2 * uneven
        blend(hu, coverage(bowel, edge), 40.0)
        content = np.where(y < centre[1] - 4, GAS, -30 + 60 * uneven).astype(np.float32)
        blend(hu, coverage(bowel + 2.5, edge), content)


def _paint_heart(
    hu: Floats,
    anatomy: Anatomy,
    slab: Slab,
    heart: Floats,
    edge: float,
) -> None:
    if heart.min() > 0:
        return
    x, y, z = anatomy.reference(*slab)
    blend(hu, coverage(np.abs(heart) - 0.6, edge), 20.0)
    blend(hu, coverage(heart + 4.5, edge), 48.0 if not anatomy.contrast else 95.0)
    if not anatomy.contrast:
        return
    size = anatomy.heart
    for centre, radii in (
        ((42, -36, -68), (36, 18, 18)),
        ((12, -58, -62), (34, 15, 24)),
        ((-22, -30, -48), (22, 24, 28)),
        ((6, 4, -42), (32, 16, 18)),
    ):
        (a, b, c) = (size * r for r in radii)
        chamber = ellipsoid(centre, (a, b, c), (0.78, -0.42, -0.46)).distance(x, y, z)
        blend(hu, coverage(np.maximum(chamber, heart + 7), edge), 230.0)


@dataclass(frozen=True)
class LungTrees:
    """The trees within one lung."""

    arteries: Tree
    veins: Tree
    bronchi: Tree


TREE_ENDS = 1400
"""Ends of the arteries of a lung."""


def grow_lung_trees(anatomy: Anatomy, side: int, rng: np.random.Generator) -> LungTrees:
    """Grow arteries, veins and bronchi to places spread over the lung."""
    low, high = anatomy.world([(-140, -110, -170), (140, 120, 110)])
    points = rng.uniform(low, high, (TREE_ENDS * 16, 3))
    points = points[points[:, 0] * side > 0]
    x, y, z = points.T.astype(np.float32)
    inside = anatomy.lungs(x, y, z)[side] < -3
    places = points[inside]
    roots = anatomy.world([(side * 38, 4, -22), (side * 30, 12, -46)])
    arteries = grow_tree(roots[0], places[:TREE_ENDS])
    veins = grow_tree(roots[1], places[TREE_ENDS : TREE_ENDS + TREE_ENDS * 2 // 3])
    return LungTrees(arteries, veins, bronchi_along(arteries, 32))


def paint_vessels(
    canvas: Canvas, anatomy: Anatomy, trees: dict[int, LungTrees]
) -> NDArray[np.uint8]:
    """Paint great vessels, lung vessels, bronchi and trachea; return the airways' lumen."""
    blood = anatomy.blood_hu(240)
    spine = profile(SPINE_CENTRE_Y, np.arange(10, -231, -20.0))
    descending = [(23, s - 22, z) for s, z in zip(spine, np.arange(10, -231, -20.0), strict=True)]
    aorta = [(8, -30, -30), (-8, -38, -8), (-8, -36, 12), (2, -26, 28), (14, -6, 33), (22, 18, 28),
             (24, 40, 18), *descending]  # fmt: skip
    great = [
        (aorta, 12.5),
        ([(-22, -24, -30), (-22, -26, 10), (-18, -28, 60)], 8.5),
        ([(-18, -28, 60), (-34, -20, 80), (-50, 6, 100)], 6.0),
        ([(-18, -30, 55), (10, -36, 66), (36, -14, 92)], 6.0),
        ([(0, -24, 30), (-10, -14, 60), (-22, 6, 100), (-26, 20, 150)], 5.5),
        ([(12, -8, 33), (16, 0, 70), (26, 20, 150)], 4.5),
        ([(18, 6, 32), (30, 14, 70), (48, 20, 100)], 5.0),
        ([(14, -48, -34), (16, -44, -14), (20, -28, -4)], 12.0),
        ([(18, -26, -6), (-4, -12, -10), (-22, -6, -12), (-38, 4, -22)], 9.0),
        ([(20, -26, -4), (28, -8, -6), (38, 4, -22)], 9.0),
        ([(4, 4, -44), (-18, 8, -44), (-30, 12, -46)], 7.0),
        ([(4, 4, -44), (18, 8, -44), (30, 12, -46)], 7.0),
        ([(-20, 20, -230), (-18, 10, -120), (-20, -14, -78)], 11.0),
    ]
    for thickness, value in ((1.2, 35.0), (0.0, blood)):
        for points, radius in great:
            canvas.tube(anatomy.world(points), radius + thickness, value)
    gullet = [(2, 30, 150), (4, 38, 60), (6, 36, 0), (8, 34, -60), (14, 20, -100)]
    canvas.tube(anatomy.world(gullet), 7.0, 35.0)
    for side in trees.values():
        for tree in (side.arteries, side.veins):
            _paint_tree(canvas, tree, 0.0, blood)
    return _paint_airways(canvas, anatomy, trees)


def _paint_airways(
    canvas: Canvas, anatomy: Anatomy, trees: dict[int, LungTrees]
) -> NDArray[np.uint8]:
    lumen = np.zeros(canvas.hu.shape, np.uint8)
    carina = (0, 16, 14)
    tubes = [(anatomy.world([(0, 14, 170), (0, 14, 80), (0, 15, 45), carina]), 8.6)]
    for side, radius in ((RIGHT, 6.8), (LEFT, 6.2)):
        hilum = trees[side].bronchi.start[0]
        bend = anatomy.world([(side * 12, 17, 0)])
        tubes.append((np.vstack([anatomy.world([carina]), bend, hilum]), radius))
    for points, radius in tubes:
        canvas.tube(points, radius + 1.6, 20.0)
    for lung in trees.values():
        _paint_tree(canvas, lung.bronchi, 0.7, -60.0)
    for points, radius in tubes:
        canvas.tube(points, radius, GAS, lumen)
    for lung in trees.values():
        _paint_tree(canvas, lung.bronchi, 0.0, -940.0, lumen)
    return lumen


def _paint_tree(
    canvas: Canvas, tree: Tree, wall_mm: float, value: float, into: NDArray[np.uint8] | None = None
) -> None:
    thinnest = min(canvas.spacing) / 6
    for start, end, radius in zip(tree.start, tree.end, tree.radius, strict=True):
        if radius >= thinnest:
            canvas.tube(np.stack([start, end]), float(radius) + wall_mm, value, into)
