"""The header of one DICOM file: which series it belongs to and where its slices lie."""

import struct
import zlib
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from CTLungScreeningLib.errors import InputError

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
"""What can tell several acquisitions or reconstructions in one series apart, best first."""

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

_OTHER_UNITS = {"OD", "MGML", "Z_EFF", "ED", "EDW", "PCT", "CONCENTRATION"}
"""Rescale Types of DICOM PS3.3 C.11.1.1.2 that are not HU. Any other text is taken for a spelling
of HU, or for nothing (US, unspecified), and the values themselves are judged."""

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
"""What pydicom raises on a damaged file."""


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


def text_of(header: Dataset, keyword: str) -> str:
    """The text of an attribute without control characters, which no terminal or log shall see."""
    value = header.get(keyword)
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() else " " for c in text).strip()


def printable(error: object) -> str:
    """Give a reason on one line without what a terminal would obey."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return "".join(c if c.isprintable() else "?" for c in line)[:120].rstrip(".")


def frames_of(header: Dataset, file: Path) -> Iterator[Frame]:
    """The slices of a CT file, localizers and screenshots left out."""
    top = {key: header.get(key) for key in (*SLICE_TAGS, *ACQUISITION_TAGS) if key in header}
    uid = text_of(header, "SOPInstanceUID")
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise InputError(
                f"{file} holds several frames but not where they lie: "
                "export the series again as CT or Enhanced CT images."
            )
        secondary_capture = text_of(header, "SOPClassUID").startswith("1.2.840.10008.5.1.4.1.1.7")
        if not _is_localizer(top) and not (secondary_capture and not _has_place(top)):
            yield _frame(top, file, None, uid)
        return
    if len(per_frame) != int(header.get("NumberOfFrames") or 0):
        raise InputError(
            f"{file} describes {len(per_frame)} frames but announces "
            f"{header.get('NumberOfFrames')}: get the file again."
        )
    shared = _flat(islice(header.get("SharedFunctionalGroupsSequence") or (), 1))
    for index, group in enumerate(per_frame):
        values = ChainMap(_flat([group]), shared, top)
        if not _is_localizer(values):
            yield _frame(values, file, index, uid)


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


def _has_place(values: Mapping[str, Any]) -> bool:
    return bool(values.get("ImagePositionPatient") and values.get("ImageOrientationPatient"))


def _frame(values: Mapping[str, Any], file: Path, index: int | None, uid: str) -> Frame:
    where = str(file) if index is None else f"{file} (frame {index + 1})"

    def numbers(keyword: str, count: int) -> list[float]:
        value = values.get(keyword)
        if value is None or value == "":
            raise InputError(
                f"{where} has no {dictionary_description(keyword)}: "
                "export the series again from where it came from."
            )
        given = np.atleast_1d(np.asarray(value, dtype=float))
        if given.size != count or not np.isfinite(given).all():
            raise InputError(
                f"The {dictionary_description(keyword)} of {where} makes no sense: "
                "export the series again from where it came from."
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
    if unit in _OTHER_UNITS:
        raise InputError(f"{where} is not in HU but in {unit}: choose another series.")
    orientation = np.reshape(numbers("ImageOrientationPatient", 6), (2, 3))
    position = np.array(numbers("ImagePositionPatient", 3))
    row_spacing, column_spacing = numbers("PixelSpacing", 2)
    (slope,), (intercept,) = numbers("RescaleSlope", 1), numbers("RescaleIntercept", 1)
    if not np.allclose(orientation @ orientation.T, np.eye(2), atol=1e-2):
        raise InputError(
            f"{where} has an Image Orientation (Patient) that is not two perpendicular directions: "
            "export the series again from where it came from."
        )
    if min(row_spacing, column_spacing) <= 0 or slope == 0:
        raise InputError(
            f"{where} has a Pixel Spacing or Rescale Slope of 0: "
            "export the series again from where it came from."
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
        acquisition={key: str(values[key]) for key in ACQUISITION_TAGS if values.get(key)},
    )
