"""The source series, for DICOM objects that refer to it and copy its headers.

Type 2 attributes must be present, possibly empty (DICOM PS3.5, 7.4.3). Only those that identify
patient and study are copied; the others are left empty.
"""

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from unicodedata import category

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)
from pydicom.valuerep import DS

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTLungScreeningLib.reading.dicom_headers import (
    read_dicom,
    value_of,
    values_of_frames,
    whole_text,
)

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
_COPIED = (*_UIDS, "SOPClassUID", "PositionReferenceIndicator", "Rows", "Columns")
_SINGLE_FRAME = (CTImageStorage, SecondaryCaptureImageStorage)
_MULTI_FRAME = (
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
_LEFT_EMPTY = ("ReferringPhysicianName",)


def _text(longest: int) -> Callable[[str], bool]:
    return lambda value: len(value) <= longest and "\\" not in value


def _date(value: str) -> bool:
    try:
        return bool(re.fullmatch(r"\d{8}", value) and datetime.strptime(value, "%Y%m%d"))
    except ValueError:
        return False


def _name(value: str) -> bool:
    groups = value.split("=")
    return (
        len(groups) <= 3
        and "\\" not in value
        and all(len(group) <= 64 and group.count("^") <= 4 for group in groups)
    )


_RULES: dict[str, Callable[[str], bool]] = {
    "PatientID": _text(64),
    "PatientName": _name,
    "PatientBirthDate": _date,
    "PatientSex": lambda value: value in ("M", "F", "O"),
    "AccessionNumber": _text(16),
    "StudyID": _text(16),
    "StudyDate": _date,
    "StudyTime": lambda value: bool(
        re.fullmatch(r"([01]\d|2[0-3])([0-5]\d([0-5]\d|60)?(\.\d{1,6})?)?", value)
    ),
}
"""Rules of DICOM PS3.5, table 6.2-1, for attributes that identify patient and study."""


def clean_headers(images: Sequence[Dataset]) -> tuple[list[Dataset], tuple[str, ...]]:
    """Return headers for derived objects, in Unicode.

    Args:
        images: as read.

    Returns:
        New headers, and a note for each invalid value.
    """
    identity = {keyword: _readable(images[0], keyword) for keyword in _RULES}
    broken = [
        keyword
        for keyword, keeps in _RULES.items()
        if identity[keyword] and not keeps(identity[keyword])
    ]
    identity.update(dict.fromkeys((*broken, *_LEFT_EMPTY), ""))
    notes = [
        f"The {dictionary_description(keyword)} of the series violates the DICOM standard; it was "
        "left empty in DICOM results."
        for keyword in broken
    ]
    made = [_cleaned(image, identity) for image in images]
    odd = [
        dictionary_description(keyword)
        for keyword in _UIDS
        if not all(UID(image.get(keyword, "")).is_valid for image in made)
    ]
    if odd:
        notes.append(
            "DICOM results refer to the series by UIDs that violate the DICOM standard "
            f"({', '.join(odd)}), so an archive may reject them."
        )
    return made, tuple(notes)


def _cleaned(image: Dataset, identity: dict[str, str]) -> Dataset:
    made = Dataset()
    made.file_meta = image.file_meta
    made.SpecificCharacterSet = "ISO_IR 192"
    made.Modality = "CT"
    for keyword in _COPIED:
        if value_of(image, keyword) is not None and image[keyword].VM == 1:
            made[keyword] = image[keyword]
    for keyword, value in identity.items():
        setattr(made, keyword, value)
    return made


def _readable(image: Dataset, keyword: str) -> str:
    """A value as text without control characters; empty if it cannot be read."""
    text = whole_text(image, keyword)
    return "".join(c for c in text if category(c) != "Cc").strip(" ")


@dataclass(frozen=True, eq=False)
class DicomSource:
    """The images of a series, and the positions of its slices on the scan's grid.

    Attributes:
        images: headers without pixels, one per slice in the order of the scan's slices; or that of
            the single multi-frame file, in which only the scan's frames are left, in that order.
        numbers: of these frames in the file, from 1; None for single-frame images.
        corners: (slices, 2), row and column of the scan's grid at which each slice begins; non-zero
            where the slices of a tilted gantry were shifted.
        notes: sentences on header values that violate the standard.
    """

    images: tuple[Dataset, ...]
    numbers: tuple[int, ...] | None
    corners: NDArray[np.intp]
    notes: tuple[str, ...] = ()

    def planes(self, labels: sitk.Image) -> NDArray[Any]:
        """Return labels on the scan's grid as planes of the source (slices, rows, columns).

        Slices that were shifted within their planes get the nearest pixels.
        """
        rows, columns = self.images[0].Rows, self.images[0].Columns
        array = sitk.GetArrayViewFromImage(labels)
        planes = np.zeros((len(array), rows, columns), array.dtype)
        for k, (row, column) in enumerate(self.corners):
            planes[k] = array[k, row : row + rows, column : column + columns]
        return planes


def read_dicom_source(scan: CTScan) -> DicomSource:
    """Read the headers of a scan's series again, all of them, without pixels.

    Raises:
        InputError: if the scan is not a DICOM series, or one that nothing can refer to.
    """
    if not scan.slices:
        raise InputError(
            f"{scan.source} is not a DICOM series, which DICOM segmentations and reports refer "
            "to: give the DICOM folder, or leave out --dicom."
        )
    files = list(dict.fromkeys(one.file for one in scan.slices))
    numbers = tuple(one.frame + 1 for one in scan.slices if one.frame is not None) or None
    if numbers and len(files) > 1:
        raise InputError(
            f"{scan.source} is one scan in {len(files)} multi-frame files, which one DICOM "
            "segmentation cannot refer to: join them, or leave out --dicom."
        )
    with warnings.catch_warnings(action="ignore"):  # problems are in the notes
        headers = [read_dicom(file) for file in files]
        images, notes = clean_headers(headers)
        frames = {
            file: list(values_of_frames(header))
            for file, header in zip(files, headers, strict=True)
        }
    uids = [str(image.get("SOPInstanceUID", "")) for image in images]
    if len(set(uids)) < len(uids) or not all(uids):
        raise InputError(
            f"{scan.source} has images that share a SOP Instance UID or have none, so results in "
            "DICOM cannot refer to them: export the series again, or leave out --dicom."
        )
    for keyword in _UIDS:
        if any(not image.get(keyword) for image in images):
            raise InputError(
                f"{scan.source} has no {keyword}, which DICOM segmentations and reports refer to: "
                "export the series again, or leave out --dicom."
            )
    classes = _MULTI_FRAME if numbers else _SINGLE_FRAME
    for image, file in zip(images, files, strict=True):
        if "SOPClassUID" not in image:
            image.SOPClassUID = classes[0]
        if image.SOPClassUID not in classes:
            raise InputError(
                f"{file} is of the class {image.SOPClassUID.name}, but DICOM results can refer to "
                f"{' or '.join(UID(one).name for one in classes[:2])} only: export the series "
                "again, or leave out --dicom."
            )
    slices = [frames[one.file][one.frame or 0] for one in scan.slices]
    slice_mm = scan.image.GetSpacing()[2]
    if numbers:
        _describe_frames(images[0], slices, slice_mm)
    else:
        for image, one in zip(images, slices, strict=True):
            _describe_slice(image, one, slices[0], slice_mm)
    return DicomSource(tuple(images), numbers, _corners(scan, slices), notes)


def _describe_frames(image: Dataset, slices: Sequence[Mapping[str, Any]], slice_mm: float) -> None:
    """Describe a scan's slices in a header in memory, as if the file had no other frames."""
    shared, plane, measures = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient = slices[0]["ImageOrientationPatient"]
    _measure(measures, slices[0], slice_mm)
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    frames = []
    for one in slices:
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = one["ImagePositionPatient"]
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    image.SharedFunctionalGroupsSequence = [shared]
    image.PerFrameFunctionalGroupsSequence = frames
    image.NumberOfFrames = len(frames)


def _describe_slice(
    image: Dataset, one: Mapping[str, Any], first: Mapping[str, Any], slice_mm: float
) -> None:
    """Describe a slice in its header in memory."""
    image.ImagePositionPatient = one["ImagePositionPatient"]
    # Slices of one scan may differ in the last digit, for which a derived object has no place.
    image.ImageOrientationPatient = first["ImageOrientationPatient"]
    _measure(image, one, slice_mm)


def _measure(made: Dataset, one: Mapping[str, Any], slice_mm: float) -> None:
    """Add the measures of a slice's pixels; its thickness is the slice distance if unknown."""
    made.PixelSpacing = one["PixelSpacing"]
    made.SpacingBetweenSlices = DS(slice_mm, auto_format=True)
    thickness = one.get("SliceThickness")
    known = isinstance(thickness, float) and 0 < thickness < math.inf
    made.SliceThickness = thickness if known else made.SpacingBetweenSlices


def _corners(scan: CTScan, slices: Sequence[Mapping[str, Any]]) -> NDArray[np.intp]:
    """Positions of the first pixels of the slices on the scan's grid, from the files."""
    to_index = scan.image.TransformPhysicalPointToContinuousIndex
    places = np.array(
        [to_index([float(mm) for mm in one["ImagePositionPatient"]]) for one in slices]
    )
    if np.abs(places[:, 2] - np.arange(len(places))).max() > 0.5:
        raise ValueError("the slices do not lie where the scan says")
    return np.rint(places[:, 1::-1]).astype(np.intp)
