"""A CT volume written as a DICOM CT series."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import new_file
from CTLungScreeningLib.hu import LOWEST_HU

PADDING = -2000
"""Stored value outside the reconstruction circle, as GE scanners write it."""


@dataclass(frozen=True)
class SeriesText:
    """Header of a synthetic series; DICOM dates and person names."""

    patient_name: str = "Phantom^Chest"
    patient_id: str = "PHANTOM"
    description: str = "Chest CT phantom"
    number: int = 1
    date: str = "20200101"


def write_dicom_series(
    image: sitk.Image, folder: Path, text: SeriesText = SeriesText(), circle: bool = True
) -> list[Path]:
    """Write a volume as a series of CT Image Storage files, one per slice.

    UIDs follow from voxels, geometry and `text`, so the same input gives the same files. The names
    of the files say nothing about their order.

    Args:
        image: 3-D, whole HU in −1024…31743; its third axis is the normal of the slices.
        folder: made if missing; nothing in it is overwritten.
        text: what the header says.
        circle: declare and write as padding all pixels outside the circle that fits the slice.

    Returns:
        The files in the order of the slices.

    Raises:
        InputError: if `folder` holds anything already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: choose a new folder for the DICOM series.")
    hu = sitk.GetArrayViewFromImage(image)
    whole = np.clip(hu, LOWEST_HU, LOWEST_HU + 32767).astype(np.int32)
    stored = (whole - LOWEST_HU).astype(np.int16)
    digest = hashlib.sha256(stored)
    digest.update(repr((image.GetOrigin(), image.GetSpacing(), image.GetDirection())).encode())
    key = [digest.hexdigest(), repr(text)]
    header = _series_header(image, text, key)
    names = np.random.default_rng(0).permutation(len(stored)) + 1
    if circle:
        header.PixelPaddingValue = PADDING
        stored[:, ~_inscribed_circle(image)] = PADDING
    files = []
    for k, pixels in enumerate(stored):
        file = folder / f"IM{names[k]:05d}.dcm"
        dataset = _slice(header, image, k, pixels, key)
        with new_file(file) as temporary:
            dataset.save_as(temporary, enforce_file_format=True)
        files.append(file)
    return files


def _series_header(image: sitk.Image, text: SeriesText, key: list[str]) -> Dataset:
    """Return the attributes that all slices share."""
    direction = np.reshape(image.GetDirection(), (3, 3))
    spacing = image.GetSpacing()
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.SOPClassUID = CTImageStorage
    for attribute in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(header, attribute, text.date)
    for attribute in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(header, attribute, "120000")
    header.AccessionNumber = ""
    header.Modality = "CT"
    header.Manufacturer = "CTLungScreening"
    header.ManufacturerModelName = "Phantom"
    header.ReferringPhysicianName = ""
    header.StudyDescription = text.description
    header.SeriesDescription = text.description
    header.PatientName = text.patient_name
    header.PatientID = text.patient_id
    header.PatientBirthDate = ""
    header.PatientSex = ""
    header.PatientPosition = "HFS"
    header.BodyPartExamined = "CHEST"
    header.SliceThickness = _decimal(spacing[2])
    header.KVP = "120"
    header.StudyInstanceUID = generate_uid(entropy_srcs=[*key, "study"])
    header.SeriesInstanceUID = generate_uid(entropy_srcs=[*key, "series"])
    header.FrameOfReferenceUID = generate_uid(entropy_srcs=[*key, "frame of reference"])
    header.StudyID = "1"
    header.SeriesNumber = text.number
    header.AcquisitionNumber = 1
    header.PositionReferenceIndicator = ""
    header.ImageOrientationPatient = [_decimal(v) for v in direction[:, :2].T.ravel()]
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.Columns, header.Rows, _ = image.GetSize()
    header.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
    header.BitsAllocated = 16
    header.BitsStored = 16
    header.HighBit = 15
    header.PixelRepresentation = 1
    header.RescaleIntercept = str(LOWEST_HU)
    header.RescaleSlope = "1"
    header.RescaleType = "HU"
    header.WindowCenter = ["-600", "40"]
    header.WindowWidth = ["1500", "400"]
    return header


def _slice(
    header: Dataset, image: sitk.Image, k: int, pixels: np.ndarray, key: list[str]
) -> Dataset:
    dataset = Dataset(header)
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[*key, str(k)])
    dataset.InstanceNumber = k + 1
    position = image.TransformIndexToPhysicalPoint((0, 0, k))
    dataset.ImagePositionPatient = [_decimal(v) for v in position]
    normal = np.cross(*np.reshape(image.GetDirection(), (3, 3))[:, :2].T)
    dataset.SliceLocation = _decimal(float(normal @ position))
    dataset.PixelData = np.ascontiguousarray(pixels, "<i2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _decimal(value: float) -> DSfloat:
    """Return a decimal string of at most 16 characters."""
    return DSfloat(float(value), auto_format=True)


def _inscribed_circle(image: sitk.Image) -> np.ndarray:
    """Return the pixels (y, x) of a slice within the largest circle in it."""
    (width, height, _), (dx, dy, _) = image.GetSize(), image.GetSpacing()
    x = (np.arange(width) - (width - 1) / 2) * dx
    y = (np.arange(height) - (height - 1) / 2) * dy
    return x**2 + y[:, None] ** 2 <= min(x[-1], y[-1]) ** 2
