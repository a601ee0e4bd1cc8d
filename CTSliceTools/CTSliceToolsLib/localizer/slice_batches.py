"""Batches of slices for training, read from disk as they are needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from CTLungScreeningLib.files import fingerprint, new_file, write_array
from CTLungScreeningLib.keras_training import EpochBatches
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTSliceToolsLib.dataset.conversion import read_picture
from CTSliceToolsLib.slice_image import SIZE

Batch = tuple[NDArray[np.uint8], NDArray[np.float32]]


@dataclass(frozen=True)
class SlicePack:
    """The slices of a partition in one file, from which any of them is read in microseconds.

    Attributes:
        file: `.npy` of uint8 (n, `SIZE`, `SIZE`).
        locations: normalized locations, clipped to 0…1, which a network's sigmoid can reach, (n,).
    """

    file: Path
    locations: NDArray[np.float32]

    def pictures(self, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Read some slices, (rows, `SIZE`, `SIZE`, 1).

        The file is mapped anew each time, so that what was read before takes no memory.
        """
        return np.load(self.file, mmap_mode="r", allow_pickle=False)[rows, ..., None]


def pack_slices(
    files: Sequence[Path], folder: Path, name: str, progress: ProgressCallback = silent
) -> SlicePack:
    """Copy slices into one file in `folder`, unless it is there and they have not changed since.

    Args:
        files: of `convert`.
        folder: for the pack; two files, 64 KiB per slice.
        name: of the pack, shown with the progress.
        progress: counts the slices.

    Raises:
        InputError: as `read_picture`.
    """
    stem = f"{name}-{fingerprint(files)[:16]}"
    pixels_file, locations_file = folder / f"{stem}.npy", folder / f"{stem}-locations.npy"
    if not locations_file.exists():
        pixels_file.unlink(missing_ok=True)
        locations = np.empty(len(files), np.float32)
        with new_file(pixels_file) as temporary, temporary.open("wb") as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), SIZE, SIZE)}
            write_array_header_1_0(stream, header)
            for row, file in enumerate(files):
                pixels, locations[row] = read_picture(file)
                stream.write(pixels.tobytes())
                progress(f"Packing {name}", row + 1, len(files))
        with new_file(locations_file) as temporary:
            write_array(temporary, locations.clip(0, 1))
    return SlicePack(pixels_file, np.load(locations_file, allow_pickle=False))


class SliceBatches(EpochBatches):
    """Batches (n, `SIZE`, `SIZE`, 1) of 0…255 with locations (n, 1) out of a pack.

    Args:
        pack: the slices.
        batch: slices in a batch.
        seed: shuffles, in another order in each epoch, and leaves out the few slices that do not
            fill a batch; None gives all slices, in order, and fills the last batch with the first
            ones, as several GPUs share whole batches only.
    """

    def __init__(self, pack: SlicePack, batch: int, seed: int | None = None) -> None:
        super().__init__()
        self._pack, self._batch, self._seed = pack, batch, seed
        self._order, self._ordered = np.arange(len(pack.locations)), -1

    def __len__(self) -> int:
        full, rest = divmod(len(self._order), self._batch)
        return max(1, full) if self._seed is not None else full + bool(rest)

    def __getitem__(self, index: int) -> Batch:
        if self._seed is not None and self._ordered != self.epoch:
            rng = np.random.default_rng((self._seed, self.epoch))
            self._order, self._ordered = rng.permutation(len(self._order)), self.epoch
        places = np.arange(index * self._batch, (index + 1) * self._batch)
        rows = self._order[places % len(self._order)]
        return self._pack.pictures(rows), self._pack.locations[rows, None]
