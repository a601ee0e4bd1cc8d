"""Identifiers of a DICOM file: patient, study, series, number, or pseudonyms of them."""

import hmac
import os
import re
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from struct import Struct
from typing import BinaryIO

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import dcmread, read_partial
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    MediaStorageDirectoryStorage,
    RLETransferSyntaxes,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32, TEXT_VR_DELIMS

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import new_file
from CTLungScreeningLib.reading.dicom_headers import (
    DAMAGED,
    DICOM_SUFFIXES,
    DicomStream,
    begins_as_dicom,
)

MIN_KEY_BYTES = 16
_PSEUDONYM_LENGTH = 32


def pseudonym(key: bytes, level: str, identifier: str) -> str:
    """Return the folder name that stands for an identifier: half of its HMAC-SHA256 in hexadecimal.

    Args:
        key: the same key gives the same name.
        level: what is named, such as "patient", so that equal identifiers of two levels differ.
        identifier: of the patient, study or series.
    """
    message = f"{level}\0{identifier}".encode("utf-8", "surrogatepass")
    return hmac.digest(key, message, "sha256").hex()[:_PSEUDONYM_LENGTH]


def read_or_make_key(file: Path, destination: Path) -> bytes:
    """Read the key in a file; if there is no such file, make it with a random key of 256 bits.

    A new file can be read and written by its owner only (on Windows: by whom its folder lets).

    Args:
        file: the key's file.
        destination: the folder that will hold pseudonyms; a key in it would go where they go.

    Raises:
        InputError: if the file is inside `destination`, cannot be read or made, holds fewer than
            `MIN_KEY_BYTES` bytes, or others than its owner may use it (not checked on Windows).
    """
    if file.resolve().is_relative_to(destination.resolve()):
        raise InputError(
            f"The key {file} would lie with the pseudonyms in {destination}: keep it elsewhere."
        )
    try:
        if not file.exists():
            _make_key(file)
        key = file.read_bytes().strip()
        mode = file.stat().st_mode
    except OSError as error:
        raise InputError(
            f"The key {file} can neither be read nor made ({error.strerror}): give another file."
        ) from error
    if len(key) < MIN_KEY_BYTES:
        raise InputError(
            f"The key {file} has {len(key)} bytes, fewer than {MIN_KEY_BYTES}: "
            "give another file, or a name that does not exist to have one made."
        )
    if os.name == "posix" and mode & 0o077:
        raise InputError(
            f"The key {file} is accessible to users other than its owner: run chmod 600 {file}."
        )
    return key


def _make_key(file: Path) -> None:
    with new_file(file) as temporary:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w", encoding="ascii") as stream:  # noqa: PTH123 - a descriptor
            stream.write(secrets.token_hex(32) + "\n")


_SOP_CLASS, _SYNTAX, _DATA_SET = 0x00020002, 0x00020010, 0x00030000
_CHARACTER_SET, _PATIENT = 0x00080005, 0x00100020
_STUDY, _SERIES, _NUMBER = 0x0020000D, 0x0020000E, 0x00200013
_TAGS = [_CHARACTER_SET, _PATIENT, _STUDY, _SERIES, _NUMBER]
_WANTED = {_SOP_CLASS, _SYNTAX, *_TAGS}

_TAG, _HEADER, _LENGTH = Struct("<HH"), Struct("<HH2sH"), Struct("<L")
_SHORT_VR = {vr.encode() for vr in EXPLICIT_VR_LENGTH_16}
_LONG_VR = {vr.encode() for vr in EXPLICIT_VR_LENGTH_32}

_EXPLICIT = {
    ExplicitVRLittleEndian,
    *JPEGTransferSyntaxes,
    *JPEGLSTransferSyntaxes,
    *JPEG2000TransferSyntaxes,
    *RLETransferSyntaxes,
}
_PIXELS, _ITEM_END, _SEQUENCE_END = 0x7FE00010, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF

_START_BYTES = 16384
"""Read at once: most headers are shorter."""

_INTEGER = re.compile(r"[+-]?\d{1,10}(\.0*)?", re.ASCII)

Elements = dict[int, bytes]


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
    """Identifiers of a DICOM file.

    Attributes:
        patient: PatientID; may be empty.
        study: StudyInstanceUID; may be empty.
        series: SeriesInstanceUID.
        number: InstanceNumber, or None if it is missing or not a whole number.
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
        with DicomStream(file) as stream:
            start = stream.read(_START_BYTES)
            if not begins_as_dicom(start):
                return (
                    LeftOut(Kind.BROKEN, "does not begin as a DICOM file does")
                    if file.suffix.lower() in DICOM_SUFFIXES
                    else LeftOut(Kind.NOT_DICOM, "is not DICOM")
                )
            return _judged(_elements(stream, start), start, status.st_size)
    except InputError:
        return LeftOut(Kind.BROKEN, "unpacks to more than any CT image has")
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
    if fault := _fault(elements, start, size):
        return LeftOut(Kind.BROKEN, fault)
    return Identifiers(
        patient=_text(elements, _PATIENT),
        study=_text(elements, _STUDY),
        series=series,
        number=_whole_number(_text(elements, _NUMBER)),
        size=size,
    )


def _fault(elements: Elements, start: bytes, size: int) -> str | None:
    """Whether the start of a little-endian file shows that the end is missing, as a reason."""
    syntax = _text(elements, _SYNTAX)
    if syntax not in _EXPLICIT and syntax != ImplicitVRLittleEndian:
        return None
    try:
        end = _end_of_pixels(start, implicit=syntax == ImplicitVRLittleEndian)
    except DAMAGED:
        if size > len(start):
            return None
        header = dcmread(BytesIO(start), force=True)
        last = header.get_item(max(header.keys()))
        whole = not isinstance(last, RawDataElement) or (
            last.length in (len(last.value or b""), _UNDEFINED)
        )
        return None if whole else "is cut short: it ends within its header"
    return f"is cut short: {size} of {end} bytes" if end > size else None


def _end_of_pixels(start: bytes, implicit: bool) -> int:
    """Where the Pixel Data of a file end, those of an icon aside; 0 if they do not tell.

    Raises:
        ValueError, struct.error: if they do not begin within `start`.
    """
    _, position = _walk(start, 132 if start[128:132] == b"DICM" else 0, False, _DATA_SET)
    _, position = _walk(start, position, implicit, _PIXELS)
    tag, _, length, position = _next(start, position, implicit)
    return position + length if tag == _PIXELS and length != _UNDEFINED else 0


def _elements(stream: BinaryIO, start: bytes) -> Elements:
    """The wanted elements of a file, from its start if they are there in a usual form."""
    if start[128:132] == b"DICM":
        with suppress(*DAMAGED):
            elements = _elements_of_start(start)
            if {_PATIENT, _SERIES, _NUMBER} <= elements.keys():
                return elements
    stream.seek(0)
    header = read_partial(
        stream, lambda tag, vr, length: tag > _NUMBER, force=True, specific_tags=list(_TAGS)
    )
    return {
        int(element.tag): _bytes(element)
        for part, tags in ((header.file_meta, (_SOP_CLASS, _SYNTAX)), (header, _TAGS))
        for element in (part.get_item(tag) for tag in tags if tag in part)
    }


def _elements_of_start(start: bytes) -> Elements:
    """The wanted elements of a little-endian file; pydicom would need longer than for its copy.

    Raises:
        ValueError, struct.error: if there is anything that pydicom had better read.
    """
    meta, position = _walk(start, 132, False, _DATA_SET)
    syntax = _text(meta, _SYNTAX)
    if syntax not in _EXPLICIT and syntax != ImplicitVRLittleEndian:
        raise ValueError(syntax)
    elements, _ = _walk(start, position, syntax == ImplicitVRLittleEndian, _NUMBER + 1)
    return meta | elements


def _walk(start: bytes, position: int, implicit: bool, end: int) -> tuple[Elements, int]:
    """The wanted elements from a position on, and the position of the first tag >= `end`."""
    elements: Elements = {}
    while True:
        group, element = _TAG.unpack_from(start, position)
        if group << 16 | element >= end:  # where the data set begins, the encoding may change
            return elements, position
        tag, vr, length, value = _next(start, position, implicit)
        if tag in _WANTED:
            elements[tag] = start[value : value + length]
        if length == _UNDEFINED:
            position = _end_of_sequence(start, value, implicit or vr == b"UN")
        else:
            position = value + length


def _end_of_sequence(start: bytes, position: int, implicit: bool) -> int:
    """The position after a sequence of undefined length, given that of its first item."""
    while True:
        tag, _, length, position = _next(start, position, True)
        if tag == _SEQUENCE_END:
            return position
        if length == _UNDEFINED:
            _, position = _walk(start, position, implicit, _ITEM_END)
            length = 8
        position += length


def _next(start: bytes, position: int, implicit: bool) -> tuple[int, bytes, int, int]:
    """Tag, VR, length and position of the value of the element at a position."""
    group, element, vr, length = _HEADER.unpack_from(start, position)
    position += 8
    if implicit or group == 0xFFFE:
        [length] = _LENGTH.unpack_from(start, position - 4)
    elif vr in _LONG_VR:
        [length] = _LENGTH.unpack_from(start, position)
        position += 4
    elif vr not in _SHORT_VR:
        raise ValueError(vr)
    return group << 16 | element, vr, length, position


def _bytes(element: RawDataElement | DataElement) -> bytes:
    """The value of an element as it was stored; pydicom has converted a few of its own accord."""
    if isinstance(element, RawDataElement):
        value = element.value or b""
        if len(value) < element.length:
            raise EOFError(f"it ends within {element.tag}")
        return value
    texts = [element.value or ""] if isinstance(element.value, str | None) else element.value
    return "\\".join(texts).encode()


def _text(elements: Elements, tag: int) -> str:
    raw = elements.get(tag, b"")
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii").strip("\0 ")
    character_set = _text(elements, _CHARACTER_SET) if tag != _CHARACTER_SET else ""
    text = decode_bytes(raw, convert_encodings(character_set.split("\\")), TEXT_VR_DELIMS)
    if "\ufffd" in text:
        text = raw.decode("ascii", "surrogateescape")
    return text.strip("\0 ")


def _whole_number(text: str) -> int | None:
    return int(text.partition(".")[0]) if _INTEGER.fullmatch(text) else None
