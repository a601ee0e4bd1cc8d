"""Whether folders with one SeriesInstanceUID hold one scan or several."""

from collections import defaultdict
from collections.abc import Mapping, Set
from pathlib import Path

from CTLungScreeningLib.reading.dicom_headers import Glimpse


def scans_of(files: Mapping[str, Glimpse]) -> list[list[str]]:
    """Sort the files of one SeriesInstanceUID into scans, each of whole folders.

    Media hold one series in several folders, archives hold copies of it, and some anonymizers give
    one UID to the series of all patients.

    Args:
        files: what a few tags tell of each, by path.

    Returns:
        The paths of each scan, sorted.
    """
    folders: dict[Path, dict[str, Glimpse]] = defaultdict(dict)
    for name, seen in files.items():
        folders[Path(name).parent][name] = seen
    scans: list[list[_Folder]] = []
    for folder in map(_Folder, folders.values()):
        for scan in scans:
            if not any(map(folder.is_apart_from, scan)):
                scan.append(folder)
                break
        else:
            scans.append([folder])
    return [sorted((name for one in scan for name in one.names), key=Path) for scan in scans]


class _Folder:
    """The files of a series in one folder."""

    def __init__(self, files: Mapping[str, Glimpse]) -> None:
        self.names = list(files)
        self._patients = {seen.patient for seen in files.values()} - {""}
        self._studies = {seen.study for seen in files.values()} - {""}
        slices = [seen for seen in files.values() if seen.is_ct_slice]
        self._count = len(slices)
        self._instances = {seen.instance for seen in slices} - {""}
        self._positions = {seen.position for seen in slices if seen.position}
        self._ends = [(min(mm), max(mm)) for mm in zip(*self._positions, strict=True)]
        self._numbers = {seen.number for seen in slices if seen.number is not None}

    def is_apart_from(self, other: "_Folder") -> bool:
        """Whether it is of another patient or study, or has the range of the other once more.

        A file or two that are in both, as on some media, do not count.
        """
        return (
            _differ(self._patients, other._patients)
            or _differ(self._studies, other._studies)
            or self._shares(self._instances & other._instances, other)
            or self._shares(self._positions & other._positions, other)
            or (self._shares(self._numbers & other._numbers, other) and self._covers(other))
        )

    def _shares(self, shared: Set[object], other: "_Folder") -> bool:
        return len(shared) > min(self._count, other._count) / 2

    def _covers(self, other: "_Folder") -> bool:
        """Whether they have most of the shorter one's range in common."""
        if not self._ends or not other._ends:
            return False
        along = max(range(3), key=lambda axis: self._ends[axis][1] - self._ends[axis][0])
        (low, high), (other_low, other_high) = self._ends[along], other._ends[along]
        common = min(high, other_high) - max(low, other_low)
        return common > min(high - low, other_high - other_low) / 2


def _differ(one: Set[str], other: Set[str]) -> bool:
    return bool(one and other) and not one & other
