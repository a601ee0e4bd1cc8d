"""The header of one DICOM file: which series and patient it belongs to, and what it holds."""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_scan import SeriesInfo
from CTLungScreeningLib.reading.dicom_frames import (
    ACQUISITION_TAGS,
    DAMAGED,
    SLICE_TAGS,
    Frame,
    frames_of,
    printable,
    text_of,
)

DICOM_SUFFIXES = {".dcm", ".dicom", ".ima"}

_FILE_TAGS = (
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "StudyDate",
    "Modality",
    "SeriesDescription",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "BodyPartExamined",
    "ProtocolName",
    "InstanceNumber",
    "ImagesInAcquisition",
    "NumberOfFrames",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
_HEADER_TAGS = [*_FILE_TAGS, *SLICE_TAGS, *ACQUISITION_TAGS]

_CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
}
"""SOP classes of CT, Enhanced CT and Legacy Converted Enhanced CT images."""

_OTHER_MODALITIES = {"CR", "DX", "MG", "MR", "NM", "OT", "PT", "RF", "SC", "SR", "US", "XA"}

_MAX_UNPACKED = 1 << 28


@dataclass(frozen=True, eq=False)
class Instance:
    """One DICOM file.

    Attributes:
        file: its path.
        series: identifiers of its series.
        modality: such as CT, in capitals; CT for any object of a class of CT images.
        patient: ID, name and birth date as they can be compared; empty where unknown.
        body_part: what the header says of the part of the body, in small letters.
        number: Instance Number, or None.
        announced: how many images the acquisition is said to have, or None.
        frames: its CT slices, without localizers.
        localizers: how many localizer (scout) images it holds.
        count: how many images it holds, of any kind.
        problem: a sentence if it should hold CT slices but cannot be used.
    """

    file: Path
    series: SeriesInfo
    modality: str
    patient: tuple[str, ...] = ()
    body_part: str = ""
    number: int | None = None
    announced: int | None = None
    frames: tuple[Frame, ...] = ()
    localizers: int = 0
    count: int = 0
    problem: str | None = None


def is_companion(file: Path) -> bool:
    """Whether macOS keeps what belongs to another file in it (AppleDouble)."""
    return file.name.startswith("._") or "__MACOSX" in file.parts


def looks_like_dicom(file: Path) -> bool:
    """Whether a file begins as a DICOM file does, with or without a preamble.

    Raises:
        InputError: if it cannot be opened.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(132)
    except OSError as error:
        raise InputError(
            f"{file} cannot be opened ({error.strerror}): make it readable or move it away."
        ) from error
    return begins_as_dicom(start)


def begins_as_dicom(start: bytes) -> bool:
    """Whether the first 132 or more bytes of a file are those of DICOM, or of one unwrapped."""
    group = start[:2]
    return start[128:132] == b"DICM" or (
        len(start) >= 132
        and group in (b"\x02\0", b"\x08\0", b"\0\x08")
        and start[3:4] in (b"\0", b"\x05")
    )


def read_instance(file: Path) -> Instance | None:
    """Read the header of a DICOM file, without its pixels.

    Returns:
        None for a DICOMDIR under whatever name.

    Raises:
        InputError: if it cannot be read as DICOM at all or names no series.
    """
    try:
        refuse_deflate_bomb(file)
        header = pydicom.dcmread(
            file, force=True, stop_before_pixels=True, specific_tags=list(_HEADER_TAGS)
        )
        series = SeriesInfo(
            patient_id=text_of(header, "PatientID"),
            study_instance_uid=text_of(header, "StudyInstanceUID"),
            series_instance_uid=text_of(header, "SeriesInstanceUID"),
            frame_of_reference_uid=text_of(header, "FrameOfReferenceUID"),
            description=text_of(header, "SeriesDescription"),
            study_date=text_of(header, "StudyDate"),
        )
        modality = modality_of(header)
        count = int(header.get("NumberOfFrames") or ("Rows" in header))
        index = header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
    except DAMAGED as error:
        raise InputError(
            f"{file} is a damaged DICOM file ({printable(error)}): copy it again."
        ) from error
    if index:
        return None
    if not series.series_instance_uid:
        raise InputError(f"{file} names no DICOM series: copy it again.")
    instance = Instance(
        file,
        series,
        modality,
        patient=tuple(_plain(header, key) for key in _PATIENT_TAGS),
        body_part=" ".join(text_of(header, key) for key in _BODY_TAGS).lower(),
        number=_whole(header, "InstanceNumber"),
        announced=_whole(header, "ImagesInAcquisition"),
        count=count,
    )
    if modality != "CT":
        return instance
    try:
        frames = tuple(frames_of(header, file))
    except InputError as error:
        return replace(instance, problem=str(error))
    except DAMAGED as error:
        problem = f"{file} has a damaged DICOM header ({printable(error)}): get the file again."
        return replace(instance, problem=problem)
    return replace(instance, frames=frames, localizers=count - len(frames))


_PATIENT_TAGS = ("PatientID", "PatientName", "PatientBirthDate")
_BODY_TAGS = ("BodyPartExamined", "SeriesDescription", "ProtocolName")


def modality_of(header: Dataset) -> str:
    """The modality in capitals: CT for objects of a class of CT images, unless they name another.

    Args:
        header: with Modality, SOPClassUID and Rows, if it has them.
    """
    spelt = text_of(header, "Modality").upper()
    if text_of(header, "SOPClassUID") in _CT_CLASSES and spelt not in _OTHER_MODALITIES:
        return "CT"
    return "CT without images" if spelt == "CT" and "Rows" not in header else spelt


def refuse_deflate_bomb(file: Path) -> None:
    """Refuse a deflated file that unpacks to more than any CT has; pydicom unpacks the whole.

    Raises:
        InputError: if it does.
    """
    with file.open("rb") as stream:
        start = stream.read(1024)
        if DeflatedExplicitVRLittleEndian.encode() not in start:
            return
        meta = pydicom.filereader.read_file_meta_info(file)
        stream.seek(132 + 12 + int(meta.FileMetaInformationGroupLength))
        machine = zlib.decompressobj(-zlib.MAX_WBITS)
        unpacked = 0
        while block := machine.unconsumed_tail or stream.read(1 << 20):
            unpacked += len(machine.decompress(block, 1 << 20))
            if unpacked > _MAX_UNPACKED:
                raise InputError(f"{file} unpacks to more than any CT image has: get it again.")
            if machine.eof:
                return


def _plain(header: Dataset, keyword: str) -> str:
    """A text with what spellings differ in left out."""
    return "".join(c for c in text_of(header, keyword).casefold() if c.isalnum())


def _whole(header: Dataset, keyword: str) -> int | None:
    try:
        return int(header.get(keyword))
    except DAMAGED:
        return None
