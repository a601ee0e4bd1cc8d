"""Read a CT scan in any form, and list the scans below a folder."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_scan import CTScan, SliceSource, check_hu
from CTLungScreeningLib.reading.dicom_headers import (
    DICOM_SUFFIXES,
    Glimpse,
    glimpse,
    is_companion,
    looks_like_dicom,
    read_instance,
)
from CTLungScreeningLib.reading.dicom_pixels import is_calibrated, read_hu
from CTLungScreeningLib.reading.dicom_series import (
    ARCHIVE_SUFFIXES,
    FoundSeries,
    SliceIdentity,
    choose_series,
    closed_note,
    dicom_candidates,
    find_series,
)
from CTLungScreeningLib.reading.series_folders import scans_of
from CTLungScreeningLib.reading.slice_stack import rectify, tilt_degrees
from CTLungScreeningLib.reading.volume_files import VOLUME_SUFFIXES, read_volume_file, to_hu


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
        InputError: if `source` has no CT volume that can be read.
    """
    source = Path(source)
    if not source.exists():
        raise InputError(f"{source} does not exist: give a DICOM folder or a volume file.")
    if folder := _folder_of(source):
        found, notes = find_series(folder, progress)
        chosen, choice = choose_series(found, folder, series)
        return _read_stack(chosen, source, notes, choice, progress)
    if not source.is_file():
        raise InputError(f"{source} is not a regular file: give a DICOM folder or a volume file.")
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
        return _read_stack(_series_of(source, series, progress), source, (), (), progress)
    raise InputError(
        f"{source} is not in any of the formats read here: give a DICOM folder or a file "
        f"{', '.join(VOLUME_SUFFIXES)}."
    )


def read_indexed_series(
    folder: Path, uid: str, files: Sequence[Path], progress: ProgressCallback = silent
) -> CTScan:
    """Read a series whose files are known, as `read_ct` does, without looking at others.

    Raises:
        InputError: if they are not a CT volume that can be read.
    """
    found, notes = find_series(folder, progress, only=uid, files=files)
    chosen, choice = choose_series(found, folder, uid)
    return _read_stack(chosen, folder, notes, choice, progress)


def read_again(
    source: Path,
    uid: str,
    patient_id: str,
    instances: Collection[str],
    progress: ProgressCallback = silent,
) -> CTScan:
    """Read the slices that `read_ct` read once, and nothing else that lies with them now.

    Args:
        source: the folder or the DICOM file.
        uid: SeriesInstanceUID.
        patient_id: decides between copies of the slices.
        instances: SOP Instance UIDs of the slices.
        progress: as `read_ct`.

    Raises:
        InputError: if they are not a CT volume that can be read.
    """
    folder = _folder_of(source)
    among = SliceIdentity(frozenset(instances), patient_id)
    found, notes = find_series(
        folder or source.parent, progress, uid, nested=folder is not None, among=among
    )
    if not found:
        raise InputError(
            f"{source} has no slice of series {uid} any more: put them back, or run the scan again."
        )
    chosen, choice = choose_series(found, source, uid)
    return _read_stack(chosen, source, notes, choice, progress)


def has_slices(
    scan: "Path | IndexedScan", instances: Collection[str], series: str | None = None
) -> bool:
    """Whether the slices that would be read of a DICOM scan now are some that were read once.

    Args:
        scan: a series with its files, or a folder or DICOM file for `read_ct`.
        instances: SOP Instance UIDs of the slices.
        series: as `read_ct`.

    Raises:
        InputError: if it is not a CT volume that can be read.
    """
    if isinstance(scan, IndexedScan):
        if set(scan.instances) == set(instances):
            return True  # by far the most frequent; otherwise files may be no slices
        files = [scan.folder / file for file in scan.files]
        found, _ = find_series(scan.folder, only=scan.uid, files=files)
        chosen, _ = choose_series(found, scan.folder, scan.uid)
    elif folder := _folder_of(scan):
        chosen, _ = choose_series(find_series(folder)[0], folder, series)
    else:
        chosen = _series_of(scan, series)
    assert chosen.stack is not None
    return {frame.sop_instance_uid for frame in chosen.stack.frames} == set(instances)


def _folder_of(source: Path) -> Path | None:
    """The folder whose series a source stands for; None if it is one file."""
    if source.is_dir():
        return source
    return source.parent if source.name.upper() == "DICOMDIR" else None


def _series_of(file: Path, series: str | None, progress: ProgressCallback = silent) -> FoundSeries:
    """Find the series that a DICOM file belongs to."""
    instance = read_instance(file)
    if instance is None:
        raise InputError(f"{file} is a DICOMDIR: give its folder.")
    uid = instance.series.series_instance_uid
    if series not in (None, uid):
        raise InputError(f"{file} belongs to series {uid}, not {series}: give its folder instead.")
    found, _ = find_series(file.parent, progress, only=uid, nested=False)
    return choose_series(found, file.parent, uid)[0]


def _read_stack(
    series: FoundSeries,
    source: Path,
    notes: tuple[str, ...],
    choice: tuple[str, ...],
    progress: ProgressCallback,
) -> CTScan:
    stack = series.stack
    assert stack is not None
    hu = read_hu(stack.frames, progress)
    origin = stack.frames[0].position
    try:
        hu, odd = check_hu(str(source), hu, calibrated=is_calibrated(stack.frames))
    except InputError as error:
        raise InputError(" ".join((str(error), *choice))) from error
    notes += (*choice, *series.notes, *odd)
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
        SliceSource(frame.sop_instance_uid, frame.file, frame.index, tuple(frame.centre.tolist()))
        for frame in stack.frames
    )
    return CTScan(image, source, series.info, slices, notes)


IN_MEMORY = Path("image in memory")
"""The source of a scan that was not read from a file."""


@dataclass(frozen=True)
class IndexedScan:
    """One scan below a folder.

    Attributes:
        folder: where it was found.
        uid: SeriesInstanceUID; empty for a volume file, and if unknown.
        files: names relative to `folder`: of the series, or of the one file.
        instances: SOP Instance UIDs of the files of a series, empty where unknown.
        place: its first folder below the searched one, if another scan has the same UID.
    """

    folder: Path
    uid: str
    files: tuple[str, ...]
    instances: tuple[str, ...] = ()
    place: str = ""

    @property
    def name(self) -> str:
        """Its UID, with its place if others have the same, or the name of its file."""
        return f"{self.uid} {self.place}" if self.place else self.uid or self.files[0]

    def read(self, progress: ProgressCallback = silent) -> CTScan:
        """Read it, see `read_ct`.

        Raises:
            InputError: if it is not a CT volume.
        """
        files = [self.folder / file for file in self.files]
        if self.uid:
            return read_indexed_series(self.folder, self.uid, files, progress)
        return read_ct(files[0], progress=progress)


def as_scan(
    ct: Path | str | CTScan | IndexedScan | sitk.Image,
    series: str | None = None,
    progress: ProgressCallback = silent,
) -> CTScan:
    """Return a scan in whatever form it comes: read, indexed, on disk, or a SimpleITK image in HU.

    Raises:
        InputError: as `read_ct`, or if an image is not a 3-D volume in HU.
    """
    if isinstance(ct, CTScan):
        return ct
    if isinstance(ct, IndexedScan):
        return ct.read(progress)
    if isinstance(ct, sitk.Image):
        if ct.GetDimension() != 3 or ct.GetNumberOfComponentsPerPixel() != 1:
            raise InputError("The image is not one 3-D volume: give a CT volume in HU.")
        image, notes = to_hu(ct, str(IN_MEMORY))
        return CTScan(image, IN_MEMORY, notes=notes)
    return read_ct(Path(ct), series, progress)


def index_scans(
    folder: Path,
    progress: ProgressCallback = silent,
    *,
    required: bool = True,
    notes: list[str] | None = None,
) -> list[IndexedScan]:
    """Find the CT series and volume files below a folder, in the order of their file names.

    Only a few tags of each DICOM file are read, and only names are kept. Where a folder has damaged
    DICOM files and no other, the first of them stands for the scan that cannot be read. Series of
    localizers (scouts) and pictures alone are left out. A series in several folders is one scan,
    but folders of several patients or studies, and those with the same slices or with others of
    the same range, are scans of their own.

    Args:
        folder: searched with its subfolders.
        progress: counts the files examined, in the stage "Searching".
        required: whether there must be a scan.
        notes: gets a sentence if series of localizers or pictures, or what cannot be opened, was
            left out.

    Raises:
        InputError: if it is not a folder or holds no scan.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that holds the scans.")
    found = _look_below(folder, progress)
    scans = [IndexedScan(folder, "", (name,)) for name in found.volumes]
    pictures = 0
    for uid, files in found.series.items():
        parts = scans_of(files)
        for names in parts:
            if any(files[name].is_ct_slice for name in names):
                place = Path(names[0]).parent.as_posix() if len(parts) > 1 else ""
                instances = tuple(files[name].instance for name in names)
                scans.append(IndexedScan(folder, uid, tuple(names), instances, place))
            else:
                pictures += 1
    whole = {Path(name).parent for files in found.series.values() for name in files}
    whole |= {Path(name).parent for name in found.volumes}
    scans += [IndexedScan(folder, "", (n,)) for at, n in found.damaged.items() if at not in whole]
    if notes is not None:
        if pictures:
            notes.append(f"Series of localizers (scouts) or pictures left out: {pictures}.")
        if found.closed:
            notes.append(closed_note(found.closed))
    if required and not scans:
        if found.closed:
            raise InputError(found.closed[0])
        only = ", only localizers (scouts) or pictures" if pictures else ""
        raise InputError(
            f"{folder} holds no CT among its {counted(found.count, 'file')}{only}: give a folder "
            f"with DICOM series or files {', '.join(VOLUME_SUFFIXES)}."
        )
    return sorted(scans, key=lambda scan: scan.files[0])


@dataclass(frozen=True)
class _Found:
    """What lies below a folder; names are relative to it.

    Attributes:
        count: of all files.
        closed: a sentence for each file or folder that cannot be opened.
        series: the CT files by SeriesInstanceUID and name.
        volumes: names of volume files.
        damaged: the name of the first damaged DICOM file of each folder.
    """

    count: int
    closed: list[str]
    series: dict[str, dict[str, Glimpse]] = field(default_factory=lambda: defaultdict(dict))
    volumes: list[str] = field(default_factory=list)
    damaged: dict[Path, str] = field(default_factory=dict)


def _look_below(folder: Path, progress: ProgressCallback) -> _Found:
    closed: list[str] = []
    files = sorted(dicom_candidates(folder, closed))
    found = _Found(len(files), closed)
    for done, file in enumerate(files):
        progress("Searching", done, len(files))
        if is_companion(file):
            continue
        name = str(file.relative_to(folder))
        try:
            dicom = looks_like_dicom(file)
        except InputError as error:
            closed.append(str(error))
            continue
        if dicom:
            seen = glimpse(file)
            if seen is None:
                found.damaged.setdefault(Path(name).parent, name)
            elif seen.modality == "CT":
                found.series[seen.series][name] = seen
        elif file.name.lower().endswith(VOLUME_SUFFIXES):
            found.volumes.append(name)
        elif file.suffix.lower() in DICOM_SUFFIXES:
            found.damaged.setdefault(Path(name).parent, name)
    progress("Searching", len(files), len(files))
    return found
