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
    scans: list[_Scan] = []
    for folder in map(_Folder, folders.values()):
        for scan in scans:
            if not scan.is_apart_from(folder):
                break
        else:
            scan = _Scan()
            scans.append(scan)
        scan.add(folder)
    return [sorted(scan.names, key=Path) for scan in scans]


class _Folder:
    """The files of a series in one folder."""

    def __init__(self, files: Mapping[str, Glimpse]) -> None:
        self.names = list(files)
        self.patients = frozenset(seen.patient for seen in files.values()) - {""}
        self.studies = frozenset(seen.study for seen in files.values()) - {""}
        slices = [seen for seen in files.values() if seen.is_ct_slice]
        self._count = len(slices)
        self._instances = {seen.instance for seen in slices} - {""}
        self._positions = {seen.position for seen in slices if seen.position}
        self._ends = [(min(mm), max(mm)) for mm in zip(*self._positions, strict=True)]
        has_range = len(self._positions) > 1
        self._numbers = {seen.number for seen in slices if has_range and seen.number is not None}

    @property
    def contents(self) -> set[object]:
        """Its instances, positions and numbers; folders that share none are no copies."""
        return {*self._instances, *self._positions, *self._numbers}

    def is_copy_of(self, other: "_Folder") -> bool:
        """Whether it has the range of the other once more.

        A file or two that are in both, as on some media, do not count.
        """
        return (
            self._shares(self._instances & other._instances, other)
            or self._shares(self._positions & other._positions, other)
            or (self._shares(self._numbers & other._numbers, other) and self._covers(other))
        )

    def _shares(self, shared: Set[object], other: "_Folder") -> bool:
        return len(shared) > min(self._count, other._count) / 2

    def _covers(self, other: "_Folder") -> bool:
        """Whether they, which both have a range, have most of the shorter one in common."""
        along = max(range(3), key=lambda axis: self._ends[axis][1] - self._ends[axis][0])
        (low, high), (other_low, other_high) = self._ends[along], other._ends[along]
        common = min(high, other_high) - max(low, other_low)
        return common > min(high - low, other_high - other_low) / 2


class _Scan:
    """The folders of one scan, found by what they hold, as there may be one for each slice."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._patients: set[Set[str]] = set()
        self._studies: set[Set[str]] = set()
        self._holders: dict[object, list[_Folder]] = defaultdict(list)

    def add(self, folder: _Folder) -> None:
        self.names += folder.names
        self._patients.add(folder.patients)
        self._studies.add(folder.studies)
        for content in folder.contents:
            self._holders[content].append(folder)

    def is_apart_from(self, folder: _Folder) -> bool:
        """Whether a folder is of another patient or study, or a copy of one of these."""
        return (
            any(_differ(folder.patients, other) for other in self._patients)
            or any(_differ(folder.studies, other) for other in self._studies)
            or any(map(folder.is_copy_of, self._holders_of(folder.contents)))
        )

    def _holders_of(self, contents: Set[object]) -> set[_Folder]:
        return {one for content in contents for one in self._holders.get(content, ())}


def _differ(one: Set[str], other: Set[str]) -> bool:
    return bool(one and other) and not one & other
