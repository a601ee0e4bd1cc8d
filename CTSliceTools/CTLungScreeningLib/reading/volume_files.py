"""CT volumes in one file: MetaImage, NRRD and NIfTI."""

import gzip
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.hu import padding_to_air
from CTLungScreeningLib.reading.slice_stack import MIN_SLICES

VOLUME_SUFFIXES = (".mhd", ".mha", ".nrrd", ".nhdr", ".nii", ".nii.gz")

_HIGHEST_MINIMUM_HU = -500
"""Every CT shows air somewhere; a volume whose lowest value is above this is not CT in HU."""

_HU_PIXELS = {
    sitk.sitkInt16,
    sitk.sitkUInt16,
    sitk.sitkInt32,
    sitk.sitkUInt32,
    sitk.sitkInt64,
    sitk.sitkUInt64,
    sitk.sitkFloat32,
    sitk.sitkFloat64,
}


def read_volume_file(file: Path) -> tuple[sitk.Image, tuple[str, ...]]:
    """Read a CT volume from a MetaImage, NRRD or NIfTI file.

    Returns:
        HU, int16 if all values are whole and fit, else float32, on the file's own grid; and notes.

    Raises:
        InputError: if the file is damaged, cut short, not a 3-D volume, or not CT in HU.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
        _check_form(reader, file)
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip().rstrip(".")
        raise InputError(
            f"{file} cannot be read ({reason}): it is damaged, cut short or without its data file; "
            "get it again."
        ) from error
    if file.name.lower().endswith((".nii", ".nii.gz")):
        _check_nifti_length(image, file)
    notes = _orientation_notes(image)
    if image.GetDimension() == 4:
        image = image[:, :, :, 0]
    return to_hu(image, file), notes


def _check_form(reader: sitk.ImageFileReader, file: Path) -> None:
    size = reader.GetSize()
    if len(size) == 4 and size[3] > 1:
        raise InputError(
            f"{file} holds {size[3]} volumes over time: save the one you want as a 3-D file."
        )
    if len(size) not in (3, 4):
        raise InputError(f"{file} has {len(size)} dimensions: give a 3-D CT volume.")
    if reader.GetNumberOfComponents() != 1:
        raise InputError(
            f"{file} has {reader.GetNumberOfComponents()} values a voxel: give a CT volume in HU."
        )
    if min(size[:3]) < MIN_SLICES:
        raise InputError(
            f"{file} is {' × '.join(map(str, size))} voxels: a volume needs at least "
            f"{MIN_SLICES} slices."
        )
    if reader.GetPixelID() not in _HU_PIXELS:
        pixels = sitk.GetPixelIDValueAsString(reader.GetPixelID())
        raise InputError(
            f"{file} holds {pixels}s, too few for HU: it is a picture or a label map; give the CT "
            "itself."
        )


def _check_nifti_length(image: sitk.Image, file: Path) -> None:
    """ITK fills a NIfTI that is cut short with zeros and says nothing."""
    bits, offset = (float(image.GetMetaData(key)) for key in ("bitpix", "vox_offset"))
    expected = int(offset) + image.GetNumberOfPixels() * int(bits) // 8
    if file.suffix.lower() != ".gz":
        complete = file.stat().st_size >= expected
    else:
        complete = _gzip_length(file) == expected % (1 << 32) or _unpacked_length(file) >= expected
    if not complete:
        raise InputError(f"{file} is cut short: get it again.")


def _gzip_length(file: Path) -> int:
    """The unpacked length modulo 2³² that a gzip file of one member states in its last bytes."""
    with file.open("rb") as stream:
        stream.seek(-4, 2)
        return int.from_bytes(stream.read(4), "little")


def _unpacked_length(file: Path) -> int:
    length = 0
    try:
        with gzip.open(file) as stream:
            while block := stream.read(1 << 20):
                length += len(block)
    except (OSError, EOFError):
        return 0
    return length


def _orientation_notes(image: sitk.Image) -> tuple[str, ...]:
    keys = image.GetMetaDataKeys()
    nifti = "qform_code" in keys and "sform_code" in keys
    unknown = (
        all(int(image.GetMetaData(key)) == 0 for key in ("qform_code", "sform_code"))
        if nifti
        else "ITK_InputFilterName" in keys
        and image.GetMetaData("ITK_InputFilterName") == "NrrdImageIO"
        and "NRRD_space" not in keys
    )
    if not unknown:
        return ()
    return ("The file does not say how the patient lies in it; its axes were taken as they are.",)


def to_hu(image: sitk.Image, file: Path) -> sitk.Image:
    """Give a 3-D scalar image as HU, int16 if all values are whole and fit, else float32.

    Args:
        image: the values as they were stored, LPS mm.
        file: where they are from, for messages.

    Raises:
        InputError: if they cannot be a CT in HU, or the axes are not perpendicular.
    """
    geometry = image
    hu = sitk.GetArrayFromImage(image)
    whole = hu.dtype.kind in "iu" or bool((hu == np.rint(hu))[np.isfinite(hu)].all())
    if hu.dtype != np.int16:
        hu = hu.astype(np.float32, copy=False)
    padding_to_air(hu)
    low, high = int(hu.min()), hu.max()
    if low > _HIGHEST_MINIMUM_HU or high <= _HIGHEST_MINIMUM_HU:
        raise InputError(
            f"{file} has values from {low} to {high:g}: that is not CT in HU, where air is about "
            "−1000 and tissue about 0; give the CT itself."
        )
    if whole and high <= np.iinfo(np.int16).max:
        hu = hu.astype(np.int16, copy=False)
    direction = np.reshape(geometry.GetDirection(), (3, 3))
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3):
        raise InputError(f"{file} has axes that are not perpendicular: resample it first.")
    result = sitk.GetImageFromArray(hu)
    result.CopyInformation(geometry)
    return result
