"""Hounsfield units: the one place for the windows and for the value of air."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

AIR_HU = -1000
"""Replaces padding outside the scan's field of view."""

LOWEST_HU = -1024
"""The smallest value a 12-bit scanner stores; anything below it is padding, not tissue."""

DENSE_HU = -500
"""Aerated lung lies below it; vessels, wall and most of a solid nodule above."""


@dataclass(frozen=True)
class Window:
    """A display window in HU."""

    level: float
    width: float

    @property
    def low(self) -> float:
        """HU shown as black."""
        return self.level - self.width / 2

    @property
    def high(self) -> float:
        """HU shown as white."""
        return self.level + self.width / 2

    def to_uint8(self, hu: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Map HU of any shape to 0…255, clipping at both ends."""
        unit = (np.asarray(hu, np.float32) - self.low) / self.width
        return (np.clip(unit, 0, 1) * 255 + 0.5).astype(np.uint8)


LUNG_WINDOW = Window(level=-600, width=1500)

SLICE_WINDOW = Window(level=-200, width=1600)
"""Shows lung, soft tissue and bone at once: −1000 to 600 HU, the input of the localizer."""

LUNG_CONTENT_WINDOW = Window(level=-300, width=1400)
"""The contents of a lung: −1000 HU (air) to 400 HU (calcification); the input of networks."""


def padding_to_air(hu: NDArray[Any]) -> None:
    """Make what lies below `LOWEST_HU`, and NaN, air; in place, any shape."""
    hu[~(hu >= LOWEST_HU)] = AIR_HU
