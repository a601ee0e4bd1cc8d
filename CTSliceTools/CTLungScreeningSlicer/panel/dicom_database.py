"""CT series in Slicer's DICOM database, and the files of their slices."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import slicer

from CTLungScreeningLib.reading.dicom_headers import glimpse


@dataclass(frozen=True)
class DatabaseSeries:
    """One series.

    Attributes:
        uid: SeriesInstanceUID.
        patient: name and ID, as far as known.
        date: of the study, YYYYMMDD.
        description: of the series.
        files: its instances.
    """

    uid: str
    patient: str
    date: str
    description: str
    files: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        """The folder that all its files lie below."""
        return Path(os.path.commonpath([file.parent for file in self.files]))


def ct_series() -> Iterator[DatabaseSeries]:
    """Return the CT series, patient by patient; none while there is no database.

    Series of scouts alone are left out.
    """
    database = getattr(slicer, "dicomDatabase", None)
    if database is None:
        return
    for patient in database.patients():
        for study in database.studiesForPatient(patient):
            for uid in database.seriesForStudy(study):
                files = database.filesForSeries(uid)
                if _is_ct(map(Path, files)):
                    values = (database.fileValue(files[0], tag) for tag in _TAGS)
                    name, number, date, description = values
                    words = dict.fromkeys([" ".join(name.replace("^", " ").split()), number])
                    patient_text = ", ".join(filter(None, words))
                    yield DatabaseSeries(
                        uid, patient_text, date, description, tuple(map(Path, files))
                    )


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
