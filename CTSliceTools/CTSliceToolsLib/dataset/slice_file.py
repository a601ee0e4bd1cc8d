"""A DICOM file that holds one axial CT slice: its header, and the picture that networks see."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.dicom_frames import Frame
from CTLungScreeningLib.reading.dicom_instances import looks_like_dicom, read_instance
from CTLungScreeningLib.reading.dicom_pixels import read_hu
from CTLungScreeningLib.reading.slice_stack import is_axial
from CTSliceToolsLib.slice_image import slice_images


@dataclass(frozen=True)
class SliceFile:
    """One axial slice and the series it belongs to."""

    series_instance_uid: str
    frame: Frame

    @cached_property
    def z_mm(self) -> float:
        """LPS z of the slice's centre in mm.

        That of Image Position (Patient) if the slice is level; if the gantry was tilted, another
        by a constant of the series, since the position is that of a corner.
        """
        rows, columns = self.frame.shape
        between_rows, between_columns = self.frame.spacing
        along_row, along_column = self.frame.orientation[:, 2]
        return float(
            self.frame.position[2]
            + (columns - 1) / 2 * between_columns * along_row
            + (rows - 1) / 2 * between_rows * along_column
        )

    def picture(self) -> NDArray[np.uint8]:
        """Read the pixels and make the slice's picture, see `slice_image.slice_image`.

        Like the pictures of a whole scan (`slice_images`) it shows anterior and the patient's
        right first, however the file is turned. A slice of a tilted gantry stays the slice it is.

        Raises:
            InputError: if the pixels cannot be read.
        """
        row, column = self.frame.orientation
        across = row[:2] / np.linalg.norm(row[:2])
        down = np.array([-across[1], across[0]]) * np.sign(np.cross(row, column)[2])
        between_rows, between_columns = self.frame.spacing
        image = sitk.GetImageFromArray(read_hu([self.frame]))
        image.SetSpacing((between_columns, between_rows, 1))
        image.SetDirection((across[0], down[0], 0, across[1], down[1], 0, 0, 0, 1))
        return slice_images(image)[0][0]


def read_slice_file(file: Path) -> SliceFile:
    """Read the header of a DICOM file that holds one axial CT slice.

    Raises:
        InputError: if it is missing, damaged or holds anything else.
    """
    if not file.is_file():
        raise InputError(f"{file} does not exist: give a file of the series.")
    if not looks_like_dicom(file):
        raise InputError(f"{file} is no DICOM file, or damaged: get it again.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        instance = read_instance(file)
    if instance is None:
        raise InputError(f"{file} is a DICOMDIR, not a slice: choose a slice.")
    if instance.modality != "CT":
        raise InputError(f"{file} is not CT but {instance.modality or 'of no modality'}.")
    if instance.problem:
        raise InputError(instance.problem)
    if not instance.frames:
        raise InputError(f"{file} is a localizer (scout) or a picture, not a slice.")
    if len(instance.frames) > 1:
        raise InputError(
            f"{file} holds {len(instance.frames)} slices: "
            "export the series as one file for each slice."
        )
    (frame,) = instance.frames
    if not is_axial(np.cross(*frame.orientation)):
        raise InputError(f"{file} is not an axial slice.")
    return SliceFile(instance.series.series_instance_uid, frame)


def dicom_files(folder: Path) -> Iterator[Path]:
    """Yield the DICOM files that lie in a folder itself, by name."""
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name.upper() != "DICOMDIR" and looks_like_dicom(file):
            yield file


def read_slice_files(folder: Path) -> tuple[dict[str, SliceFile], tuple[str, ...]]:
    """Read the headers of the slices in a folder.

    Returns:
        The slices by file name, and a sentence for each other DICOM file.

    Raises:
        InputError: if it is no folder or holds no slice.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder of a DICOM series.")
    slices, others = {}, []
    for file in dicom_files(folder):
        try:
            slices[file.name] = read_slice_file(file)
        except InputError as other:
            others.append(str(other))
    if not slices:
        more = f" {others[0]}" if others else ""
        raise InputError(f"{folder} holds no CT slice: give the folder of a DICOM series.{more}")
    return slices, tuple(others)
