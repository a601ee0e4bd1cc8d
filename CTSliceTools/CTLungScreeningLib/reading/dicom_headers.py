"""The header of one DICOM file: its patient and series, what it holds, and where its slices lie."""

import io
import struct
import warnings
import zlib
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from unicodedata import category

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import MediaStorageDirectoryStorage

from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.reading.ct_scan import SeriesInfo

ACQUISITION_TAGS = (
    "AcquisitionNumber",
    "FrameAcquisitionNumber",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "StackID",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "EchoTime",
    "ConvolutionKernel",
    "SliceThickness",
    "KVP",
    "ImageType",
    "FrameType",
    "AcquisitionTime",
    "ContentTime",
)
"""Attributes that can distinguish acquisitions or reconstructions in a series, best first."""

SLICE_TAGS = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
)

_OTHER_UNITS = {"OD", "MGML", "MGCC", "MGCM", "ZEFF", "ED", "EDW", "PCT", "CONCENTRATION"}
"""The letters of Rescale Types of DICOM PS3.3 C.11.1.1.2, and of spellings of them, that are not
HU. Any other text counts as a spelling of HU, or for nothing (US, unspecified), and the values
themselves are judged."""

_SLOPES = (1e-3, 1e3)
"""HU for each step of the stored values: scanners write 1, and no device anything beyond these."""

_MAX_PIXELS = 8192
"""Rows and columns that no CT has."""


DAMAGED = (
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,
    struct.error,
    TypeError,
    ValueError,
    zlib.error,
)
"""Exceptions of pydicom for a damaged file."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One CT slice as its header describes it.

    Attributes:
        file: where it is stored.
        index: its number from 0 in a multi-frame file, else None.
        sop_instance_uid: of the file.
        shape: rows and columns.
        spacing: mm between rows and between columns.
        orientation: (2, 3), unit vectors in LPS: along a row, and along a column.
        position: (3,), centre of the first voxel, LPS mm.
        slope: HU for each step of the stored values.
        intercept: HU of the stored value 0.
        acquisition: values of `ACQUISITION_TAGS` that the header gives.
    """

    file: Path
    index: int | None
    sop_instance_uid: str
    shape: tuple[int, int]
    spacing: tuple[float, float]
    orientation: NDArray[np.float64]
    position: NDArray[np.float64]
    slope: float
    intercept: float
    acquisition: Mapping[str, str]

    @property
    def centre(self) -> NDArray[np.float64]:
        """Its middle, (3,), LPS mm."""
        down, across = np.multiply(self.spacing, np.subtract(self.shape, 1)) / 2
        along_row, along_column = self.orientation
        middle = self.position + across * along_row + down * along_column
        return np.asarray(middle)


def value_of(header: Dataset, keyword: str) -> Any:
    """The value of an attribute; None if it is missing or damaged."""
    try:
        return header.get(keyword)
    except DAMAGED:
        return None


def whole_text(header: Dataset, keyword: str) -> str:
    """The text of an attribute as it is, with backslashes between several values, as in the file.

    It is empty if the attribute is missing or damaged.
    """
    value = value_of(header, keyword)
    values = value if isinstance(value, MultiValue) else [] if value is None else [value]
    return "\\".join(map(str, values))


def text_of(header: Dataset, keyword: str) -> str:
    """`whole_text` without control characters, which no terminal or log shall see."""
    text = whole_text(header, keyword)
    return "".join(c if c.isprintable() or category(c) == "Zs" else " " for c in text).strip(" ")


def printable(error: object) -> str:
    """Return a reason on one line without what a terminal would obey."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return "".join(c if c.isprintable() else "?" for c in line)[:120].rstrip(".")


def frames_of(header: Dataset, file: Path) -> Iterator[Frame]:
    """The slices of a CT file, localizers and screenshots left out."""
    uid = text_of(header, "SOPInstanceUID")
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise InputError(
                f"{file} holds several frames but not where they lie: "
                "export the series again as CT or Enhanced CT images."
            )
        (only,) = values_of_frames(header)
        if not _is_localizer(only) and not _is_picture(header):
            yield _frame(only, file, None, uid)
        return
    if len(per_frame) != int(header.get("NumberOfFrames") or 0):
        raise InputError(
            f"{file} describes {counted(len(per_frame), 'frame')} but announces "
            f"{header.get('NumberOfFrames')}: get the file again."
        )
    for index, values in enumerate(values_of_frames(header)):
        if not _is_localizer(values):
            yield _frame(values, file, index, uid)


def values_of_frames(header: Dataset) -> Iterator[Mapping[str, Any]]:
    """Values of `SLICE_TAGS` and `ACQUISITION_TAGS`, by keyword, for each image of a file.

    Those of a frame in a multi-frame file are its own, else shared by all, else of the file.
    """
    top = {key: value_of(header, key) for key in (*SLICE_TAGS, *ACQUISITION_TAGS) if key in header}
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        yield top
        return
    shared = _flat(islice(header.get("SharedFunctionalGroupsSequence") or (), 1))
    for group in per_frame:
        yield ChainMap(_flat([group]), shared, top)


def _flat(groups: Iterable[Dataset]) -> dict[str, Any]:
    """The values inside the macros of a functional group, by keyword."""
    return {
        element.keyword: element.value
        for group in groups
        for macro in group
        if macro.VR == "SQ" and not macro.tag.is_private
        for item in islice(macro.value, 1)
        for element in item
        if element.keyword in SLICE_TAGS or element.keyword in ACQUISITION_TAGS
    }


def _is_localizer(values: Mapping[str, Any]) -> bool:
    return any("LOCALIZER" in str(values.get(key) or "") for key in ("ImageType", "FrameType"))


def _is_picture(header: Dataset) -> bool:
    """Whether it is one Secondary Capture without a place in the patient, as a dose report."""
    place = (value_of(header, f"Image{what}Patient") for what in ("Position", "Orientation"))
    single = _whole(header, "NumberOfFrames") in (None, 1)  # several have a place each
    secondary_capture = text_of(header, "SOPClassUID").startswith("1.2.840.10008.5.1.4.1.1.7")
    return secondary_capture and single and not all(place)


def _frame(values: Mapping[str, Any], file: Path, index: int | None, uid: str) -> Frame:
    where = str(file) if index is None else f"{file} (frame {index + 1})"

    def numbers(keyword: str, count: int) -> list[float]:
        value = values.get(keyword)
        if value is None or value == "":
            raise InputError(
                f"{where} has no {dictionary_description(keyword)}: "
                "export the series again from its source."
            )
        given = np.atleast_1d(np.asarray(value, dtype=float))
        if given.size != count or not np.isfinite(given).all():
            raise InputError(
                f"The {dictionary_description(keyword)} of {where} makes no sense: "
                "export the series again from its source."
            )
        return [float(number) for number in given]

    rows, columns = int(numbers("Rows", 1)[0]), int(numbers("Columns", 1)[0])
    if values.get("SamplesPerPixel") not in (None, 1):
        raise InputError(f"{where} is a colour picture, not CT: choose another series.")
    if max(rows, columns) > _MAX_PIXELS or min(rows, columns) < 1:
        raise InputError(
            f"{where} has {rows} rows and {columns} columns, which no CT has: get the file again."
        )
    unit = str(values.get("RescaleType") or "").strip().upper()
    if "".join(filter(str.isalpha, unit)) in _OTHER_UNITS:
        raise InputError(f"{where} is not in HU but in {unit}: choose another series.")
    orientation = np.reshape(numbers("ImageOrientationPatient", 6), (2, 3))
    position = np.array(numbers("ImagePositionPatient", 3))
    row_spacing, column_spacing = numbers("PixelSpacing", 2)
    (slope,), (intercept,) = numbers("RescaleSlope", 1), numbers("RescaleIntercept", 1)
    if not np.allclose(orientation @ orientation.T, np.eye(2), atol=1e-2):
        raise InputError(
            f"{where} has an Image Orientation (Patient) that is not two perpendicular directions: "
            "export the series again from its source."
        )
    low, high = _SLOPES
    if min(row_spacing, column_spacing) <= 0 or not low <= abs(slope) <= high:
        raise InputError(
            f"{where} has a Pixel Spacing of {row_spacing:g} and {column_spacing:g} mm and a "
            f"Rescale Slope of {slope:g}, which no CT has: export the series again from its source."
        )
    return Frame(
        file=file,
        index=index,
        sop_instance_uid=uid,
        shape=(rows, columns),
        spacing=(row_spacing, column_spacing),
        orientation=orientation,
        position=position,
        slope=slope,
        intercept=intercept,
        acquisition={
            key: str(values[key]) for key in ACQUISITION_TAGS if values.get(key) not in (None, "")
        },
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
_HEADER_TAGS = [Tag(keyword) for keyword in (*_FILE_TAGS, *SLICE_TAGS, *ACQUISITION_TAGS)]
_GLIMPSE_TAGS = [
    Tag(keyword)
    for keyword in (
        "Modality",
        "SOPClassUID",
        "NumberOfFrames",
        "Rows",
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "StudyInstanceUID",
        "PatientID",
        "InstanceNumber",
        "ImageType",
        "ImagePositionPatient",
        "ImageOrientationPatient",
    )
]

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
        body_part: what body part and protocol the header names.
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
        raise InputError(cannot_open(error)) from error
    return begins_as_dicom(start)


def cannot_open(error: OSError) -> str:
    """The sentence for a file or folder that cannot be opened."""
    return (
        f"{error.filename} cannot be opened ({error.strerror}): make it readable or move it away."
    )


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
        header = read_dicom(file, _HEADER_TAGS)
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
    except InputError:
        raise
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
        body_part=" ".join(text_of(header, key) for key in _BODY_TAGS),
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
_BODY_TAGS = ("BodyPartExamined", "ProtocolName")


def modality_of(header: Dataset) -> str:
    """The modality in capitals: CT for objects of a class of CT images, unless they name another.

    Args:
        header: with Modality, SOPClassUID and Rows, if it has them.
    """
    spelt = text_of(header, "Modality").upper()
    if text_of(header, "SOPClassUID") in _CT_CLASSES and spelt not in _OTHER_MODALITIES:
        return "CT"
    return "CT without images" if spelt == "CT" and "Rows" not in header else spelt


@dataclass(frozen=True)
class Glimpse:
    """What a few tags tell of a DICOM file.

    Attributes:
        series: its SeriesInstanceUID.
        modality: see `modality_of`.
        image: whether it holds an image.
        localizer: whether that is a localizer (scout) or a picture, such as a dose report.
        patient: its PatientID as it can be compared; empty if unknown, as are the next two.
        study: its StudyInstanceUID.
        instance: its SOPInstanceUID.
        number: its InstanceNumber, or None.
        position: of a slice, LPS mm to a tenth, or None.
    """

    series: str
    modality: str
    image: bool
    localizer: bool
    patient: str
    study: str
    instance: str
    number: int | None
    position: tuple[float, float, float] | None

    @property
    def is_ct_slice(self) -> bool:
        """Whether it is CT and neither a localizer nor a picture."""
        return self.modality == "CT" and not self.localizer


def glimpse(file: Path) -> Glimpse | None:
    """Read a few tags of a DICOM file; None if it is damaged, or CT that names no series."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        try:
            header = read_dicom(file, _GLIMPSE_TAGS)
            series, modality = text_of(header, "SeriesInstanceUID"), modality_of(header)
            image_type = {"ImageType": value_of(header, "ImageType")}
            seen = Glimpse(
                series,
                modality,
                "Rows" in header,
                _is_localizer(image_type) or _is_picture(header),
                _plain(header, "PatientID"),
                text_of(header, "StudyInstanceUID"),
                text_of(header, "SOPInstanceUID"),
                _whole(header, "InstanceNumber"),
                _position(header),
            )
        except DAMAGED:
            return None
    return None if not modality or (modality == "CT" and not series) else seen


def _position(header: Dataset) -> tuple[float, float, float] | None:
    try:
        x, y, z = (round(float(mm), 1) for mm in header.ImagePositionPatient)
    except DAMAGED:
        return None
    return (x, y, z) if np.isfinite([x, y, z]).all() else None


class DicomStream(io.BufferedReader):
    """A DICOM file that may come from anywhere; pydicom unpacks the whole of a deflated one."""

    def __init__(self, file: Path) -> None:
        super().__init__(io.FileIO(str(file)))  # pydicom puts its name into texts
        self._file = file
        self._size = file.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes, or all that are left, which pydicom does to unpack them.

        Raises:
            InputError: if these unpack to more than any CT has.
        """
        if size is not None and size > self._size:  # room is made for as much as is claimed
            size = self._size
        content = super().read(size)
        if size is None or size < 0:
            self._refuse_bomb(content)
        return content

    def _refuse_bomb(self, packed: bytes) -> None:
        machine = zlib.decompressobj(-zlib.MAX_WBITS)
        unpacked = 0
        while packed and not machine.eof:
            unpacked += len(machine.decompress(packed, 1 << 20))
            packed = machine.unconsumed_tail
            if unpacked > _MAX_UNPACKED:
                raise InputError(
                    f"{self._file} unpacks to more than any CT image has: get it again."
                )


def read_dicom(
    file: Path, tags: list[str] | list[BaseTag] | None = None, pixels: bool = False
) -> Dataset:
    """Read a DICOM file that may come from anywhere.

    Args:
        file: with or without its preamble.
        tags: those that are read, or their keywords; None for all.
        pixels: read all of the file, not only what is before the pixels.

    Raises:
        InputError: if it unpacks to more than any CT has.
        Exception: one of `DAMAGED`.
    """
    with DicomStream(file) as stream:
        return pydicom.dcmread(
            stream,
            force=True,
            stop_before_pixels=not pixels,
            specific_tags=tags,
        )


def _plain(header: Dataset, keyword: str) -> str:
    """A text with what spellings differ in left out."""
    return "".join(c for c in text_of(header, keyword).casefold() if c.isalnum())


def _whole(header: Dataset, keyword: str) -> int | None:
    try:
        return int(header.get(keyword))
    except DAMAGED:
        return None
