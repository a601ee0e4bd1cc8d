"""Annotated scans on disk, one folder each; only one has to fit into memory at a time.

A folder holds the scan as axial images cropped to the lungs (`hu.nrrd`, `lungs.nrrd` and
`nodules.nrrd`, whose voxels have the number of their nodule), the examples for the tutorial's
network (`images.npy`, `masks.npy`) and `scan.json`.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import new_file, private_folder
from CTLungScreeningLib.json_files import read_object
from CTLungScreeningLib.reading.volume_files import read_labels
from LungNoduleSegLib.network.preparation import Preparation, prepare, prepare_mask

SETTINGS, SCANS = "store.json", "scans"
_RECORD = "scan.json"
_VOLUMES = ("hu", "lungs", "nodules")

EXAMPLE_PREPARATION = Preparation(size=512, per_slice=True)
"""How the tutorial makes its examples; the network that learns from them sees slices like these."""


@dataclass(frozen=True)
class StoredNodule:
    """A nodule of a stored scan.

    Attributes:
        number: its voxels' value in `nodules.nrrd`.
        x: of its centre, LPS mm, as are `y` and `z`.
        diameter_mm: as annotated, or of a sphere of the same volume.
        in_lungs: fraction of its voxels inside the segmented lungs, 0 to 1.
        example: whether the masks of the examples include it.
        readers: how many radiologists outlined it; None where it is not known.
        ratings: of each of them, see `lidc_xml.CHARACTERISTICS`.
    """

    number: int
    x: float
    y: float
    z: float
    diameter_mm: float
    in_lungs: float
    example: bool
    readers: int | None = None
    ratings: tuple[Mapping[str, int], ...] = ()


@dataclass(frozen=True)
class StoredScan:
    """A scan of a store.

    Attributes:
        folder: of the scan.
        name: its SeriesInstanceUID, or the name of its file.
        patient: patient ID; scans of one patient stay together.
        source: file or folder it was read from.
        nodules: every annotated nodule.
        slices: k in `hu.nrrd` of each example.
        notes: remarks, one sentence each.
    """

    folder: Path
    name: str
    patient: str
    source: str
    nodules: tuple[StoredNodule, ...]
    slices: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def volume(self, name: str) -> sitk.Image:
        """Read `hu` (HU), `lungs` or `nodules` (labels).

        Raises:
            InputError: if the file is damaged.
        """
        file = self.folder / f"{name}.nrrd"
        try:
            return read_labels(file)
        except InputError as error:
            raise InputError(f"{file} cannot be read: delete its folder, prepare again.") from error

    def images(self) -> NDArray[np.float32]:
        """The examples (n, 1, size, size), prepared; on disk until they are looked at."""
        return self._array("images")

    def masks(self) -> NDArray[np.float32]:
        """Their masks (n, 1, size, size): the part of each pixel that is nodule, 0…1."""
        return self._array("masks")

    def _array(self, name: str) -> NDArray[np.float32]:
        file = self.folder / f"{name}.npy"
        try:
            return np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{file} cannot be read ({error}): delete its folder, prepare again."
            ) from error


def open_store(output: Path, settings: Mapping[str, Any]) -> None:
    """Make a store, or see that the one that is there was made with the same settings.

    Raises:
        InputError: if it was made with others, or the folder holds something else.
    """
    file = output / SETTINGS
    asked = json.loads(json.dumps(settings))
    if not file.exists():
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise InputError(f"{output} holds something else: choose an empty or a new folder.")
        with new_file(file) as temporary:
            temporary.write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")
        return
    kept = read_object(file)
    other = sorted(name for name in kept | asked if kept.get(name) != asked.get(name))
    if other:
        raise InputError(
            f"{output} was prepared with other settings ({', '.join(other)}): give the same, or "
            "another folder."
        )


def read_store(folder: Path) -> list[StoredScan]:
    """List the scans of a store, by the names of their folders; no pixel is read.

    Raises:
        InputError: if it is no store or holds no scan, or a record is damaged.
    """
    if not (folder / SETTINGS).is_file():
        raise InputError(
            f"{folder} is no store of scans: make it with prepare-luna or prepare-lidc."
        )
    scans = [read_stored_scan(file.parent) for file in sorted((folder / SCANS).glob("*/scan.json"))]
    if not scans:
        raise InputError(f"{folder} holds no scan: see its errors.csv, and prepare again.")
    return scans


def read_stored_scan(folder: Path) -> StoredScan:
    """Read the record of one scan.

    Raises:
        InputError: if it is damaged.
    """
    record = read_object(folder / _RECORD)
    try:
        nodules = tuple(
            StoredNodule(**{**one, "ratings": tuple(one["ratings"])})
            for one in record.pop("nodules")
        )
        lists: dict[str, Any] = {name: tuple(record.pop(name)) for name in ("slices", "notes")}
        return StoredScan(folder=folder, nodules=nodules, **lists, **record)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{folder / _RECORD} is damaged ({error}): delete its folder, prepare again."
        ) from error


def write_scan(scan: StoredScan, volumes: Iterable[sitk.Image]) -> None:
    """Write a scan as a whole or not at all.

    Args:
        scan: what its record says.
        volumes: HU, lungs and nodules, axial and on one grid.

    Raises:
        InputError: if the folder is there.
    """
    if os.path.lexists(scan.folder):
        raise InputError(f"{scan.folder} exists: nothing was overwritten.")
    scan.folder.parent.mkdir(parents=True, exist_ok=True)
    with private_folder(scan.folder.parent, f".{scan.folder.name}-") as private:
        working = private / scan.folder.name
        working.mkdir()
        hu, lungs, nodules = volumes
        for name, image in zip(_VOLUMES, (hu, lungs, nodules), strict=True):
            sitk.WriteImage(image, working / f"{name}.nrrd", useCompression=name != "hu")
        chosen = [nodule.number for nodule in scan.nodules if nodule.example]
        images, masks = _examples(hu, lungs, nodules, scan.slices, chosen)
        np.save(working / "images.npy", images, allow_pickle=False)
        np.save(working / "masks.npy", masks, allow_pickle=False)
        record = asdict(scan)
        del record["folder"]
        (working / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        working.rename(scan.folder)


def _examples(
    hu: sitk.Image,
    lungs: sitk.Image,
    nodules: sitk.Image,
    slices: Iterable[int],
    chosen: list[int],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    size = EXAMPLE_PREPARATION.size
    images, masks = [np.empty((0, size, size), np.float32)], [np.empty((0, size, size), np.float32)]
    shown = sitk.GetImageFromArray(
        np.isin(sitk.GetArrayViewFromImage(nodules), chosen).astype(np.uint8)
    )
    shown.CopyInformation(nodules)
    for k in slices:
        prepared = prepare(hu[:, :, k : k + 1], lungs[:, :, k : k + 1], EXAMPLE_PREPARATION)
        images.append(prepared.pixels())
        masks.append(prepare_mask(shown[:, :, k : k + 1], prepared))
    return np.concatenate(images)[:, None], np.concatenate(masks)[:, None]
