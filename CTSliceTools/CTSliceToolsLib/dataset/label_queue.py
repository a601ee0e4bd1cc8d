"""The queue of CT series to annotate, with their state."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTLungScreeningLib.reading.dicom_headers import glimpse
from CTLungScreeningLib.reading.slice_stack import is_axial
from CTSliceToolsLib.dataset.annotation import ANNOTATION, dicom_files, read_slice_names


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
        """Take the series.

        Raises:
            InputError: if two of them share a folder, so that their annotations would clash.
        """
        folder, count = Counter(one.folder for one in series).most_common(1)[0]
        _require_one(folder, count)
        self.series = tuple(series)
        self._labelled: set[SeriesToLabel] = set()

    @classmethod
    def of_folder(cls, folder: Path, keep_alive: Callable[[], None] = lambda: None) -> "LabelQueue":
        """Queue the CT series below a folder, each in its own folder.

        A folder's files are read up to its first CT slice; scouts, damaged files, hidden folders
        and whatever else lies there are passed over. `read_next` passes over folders that have
        several series.

        Args:
            folder: to search.
            keep_alive: called at every file; what it raises ends the search.

        Raises:
            InputError: if there are none.
        """
        found = []
        for place, folders, _ in os.walk(folder):
            keep_alive()
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            uid = next(_ct_series(Path(place), keep_alive), "")
            if uid:
                found.append(SeriesToLabel(Path(place), uid))
        if not found:
            raise InputError(f"{folder} has no CT series: choose a folder made by organize.")
        return cls(found)

    @property
    def labelled(self) -> int:
        """Number of labelled series, as `read_next` and `look_at` saw them last.

        One with an invalid annotation does not count.
        """
        return len(self._labelled)

    def look_at(self, one: SeriesToLabel) -> None:
        """See whether a series, if it is of the queue, is labelled now."""
        self._labelled.discard(one)
        with suppress(InputError):
            if one in self.series and one.is_labelled:
                self._labelled.add(one)

    def read_next(
        self, current: SeriesToLabel | None = None, keep_alive: Callable[[], None] = lambda: None
    ) -> tuple[SeriesToLabel, CTScan, tuple[str, ...]]:
        """Read the next unlabelled series after `current`, continuing from the beginning.

        `keep_alive` is called at every file; what it raises ends the reading.

        Returns:
            The series, its scan, and a sentence for each series that was passed over because it
            cannot be read, shares its folder, or has an invalid annotation or slices that an
            annotation cannot name.

        Raises:
            InputError: if there is none.
        """
        start = self.series.index(current) + 1 if current in self.series else 0
        passed: list[str] = []
        for one in self.series:
            keep_alive()
            self.look_at(one)
        for one in (*self.series[start:], *self.series[:start]):
            try:
                if one != current and not one.is_labelled:
                    _require_one(one.folder, len({*_ct_series(one.folder, keep_alive)}))
                    scan = read_ct(one.folder, one.uid, lambda *_: keep_alive())
                    _require_names(one.folder, scan)
                    return one, scan, tuple(passed)
            except InputError as problem:
                passed.append(str(problem))
        if passed:
            raise InputError(f"No series is left that can be annotated. {passed_over(passed)}")
        raise InputError("No other series is left to annotate.")


def passed_over(problems: Sequence[str]) -> str:
    """A note on series that were passed over, with the first of the reasons."""
    return f"Passed over: {len(problems)}; for example, {problems[0]}" if problems else ""


def _require_names(folder: Path, scan: CTScan) -> None:
    """Check that the name of a file in the folder can stand for each slice.

    Raises:
        InputError: if not.
    """
    if any(one.file.parent != folder for one in scan.slices):
        raise InputError(
            f"{folder} has one series in several subfolders: run organize, which puts it into one."
        )
    uids = {one.sop_instance_uid for one in scan.slices} - {""}
    if len(uids) < len(scan.slices):
        raise InputError(
            f"{folder} has slices without a file or a SOP Instance UID of their own: export the "
            "series as one file per slice."
        )
    if not is_axial(np.reshape(scan.image.GetDirection(), (3, 3))[:, 2]):
        raise InputError(f"{folder} has no axial slices: choose an axial series.")


def _require_one(folder: Path, count: int) -> None:
    if count > 1:
        raise InputError(
            f"{folder} has {count} CT series: run organize, which gives each its own folder."
        )


def _ct_series(folder: Path, keep_alive: Callable[[], None]) -> Iterator[str]:
    """The SeriesInstanceUID of each CT slice directly in a folder; about 1.5 ms a file."""
    for file in dicom_files(folder):
        keep_alive()
        seen = glimpse(file)
        if seen is not None and seen.is_ct_slice:
            yield seen.series
