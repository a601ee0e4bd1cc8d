"""Reading a CT scan, whatever form it comes in."""

from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_scan import HIGHEST_MINIMUM_HU, CTScan, SliceSource, check_hu
from CTLungScreeningLib.reading.dicom_headers import looks_like_dicom, read_instance
from CTLungScreeningLib.reading.dicom_pixels import read_hu
from CTLungScreeningLib.reading.dicom_series import (
    ARCHIVE_SUFFIXES,
    FoundSeries,
    choose_series,
    find_series,
)
from CTLungScreeningLib.reading.slice_stack import rectify, tilt_degrees
from CTLungScreeningLib.reading.volume_files import VOLUME_SUFFIXES, read_volume_file


def read_ct(source: Path, series: str | None = None, progress: ProgressCallback = silent) -> CTScan:
    """Read a CT scan as HU in LPS world coordinates (mm).

    Args:
        source: a folder that holds a DICOM series, with any nesting and whatever else is there; a
            DICOM file, which stands for its series in the same folder; or a .mhd, .mha, .nrrd,
            .nhdr, .nii or .nii.gz file.
        series: the SeriesInstanceUID to take; else the best CT of a chest is, see `best_first`.
        progress: callback, in the stages "Searching" and "Reading".

    Returns:
        The scan. Padding and whatever is below `hu.LOWEST_HU` is air (`hu.AIR_HU`). The slices of
        an axial DICOM series run from feet to head and their pixels lie as in the file; so the
        direction matrix is left-handed where the file shows them from the head. A stack sheared
        by a tilted gantry is put on an orthogonal grid. A volume file keeps its grid.

    Raises:
        InputError: if there is no CT volume to be had from `source`.
    """
    source = Path(source)
    if not source.exists():
        raise InputError(f"{source} does not exist: give a DICOM folder or a volume file.")
    if source.is_dir() or source.name.upper() == "DICOMDIR":
        folder = source if source.is_dir() else source.parent
        found, notes = find_series(folder, progress)
        chosen, choice = choose_series(found, folder, series)
        return _read_stack(chosen, source, (*notes, *choice), progress)
    if not source.is_file():
        raise InputError(f"{source} is no regular file: give a DICOM folder or a volume file.")
    if source.name.lower().endswith(VOLUME_SUFFIXES):
        if series is not None:
            raise InputError(f"{source} is one volume: a series can be named for a folder only.")
        progress("Reading", 0, 1)
        image, notes = read_volume_file(source)
        progress("Reading", 1, 1)
        return CTScan(image, source, notes=notes)
    if source.name.lower().endswith(ARCHIVE_SUFFIXES):
        raise InputError(f"{source} is an archive: unpack it and give the folder.")
    if looks_like_dicom(source):
        return _read_series_of(source, series, progress)
    raise InputError(
        f"{source} is none of the forms read here: give a DICOM folder or a file "
        f"{', '.join(VOLUME_SUFFIXES)}."
    )


def read_indexed_series(
    folder: Path, uid: str, files: Sequence[Path], progress: ProgressCallback = silent
) -> CTScan:
    """Read a series whose files are known, as `read_ct` does, without looking at others.

    Raises:
        InputError: if there is no CT volume to be had from them.
    """
    found, notes = find_series(folder, progress, only=uid, files=files)
    chosen, choice = choose_series(found, folder, uid)
    return _read_stack(chosen, folder, (*notes, *choice), progress)


def _read_series_of(file: Path, series: str | None, progress: ProgressCallback) -> CTScan:
    """Read the series that a DICOM file belongs to."""
    instance = read_instance(file)
    if instance is None:
        raise InputError(f"{file} is a DICOMDIR: give its folder.")
    uid = instance.series.series_instance_uid
    if series not in (None, uid):
        raise InputError(f"{file} belongs to series {uid}, not {series}: give its folder instead.")
    found, _ = find_series(file.parent, progress, only=uid, nested=False)
    chosen, _ = choose_series(found, file.parent, uid)
    return _read_stack(chosen, file, (), progress)


def _read_stack(
    series: FoundSeries, source: Path, notes: tuple[str, ...], progress: ProgressCallback
) -> CTScan:
    stack = series.stack
    assert stack is not None
    hu = read_hu(stack.frames, progress)
    origin = stack.frames[0].position
    intercepts = [frame.intercept for frame in stack.frames]
    hu, odd = check_hu(str(source), hu, calibrated=max(intercepts) <= HIGHEST_MINIMUM_HU)
    notes += (*series.notes, *odd)
    if stack.tilted:
        hu, origin = rectify(hu, stack)
        notes += (
            f"The gantry was tilted by {tilt_degrees(stack):.1f}°: each slice was shifted in its "
            "plane to where it lies.",
        )
    image = sitk.GetImageFromArray(hu)
    image.SetOrigin(origin.tolist())
    image.SetSpacing(stack.spacing)
    image.SetDirection(stack.direction.ravel().tolist())
    slices = tuple(
        SliceSource(frame.sop_instance_uid, frame.file, frame.index) for frame in stack.frames
    )
    return CTScan(image, source, series.info, slices, notes)
