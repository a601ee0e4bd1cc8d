"""Small real DICOM files for tests: a CT whose every voxel tells where it lies."""

from collections.abc import Callable, Sequence
from pathlib import Path

import gdcm
import numpy as np
import pydicom
from numpy.typing import ArrayLike, NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

AXIAL = (1.0, 0, 0, 0, 1, 0)
SHAPE = (9, 8, 12)
SPACING = (3.0, 1.5, 0.75)
"""Slices, rows, columns, mm."""

GRADIENT = np.array([10.0, 14.0, -18.0])
"""HU for each mm along x, y, z."""

Edit = Callable[[Dataset, int], object]
"""Changes the dataset of slice k before it is written."""


def hu_at(points: ArrayLike) -> NDArray[np.float64]:
    """HU of the test object at world points (..., 3): another value everywhere, linear in each."""
    return np.asarray(points) @ GRADIENT + 600


def positions(
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-5.0, 4, 10),
    step: Sequence[float] | None = None,
    count: int = SHAPE[0],
) -> NDArray[np.float64]:
    """Positions of slices, `step` mm apart, by default along row × column."""
    row, column = np.reshape(orientation, (2, 3))
    along = np.cross(row, column) * SPACING[0] if step is None else np.asarray(step)
    return np.asarray(origin) + np.arange(count)[:, None] * along


def hu_of_slice(orientation: Sequence[float], position: ArrayLike) -> NDArray[np.float64]:
    """What a scanner would see of the test object on a slice (rows, columns)."""
    row, column = np.reshape(orientation, (2, 3))
    y, x = np.indices(SHAPE[1:])[..., None] * 1.0
    return hu_at(np.asarray(position) + x * SPACING[2] * row + y * SPACING[1] * column)


def ct_slice(
    orientation: Sequence[float],
    position: ArrayLike,
    series: str,
    slope: float = 1.0,
    intercept: float = -1024.0,
) -> Dataset:
    """One CT image of the test object, in 16 bits signed."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = generate_uid()
    image.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    image.SeriesInstanceUID = generate_uid(entropy_srcs=[series])
    image.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame of reference"])
    image.SeriesDescription = series
    image.StudyDate, image.StudyTime = "20200102", "101112"
    image.PatientID, image.PatientName = "P1", "Test^Object"
    image.PatientBirthDate, image.PatientSex, image.StudyID = "", "", ""
    image.AccessionNumber, image.ReferringPhysicianName = "", ""
    image.Manufacturer, image.PositionReferenceIndicator = "", ""
    image.Modality, image.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.InstanceNumber, image.SeriesNumber, image.AcquisitionNumber = 1, 1, 1
    image.ImageOrientationPatient = list(orientation)
    image.ImagePositionPatient = [round(float(mm), 6) for mm in np.asarray(position)]
    image.PixelSpacing, image.SliceThickness, image.KVP = list(SPACING[1:]), SPACING[0], 120
    image.RescaleSlope, image.RescaleIntercept, image.RescaleType = slope, intercept, "HU"
    image.Rows, image.Columns = SHAPE[1:]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
    image.PixelRepresentation = 1
    set_stored(image, np.rint((hu_of_slice(orientation, position) - intercept) / slope))
    return image


def set_stored(image: Dataset, stored: ArrayLike) -> None:
    """Put stored values, of any integer type, into an image of 16 bits."""
    values = np.asarray(stored).astype(np.int64) & 0xFFFF
    image.PixelData = values.astype("<u2").tobytes()
    image["PixelData"].VR = "OW"


def write_series(
    folder: Path,
    orientation: Sequence[float] = AXIAL,
    places: ArrayLike | None = None,
    series: str = "chest",
    edit: Edit | None = None,
    name: str = "{k:03}",
    slope: float = 1.0,
    intercept: float = -1024.0,
) -> list[Path]:
    """Write the test object as a CT series; returns the files in the order of `places`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for k, place in enumerate(positions(orientation) if places is None else np.asarray(places)):
        image = ct_slice(orientation, place, series, slope, intercept)
        image.InstanceNumber = k + 1
        if edit:
            edit(image, k)
        files.append(folder / name.format(k=k))
        save(image, files[-1])
    return files


def save(image: Dataset, file: Path) -> None:
    """Write a dataset as a DICOM file."""
    image.save_as(file, enforce_file_format=True, implicit_vr=None)


def write_enhanced(
    file: Path,
    orientation: Sequence[float],
    places: ArrayLike,
    edit: Callable[[Dataset], object] | None = None,
) -> Path:
    """Write the test object as one Enhanced CT file, its frames in the order of `places`.

    Each frame has its own rescale intercept; spacing and orientation are shared.
    """
    image = ct_slice(orientation, np.asarray(places)[0], "enhanced")
    image.SOPClassUID = EnhancedCTImageStorage
    for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"):
        del image[keyword]
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType", "SliceThickness", "KVP"):
        del image[keyword]
    measures = _item(PixelSpacing=list(SPACING[1:]), SliceThickness=SPACING[0])
    plane = _item(ImageOrientationPatient=list(orientation))
    image.SharedFunctionalGroupsSequence = [
        _item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[plane])
    ]
    frames, stored = [], []
    for k, place in enumerate(np.asarray(places)):
        intercept = -1000 - k
        where = _item(ImagePositionPatient=[round(float(mm), 6) for mm in place])
        scale = _item(RescaleSlope=1, RescaleIntercept=intercept, RescaleType="HU")
        content = _item(FrameAcquisitionNumber=1, StackID="1", InStackPositionNumber=k + 1)
        kind = _item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
        frames.append(
            _item(
                PlanePositionSequence=[where],
                PixelValueTransformationSequence=[scale],
                FrameContentSequence=[content],
                CTImageFrameTypeSequence=[kind],
            )
        )
        stored.append(np.rint(hu_of_slice(orientation, place)) - intercept)
    image.PerFrameFunctionalGroupsSequence = frames
    image.NumberOfFrames = len(frames)
    set_stored(image, stored)
    if edit:
        edit(image)
    save(image, file)
    return file


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def compress(file: Path, syntax: UID) -> None:
    """Compress a file in place, by pydicom."""
    image = pydicom.dcmread(file)
    image.compress(syntax, generate_instance_uid=False)
    save(image, file)


def compress_with_gdcm(file: Path, syntax: int) -> None:
    """Compress a file in place to a `gdcm.TransferSyntax`, by gdcm."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(file))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(file))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
