"""What a DICOM header says about the place of its file: patient, study, series, number."""

import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import data_element_generator, read_partial
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    MediaStorageDirectoryStorage,
    RLETransferSyntaxes,
)
from pydicom.valuerep import TEXT_VR_DELIMS

from CTSliceToolsLib.reading.dicom_frames import DAMAGED, DICOM_SUFFIXES, begins_as_dicom

_SOP_CLASS, _SYNTAX, _LAST_META = 0x00020002, 0x00020010, 0x0002FFFF
_CHARACTER_SET, _PATIENT = 0x00080005, 0x00100020
_STUDY, _SERIES, _NUMBER = 0x0020000D, 0x0020000E, 0x00200013
_SAMPLES, _FRAMES, _ROWS, _COLUMNS, _BITS = (
    0x00280002,
    0x00280008,
    0x00280010,
    0x00280011,
    0x00280100,
)
_TAGS = [
    _CHARACTER_SET, _PATIENT, _STUDY, _SERIES, _NUMBER,
    _SAMPLES, _FRAMES, _ROWS, _COLUMNS, _BITS,
]  # fmt: skip

_EXPLICIT = {
    ExplicitVRLittleEndian,
    *JPEGTransferSyntaxes,
    *JPEGLSTransferSyntaxes,
    *JPEG2000TransferSyntaxes,
    *RLETransferSyntaxes,
}
_NATIVE = {ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian}

_START_BYTES = 16384
"""Read at once: most headers reach no further up to the elements wanted here."""

_INTEGER = re.compile(r"[+-]?\d{1,10}(\.0*)?", re.ASCII)

Elements = dict[int, RawDataElement]


class Kind(StrEnum):
    """Why a file was left out."""

    NOT_DICOM = "not DICOM"
    INDEX = "DICOMDIR"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that is not organized, and the reason in a few words."""

    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True)
class Identifiers:
    """Where a DICOM file belongs.

    Attributes:
        patient: PatientID; may be empty.
        study: StudyInstanceUID; may be empty.
        series: SeriesInstanceUID.
        number: InstanceNumber, or None if it is missing or no whole number.
        size: of the file, bytes.
    """

    patient: str
    study: str
    series: str
    number: int | None
    size: int


def identify(file: Path) -> Identifiers | LeftOut:
    """Read what is needed to organize a file from its header; no pixels are read."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            return LeftOut(Kind.NOT_DICOM, "is not a regular file")
        with file.open("rb") as stream:
            start = stream.read(_START_BYTES)
            if not begins_as_dicom(start):
                if file.suffix.lower() in DICOM_SUFFIXES:
                    return LeftOut(Kind.BROKEN, "does not begin as a DICOM file does")
                return LeftOut(Kind.NOT_DICOM, "is not DICOM")
            return _judged(_elements(stream, start, status.st_size), start, status.st_size)
    except DAMAGED as error:
        if isinstance(error, OSError) and error.strerror:
            return LeftOut(Kind.BROKEN, f"cannot be read: {error.strerror}")
        return LeftOut(Kind.BROKEN, f"has a damaged header: {error}")


def _judged(elements: Elements, start: bytes, size: int) -> Identifiers | LeftOut:
    if _text(elements, _SOP_CLASS) == MediaStorageDirectoryStorage:
        return LeftOut(Kind.INDEX, "is a DICOMDIR, the index of the old folders")
    series = _text(elements, _SERIES)
    if not series:
        if start[128:132] != b"DICM":
            return LeftOut(Kind.NOT_DICOM, "is not DICOM")
        return LeftOut(Kind.BROKEN, "names no series")
    needed = _pixel_bytes(elements)
    if needed and max(element.value_tell for element in elements.values()) + needed > size:
        return LeftOut(Kind.BROKEN, f"is cut short: {size} bytes for {needed} bytes of pixels")
    return Identifiers(
        patient=_text(elements, _PATIENT),
        study=_text(elements, _STUDY),
        series=series,
        number=_whole_number(_text(elements, _NUMBER)),
        size=size,
    )


def _elements(stream: BinaryIO, start: bytes, size: int) -> Elements:
    if len(start) < size:
        chunk = BytesIO(start)
        with suppress(*DAMAGED):
            elements = _parse(chunk)
            if chunk.tell() < len(start):
                return elements
        stream.seek(0)
        return _parse(stream)
    return _parse(BytesIO(start))


def _parse(stream: BinaryIO) -> Elements:
    """The wanted elements; pydicom's element reader first, as it is three times as fast."""
    stream.seek(128)
    elements: Elements = {}
    if stream.read(4) == b"DICM":
        elements = _kept(
            data_element_generator(
                stream, False, True, _stop_after(_LAST_META), specific_tags=[_SOP_CLASS, _SYNTAX]
            )
        )
        syntax = _text(elements, _SYNTAX)
        if syntax in _EXPLICIT or syntax == ImplicitVRLittleEndian:
            elements |= _kept(
                data_element_generator(
                    stream,
                    syntax == ImplicitVRLittleEndian,
                    True,
                    _stop_after(_BITS),
                    specific_tags=list(_TAGS),
                )
            )
        if _SERIES in elements:
            return elements
    stream.seek(0)
    header = read_partial(stream, _stop_after(_BITS), force=True, specific_tags=list(_TAGS))
    return elements | _kept(header.get_item(tag) for tag in _TAGS if tag in header)


def _stop_after(last: int) -> Any:
    # A plain comparison of integers: BaseTag's own is slow, and this is asked for every element.
    return lambda tag, vr, length: int.__gt__(tag, last)


def _kept(elements: Iterable[Any]) -> Elements:
    kept = {}
    for element in elements:
        if isinstance(element, DataElement):
            raise ValueError(f"{element.tag} is a sequence")
        if element.value is not None and len(element.value) < element.length:
            raise EOFError(f"it ends within {element.tag}")
        kept[int(element.tag)] = element
    return kept


def _text(elements: Elements, tag: int) -> str:
    raw = elements[tag].value if tag in elements else None
    if not raw:
        return ""
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii").strip("\0 ")
    character_set = _text(elements, _CHARACTER_SET) if tag != _CHARACTER_SET else ""
    text = decode_bytes(raw, convert_encodings(character_set.split("\\")), TEXT_VR_DELIMS)
    if "\ufffd" in text:
        text = raw.decode("ascii", "surrogateescape")
    return text.strip("\0 ")


def _whole_number(text: str) -> int | None:
    return int(text.partition(".")[0]) if _INTEGER.fullmatch(text) else None


def _pixel_bytes(elements: Elements) -> int:
    """How long the pixels of a native grey image are; 0 of anything else."""
    if _text(elements, _SYNTAX) not in _NATIVE or _unsigned(elements, _SAMPLES) != 1:
        return 0
    pixels = _unsigned(elements, _ROWS) * _unsigned(elements, _COLUMNS)
    frames = _whole_number(_text(elements, _FRAMES)) or 1
    return pixels * frames * _unsigned(elements, _BITS) // 8


def _unsigned(elements: Elements, tag: int) -> int:
    if tag not in elements:
        return 0
    element = elements[tag]
    return int.from_bytes(element.value or b"", "little" if element.is_little_endian else "big")
