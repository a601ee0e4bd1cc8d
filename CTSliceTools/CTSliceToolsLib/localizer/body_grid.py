"""The slice images of a scan as a coarse volume, on which anatomy is searched for."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.hu import SLICE_WINDOW
from CTSliceToolsLib.slice_image import PIXEL_MM

Mask = NDArray[np.bool_]

IN_PLANE = ndimage.generate_binary_structure(3, 1)
IN_PLANE[[0, 2]] = False
"""Neighbours within a slice."""

COARSE_MM = 2 * PIXEL_MM
PIXEL_CM2 = COARSE_MM**2 / 100

LEAST_STEP_MM = 2.0
"""Thinner slices are averaged."""


def grey(hu: float) -> int:
    """Return the grey value of slice images for a density in HU."""
    return round(255 * (hu - SLICE_WINDOW.low) / SLICE_WINDOW.width)


TISSUE = grey(-500)
"""Half-way between air, in lungs as well as around the body, and tissue."""

GAS = grey(-955)
"""The median of a lung, even of one with emphysema, is denser; gas in stomach and bowel is not."""

LEAST_LUNG_ML = 150.0
"""Pockets of gas are smaller."""


@dataclass(frozen=True)
class Anchor:
    """The height of a landmark implied by a structure in the scan.

    Attributes:
        name: what was found.
        landmark: name of the landmark.
        z_mm: its LPS z in mm.
        sd_mm: standard deviation of its error in mm, as long as what was found is what it is taken
            for.
    """

    name: str
    landmark: str
    z_mm: float
    sd_mm: float


@dataclass(frozen=True)
class BodyGrid:
    """Slice images from feet to head.

    Attributes:
        fine: grey values, (z, y, x) on `PIXEL_MM`; x grows to the patient's left, y to the back.
        z_mm: LPS z of the slices in mm, increasing, (z,).
        step_mm: mean distance of the slices.
    """

    fine: NDArray[np.uint8]
    z_mm: NDArray[np.float64]
    step_mm: float

    @classmethod
    def of(cls, pictures: NDArray[np.uint8], z_mm: NDArray[np.float64]) -> "BodyGrid":
        """Sort at least two slice images and average thin ones."""
        order = np.argsort(z_mm)
        pictures, z_mm = pictures[order], z_mm[order]
        step = float(np.ptp(z_mm)) / (len(z_mm) - 1)
        count = max(1, min(len(z_mm) // 2, round(LEAST_STEP_MM / step)))
        if count > 1:
            starts = range(0, len(z_mm) - count + 1, count)
            pictures = np.stack([pictures[k : k + count].mean(0) for k in starts]).astype(np.uint8)
            z_mm = np.array([z_mm[k : k + count].mean() for k in starts])
        return cls(pictures, z_mm, step * count)

    @cached_property
    def coarse(self) -> NDArray[np.uint8]:
        """Means of 2 × 2 pixels, (z, y, x) on `COARSE_MM`."""
        total = self.fine[:, ::2, ::2].astype(np.uint16)
        for y, x in ((0, 1), (1, 0), (1, 1)):
            total += self.fine[:, y::2, x::2]
        return (total // 4).astype(np.uint8)

    @cached_property
    def _parts(self) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Regions of tissue in the slices, their sizes, and those of each slice by size, (z, 2).

        Label 0 stands for none.
        """
        tissue = ndimage.binary_opening(self.coarse > TISSUE, IN_PLANE)
        regions, count = ndimage.label(tissue, IN_PLANE)
        size = component_sizes(regions, count + 1)
        largest = np.zeros((len(regions), 2), int)
        for one, two in zip(regions, largest, strict=True):
            here = np.unique(one)
            order = here[np.argsort(-size[here], kind="stable")]
            two[: len(order)] = order[:2]
        return regions, size, largest

    @cached_property
    def body(self) -> Mask:
        """The body with all that it encloses: each slice's largest region of tissue, filled."""
        regions, size, largest = self._parts
        chosen = np.zeros(len(size), bool)
        chosen[largest[:, 0]] = True
        chosen[0] = False
        body = ndimage.binary_dilation(chosen[regions], IN_PLANE, mask=self.coarse > TISSUE)
        return body | enclosed(~body)

    @property
    def second_share(self) -> NDArray[np.float64]:
        """Size of the second largest region of each slice as a share of the largest, (z,)."""
        _, size, largest = self._parts
        return size[largest[:, 1]] / np.maximum(size[largest[:, 0]], 1)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel of `coarse`."""
        return PIXEL_CM2 * self.step_mm / 10


@dataclass(frozen=True)
class Lungs:
    """Both lungs, with the trachea, as a mask (z, y, x) on `COARSE_MM`; the column between them."""

    mask: Mask
    middle: float


def find_lungs(body: BodyGrid) -> Lungs | None:
    """Find the lungs as the large pieces of air within the body that are not mere gas."""
    air = (body.coarse <= TISSUE) & body.body
    pieces, count = ndimage.label(air)
    size = component_sizes(pieces, count + 1)
    inner = ndimage.binary_erosion(air, IN_PLANE)
    is_lung = size * body.voxel_ml > LEAST_LUNG_ML
    for piece in np.flatnonzero(is_lung):
        density = body.coarse[inner & (pieces == piece)]
        is_lung[piece] = density.size > 0 and np.median(density) > GAS
    lungs = is_lung[pieces]
    if not lungs.any():
        return None
    weight = lungs.sum((0, 1))
    return Lungs(lungs, float(weight @ np.arange(len(weight)) / weight.sum()))


def component_sizes(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Count the voxels of the labels below `count`; label 0 counts as empty."""
    size = np.bincount(labels.ravel(), minlength=count)
    size[0] = 0
    return size


def enclosed(mask: Mask) -> Mask:
    """Return the parts of a mask that do not reach the edge of their slice."""
    regions, count = ndimage.label(mask, IN_PLANE)
    inside = np.ones(count + 1, bool)
    for edge in (regions[:, 0], regions[:, -1], regions[:, :, 0], regions[:, :, -1]):
        inside[edge.ravel()] = False
    inside[0] = False
    return inside[regions]
