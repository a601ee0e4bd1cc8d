"""How tests see that a CT was read where it lies, or refused with one clear sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

import dicom_files as files
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.ct_scan import CTScan

PATIENT_ORIENTATIONS = {
    "head first supine": (1, 0, 0, 0, 1, 0),
    "head first prone": (-1, 0, 0, 0, -1, 0),
    "feet first supine": (-1, 0, 0, 0, 1, 0),
    "feet first prone": (1, 0, 0, 0, -1, 0),
    "head first, right side down": (0, -1, 0, 1, 0, 0),
    "head first, left side down": (0, 1, 0, -1, 0, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
}


def voxel_points(image: sitk.Image) -> np.ndarray:
    """World position of each voxel, (z, y, x, 3), by SimpleITK's geometry."""
    size = image.GetSize()
    index = np.moveaxis(np.indices(size[::-1])[::-1], 0, -1)
    direction = np.reshape(image.GetDirection(), (3, 3))
    return np.array(image.GetOrigin()) + (index * image.GetSpacing()) @ direction.T


def assert_in_place(image: sitk.Image, tolerance: float = 0.51) -> None:
    """Every voxel holds the HU that the test object has where the voxel lies."""
    truth = files.hu_at(voxel_points(image))
    np.testing.assert_allclose(sitk.GetArrayViewFromImage(image), truth, atol=tolerance)


def repairs(scan: CTScan) -> tuple[str, ...]:
    """The notes of a scan without those that the smallness of test objects brings about."""
    small = ("field of view", "unusual for HU")
    return tuple(note for note in scan.notes if not any(words in note for words in small))


def refusal(source: Path, read: Callable[..., object] = read_ct, **kwargs: Any) -> str:
    with pytest.raises(InputError) as error:
        read(source, **kwargs)
    sentence = str(error.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert str(source) in sentence
    return sentence
