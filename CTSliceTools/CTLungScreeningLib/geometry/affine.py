"""Where the voxels of an image lie."""

from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""4×4, and its own inverse."""


def ijk_to_lps(image: sitk.Image) -> NDArray[np.float64]:
    """Give the 4×4 matrix from voxel indices (x, y, z) of a 3-D image to LPS mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return matrix


def voxels_to_lps(image: sitk.Image, voxels: NDArray[Any]) -> NDArray[np.float64]:
    """Bring voxel indices (n, 3) along (z, y, x), also between voxels, to places in LPS mm."""
    matrix = ijk_to_lps(image)
    return matrix[:3, 3] + voxels[:, ::-1] @ matrix[:3, :3].T
