"""The source series, for DICOM objects that refer to it and copy its headers.

Type 2 attributes must be present, possibly empty (DICOM PS3.5, 7.4.3). Only those that identify
patient and study are copied; the others are left empty.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from unicodedata import category

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTLungScreeningLib.reading.dicom_headers import read_dicom, read_instance, whole_text

_GEOMETRY = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"),
    *("FrameOfReferenceUID", "PositionReferenceIndicator", "Rows", "Columns", "NumberOfFrames"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("DimensionOrganizationSequence", "DimensionIndexSequence", "InstanceNumber"),
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
        New headers, and a note for each invalid value that was left empty.
    """
    identity = {keyword: _readable(images[0], keyword) for keyword in _RULES}
    broken = [
        keyword
        for keyword, keeps in _RULES.items()
        if identity[keyword] and not keeps(identity[keyword])
    ]
    identity.update(dict.fromkeys((*broken, *_LEFT_EMPTY), ""))
    notes = tuple(
        f"The {dictionary_description(keyword)} of the series violates the DICOM standard; it was "
        "left empty in DICOM results."
        for keyword in broken
    )
    return [_cleaned(image, identity) for image in images], notes


def _cleaned(image: Dataset, identity: dict[str, str]) -> Dataset:
    made = Dataset()
    made.file_meta = image.file_meta
    made.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _GEOMETRY:
        if keyword in image:
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
        images: headers without pixels, one per slice in the order of the scan's slices, or that of
            the single multi-frame file.
        frames: for each slice the index of its image, or of its frame in the single image.
        corners: (slices, 2), row and column of the scan's grid at which each slice begins; non-zero
            where the slices of a tilted gantry were shifted.
        notes: sentences on header values that were left empty.
    """

    images: tuple[Dataset, ...]
    frames: NDArray[np.intp]
    corners: NDArray[np.intp]
    notes: tuple[str, ...] = ()

    def planes(self, labels: sitk.Image) -> NDArray[Any]:
        """Return labels on the scan's grid as planes of the source.

        Slices that were shifted within their planes get the nearest pixels.

        Returns:
            (frames, rows, columns), the frames in the order of `images` or of the file.
        """
        rows, columns = self.images[0].Rows, self.images[0].Columns
        count = int(self.images[0].get("NumberOfFrames") or len(self.images))
        array = sitk.GetArrayViewFromImage(labels)
        planes = np.zeros((count, rows, columns), array.dtype)
        for plane, frame, (row, column) in zip(array, self.frames, self.corners, strict=True):
            planes[frame] = plane[row : row + rows, column : column + columns]
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
    multi_frame = scan.slices[0].frame is not None
    if multi_frame and len(files) > 1:
        raise InputError(
            f"{scan.source} is one scan in {len(files)} multi-frame files, which one DICOM "
            "segmentation cannot refer to: join them, or leave out --dicom."
        )
    with warnings.catch_warnings(action="ignore"):  # problems are in the notes
        headers = [read_dicom(file) for file in files]
        images, notes = clean_headers(headers)
    uids = [str(image.get("SOPInstanceUID", "")) for image in images]
    if len(set(uids)) < len(uids) or not all(uids):
        raise InputError(
            f"{scan.source} has images that share a SOP Instance UID or have none, so results in "
            "DICOM cannot refer to them: export the series again, or leave out --dicom."
        )
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if any(not image.get(keyword) for image in images):
            raise InputError(
                f"{scan.source} has no {keyword}, which DICOM segmentations and reports refer to: "
                "export the series again, or leave out --dicom."
            )
    for image in images:
        _complete(image, images[0], scan.image.GetSpacing()[2])
    return DicomSource(
        images=tuple(images),
        frames=np.array([one.frame if multi_frame else k for k, one in enumerate(scan.slices)]),
        corners=_corners(scan),
        notes=notes,
    )


def _complete(image: Dataset, first: Dataset, slice_mm: float) -> None:
    """Add to a header in memory what derived objects need."""
    if "ImageOrientationPatient" in image:
        # Slices of one scan may differ in the last digit, for which a derived object has no place.
        image.ImageOrientationPatient = first.ImageOrientationPatient
        image.SpacingBetweenSlices = slice_mm
        if not image.get("SliceThickness"):
            image.SliceThickness = slice_mm


def _corners(scan: CTScan) -> NDArray[np.intp]:
    """Positions of the first pixels of the slices on the scan's grid, from the files."""
    positions = {}
    for file in {one.file for one in scan.slices}:
        instance = read_instance(file)
        for frame in instance.frames if instance else ():
            positions[file, frame.index] = frame.position
    places = np.array(
        [
            scan.image.TransformPhysicalPointToContinuousIndex(
                positions[one.file, one.frame].tolist()
            )
            for one in scan.slices
        ]
    )
    if np.abs(places[:, 2] - np.arange(len(places))).max() > 0.5:
        raise ValueError("the slices do not lie where the scan says")
    return np.rint(places[:, 1::-1]).astype(np.intp)
