"""The part of a series' headers that objects made of it carry, with values that break no rule.

Type 2 attributes must be there, if only empty (DICOM PS3.5, 7.4.3); those that tell nothing of the
patient's identity or the study's are left empty, and nothing else of the patient is copied.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime

from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset

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
"""The rules of DICOM PS3.5, table 6.2-1, for what identifies patient and study."""


def clean_headers(images: Sequence[Dataset]) -> tuple[list[Dataset], tuple[str, ...]]:
    """Give headers that derived objects can be made of, in Unicode.

    Args:
        images: as read.

    Returns:
        New headers, and a note for each value that breaks a rule and was left empty.
    """
    identity = {keyword: _readable(images[0], keyword) for keyword in _RULES}
    broken = [
        keyword
        for keyword, keeps in _RULES.items()
        if identity[keyword] and not keeps(identity[keyword])
    ]
    identity.update(dict.fromkeys((*broken, *_LEFT_EMPTY), ""))
    notes = tuple(
        f"The {dictionary_description(keyword)} in the series is not as DICOM has it; it was left "
        "empty in DICOM results."
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
    """A value as text without control characters; empty where it cannot be read at all."""
    try:
        value = image.get(keyword)
    except (ValueError, TypeError, LookupError, NotImplementedError, AttributeError):
        return ""
    text = "" if value is None else str(value)
    return "".join(c for c in text if c.isprintable()).strip()
