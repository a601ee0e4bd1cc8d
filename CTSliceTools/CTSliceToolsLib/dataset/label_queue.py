"""The queue of CT series to annotate, with their state."""

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.dicom_headers import DAMAGED, looks_like_dicom
from CTSliceToolsLib.dataset.annotation import ANNOTATION, read_slice_names


@dataclass(frozen=True)
class SeriesToLabel:
    """A CT series in its own folder.

    Attributes:
        folder: of its files.
        uid: its SeriesInstanceUID.
    """

    folder: Path
    uid: str

    @property
    def annotation(self) -> Path:
        """The path of its annotation."""
        return self.folder / ANNOTATION

    @property
    def is_labelled(self) -> bool:
        """Whether its annotation has a landmark.

        Raises:
            InputError: if its annotation file is invalid.
        """
        return self.annotation.exists() and bool(read_slice_names(self.annotation))


class LabelQueue:
    """Series to label one after the other.

    Attributes:
        series: all of them.
    """

    def __init__(self, series: Sequence[SeriesToLabel]) -> None:
        """Set the series.

        Raises:
            InputError: if two of them share a folder, so that their annotations would clash.
        """
        folder, count = Counter(one.folder for one in series).most_common(1)[0]
        if count > 1:
            raise InputError(
                f"{folder} has {count} CT series: run organize, which gives each its own folder."
            )
        self.series = tuple(series)

    @classmethod
    def of_folder(cls, folder: Path) -> "LabelQueue":
        """Queue the CT series below a folder, each in its own folder.

        Only one file of each folder is read.

        Raises:
            InputError: if there are none.
        """
        found = []
        for place, folders, files in os.walk(folder):
            folders.sort()
            uid = _ct_series_uid(Path(place), files)
            if uid:
                found.append(SeriesToLabel(Path(place), uid))
        if not found:
            raise InputError(f"{folder} has no CT series: choose a folder made by organize.")
        return cls(found)

    @property
    def labelled(self) -> int:
        """Number of labelled series."""
        return sum(one.is_labelled for one in self.series)

    def next_unlabelled(self, current: SeriesToLabel | None = None) -> SeriesToLabel | None:
        """Return the next unlabelled series after `current`, continuing from the beginning."""
        start = self.series.index(current) + 1 if current in self.series else 0
        for one in (*self.series[start:], *self.series[:start]):
            if one != current and not one.is_labelled:
                return one
        return None


def _ct_series_uid(folder: Path, files: list[str]) -> str:
    """The SeriesInstanceUID of the first DICOM file in a folder; empty if it is not CT."""
    first = next((folder / name for name in sorted(files) if looks_like_dicom(folder / name)), None)
    if first is None:
        return ""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        try:
            tags = ["Modality", "SeriesInstanceUID"]
            header = pydicom.dcmread(first, force=True, stop_before_pixels=True, specific_tags=tags)
            return str(header.SeriesInstanceUID) if header.get("Modality") == "CT" else ""
        except DAMAGED:
            return ""
