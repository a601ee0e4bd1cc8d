"""Stand-in for Slicer's DICOM database: looks into files that tests tell it of."""

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset


class DicomDatabase:
    """The questions of ctkDICOMDatabase that panels ask; patients are known by their ID."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, Dataset]] = []

    def add_folder(self, folder: Path) -> None:
        """Index the files below a folder, as importing it would."""
        for file in sorted(one for one in folder.rglob("*") if one.is_file()):
            self._rows.append((str(file), pydicom.dcmread(file, stop_before_pixels=True)))

    def leave_on_server(self, *files: Path) -> None:
        """Have instances as a query of a server adds them: their rows have no file."""
        away = set(map(str, files))
        self._rows = [("" if file in away else file, one) for file, one in self._rows]

    def clear(self) -> None:
        """Forget all files."""
        self._rows = []

    def patients(self) -> tuple[str, ...]:
        """Return the patients."""
        return self._values("PatientID", "", "")

    def studiesForPatient(self, patient: str) -> tuple[str, ...]:
        """Return the studies of a patient."""
        return self._values("StudyInstanceUID", "PatientID", patient)

    def seriesForStudy(self, study: str) -> tuple[str, ...]:
        """Return the series of a study."""
        return self._values("SeriesInstanceUID", "StudyInstanceUID", study)

    def fieldForSeries(self, field: str, series: str) -> str:
        """Return a column of the table of series, such as Modality; "" if it is unknown."""
        found = (one.get(field, "") for _, one in self._rows if one.SeriesInstanceUID == series)
        return str(next(found, ""))

    def filesForSeries(self, series: str) -> tuple[str, ...]:
        """Return the files of a series, "" for each that was not retrieved."""
        return tuple(f for f, one in self._rows if one.SeriesInstanceUID == series)

    def fileForInstance(self, uid: str) -> str:
        """Return the file of an instance, "" if it is not known."""
        return next((f for f, one in self._rows if one.SOPInstanceUID == uid), "")

    def fileValue(self, file: str, tag: str) -> str:
        """Return a value of a file, the tag given as "0008,0060"."""
        group, element = (int(part, 16) for part in tag.split(","))
        header = next((one for f, one in self._rows if f and f == file), Dataset())
        return str(header[group, element].value) if (group, element) in header else ""

    def _values(self, keyword: str, of: str, value: str) -> tuple[str, ...]:
        found = (str(one.get(keyword)) for _, one in self._rows if not of or one.get(of) == value)
        return tuple(dict.fromkeys(found))
