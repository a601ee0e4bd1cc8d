"""One SeriesInstanceUID in several folders: one scan, copies of it, or several patients."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from CTLungScreeningLib.reading.ct_reading import IndexedScan, index_scans
from CTLungScreeningLib.reading.dicom_headers import Glimpse
from CTLungScreeningLib.reading.series_folders import scans_of
from CTSliceToolsLib.localizer.results import result_name
from dicom_files import AXIAL, positions, write_series
from LungNoduleSegLib.batch.cases import find_cases
from LungNoduleSegLib.feature_extraction import find_scans


def write(folder: Path, z: float = 0, step: float = 3, first: int = 1, **fields: Any) -> list[Path]:
    """Write 12 slices, numbered from `first`, into a folder."""

    def edit(image: Dataset, k: int) -> None:
        image.InstanceNumber = first + k
        for keyword, value in fields.items():
            setattr(image, keyword, value)

    return write_series(
        folder, AXIAL, positions(origin=(0, 0, z), step=(0, 0, step), count=12), edit=edit
    )


def folders(scan: IndexedScan) -> set[str]:
    return {Path(name).parent.as_posix() for name in scan.files}


def test_a_file_that_media_hold_twice_makes_no_second_scan(tmp_path: Path) -> None:
    write(tmp_path / "DIR0")
    write(tmp_path / "DIR1", z=36, first=13)
    shutil.copy(tmp_path / "DIR0" / "011", tmp_path / "DIR1" / "again")
    (case,) = find_cases(tmp_path)
    assert " " not in case.name and isinstance(case.source, IndexedScan)
    read = case.source.read()
    assert read.image.GetDepth() == 24
    assert "1 of 25 images are copies of others and were left out." in read.notes


def test_copies_in_two_folders_each_are_two_scans(tmp_path: Path) -> None:
    write(tmp_path / "cd1" / "a")
    write(tmp_path / "cd1" / "b", z=36, first=13)
    shutil.copytree(tmp_path / "cd1", tmp_path / "cd2")
    scans = index_scans(tmp_path)
    assert list(map(folders, scans)) == [{"cd1/a", "cd1/b"}, {"cd2/a", "cd2/b"}]
    assert [scan.read().image.GetDepth() for scan in scans] == [24, 24]
    assert [scan.name for scan in scans] == [f"{scans[0].uid} cd{n}/a" for n in (1, 2)]
    assert list(find_scans(tmp_path)) == ["cd1"]  # of exact copies one stands for all


NOBODY = {"PatientID": "", "PatientName": ""}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"PatientID": "P1"}, {"PatientID": "P2"}),
        ({"PatientID": "P1"}, {"PatientID": "P2", "z": 500}),
        (NOBODY, NOBODY | {"StudyInstanceUID": "1.2.3", "z": 500}),
        (NOBODY | {"AcquisitionTime": "120001"}, NOBODY | {"AcquisitionTime": "120002"}),
        (NOBODY, NOBODY | {"first": 40}),
        (NOBODY, NOBODY | {"z": 4.4, "step": 2.5}),
    ],
)
def test_patients_with_one_series_uid_are_scans_of_their_own(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any]
) -> None:
    write(tmp_path / "P1", **one)
    (alone,) = index_scans(tmp_path)
    assert alone.name == alone.uid and result_name(alone) == f"{alone.uid}.json"
    write(tmp_path / "P2", **other)
    scans = index_scans(tmp_path)
    assert list(map(folders, scans)) == [{"P1"}, {"P2"}]
    names = [result_name(scan) for scan in scans]
    assert len({*names, result_name(alone)}) == 3
    assert all(name.startswith(f"{alone.uid}-") and name.endswith(".json") for name in names)
    for scan in scans:
        read = scan.read()
        assert read.image.GetDepth() == 12 and "left out" not in " ".join(read.notes)
        assert "acquisitions" not in " ".join(read.notes)
        assert {file.file.parent for file in read.slices} == {tmp_path / folders(scan).pop()}
    assert [case.name for case in find_cases(tmp_path)] == [f"{alone.uid} P{n}" for n in (1, 2)]


@pytest.mark.parametrize(
    "other",
    [
        {"z": 1.5, "first": 101},  # interleaved
        {"z": 36},  # numbered anew
        {"z": 36, "first": 13, "PatientID": ""},
        {"z": 36, "first": 13, "PatientID": " p-1"},
    ],
)
def test_parts_of_a_scan_are_one(tmp_path: Path, other: dict[str, Any]) -> None:
    write(tmp_path / "DIR0")
    write(tmp_path / "DIR1", **other)
    (scan,) = index_scans(tmp_path)
    assert folders(scan) == {"DIR0", "DIR1"}
    assert scan.read().image.GetDepth() == 24


def test_thousands_of_folders_of_one_file_are_sorted_at_once() -> None:
    files = {
        f"{copy}/{k}/1.dcm": Glimpse("s", "CT", True, False, "p", "t", f"{k}", k, (0, 0, float(k)))
        for copy in range(2)
        for k in range(3000)
    }
    began = time.monotonic()
    scans = scans_of(files)
    assert time.monotonic() - began < 3  # pair by pair it took 13 s
    assert [{name[0] for name in scan} for scan in scans] == [{"0"}, {"1"}]
    assert [len(scan) for scan in scans] == [3000, 3000]
