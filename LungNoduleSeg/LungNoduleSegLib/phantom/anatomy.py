"""The phantom's anatomy as distance functions of its large structures.

All coordinates are LPS mm with the carina near the origin. Every distance is in mm, negative
inside, and approximate away from the surface. Points come as arrays that broadcast together, so
the same functions serve slices, blocks and lists of points.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

Points = NDArray[np.floating[Any]]

RIGHT, LEFT = -1, 1
"""The sign of x on each side of the patient."""

LEVELS = (-230, -150, -100, -50, 0, 40, 70, 100, 130, 160)
"""Heights (mm) at which the tables below give the cross-sections."""

BODY_HALF_WIDTH = (150, 153, 158, 163, 167, 172, 174, 168, 138, 100)
BODY_HALF_DEPTH = (110, 112, 114, 116, 117, 111, 102, 88, 72, 62)
BODY_CENTRE_Y = (4, 2, 2, 2, 4, 8, 14, 22, 27, 30)
CAGE_HALF_WIDTH = (126, 130, 134, 136, 131, 121, 108, 92, 72, 50)
CAGE_HALF_DEPTH = (90, 93, 97, 99, 95, 86, 75, 62, 50, 40)
CAGE_CENTRE_Y = (-4, -2, 0, 0, 1, 6, 12, 19, 26, 30)
SPINE_CENTRE_Y = (58, 60, 64, 69, 72, 72, 68, 60, 49, 38)


@lru_cache(maxsize=32)
def _profile(values: tuple[int, ...]) -> PchipInterpolator:
    return PchipInterpolator(LEVELS, values, extrapolate=True)


def profile(values: tuple[int, ...], z: Points) -> Points:
    """Read a table at heights z (mm)."""
    clipped = np.clip(z, LEVELS[0], LEVELS[-1])
    return _profile(values)(clipped).astype(np.float32)


def smooth_min(a: Points, b: Points, width: float | Points) -> Points:
    """Return the union of two distances, its crease rounded over `width` mm."""
    blend = np.clip(0.5 + 0.5 * (b - a) / width, 0, 1)
    return b + (a - b) * blend - width * blend * (1 - blend)


def ellipse(x: Points, y: Points, half_width: Any, half_depth: Any, power: float = 2.0) -> Points:
    """Return the radial distance from a (super-)ellipse about 0."""
    u, v = np.abs(x / half_width), np.abs(y / half_depth)
    norm = np.sqrt(u * u + v * v) if power == 2 else (u**power + v**power) ** (1 / power)
    return np.sqrt(x * x + y * y) * (1 - 1 / np.maximum(norm, 1e-3))


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid; `axes` holds its unit axes as rows."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    axes: NDArray[np.float64]

    def distance(self, x: Points, y: Points, z: Points) -> Points:
        """Return the radial distance from the surface."""
        dx, dy, dz = (p - np.float32(c) for p, c in zip((x, y, z), self.centre, strict=True))
        u, v, w = (
            (np.float32(a) * dx + np.float32(b) * dy + np.float32(c) * dz) / np.float32(radius)
            for (a, b, c), radius in zip(self.axes, self.radii, strict=True)
        )
        norm = np.maximum(np.sqrt(u * u + v * v + w * w), 1e-3)
        return np.sqrt(dx * dx + dy * dy + dz * dz) * (1 - 1 / norm)


def ellipsoid(
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    towards: tuple[float, float, float] = (1, 0, 0),
) -> Ellipsoid:
    """Make an ellipsoid whose first axis points `towards`, its third as far up as it can."""
    first = np.array(towards) / np.linalg.norm(towards)
    second = np.cross((0, 0, 1), first)
    second /= np.linalg.norm(second)
    return Ellipsoid(centre, radii, np.stack([first, second, np.cross(first, second)]))


@dataclass(frozen=True)
class Anatomy:
    """The individual anatomy of a patient.

    Attributes:
        scale: of the tables along x, y and z.
        apex_z: top of the right lung; the left is 4 mm lower.
        dome_z: top of the right dome of the diaphragm; the left is 13 mm lower.
        fat_mm: thickness of the fat under the skin.
        heart: size of the heart, 1 on average.
        breasts: whether there are breasts.
        contrast: whether the vessels are filled with contrast medium.
    """

    scale: tuple[float, float, float]
    apex_z: float
    dome_z: float
    fat_mm: float
    heart: float
    breasts: bool
    contrast: bool

    @classmethod
    def of(cls, rng: np.random.Generator) -> "Anatomy":
        """Draw a patient."""
        return cls(
            scale=(rng.uniform(0.92, 1.02), rng.uniform(0.9, 1.02), rng.uniform(0.92, 1.03)),
            apex_z=rng.uniform(88, 98),
            dome_z=rng.uniform(-86, -70),
            fat_mm=rng.uniform(5, 18),
            heart=rng.uniform(0.92, 1.08),
            breasts=bool(rng.random() < 0.5),
            contrast=bool(rng.random() < 0.5),
        )

    def blood_hu(self, enhanced: float) -> float:
        """Return the density of blood: `enhanced` HU with contrast medium, else 45."""
        return enhanced if self.contrast else 45.0

    def reference(self, x: Points, y: Points, z: Points) -> tuple[Points, Points, Points]:
        """Transform world points into the frame of the tables."""
        a, b, c = (np.float32(s) for s in self.scale)
        return x / a, y / b, z / c

    def world(self, points: Any) -> NDArray[np.float64]:
        """Transform points (…, 3) of the tables' frame into the world."""
        return np.asarray(points, float) * self.scale

    def body(self, x: Points, y: Points, z: Points) -> Points:
        """Return the distance from the skin."""
        x, y, z = self.reference(x, y, z)
        centre = profile(BODY_CENTRE_Y, z)
        extra = 0.55 * (self.fat_mm - 10)
        half_width = profile(BODY_HALF_WIDTH, z) + extra
        half_depth = profile(BODY_HALF_DEPTH, z) + extra
        distance = ellipse(x, y - centre, half_width, half_depth, 2.35)
        furrow = 7 * np.exp(-((x / 14) ** 2)) * (y > 0)
        distance = distance + furrow.astype(np.float32)
        for breast in self.breast_shapes():
            distance = smooth_min(distance, breast.distance(x, y, z), 14)
        return distance

    def breast_shapes(self) -> list[Ellipsoid]:
        """Return the breasts, if there are any, in the frame of the tables."""
        sides = (RIGHT, LEFT) if self.breasts else ()
        return [ellipsoid((side * 72, -98, -18), (52, 34, 48)) for side in sides]

    def cage(self, x: Points, y: Points, z: Points) -> Points:
        """Return the distance from the inner face of the rib cage and the abdominal wall."""
        x, y, z = self.reference(x, y, z)
        half_width, half_depth = profile(CAGE_HALF_WIDTH, z), profile(CAGE_HALF_DEPTH, z)
        return ellipse(x, y - profile(CAGE_CENTRE_Y, z), half_width, half_depth, 2.25)

    def diaphragm(self, x: Points, y: Points, z: Points) -> Points:
        """Return the distance above the diaphragm (negative in the abdomen)."""
        x, y, z = self.reference(x, y, z)
        along = (y + 18) / np.where(y > -18, 98, 95).astype(np.float32)
        heights, slopes = [], []
        for side, top in ((RIGHT, self.dome_z), (LEFT, self.dome_z - 13)):
            lateral = side * x - 68
            across = lateral / np.where(lateral > 0, 62, 85).astype(np.float32)
            square = across * across + along * along
            root = np.sqrt(np.sqrt(square))
            heights.append(np.float32(top) - 50 * square * root)
            slopes.append(1.8 * square / np.maximum(root, 0.1))
        height = np.maximum(*heights)
        slope = np.where(heights[0] > heights[1], *slopes)
        return (z - height) / np.sqrt(1 + slope * slope)

    def heart_shape(self) -> Ellipsoid:
        """Return the heart in the frame of the tables."""
        a, b, c = (self.heart * r for r in (66, 45, 47))
        return ellipsoid((20, -34, -58), (a, b, c), (0.78, -0.42, -0.46))

    def mediastinum(self, x: Points, y: Points, z: Points) -> Points:
        """Return the distance from the mediastinal pleura and the spine beside it."""
        x, y, z = self.reference(x, y, z)
        spine = profile(SPINE_CENTRE_Y, z)
        column = ellipse(x, y - spine - 18, 30, 36, 2.5)
        depth = np.interp(y, (-100, -75, -50, -20, 30, 70), (2.5, 4, 13, 26, 24, 16))
        level = np.interp(z, (-120, -60, -25, 10, 40, 80, 120), (0.8, 1.0, 1.25, 1.1, 1.0, 0.85, 1))
        middle = np.abs(x - 2) - depth.astype(np.float32) * level.astype(np.float32)
        distance = smooth_min(column, middle, 8)
        aorta = ellipse(x - 23, y - (spine - 22), 15, 15)
        arch = ellipsoid((17, -2, 24), (19, 42, 17)).distance(x, y, z)
        heart = self.heart_shape().distance(x, y, z) - 4
        aorta = np.where(z < 25, aorta, 20).astype(np.float32)
        for part in (aorta, arch, heart):
            distance = smooth_min(distance, part, 7)
        return distance

    def lungs(self, x: Points, y: Points, z: Points) -> dict[int, Points]:
        """Return the distance from the pleura of the right and of the left lung."""
        walls = self.cage(x, y, z), self.mediastinum(x, y, z), self.diaphragm(x, y, z)
        return self.lungs_between(*walls, x, y, z)

    def lungs_between(
        self, cage: Points, mediastinum: Points, diaphragm: Points, x: Points, y: Points, z: Points
    ) -> dict[int, Points]:
        """Return what `lungs` does, from the distances of their walls at the same points."""
        rounding = np.where(y > 20, 16, 4).astype(np.float32)
        walls = np.maximum(-smooth_min(-cage, mediastinum, rounding), -diaphragm)
        xr, yr, zr = self.reference(x, y, z)
        distances = {}
        for side in (RIGHT, LEFT):
            top = np.float32(self.apex_z - (4 if side == LEFT else 0))
            square = ((xr - side * 52) / 56) ** 2 + ((yr - 14) / 78) ** 2
            apex = (zr - top + 50 * square) / np.sqrt(1 + 3 * square)
            distances[side] = np.maximum(np.maximum(walls, apex), -side * x)
        return distances
