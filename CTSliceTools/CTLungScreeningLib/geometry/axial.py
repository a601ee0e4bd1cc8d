"""Any volume seen as an axial LPS one, and the way back to the grid it came on."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

MAX_TILT_DEGREES = 5.0
"""Axes within this angle of the patient's are worked on as they are; beyond it, resampled."""


@dataclass(frozen=True)
class AxialView:
    """A volume whose array runs inferior→superior, anterior→posterior, right→left.

    Attributes:
        image: the axial volume. Its voxels are those of the input, re-ordered, where the input's
            axes lie within `MAX_TILT_DEGREES` of the patient's; else it is resampled linearly.
        original: the input, whose grid `restore` returns to.
        resampled: whether voxels were interpolated.
    """

    image: sitk.Image
    original: sitk.Image
    resampled: bool

    @classmethod
    def of(cls, image: sitk.Image, outside: float) -> "AxialView":
        """View `image` (3-D, LPS mm) axially; `outside` fills what resampling adds."""
        oriented = _oriented(image, "LPS")
        direction = np.reshape(oriented.GetDirection(), (3, 3))
        tilt = np.degrees(np.arccos(np.clip(np.diag(direction), -1, 1))).max()
        if tilt <= MAX_TILT_DEGREES:
            return cls(oriented, image, resampled=False)
        return cls(_resample_axis_aligned(oriented, outside), image, resampled=True)

    def restore(self, result: sitk.Image) -> sitk.Image:
        """Bring a result back to the input's grid, nearest neighbour, 0 where it says nothing.

        `result` lies on the grid of `image` or on a box cropped from it (`RegionOfInterest`).
        """
        if self.resampled:
            return sitk.Resample(
                result, self.original, sitk.Transform(), sitk.sitkNearestNeighbor, 0
            )
        if result.GetSize() != self.image.GetSize():
            index = self.image.TransformPhysicalPointToIndex(result.GetOrigin())
            full = sitk.Image(self.image.GetSize(), result.GetPixelID())
            full.CopyInformation(self.image)
            result = sitk.Paste(full, result, result.GetSize(), destinationIndex=index)
        restored = sitk.Image(_oriented(result, _orientation(self.original)))
        restored.CopyInformation(self.original)
        return restored


def _orientation(image: sitk.Image) -> str:
    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())


def _oriented(image: sitk.Image, orientation: str) -> sitk.Image:
    """Re-order the voxels, without a copy where they already run that way."""
    return image if _orientation(image) == orientation else sitk.DICOMOrient(image, orientation)


def _resample_axis_aligned(image: sitk.Image, outside: float) -> sitk.Image:
    """Resample onto the axis-aligned box around `image`, keeping its spacing."""
    last = np.array(image.GetSize()) - 1
    corners = [
        image.TransformContinuousIndexToPhysicalPoint((np.array(end) * last).astype(float).tolist())
        for end in np.ndindex(2, 2, 2)
    ]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    spacing = np.array(image.GetSpacing())
    size = np.ceil((high - low) / spacing).astype(int) + 1
    return sitk.Resample(
        image,
        size.tolist(),
        sitk.Transform(),
        sitk.sitkLinear,
        low.tolist(),
        spacing.tolist(),
        np.eye(3).ravel().tolist(),
        outside,
        image.GetPixelID(),
    )
