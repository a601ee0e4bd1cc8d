"""Makers of broken and odd inputs, from a phantom."""

import gzip
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

from LungNoduleSegLib.phantom.chest import PhantomSpec, make_phantom
from LungNoduleSegLib.phantom.dicom import write_dicom_series

SECRETS = ("Nobody^Jane", "19810302")
"""Of the patient; no message may quote them."""

Make = Callable[[Path], Path]
Change = Callable[[Path], Any]
"""Changes a file, or a folder of a series; a path that it gives takes the place of the old one."""


@dataclass(frozen=True)
class Hostile:
    """One input.

    Attributes:
        kind: the family it belongs to.
        name: of the input.
        make: writes it into an empty folder and gives what a command is called with.
        expect: "same" as the whole scan, "noted" (the same and a note), or "refused".
        words: of the note or the refusal.
    """

    kind: str
    name: str
    make: Make
    expect: str
    words: str = ""


@cache
def phantom() -> sitk.Image:
    """A chest of 64 × 64 × 24 voxels."""
    return make_phantom(PhantomSpec(0, (64, 64, 24), (5.6, 5.6, 12.5))).image


@cache
def series_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    write_dicom_series(phantom(), folder / "ct")
    (folder / "sorted").mkdir()
    images = [pydicom.dcmread(file) for file in (folder / "ct").iterdir()]
    for k, image in enumerate(sorted(images, key=lambda one: one.ImagePositionPatient[2])):
        image.PatientName, image.PatientBirthDate = SECRETS
        image.save_as(folder / "sorted" / f"{k:03}.dcm")
    return folder / "sorted"


def series(edit: Callable[[Dataset, int], None] | None = None, **fields: Any) -> Make:
    """Write the DICOM series, each header edited or with other values; None removes one."""

    def make(folder: Path) -> Path:
        for k, file in enumerate(sorted(series_folder().iterdir())):
            image = pydicom.dcmread(file)
            for keyword, value in fields.items():
                if value is None:
                    delattr(image, keyword)
                else:
                    image.add(
                        pydicom.DataElement(
                            keyword,
                            pydicom.datadict.dictionary_VR(keyword),
                            value,
                            validation_mode=0,
                        )
                    )
            if edit:
                edit(image, k)
            image.save_as(folder / f"{k:03}.dcm")
        return folder

    return make


def stranger(name: str, **fields: Any) -> Make:
    """The series with one more object under its UID, which has no pixels unless `Rows` is given."""

    def make(folder: Path) -> Path:
        series()(folder)
        image = pydicom.dcmread(folder / "003.dcm")
        image.SOPInstanceUID = generate_uid()
        for keyword in ("PixelData", "Rows", "Columns", "ImagePositionPatient"):
            if keyword not in fields:
                delattr(image, keyword)
        for keyword, value in fields.items():
            setattr(image, keyword, value)
        image.save_as(folder / name)
        return folder

    return make


def file(change: Change) -> Make:
    """The series, with one of its files or its folder changed."""

    def make(where: Path) -> Path:
        series()(where)
        change(where)
        return where

    return make


def volume(suffix: str, change: Change | None = None, image: Any = None) -> Make:
    """A volume file of the phantom, changed after it was written."""

    def make(folder: Path) -> Path:
        path = folder / f"ct{suffix}"
        sitk.WriteImage(phantom() if image is None else image(phantom()), path)
        found = change(path) if change else None
        return found if isinstance(found, Path) else path

    return make


def swap(old: bytes, new: bytes) -> Change:
    """Put other bytes into a header."""

    def change(path: Path) -> None:
        content = path.read_bytes()
        assert old in content, old
        path.write_bytes(content.replace(old, new, 1))

    return change


def patch(place: int, kind: str, value: Any) -> Change:
    """Put a number into the header of a NIfTI that is not packed."""

    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        raw = np.array(value, kind).tobytes()
        content[place : place + len(raw)] = raw
        path.write_bytes(content)

    return change


def cut(share: float) -> Change:
    """Cut a file short."""

    def change(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return change


def both(*changes: Change) -> Change:
    """Make several changes."""

    def change(path: Path) -> None:
        for one in changes:
            one(path)

    return change


def damage(content: bytes | None) -> Change:
    def change(folder: Path) -> Path:
        one = folder / "011.dcm"
        one.write_bytes(one.read_bytes()[:500] if content is None else content)
        return folder

    return change


def set_apart(image: Dataset, k: int) -> None:
    if k >= 12:
        image.ImagePositionPatient[2] += (k - 11) * 12.5


def other_half(**fields: str) -> Callable[[Dataset, int], None]:
    def edit(image: Dataset, k: int) -> None:
        for keyword, value in fields.items():
            if k >= 12:
                setattr(image, keyword, value)

    return edit


def raw(image: Dataset, _: int) -> None:
    """Stored values 1024 too high, with an intercept of 0."""
    values = image.pixel_array.astype(np.int32) * int(image.RescaleSlope)
    image.PixelData = np.clip(values, 0, None).astype(np.int16).tobytes()
    image.RescaleSlope, image.RescaleIntercept = 1, 0


def renamed(name: str) -> Change:
    return lambda path: path.rename(path.with_name(name))


def repack(path: Path) -> Path:
    return Path(shutil.move(path, path.with_suffix("").with_suffix(".nii")))


def without(*slices: int) -> Change:
    def change(folder: Path) -> None:
        for k in slices:
            (folder / f"{k:03}.dcm").unlink()

    return change


def unknown(tag: bytes) -> Change:
    """Give an attribute a value representation that DICOM does not have."""

    def change(folder: Path) -> None:
        for file in folder.iterdir():
            file.write_bytes(file.read_bytes().replace(tag, tag[:4] + b"ZZ"))

    return change


def lengthen(path: Path) -> None:
    """Append one slice."""
    path.write_bytes(path.read_bytes() + bytes(64 * 64 * 2))


def lengthen_packed(path: Path) -> None:
    """Append one slice to what is packed with gzip."""
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(64 * 64 * 2)))


def overlap(folder: Path) -> None:
    """Make two acquisitions of the series, with four places in both and other noise."""
    for k, file in enumerate(sorted(folder.iterdir())):
        image = pydicom.dcmread(file)
        image.AcquisitionNumber = 1 if k < 13 else 2
        image.save_as(file)
        if 9 <= k < 13:
            image.AcquisitionNumber, image.SOPInstanceUID = 2, generate_uid()
            image.PixelData = (image.pixel_array + 3).tobytes()
            image.save_as(folder / f"again-{file.name}")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def loop(folder: Path) -> Path:
    for k in range(5):
        (folder / f"loop{k}").symlink_to(folder)
    return folder


def deflate_bomb(folder: Path) -> Path:
    image = pydicom.dcmread(folder / "003.dcm")
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.save_as(folder / "bomb.dcm")
    meta = pydicom.filereader.read_file_meta_info(folder / "bomb.dcm")
    length = 144 + int(meta.FileMetaInformationGroupLength)
    content = (folder / "bomb.dcm").read_bytes()[:length]
    machine = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed = b"".join(machine.compress(bytes(1 << 24)) for _ in range(24)) + machine.flush()
    (folder / "bomb.dcm").write_bytes(content + packed)
    return folder


def twelve_bits(image: Dataset) -> None:
    values = np.clip(image.pixel_array.astype(np.int32), 0, 4095)
    image.PixelData = (values << 4).astype(np.uint16).tobytes()
    image.BitsStored, image.HighBit, image.PixelRepresentation = 12, 15, 0


def with_nan(image: sitk.Image) -> sitk.Image:
    changed = sitk.Cast(image, sitk.sitkFloat32)
    changed[3, 3, 3] = float("nan")
    return changed


CT_PICTURE = {"Rows": 64, "Columns": 64, "PixelData": bytes(64 * 64 * 2)}
