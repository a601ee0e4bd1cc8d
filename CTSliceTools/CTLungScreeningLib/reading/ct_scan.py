"""A CT scan in memory, and whether its values can be those of a patient."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.hu import padding_to_air


@dataclass(frozen=True)
class SliceSource:
    """The DICOM instance behind one slice of a scan."""

    sop_instance_uid: str
    file: Path
    frame: int | None = None
    """Index from 0 of the frame in an enhanced multi-frame file, else None."""
    centre: tuple[float, float, float] | None = field(default=None, compare=False)
    """Of the slice as it was stored, LPS mm; None where it was not read.

    It is not that of the image's slice if the gantry was tilted: these slices are larger.
    """


@dataclass(frozen=True)
class SeriesInfo:
    """Attributes of the series from the DICOM header."""

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
        notes: one sentence for each repair on reading.
    """

    image: sitk.Image
    source: Path
    series: SeriesInfo | None = None
    slices: tuple[SliceSource, ...] = ()
    notes: tuple[str, ...] = ()


VOXEL_MM = (0.05, 20.0)
"""Range of spacings, from micro-CT of a specimen to the thickest slices ever used."""

FIELD_OF_VIEW_MM = (50.0, 2500.0)
"""Range of extents, from a cut-out of one nodule to more than any patient."""

FARTHEST_MM = 10_000.0
"""Maximum distance of a voxel from the origin of a scanner's coordinates."""

HIGHEST_MINIMUM_HU = -500
"""Every CT shows air somewhere; a volume whose lowest value is above this is not CT in HU."""

_TISSUE_FLOOR_HU = -900
"""Air in and around a patient is below this, with any noise."""

_HIGHEST_TISSUE_HU = 700
"""Bone and contrast exceed this in a small part of a scan, never in a quarter of its tissue."""

_HIGHEST_HU = 32767


def check_geometry(
    name: str,
    size: Sequence[int],
    spacing: Sequence[float] | NDArray[np.float64],
    origin: Sequence[float] | NDArray[np.float64],
) -> tuple[str, ...]:
    """Judge voxel size, field of view and place.

    Args:
        name: of the file or series, for the sentences.
        size: voxels along each axis.
        spacing: mm along each axis.
        origin: LPS mm of the first voxel.

    Returns:
        Notes on what is odd but possible.

    Raises:
        InputError: if they cannot be those of a scan in mm.
    """
    low, high = VOXEL_MM
    voxel = " × ".join(f"{mm:.4g}" for mm in spacing)
    if not all(low <= mm <= high for mm in spacing):
        raise InputError(
            f"{name} has voxels of {voxel} mm, where CT has {low:g} to {high:g} mm: its spacing "
            "may be in metres or microns; save it again in mm."
        )
    extent = [count * mm for count, mm in zip(size, spacing, strict=True)]
    whole = " × ".join(f"{mm:.0f}" for mm in extent)
    if max(extent) > FIELD_OF_VIEW_MM[1]:
        raise InputError(
            f"{name} is {whole} mm large with voxels of {voxel} mm, which no patient is: save it "
            "again with its true spacing in mm."
        )
    if max(map(abs, origin)) > FARTHEST_MM:
        raise InputError(
            f"{name} lies at {', '.join(f'{mm:.4g}' for mm in origin)} mm, farther away than any "
            "scanner's table reaches: save it again with its true origin."
        )
    if sorted(extent)[1] < FIELD_OF_VIEW_MM[0]:
        return (
            f"The field of view is only {whole} mm: a part of a scan, or its spacing is not in mm.",
        )
    return ()


def check_hu(
    name: str, hu: NDArray[Any], calibrated: bool = False
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Make padding air and judge whether the rest can be Hounsfield units.

    Args:
        name: of the file or series, for the sentences.
        hu: (z, y, x), changed in place.
        calibrated: whether the header has an intercept as that of a scanner, which is about −1024;
            values that look odd are then a note.

    Returns:
        The array, and notes on what is odd but possible.

    Raises:
        InputError: if the values are not HU.
    """
    notes = []
    if hu.dtype.kind == "f":
        odd = ~np.isfinite(hu)
        if count := int(odd.sum()):
            hu[odd] = np.nan
            notes.append(
                f"{counted(count, 'voxel')} {'was' if count == 1 else 'were'} NaN or infinite and "
                "taken as air."
            )
    padding_to_air(hu)
    low, high = float(hu.min()), float(hu.max())
    why = ""
    if low > HIGHEST_MINIMUM_HU or high <= HIGHEST_MINIMUM_HU:
        why = f"values from {low:g} to {high:g}"
    if high > _HIGHEST_HU:
        notes.append(f"Values reach {high:g}, more than any CT has in HU.")
    if not why and low > _TISSUE_FLOOR_HU:
        notes.append(
            f"The darkest voxels have {low:.0f} HU, where air has −1000: the values may be shifted "
            "or cut off."
        )
    tissue = hu[::2, ::2, ::2]
    tissue = tissue[tissue > _TISSUE_FLOOR_HU]
    if not why and tissue.size and (upper := float(np.percentile(tissue, 75))) > _HIGHEST_TISSUE_HU:
        why = f"values above {upper:.0f} in a quarter of the body, as if 1024 too high"
    if why and calibrated:
        notes.append(f"The scan has {why}, which is unusual for HU: check its Rescale Intercept.")
    elif why:
        raise InputError(
            f"{name} has {why}: that is not CT in HU, where air is about −1000 and tissue about 0; "
            "give the CT itself."
        )
    return hu, tuple(notes)
