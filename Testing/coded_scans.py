"""Scans whose brightness tells where in the body they lie, and the network that reads it.

The network is a real Keras model without training: it takes the mean of the middle of the picture.
So the truth is known for each slice, whatever grid the scan is on.
"""

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray

import dicom_files
from CTLungScreeningLib.hu import AIR_HU, SLICE_WINDOW
from CTLungScreeningLib.model_card import ModelCard, save_model
from CTSliceToolsLib.landmarks import LANDMARKS, LOCATIONS
from CTSliceToolsLib.localizer.prediction import ModelUsed, ScanPrediction, SliceLocation
from CTSliceToolsLib.localizer.scan_fit import fit_scan
from CTSliceToolsLib.slice_image import SIZE

HEIGHTS = np.array([236, 141, 88, -24, -40, -95, -120, -195, -280, -309, -427, -570], float)
"""LPS z in mm of the twelve landmarks of an adult."""

HEIGHT = {landmark.name: z for landmark, z in zip(LANDMARKS, HEIGHTS.tolist(), strict=True)}

HIGHEST_LOCATION = 0.6
"""Shown as white; air is location 0."""

MIDDLE = 4
"""Pixels of the picture's middle that the network looks at."""


def location_at(z_mm: ArrayLike, shift_mm: float = 0) -> NDArray[np.float64]:
    """Location of an adult's slices, who lies `shift_mm` higher than `HEIGHTS`; clipped at ends."""
    return np.interp(np.asarray(z_mm) - shift_mm, HEIGHTS[::-1], LOCATIONS[::-1])


def hu_of(location: ArrayLike) -> NDArray[np.float64]:
    """HU that stand for a location."""
    return SLICE_WINDOW.low + SLICE_WINDOW.width * np.asarray(location) / HIGHEST_LOCATION


def coded_volume(grid: sitk.Image, shift_mm: float = 0) -> sitk.Image:
    """Fill a grid, wherever it lies, with an adult's slices; its left is bone, one corner air."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.GetSize()), indexing="ij"), axis=-1)
    direction = np.reshape(grid.GetDirection(), (3, 3))
    left, _, height = np.moveaxis(index * grid.GetSpacing() @ direction.T + grid.GetOrigin(), -1, 0)
    hu = np.rint(hu_of(location_at(height, shift_mm)))
    hu[left > np.quantile(left, 0.9)] = 400
    hu = hu.T.astype(np.int16)
    hu[:, 0, 0] = AIR_HU
    image = sitk.GetImageFromArray(hu)
    image.CopyInformation(grid)
    return image


def upright(low: float = -340, high: float = -10, step: float = 2.5) -> sitk.Image:
    """Make the grid of an axial scan of few voxels from LPS z `low` to `high` in mm."""
    grid = sitk.Image([12, 10, round((high - low) / step) + 1], sitk.sitkInt16)
    grid.SetSpacing((20.0, 20.0, step))
    grid.SetOrigin((-110.0, -90.0, low))
    return grid


def coded_prediction(grid: sitk.Image, shift_mm: float = 0) -> ScanPrediction:
    """Make the prediction of an axial grid's `coded_volume`, without the network."""
    z_mm = grid.GetOrigin()[2] + np.arange(grid.GetDepth()) * grid.GetSpacing()[2]
    raw = location_at(z_mm, shift_mm)
    fit = fit_scan(z_mm, raw)
    slices = tuple(
        SliceLocation(k, z_mm[k], raw[k], float(fit.location_at(z_mm[k]))) for k in range(len(raw))
    )
    return ScanPrediction(Path("scan.nrrd"), None, slices, fit, ModelUsed("made up"))


def write_coded_series(
    folder: Path, low: float = -340, high: float = -10, step: float = 3, **options: Any
) -> list[Path]:
    """Write a coded DICOM series from LPS z `low` to `high` in mm; options of `write_series`.

    As in `coded_volume`, its left is bone and one corner air.
    """
    places = np.arange(low, high + step / 2, step)[:, None] * [0, 0, 1] + [-110, -70, 0]
    more = options.pop("edit", None)

    def edit(image: Any, k: int) -> None:
        hu = np.full(dicom_files.SHAPE[1:], hu_of(location_at(places[k, 2])))
        hu[:, -1] = 400
        hu[0, 0] = AIR_HU
        dicom_files.set_stored(image, np.rint(hu + 1024))
        image.PixelSpacing = [20.0, 20.0]
        if more:
            more(image, k)

    return dicom_files.write_series(folder, places=places, edit=edit, **options)


def save_reader(file: Path, name: str = "reader") -> Path:
    """Save the network that reads the brightness, as a localizer."""
    from CTLungScreeningLib.keras_loader import keras

    inputs = keras.Input((SIZE, SIZE, 1))
    x = keras.layers.Cropping2D((SIZE - MIDDLE) // 2)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Rescaling(HIGHEST_LOCATION / 255)(x)
    save_model(keras.Model(inputs, outputs), ModelCard(name, "a test", "location", {}), file)
    return file
