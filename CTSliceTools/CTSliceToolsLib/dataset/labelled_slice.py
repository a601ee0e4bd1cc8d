"""A slice image with its normalized location, as an `.npz` file that networks are trained on."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import new_file

PIXELS, LOCATION, SERIES = "pixels", "norm_loc", "series_instance_UID"
"""The tutorial's keys (Building a CT Slice Localizer With Keras, 2019)."""

_DAMAGED = (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, NotImplementedError)
"""What NumPy raises on a file that is no `.npz`, is damaged or holds Python objects."""


@dataclass(frozen=True)
class LabelledSlice:
    """One slice to learn from.

    Attributes:
        pixels: uint8, (256, 256) as of `slice_image.slice_image`, or (256, 256, 3), three times
            the same.
        location: normalized.
        series_instance_uid: of the series it is from.
    """

    pixels: NDArray[np.uint8]
    location: float
    series_instance_uid: str

    def write(self, file: Path) -> None:
        """Write it as a new file, not compressed, as training reads it many times.

        Raises:
            InputError: if the file exists or cannot be written.
        """
        content: dict[str, Any] = {
            PIXELS: self.pixels,
            LOCATION: np.float64(self.location),
            SERIES: np.str_(self.series_instance_uid),
        }
        try:
            with new_file(file) as temporary:
                np.savez(temporary, **content)
        except OSError as error:
            raise InputError(
                f"{file} cannot be written ({error.strerror}): make room or choose another folder."
            ) from error


def read_labelled_slice(file: Path) -> LabelledSlice:
    """Read a slice that `LabelledSlice.write` has written.

    Raises:
        InputError: if the file is missing, damaged or anything else.
    """
    pixels, location, series = _read(file, PIXELS, LOCATION, SERIES)
    if pixels.dtype != np.uint8 or location.shape or series.shape:
        raise InputError(f"{file} is no slice that convert makes: move it away.")
    return LabelledSlice(pixels, float(location), str(series))


def read_series_uid(file: Path) -> str:
    """Read only which series a slice is from.

    Raises:
        InputError: see `read_labelled_slice`.
    """
    (series,) = _read(file, SERIES)
    return str(series)


def _read(file: Path, *keys: str) -> list[NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as content:
            return [content[key] for key in keys]
    except (*_DAMAGED, AttributeError, TypeError) as error:
        raise InputError(
            f"{file} is damaged or no slice that convert makes: move it away and make it again."
        ) from error
