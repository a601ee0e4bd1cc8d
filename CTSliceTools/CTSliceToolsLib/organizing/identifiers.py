"""Identifiers of a DICOM file: patient, study, series, number, or pseudonyms of them."""

import hmac
import os
import re
import secrets
import stat
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import read_partial
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage
from pydicom.valuerep import TEXT_VR_DELIMS

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import new_file
from CTLungScreeningLib.reading.dicom_headers import (
    DAMAGED,
    DICOM_SUFFIXES,
    DicomStream,
    begins_as_dicom,
    is_companion,
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


_SOP_CLASS, _SYNTAX = 0x00020002, 0x00020010
_CHARACTER_SET, _PATIENT = 0x00080005, 0x00100020
_STUDY, _SERIES, _NUMBER = 0x0020000D, 0x0020000E, 0x00200013
_TAGS = [_CHARACTER_SET, _PATIENT, _STUDY, _SERIES, _NUMBER]

_PIXELS, _UNDEFINED = 0x7FE00010, 0xFFFFFFFF
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"

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
                    if file.suffix.lower() in DICOM_SUFFIXES and not is_companion(file)
                    else LeftOut(Kind.NOT_DICOM, "is not DICOM")
                )
            return _read(stream, start, status.st_size)
    except InputError:
        return LeftOut(Kind.BROKEN, "unpacks to more than any CT image has")
    except DAMAGED as error:
        if isinstance(error, OSError) and error.strerror:
            return LeftOut(Kind.BROKEN, f"cannot be read: {error.strerror}")
        return LeftOut(Kind.BROKEN, f"has a damaged header: {error}")


def _read(stream: BinaryIO, start: bytes, size: int) -> Identifiers | LeftOut:
    """Judge a file by its start; only where that does not hold the identifiers, is more read."""
    source, last, value, end = BytesIO(start), 0, 0, 0

    def note(tag: int, _: str | None, length: int) -> bool:
        """Note an element, where its value begins and ends, 0 if not told; stop at the pixels."""
        nonlocal last, value, end
        last, value = int(tag), source.tell()
        end = 0 if length == _UNDEFINED else value + length
        return last >= _PIXELS

    try:
        header = read_partial(source, note, force=True, specific_tags=list(_TAGS))
        enough = last > _NUMBER and _SERIES in header
    except DAMAGED:
        if size <= len(start):
            raise
        enough = False
    if size > len(start) and not enough:
        end = 0
        stream.seek(0)
        header = read_partial(
            stream, lambda tag, *_: tag > _NUMBER, force=True, specific_tags=list(_TAGS)
        )
    elements = {
        int(element.tag): _bytes(element)
        for part, tags in ((header.file_meta, (_SOP_CLASS, _SYNTAX)), (header, _TAGS))
        for tag in tags
        if (element := part.get_item(tag)) is not None
    }
    if _text(elements, _SOP_CLASS) == MediaStorageDirectoryStorage:
        return LeftOut(Kind.INDEX, "is a DICOMDIR, the index of the old folders")
    series = _text(elements, _SERIES)
    if not series and start[128:132] != b"DICM":
        return LeftOut(Kind.NOT_DICOM, "is not DICOM")
    packed = _text(elements, _SYNTAX) == DeflatedExplicitVRLittleEndian
    if end > size and not packed:
        return LeftOut(
            Kind.BROKEN,
            f"is cut short: {size} of {end} bytes"
            if last == _PIXELS
            else "is cut short: it ends within its header",
        )
    if enough and last == _PIXELS and not end and not packed and not _ends(stream, value):
        return LeftOut(Kind.BROKEN, "is cut short: its compressed pixels do not end")
    if not series:
        return LeftOut(Kind.BROKEN, "names no series")
    return Identifiers(
        patient=_text(elements, _PATIENT),
        study=_text(elements, _STUDY),
        series=series,
        number=_whole_number(_text(elements, _NUMBER)),
        size=size,
    )


def _ends(stream: BinaryIO, place: int) -> bool:
    """Whether the compressed pixels at a place end: their items lead to a delimiter."""
    tag = _ITEM
    while tag == _ITEM:
        stream.seek(place)
        tag, length = stream.read(4), int.from_bytes(stream.read(4), "little")
        place += 8 + length
    return tag == _DELIMITER


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
