"""Cut cubes around candidates, the input of the classifier."""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.hu import LUNG_CONTENT_WINDOW
from LungNoduleSegLib.network.preparation import average_slabs

CUBE = (16, 36, 36)
"""Samples along z, y and x of what the classifier sees."""

STEP_MM = (2.0, 1.0, 1.0)
"""Between samples along z, y and x."""

SLAB_MM = 2.5
"""Slices thinner than this are averaged to about this thickness first."""


def sampled_slices(hu: sitk.Image) -> sitk.Image:
    """Average an axial HU image to the thickness that cubes are cut from, float32."""
    return average_slabs(sitk.Cast(hu, sitk.sitkFloat32), SLAB_MM)


def cut_cubes(
    slices: sitk.Image,
    centres: NDArray[np.float64],
    shape: tuple[int, int, int] = CUBE,
    scale: float = 1.0,
) -> NDArray[np.uint8]:
    """Sample a cube along the axes of the image around each centre.

    Args:
        slices: of `sampled_slices`.
        centres: (n, 3) LPS mm.
        shape: samples along z, y and x.
        scale: of the steps between samples; above 1 everything looks smaller.

    Returns:
        (n, *shape), `LUNG_CONTENT_WINDOW` as 0…255. Beyond the image its rim goes on.
    """
    array = sitk.GetArrayViewFromImage(slices)
    offsets = [
        (np.arange(n) - (n - 1) / 2) * step * scale / spacing
        for n, step, spacing in zip(shape, STEP_MM, slices.GetSpacing()[::-1], strict=True)
    ]
    cubes = np.empty((len(centres), *shape), np.uint8)
    for cube, centre in zip(cubes, centres, strict=True):
        middle = slices.TransformPhysicalPointToContinuousIndex(centre.tolist())[::-1]
        grid = [axis + place for axis, place in zip(offsets, middle, strict=True)]
        low = [
            int(np.clip(np.floor(g[0]), 0, n - 1)) for g, n in zip(grid, array.shape, strict=True)
        ]
        high = [
            int(np.clip(np.ceil(g[-1]) + 1, k + 1, n))
            for g, k, n in zip(grid, low, array.shape, strict=True)
        ]
        box = array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        places = np.meshgrid(
            *(axis - k for axis, k in zip(grid, low, strict=True)), indexing="ij", copy=False
        )
        values = ndimage.map_coordinates(box, places, order=1, mode="nearest")
        cube[:] = LUNG_CONTENT_WINDOW.to_uint8(values)
    return cubes
