"""Annotated scans on disk, one folder each, with splits and export as the tutorial's arrays.

A folder has the scan as axial images cropped to the lungs (`hu.nrrd`, `lungs.nrrd` and
`nodules.nrrd`, labelled by nodule number), the examples for the tutorial's network (`images.npy`,
`masks.npy`) and `scan.json`.
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.errors import DAMAGE, InputError
from CTLungScreeningLib.files import (
    made_folder,
    new_files,
    private_folder,
    refuse_existing,
    remove_leftovers,
    write_array,
)
from CTLungScreeningLib.geometry import image_like
from CTLungScreeningLib.json_files import changed_names, read_object, write_object
from CTLungScreeningLib.model_card import contents_sha256
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.volume_files import read_labels, write_image
from CTLungScreeningLib.staging import LOCK, whole_output
from LungNoduleSegLib.network.inference import Preparation, prepare, prepare_mask
from LungNoduleSegLib.network.patches import TrainingScan, training_scan

SETTINGS, SCANS = "store.json", "scans"
_RECORD = "scan.json"
_VOLUMES = ("hu", "lungs", "nodules")

EXAMPLE_PREPARATION = Preparation(size=512, per_slice=True)
"""Preparation of the tutorial's examples, for training and inference."""


@dataclass(frozen=True)
class StoredNodule:
    """A nodule of a stored scan.

    Attributes:
        number: its label in `nodules.nrrd`.
        x: of its centre, LPS mm, as are `y` and `z`.
        diameter_mm: as annotated, or of a sphere of the same volume.
        in_lungs: fraction of its voxels inside the segmented lungs, 0 to 1.
        example: whether the masks of the examples include it.
        readers: number of radiologists that outlined it; None if unknown.
        ratings: of each of them, see `lidc_idri.CHARACTERISTICS`.
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
            image = read_labels(file)
        except InputError as error:
            raise InputError(
                f"{file} cannot be read: delete its folder and prepare again."
            ) from error
        if max(self.slices, default=0) >= image.GetDepth():
            raise self._unfit(file)
        return image

    def images(self) -> NDArray[np.float32]:
        """The prepared examples (n, 1, size, size), memory-mapped."""
        return self._array("images")

    def masks(self) -> NDArray[np.float32]:
        """Their masks (n, 1, size, size), the nodule fraction of each pixel, 0…1."""
        return self._array("masks")

    def state(self) -> str:
        """Describe its files besides the record: masks by content, large arrays by size."""
        large = [self.folder / name for name in ("hu.nrrd", "images.npy", "masks.npy")]
        sizes = [(file.name, file.stat().st_size) for file in large if file.is_file()]
        masks = [self.folder / name for name in ("lungs.nrrd", "nodules.nrrd")]
        return f"{contents_sha256(masks)} {sizes}"

    def _array(self, name: str) -> NDArray[np.float32]:
        file = self.folder / f"{name}.npy"
        try:
            array: NDArray[np.float32] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{file} cannot be read ({error}): delete its folder and prepare again."
            ) from error
        size = EXAMPLE_PREPARATION.size
        if array.shape != (len(self.slices), 1, size, size) or array.dtype.kind != "f":
            raise self._unfit(file)
        return array

    def _unfit(self, file: Path) -> InputError:
        return InputError(
            f"{file} does not fit the slices in {_RECORD}: delete its folder and prepare again."
        )


def open_store(output: Path, settings: Mapping[str, Any]) -> None:
    """Make a store, or check that an existing one has the same settings.

    Raises:
        InputError: if the settings differ, or the folder is not a store.
    """
    file = output / SETTINGS
    if not file.exists():
        remove_leftovers(output)
        names = {one.name for one in output.iterdir()} if output.is_dir() else set()
        if names - {LOCK} or (output.exists() and not output.is_dir()):
            raise InputError(f"{output} is not a store: choose an empty or a new folder.")
        write_object(file, settings)
        return
    if other := changed_names(read_object(file), settings):
        raise InputError(
            f"{output} was prepared with other settings ({', '.join(other)}): use the same, or "
            "another folder."
        )


def read_store(folder: Path) -> list[StoredScan]:
    """List the scans of a store by folder name, without reading pixels.

    Raises:
        InputError: if it is not a store or has no scans, or a record is damaged.
    """
    if not (folder / SETTINGS).is_file():
        raise InputError(
            f"{folder} is not a store of scans: make one with prepare-luna or prepare-lidc."
        )
    scans = [read_stored_scan(file.parent) for file in sorted((folder / SCANS).glob("*/scan.json"))]
    if not scans:
        raise InputError(f"{folder} has no scans: see its errors.csv, and prepare again.")
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
        if not all(isinstance(k, int) and k >= 0 for k in lists["slices"]):
            raise ValueError("slices are whole numbers from 0")
        return StoredScan(folder=folder, nodules=nodules, **lists, **record)
    except DAMAGE as error:
        raise InputError(
            f"{folder / _RECORD} is damaged ({error}): delete its folder, prepare again."
        ) from error


def write_scan(scan: StoredScan, volumes: Iterable[sitk.Image]) -> None:
    """Write a scan as a whole or not at all.

    Args:
        scan: its record.
        volumes: HU, lungs and nodules, axial and on one grid.

    Raises:
        InputError: if the folder is there.
        OSError: naming the folder, if it cannot be written.
    """
    if os.path.lexists(scan.folder):
        raise InputError(f"{scan.folder} exists: nothing was overwritten.")
    try:
        _write_scan(scan, volumes)
    except (InputError, OSError) as error:  # ITK does not say why
        code = getattr(error, "errno", None) or errno.EIO
        raise OSError(code, os.strerror(code), str(scan.folder)) from error


def _write_scan(scan: StoredScan, volumes: Iterable[sitk.Image]) -> None:
    place = scan.folder.parent
    with made_folder(place), private_folder(place, scan.folder.name) as private:
        working = private / scan.folder.name
        working.mkdir()
        hu, lungs, nodules = volumes
        for name, image in zip(_VOLUMES, (hu, lungs, nodules), strict=True):
            write_image(image, working / f"{name}.nrrd", packed=name != "hu")
        chosen = [nodule.number for nodule in scan.nodules if nodule.example]
        images, masks = _examples(hu, lungs, nodules, scan.slices, chosen)
        write_array(working / "images.npy", images)
        write_array(working / "masks.npy", masks)
        record = asdict(scan)
        del record["folder"]
        write_object(working / _RECORD, record)
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
    shown = image_like(
        np.isin(sitk.GetArrayViewFromImage(nodules), chosen).astype(np.uint8), nodules
    )
    for k in slices:
        prepared = prepare(hu[:, :, k : k + 1], lungs[:, :, k : k + 1], EXAMPLE_PREPARATION)
        images.append(prepared.pixels())
        masks.append(prepare_mask(shown[:, :, k : k + 1], prepared))
    return np.concatenate(images)[:, None], np.concatenate(masks)[:, None]


TEST_SHARE = 0.2
"""Fraction held out of the patients, or of the slices in the tutorial's split."""


@dataclass(frozen=True)
class Example:
    """One slice of a stored scan, by its row in `StoredScan.images`."""

    scan: StoredScan
    row: int


@dataclass(frozen=True)
class Split:
    """Examples in random order."""

    training: tuple[Example, ...]
    test: tuple[Example, ...]


def split_scans(
    scans: Sequence[StoredScan], seed: int = 0
) -> tuple[list[StoredScan], list[StoredScan]]:
    """Divide scans into training and test, with no patient in both.

    A fifth of the patients, at least one, is for the test: those with the lowest SHA-256 of seed
    and name, so that a patient who comes later moves few others.

    Raises:
        InputError: if there is one patient only.
    """
    patients = sorted(
        {scan.patient for scan in scans},
        key=lambda patient: hashlib.sha256(f"{seed} {patient}".encode()).digest(),
    )
    if len(patients) < 2:
        raise InputError(
            f"{scans[0].folder.parent} holds only one patient: a test needs another one."
        )
    test = set(patients[: max(1, round(TEST_SHARE * len(patients)))])
    return (
        [scan for scan in scans if scan.patient not in test],
        [scan for scan in scans if scan.patient in test],
    )


def split_examples(scans: Sequence[StoredScan], seed: int = 0, tutorial: bool = False) -> Split:
    """Split the examples of a store by patient, or by slice as in the tutorial.

    The tutorial's split has slices of the same nodule on both sides, which makes its test too easy.

    Args:
        scans: of the store.
        seed: of the choice and the order.
        tutorial: whether to split by slice.

    Raises:
        InputError: if either side has no examples.
    """
    rng = np.random.default_rng(seed)
    if tutorial:
        order = _shuffled(scans, rng)
        count = int(TEST_SHARE * len(order))
        split = Split(order[count:], order[:count])
    else:
        training, test = split_scans(scans, seed)
        split = Split(_shuffled(training, rng), _shuffled(test, rng))
    for side, name in ((split.training, "training"), (split.test, "the test")):
        if not side:
            raise InputError(
                f"{scans[0].folder.parent} has no examples for {name}: prepare more scans."
            )
    return split


def _shuffled(scans: Sequence[StoredScan], rng: np.random.Generator) -> tuple[Example, ...]:
    examples = [Example(scan, row) for scan in scans for row in range(len(scan.slices))]
    return tuple(examples[n] for n in rng.permutation(len(examples)))


ARRAYS = ("trainImages.npy", "trainMasks.npy", "testImages.npy", "testMasks.npy")
ROWS = "examples.csv"


def export_arrays(
    store: Path,
    output: Path,
    seed: int = 0,
    tutorial_split: bool = False,
    progress: ProgressCallback = silent,
) -> Split:
    """Write the tutorial's arrays, float32 [n, 1, 512, 512], one example at a time.

    `examples.csv` describes the rows. If the arrays do not fit into memory, load them with
    `numpy.load(..., mmap_mode="r")`.

    Args:
        store: made by `prepare_luna` or `prepare_lidc`.
        output: folder for the files, made if missing.
        seed: of the split and the order.
        tutorial_split: hold out a fifth of the slices, not of the patients.
        progress: callback, in the stage "Examples".

    Raises:
        InputError: if a file exists, or the store cannot be used.
    """
    refuse_existing(output, [*ARRAYS, ROWS])
    with whole_output(output) as folder:
        split = split_examples(read_store(store), seed, tutorial_split)
        total = len(split.training) + len(split.test)
        progress("Examples", 0, total)
        _write(folder, ARRAYS[:2], split.training, 0, total, progress)
        _write(folder, ARRAYS[2:], split.test, len(split.training), total, progress)
        rows = (
            (part, n, one.scan.patient, one.scan.name, one.scan.slices[one.row])
            for part, examples in (("train", split.training), ("test", split.test))
            for n, one in enumerate(examples)
        )
        csv_files.write_table(folder / ROWS, ("part", "row", "patient", "scan", "slice"), rows)
    return split


def _write(
    output: Path,
    names: Sequence[str],
    examples: Sequence[Example],
    done: int,
    total: int,
    progress: ProgressCallback,
) -> None:
    size = EXAMPLE_PREPARATION.size
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(examples), 1, size, size)}
    with (
        new_files(*(output / name for name in names)) as files,
        files[output / names[0]].open("wb") as images,
        files[output / names[1]].open("wb") as masks,
    ):
        for stream in (images, masks):  # a memory map ends the process where the disk is full
            write_array_header_1_0(stream, header)
        for n, example in enumerate(examples):
            images.write(example.scan.images()[example.row].astype("<f4").tobytes())
            masks.write(example.scan.masks()[example.row].astype("<f4").tobytes())
            progress("Examples", done + n + 1, total)


class StoredScans(Sequence[TrainingScan]):
    """Scans of a store to cut patches from, one in memory at a time.

    Args:
        scans: of the store.
        mistakes: folder that `training.note_mistakes` filled for each of them.
    """

    def __init__(self, scans: Sequence[StoredScan], mistakes: Path | None = None) -> None:
        self._scans, self._mistakes = scans, mistakes

    def __len__(self) -> int:
        return len(self._scans)

    def __getitem__(self, index: Any) -> Any:
        """Read a scan."""
        scan = self._scans[index]
        hu, lungs, nodules = (scan.volume(name) for name in ("hu", "lungs", "nodules"))
        mistaken = None
        if self._mistakes is not None:
            mistaken = _read(mistakes_file(self._mistakes, scan))
        return training_scan(scan.name, hu, lungs, nodules, mistaken)


def mistakes_file(folder: Path, scan: StoredScan) -> Path:
    """Name the file with the mask of a scan's false positives."""
    return folder / f"{scan.folder.name}.nrrd"


def _read(file: Path) -> sitk.Image:
    try:
        return read_labels(file)
    except InputError as error:
        raise InputError(f"{file} cannot be read: delete it and train again.") from error
