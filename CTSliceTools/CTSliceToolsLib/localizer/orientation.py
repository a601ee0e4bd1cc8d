"""Whether the anatomy of a scan lies as its header says."""

import SimpleITK as sitk

from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.geometry import AxialView
from CTLungScreeningLib.hu import AIR_HU
from CTSliceToolsLib.localizer.anchors import MIRRORED, is_mirrored
from CTSliceToolsLib.localizer.body_grid import BodyGrid
from CTSliceToolsLib.localizer.prediction import DEFAULT_MODEL, open_model, predict_locations
from CTSliceToolsLib.localizer.scan_fit import UPSIDE_DOWN, is_upside_down
from CTSliceToolsLib.slice_image import slice_images

STEP_MM = 2.5
"""Thinner slices are skipped: it is enough, and bounds the time."""


def contradictions(image: sitk.Image) -> tuple[str, ...]:
    """Return a sentence for each way in which the anatomy contradicts the axes of a scan.

    The liver lies on the left, or the head below the feet. A scan that shows too little to tell
    contradicts nothing.

    Args:
        image: HU, any orientation.
    """
    axial = AxialView.of(image, AIR_HU).image
    axial = axial[:, :, :: max(1, round(STEP_MM / axial.GetSpacing()[2]))]
    pictures, z_mm = slice_images(axial)
    if len(z_mm) < 2:
        return ()
    raw = predict_locations(pictures, open_model(DEFAULT_MODEL, Device.CPU)[0])
    found = []
    if is_mirrored(BodyGrid.of(pictures, z_mm)):
        found.append(MIRRORED)
    if is_upside_down(z_mm, raw):
        found.append(UPSIDE_DOWN)
    return tuple(found)
