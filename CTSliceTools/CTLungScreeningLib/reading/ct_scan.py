"""A CT scan in memory: SimpleITK's image plus where each slice came from."""

from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk


@dataclass(frozen=True)
class SliceSource:
    """The DICOM instance behind one slice of a scan."""

    sop_instance_uid: str
    file: Path
    frame: int | None = None
    """Index from 0 of the frame in an enhanced multi-frame file, else None."""


@dataclass(frozen=True)
class SeriesInfo:
    """What the DICOM header says of the whole series."""

    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    description: str
    study_date: str


@dataclass(frozen=True)
class CTScan:
    """A CT volume.

    Attributes:
        image: HU as int16 (float32 where a rescale slope or intercept is not whole); SimpleITK's
            geometry, LPS world in mm; its array is (z, y, x), z along the slice normal, which
            points to the patient's head for a DICOM series read from an axial scan.
        source: the folder or file that was read.
        series: DICOM identifiers, None for other formats.
        slices: for DICOM one entry for each k of the array, in order; empty for other formats.
        notes: one sentence for each thing mended on reading.
    """

    image: sitk.Image
    source: Path
    series: SeriesInfo | None = None
    slices: tuple[SliceSource, ...] = ()
    notes: tuple[str, ...] = ()
