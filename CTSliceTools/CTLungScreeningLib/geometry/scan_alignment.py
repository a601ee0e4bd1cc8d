"""Which levels of two scans show the same part of the body."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ScanAlignment:
    """Which levels of two scans are the same.

    Attributes:
        z_mm: LPS z of the one scan in mm, increasing, (n,).
        other_mm: the same levels of the other scan, (n,).
    """

    z_mm: Floats
    other_mm: Floats

    def z_at(self, other_mm: float) -> float:
        """Give the LPS z of the one scan for that of the other, both in mm."""
        return _interpolate(other_mm, self.other_mm, self.z_mm)

    def other_at(self, z_mm: float) -> float:
        """Give the LPS z of the other scan for that of the one, both in mm; undoes `z_at`."""
        return _interpolate(z_mm, self.z_mm, self.other_mm)


def _interpolate(x: float, xs: Floats, ys: Floats) -> float:
    """Interpolate; beyond the ends go on by as much in y as in x."""
    inside = float(np.clip(x, xs[0], xs[-1]))
    return float(np.interp(inside, xs, ys)) + x - inside
