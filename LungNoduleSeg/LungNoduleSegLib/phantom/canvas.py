"""Paint tubes and solids into a CT volume, each within its own block of voxels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from LungNoduleSegLib.lesions import Box

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
        start, stop, _ = within.indices(self.hu.shape[2 - axis])
        index = start + (np.arange((stop - start) * per_voxel) + 0.5) / per_voxel - 0.5
        return (self.origin[axis] + self.spacing[axis] * index).astype(np.float32)

    def box(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> Box | None:
        """Return the voxels between two corners (mm), None where that is off the volume."""
        size = self.hu.shape[::-1]
        start = np.maximum(np.floor((low - self.origin) / self.spacing).astype(int), 0)
        stop = np.minimum(np.ceil((high - self.origin) / self.spacing).astype(int) + 1, size)
        if np.any(start >= stop):
            return None
        x, y, z = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        return z, y, x

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
        radius = np.broadcast_to(radii, len(points))
        for i in range(len(points) - 1):
            painted = self.segment(points[i], points[i + 1], (radius[i], radius[i + 1]))
            if painted is None:
                continue
            box, share = painted
            blend(self.hu[box], share, value)
            if into is not None:
                into[box] |= share >= 0.5
