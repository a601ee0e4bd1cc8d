"""The CT series of Slicer's DICOM database."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import slicer


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
    """Give the CT series, patient by patient; none while there is no database."""
    database = getattr(slicer, "dicomDatabase", None)
    if database is None:
        return
    for patient in database.patients():
        for study in database.studiesForPatient(patient):
            for uid in database.seriesForStudy(study):
                files = database.filesForSeries(uid)
                if files and database.fileValue(files[0], "0008,0060") == "CT":
                    told = (database.fileValue(files[0], tag) for tag in _TAGS)
                    name, number, date, description = told
                    words = dict.fromkeys([" ".join(name.replace("^", " ").split()), number])
                    patient_text = ", ".join(filter(None, words))
                    yield DatabaseSeries(
                        uid, patient_text, date, description, tuple(map(Path, files))
                    )


_TAGS = ("0010,0010", "0010,0020", "0008,0020", "0008,103e")
"""PatientName, PatientID, StudyDate, SeriesDescription."""
