"""CT series in Slicer's DICOM database, and the files of their slices."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from CTLungScreeningLib.reading.dicom_headers import glimpse


@dataclass(frozen=True)
class DatabaseSeries:
    """One series.

    Attributes:
        uid: SeriesInstanceUID.
        patient: name and ID, as far as known.
        date: of the study, YYYYMMDD.
        description: of the series.
        slices: number of its instances.
        folder: that all its files lie below.
    """

    uid: str
    patient: str
    date: str
    description: str
    slices: int
    folder: Path


def ct_series(keep_alive: Callable[[], None] = lambda: None) -> tuple[list[DatabaseSeries], str]:
    """Return the CT series, patient by patient, and a note on those left out, "" if there are none.

    Left out are series of which a server has files that were not retrieved, and series on several
    drives; not counted are those that are no CT, by their files or without any by their modality.
    Scouts alone do not count as a series, and without a database there is none.

    Args:
        keep_alive: called at each series; what it raises ends the search.
    """
    found = []
    left_out = 0
    for uid, rows in _series():
        keep_alive()
        files = [Path(file) for file in rows if file]
        modality = slicer.dicomDatabase.fieldForSeries("Modality", uid)
        if not (_is_ct(files) if files else modality.upper() in ("CT", "")):
            continue
        folder = _common_folder(files) if files and len(files) == len(rows) else None
        if folder is None:
            left_out += 1
            continue
        values = (slicer.dicomDatabase.fileValue(rows[0], tag) for tag in _TAGS)
        name, number, date, description = values
        words = dict.fromkeys([" ".join(name.replace("^", " ").split()), number])
        patient = ", ".join(filter(None, words))
        found.append(DatabaseSeries(uid, patient, date, description, len(files), folder))
    note = _(
        "Series left out: {count}. Retrieve all their files in Slicer's DICOM module, to one drive."
    )
    return found, note.format(count=left_out) if left_out else ""


def _series() -> Iterator[tuple[str, Sequence[str]]]:
    """Return each series and the paths of its files, "" for one that is on a server only."""
    database: Any = getattr(slicer, "dicomDatabase", None)
    for patient in database.patients() if database is not None else ():
        for study in database.studiesForPatient(patient):
            for uid in database.seriesForStudy(study):
                yield uid, database.filesForSeries(uid)


def _common_folder(files: Iterable[Path]) -> Path | None:
    """The folder that all files lie below; None if they are on several drives."""
    try:
        return Path(os.path.commonpath([file.parent for file in files]))
    except ValueError:
        return None


def _is_ct(files: Iterable[Path]) -> bool:
    """Whether the first image of a series is CT; scouts and damaged files do not count."""
    for seen in map(glimpse, files):
        if seen is not None and seen.image and not seen.localizer:
            return seen.modality == "CT"
    return False


_TAGS = ("0010,0010", "0010,0020", "0008,0020", "0008,103e")
"""PatientName, PatientID, StudyDate, SeriesDescription."""


def instance_files(uids: Iterable[str], known: Mapping[str, Path]) -> dict[str, Path]:
    """Return the file of each SOP Instance UID that is `known` or in Slicer's DICOM database.

    Files that are no longer there are left out.
    """
    database = getattr(slicer, "dicomDatabase", None)
    files = {}
    for uid in uids:
        if uid in known:
            files[uid] = known[uid]
        elif uid and database is not None and (file := database.fileForInstance(uid)):
            files[uid] = Path(file)
    return {uid: file for uid, file in files.items() if file.is_file()}
