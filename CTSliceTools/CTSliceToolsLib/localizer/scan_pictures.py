"""Slice images of a scan: those that the network judges, and those that show the anatomy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.geometry import MAX_TILT_DEGREES
from CTLungScreeningLib.reading.ct_scan import SliceSource
from CTLungScreeningLib.reading.slice_stack import is_axial
from CTSliceToolsLib.localizer.anchors import Anatomy, examine
from CTSliceToolsLib.slice_image import slice_images, stored_slice_image

_SAME_MM = 0.01
"""Levels closer than this are the same."""

_INSIDE = 0.75
"""Least share of an axial slice of a tilted scan that lies inside it, if it lies mostly inside."""

_ENOUGH_MM = 40
"""Slices over less show too little to say that they are of no body."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ScanPictures:
    """The images of a scan.

    Attributes:
        pictures: what the network judges, uint8 (n, `SIZE`, `SIZE`), from feet to head: axial
            slices, or the stored ones of a tilted axial stack, as in training.
        z_mm: LPS z of their centres in mm, (n,).
        axial: axial slices, uint8 (m, `SIZE`, `SIZE`).
        axial_z_mm: LPS z of these in mm, (m,).
        whole: which of them lie mostly inside the scan, (m,).
    """

    pictures: NDArray[np.uint8]
    z_mm: Floats
    axial: NDArray[np.uint8]
    axial_z_mm: Floats
    whole: NDArray[np.bool_]

    @classmethod
    def of(cls, image: sitk.Image, slices: Sequence[SliceSource] = ()) -> "ScanPictures":
        """Make the images of a scan in HU, any orientation; `slices` as of `CTScan`."""
        z_mm, _ = stored_slices(image, slices)
        axial, axial_z = slice_images(image)
        # Beyond them, axial slices of a scan that lies askew show but a corner of it.
        inside = (axial_z > z_mm[0] - _SAME_MM) & (axial_z < z_mm[-1] + _SAME_MM)
        axial, axial_z = axial[inside], axial_z[inside]
        if not _is_tilted_stack(image):
            return cls(axial, axial_z, axial, axial_z, np.ones(len(axial), bool))
        spacing, direction = image.GetSpacing()[:2], np.reshape(image.GetDirection(), (3, 3))
        hu = [_stored_hu(image, k, slices) for k in range(image.GetDepth())]
        pictures = np.stack([stored_slice_image(one, direction[:, :2].T, spacing) for one in hu])
        size_mm = np.multiply(hu[0].shape[::-1], spacing)
        margin = (_INSIDE - 0.5) * np.abs(direction[2, :2]) @ size_mm
        whole = (axial_z >= z_mm[0] + margin) & (axial_z <= z_mm[-1] - margin)
        upward = direction[2, 2] > 0
        return cls(pictures[:: 1 if upward else -1], z_mm, axial, axial_z, whole)

    def anatomies(self) -> Iterator[Anatomy]:
        """Examine all axial slices, then those that lie mostly inside, if enough do.

        What a slice lacks may look like anatomy; but of a head in a wide picture, slices that lie
        partly outside show it whole.
        """
        yield examine(self.axial, self.axial_z_mm)
        if self.whole.all() or not self.whole.any():
            return
        z_mm = self.axial_z_mm[self.whole]
        if np.ptp(z_mm) >= _ENOUGH_MM:
            yield examine(self.axial[self.whole], z_mm)


def stored_slices(
    image: sitk.Image, slices: Sequence[SliceSource] = ()
) -> tuple[Floats, Sequence[SliceSource | None]]:
    """LPS z of the centres of the stored slices from feet to head, and where each came from."""
    across = np.reshape(image.GetDirection(), (3, 3))[2]
    axis = int(np.abs(across).argmax())
    count = image.GetSize()[axis]
    middle = (np.array(image.GetSize()) - 1) / 2
    centre = image.TransformContinuousIndexToPhysicalPoint(middle.tolist())[2]
    step = across[axis] * image.GetSpacing()[axis]
    z_mm = centre + step * (np.arange(count) - middle[axis])
    sources: Sequence[SliceSource | None] = (None,) * count
    if axis == 2 and len(slices) == count:
        sources = slices
        centres = [one.centre for one in slices]
        if None not in centres:  # a tilted gantry moves them in the image
            z_mm = np.array(centres, float)[:, 2]
    return (z_mm, sources) if step > 0 else (z_mm[::-1], sources[::-1])


def _is_tilted_stack(image: sitk.Image) -> bool:
    """Whether the slices (k) of an image are axial, but tilted so far that it is resampled."""
    normal = np.reshape(image.GetDirection(), (3, 3))[:, 2]
    return is_axial(normal) and abs(normal[2]) < np.cos(np.radians(MAX_TILT_DEGREES))


def _stored_hu(image: sitk.Image, k: int, slices: Sequence[SliceSource]) -> NDArray[np.generic]:
    """Slice k without the air on one side by which `read_ct` moved it to where it lies."""
    hu: NDArray[np.generic] = sitk.GetArrayViewFromImage(image)[k]
    centre = slices[k].centre if len(slices) == image.GetDepth() else None
    if centre is None:
        return hu
    x, y, _ = image.TransformPhysicalPointToContinuousIndex(centre)
    rows, columns = (
        slice(max(0, round(2 * at) + 1 - size), min(size, round(2 * at) + 1))
        for at, size in zip((y, x), hu.shape, strict=True)
    )
    return hu[rows, columns]
