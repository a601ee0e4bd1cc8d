"""Heaps of DICOM files to organize, and what became of them."""

import csv
import shutil
from pathlib import Path

from CTSliceToolsLib.organizing.organizer import Summary
from dicom_files import AXIAL, ct_slice, save


def write(file: Path, number: object = 1, **values: object) -> Path:
    """Write a small CT image with some of its attributes changed; None removes one."""
    image = ct_slice(AXIAL, (0, 0, 0), "chest")
    image.InstanceNumber = number
    for keyword, value in values.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    file.parent.mkdir(parents=True, exist_ok=True)
    save(image, file)
    return file


def heap(folder: Path) -> Path:
    """A heap as it comes: two patients, a clash, a copy, no number, a text, half an image."""
    write(folder / "cd1" / "IM1", 1, PatientID="P1")
    write(folder / "cd1" / "IM2", 2, PatientID="P1")
    write(folder / "cd2" / "IM1", 1, PatientID="P1")
    write(folder / "cd2" / "IM9", 1, PatientID="a/b c")
    write(folder / "cd2" / "none", None, PatientID="P1")
    shutil.copy(folder / "cd1" / "IM2", folder / "cd2" / "copy of IM2")
    (folder / "notes.txt").write_text("hello")
    (folder / "half.dcm").write_bytes((folder / "cd1" / "IM1").read_bytes()[:-10])
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder with their content."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def images(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder).items() if name.endswith(".dcm")}


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def left_out(summary: Summary) -> dict[str, str]:
    assert summary.left_out_table
    with summary.left_out_table.open(encoding="utf-8", newline="") as stream:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(stream)}
