"""All scans below a folder, found without keeping more than their names in memory."""

import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pydicom
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_reading import read_ct, read_indexed_series
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTLungScreeningLib.reading.dicom_headers import (
    DAMAGED,
    DICOM_SUFFIXES,
    is_companion,
    looks_like_dicom,
    modality_of,
)
from CTLungScreeningLib.reading.dicom_series import dicom_candidates
from CTLungScreeningLib.reading.volume_files import VOLUME_SUFFIXES, to_hu

IN_MEMORY = Path("image in memory")
"""The source of a scan that was not read from a file."""


@dataclass(frozen=True)
class IndexedScan:
    """One scan below a folder.

    Attributes:
        folder: where it was found.
        uid: SeriesInstanceUID; empty for a volume file, and if unknown.
        files: names relative to `folder`: of the series, or of the one file.
    """

    folder: Path
    uid: str
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its UID, or the name of its file."""
        return self.uid or self.files[0]

    def read(self, progress: ProgressCallback = silent) -> CTScan:
        """Read it, see `read_ct`.

        Raises:
            InputError: if it is no CT volume.
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
        InputError: as `read_ct`, or if an image is no 3-D volume in HU.
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


def index_scans(folder: Path, progress: ProgressCallback = silent) -> list[IndexedScan]:
    """Find the CT series and volume files below a folder, in the order of their file names.

    Only two tags of each DICOM file are read, and only names are kept. Where a folder has damaged
    DICOM files and no other, the first of them stands for the scan that cannot be read.

    Args:
        folder: searched with its subfolders.
        progress: counts the files examined, in the stage "Searching".

    Raises:
        InputError: if it is no folder, holds no scan, or a file in it cannot be opened.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that holds the scans.")
    series: dict[str, list[str]] = defaultdict(list)
    scans = []
    damaged: dict[Path, str] = {}
    files = sorted(dicom_candidates(folder))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        for done, file in enumerate(files):
            progress("Searching", done, len(files))
            name = str(file.relative_to(folder))
            if is_companion(file):
                continue
            if looks_like_dicom(file):
                uid = _ct_series_uid(file)
                if uid is None:
                    damaged.setdefault(file.parent, name)
                elif uid:
                    series[uid].append(name)
            elif file.name.lower().endswith(VOLUME_SUFFIXES):
                scans.append(IndexedScan(folder, "", (name,)))
            elif file.suffix.lower() in DICOM_SUFFIXES:
                damaged.setdefault(file.parent, name)
    progress("Searching", len(files), len(files))
    scans += [IndexedScan(folder, uid, tuple(names)) for uid, names in series.items()]
    whole = {(folder / name).parent for scan in scans for name in scan.files}
    scans += [IndexedScan(folder, "", (n,)) for where, n in damaged.items() if where not in whole]
    if not scans:
        raise InputError(
            f"{folder} holds no CT among its {len(files)} files: give a folder with DICOM series "
            f"or files {', '.join(VOLUME_SUFFIXES)}."
        )
    return sorted(scans, key=lambda scan: scan.files[0])


def _ct_series_uid(file: Path) -> str | None:
    """The SeriesInstanceUID of a CT file; empty for other files, None for damaged ones."""
    try:
        header = pydicom.dcmread(
            file,
            force=True,
            stop_before_pixels=True,
            specific_tags=["Modality", "SOPClassUID", "Rows", "SeriesInstanceUID"],
        )
        modality = modality_of(header)
        if not modality:
            return None
        return str(header.SeriesInstanceUID).strip() if modality == "CT" else ""
    except DAMAGED:
        return None
