"""A block of lung with balls and tubes drawn into it, blurred as by a scanner.

Positions are (z, y, x) in mm from the middle of the block.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.geometry import image_like

LUNG_HU, TISSUE_HU, AIR_HU = -860, 30, -985
BLUR_MM = 0.6
SIZE_MM = 72.0
Distance = Callable[..., Any]
Point = tuple[float, float, float]
MIDDLE = (0.0, 0.0, 0.0)


def ball(diameter: float, centre: Point = MIDDLE) -> Distance:
    def depth(*position: NDArray[np.float64]) -> Any:
        return diameter / 2 - np.sqrt(
            sum((p - c) ** 2 for p, c in zip(position, centre, strict=True))
        )

    return depth


def tube(diameter: float, length: float) -> Distance:
    """Along x, a little bent."""

    def depth(z: Any, y: Any, x: Any) -> Any:
        radius = np.hypot(z, y - 3 * np.sin(x / 8))
        return np.minimum(diameter / 2 - radius, length / 2 - abs(x))

    return depth


TOUCHING_BALLS = (ball(14), ball(12, (0.0, 13.2, 0.0)), ball(10, (0.0, 3.0, -11.8)))


class Block:
    """The block, to draw in."""

    def __init__(self, slice_mm: float = 1.25, pixel_mm: float = 0.7) -> None:
        self.spacing = np.array([slice_mm, pixel_mm, pixel_mm])
        # Slices show the mean over their thickness.
        self.parts = max(1, round(slice_mm / pixel_mm))
        self.step = self.spacing / (self.parts, 1, 1)
        self.size = np.rint(SIZE_MM / self.spacing).astype(int) * (self.parts, 1, 1)
        places = [
            (np.arange(n) - (n - 1) / 2) * s for n, s in zip(self.size, self.step, strict=True)
        ]
        self.places = np.meshgrid(*places, indexing="ij", sparse=True)
        self.fine = np.full(self.size, LUNG_HU, np.float32)

    def draw(self, depth: Distance, hu: float) -> "Block":
        share = np.clip(depth(*self.places) / self.step[1] + 0.5, 0, 1)
        self.fine = self.fine * (1 - share) + hu * share
        return self

    def hollow(self, diameter: float, wall: float, centre: Point = MIDDLE) -> "Block":
        self.draw(ball(diameter, centre), TISSUE_HU)
        return self.draw(ball(diameter - 2 * wall, centre), AIR_HU)

    def within(self, depth: Distance) -> NDArray[np.bool_]:
        return self._slices(np.broadcast_to(depth(*self.places), self.size)) >= 0

    @property
    def hu(self) -> sitk.Image:
        noise = np.random.default_rng(0).normal(0, 25, self.size // (self.parts, 1, 1))
        blurred = self._slices(ndimage.gaussian_filter(self.fine, BLUR_MM / self.step))
        image = sitk.GetImageFromArray(np.rint(blurred + noise).astype(np.int16))
        image.SetSpacing(self.spacing[::-1].tolist())
        image.SetOrigin((-SIZE_MM / 2, -SIZE_MM / 2, -SIZE_MM / 2))
        return image

    @property
    def lungs(self) -> sitk.Image:
        lungs = np.zeros(self.size // (self.parts, 1, 1), np.uint8)
        lungs[2:-2, 4:-4, 4:-4] = 1
        return image_like(lungs, self.hu)

    def _slices(self, fine: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(fine.reshape(-1, self.parts, *fine.shape[1:]).mean(axis=1))
