"""Scans without annotation as a second teacher: their slices follow each other at known distances.

The idea is that of body part regression (Yan, Lu and Summers, Unsupervised Body Part Regression via
Spatially Self-ordering Convolutional Neural Networks, arXiv 1707.03891): slices are to be in order,
and equal distances along z to be equal steps. Here the usual length of a body sets the size of the
steps, as locations are nearly linear in z.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import fingerprint, new_file, write_array
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.keras_training import EpochBatches
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_reading import as_scan, index_scans
from CTSliceToolsLib.landmarks import LOCATIONS
from CTSliceToolsLib.localizer.scan_fit import usual_heights
from CTSliceToolsLib.localizer.scan_pictures import ScanPictures
from CTSliceToolsLib.localizer.slice_batches import Batch, SliceBatches

ops = keras.ops

RUN = 16
"""Slices of an unlabelled scan that each batch has."""

LEAST_MM = 60.0
"""Shorter scans teach nothing."""

USUAL_STEP = float(LOCATIONS[-1] / -usual_heights()[-1])
"""Locations for one mm of z in an adult."""

ORDER_MM = 10.0
"""Slices that are out of order by less hardly count as such."""

WEIGHT = 1e-4
"""Of the unlabelled slices in the loss, whose other part is the squared error of locations."""


@dataclass(frozen=True)
class UnlabelledScan:
    """Slice images of a scan, `.npy` of uint8 (n, `SIZE`, `SIZE`), and their LPS z in mm, (n,)."""

    file: Path
    z_mm: NDArray[np.float64]


def pack_scans(
    folder: Path, packs: Path, progress: ProgressCallback = silent
) -> tuple[list[UnlabelledScan], list[str]]:
    """Write the slice images of all scans below a folder into files.

    Those of a scan are kept if they are there and it has not changed since.

    Args:
        folder: DICOM series and volume files, in any nesting.
        packs: folder for the files, 64 KiB per slice.
        progress: counts the scans, in the stage "Packing unlabelled scans".

    Returns:
        The scans, and one sentence for each that cannot be used, or on scouts left out.

    Raises:
        InputError: if no scan can be used.
    """
    found: list[UnlabelledScan] = []
    notes: list[str] = []
    scans = index_scans(folder, progress, notes=notes)
    for number, scan in enumerate(scans):
        progress("Packing unlabelled scans", number, len(scans))
        state = f"{scan} {fingerprint([scan.folder / file for file in scan.files])}"
        stem = f"unlabelled-{hashlib.sha256(state.encode()).hexdigest()[:16]}"
        pixels, heights = (packs / f"{stem}{end}.npy" for end in ("", "-z"))
        try:
            if not heights.exists():
                read = as_scan(scan, None, silent)
                seen = ScanPictures.of(read.image, read.slices)
                for file, array in ((pixels, seen.pictures), (heights, seen.z_mm)):
                    file.unlink(missing_ok=True)
                    with new_file(file) as temporary:
                        write_array(temporary, array)
            one = UnlabelledScan(pixels, np.load(heights, allow_pickle=False))
        except InputError as problem:
            notes.append(f"{scan.name} was left out: {problem}")
            continue
        if np.ptp(one.z_mm) < LEAST_MM:
            notes.append(f"{scan.name} was left out: it is shorter than {LEAST_MM:.0f} mm.")
        else:
            found.append(one)
    progress("Packing unlabelled scans", len(scans), len(scans))
    if not found:
        raise InputError(f"{folder} holds no CT scan that could be used: {' '.join(notes)}")
    return found, notes


class MixedBatches(EpochBatches):
    """Batches of labelled slices, each followed by `RUN` slices of one unlabelled scan.

    The latter run from head to feet at about equal distances; in place of a location they have
    their LPS z in mm.

    Args:
        labelled: the labelled batches.
        scans: the unlabelled scans, drawn by their length.
        seed: of what is drawn.
    """

    def __init__(self, labelled: SliceBatches, scans: Sequence[UnlabelledScan], seed: int) -> None:
        super().__init__()
        self._labelled, self._scans, self._seed = labelled, scans, seed
        length = np.array([float(np.ptp(scan.z_mm)) for scan in scans])
        self._chance = length / length.sum()

    def __len__(self) -> int:
        return len(self._labelled)

    def __getitem__(self, index: int) -> Batch:
        self._labelled.epoch = self.epoch
        pictures, locations = self._labelled[index]
        rng = np.random.default_rng((self._seed, self.epoch, index))
        scan = self._scans[rng.choice(len(self._scans), p=self._chance)]
        high, low = float(scan.z_mm.max()), float(scan.z_mm.min())
        span = rng.uniform(min(LEAST_MM, high - low), high - low)
        top = rng.uniform(low + span, high)
        wanted = np.linspace(top, top - span, RUN)
        rows = np.abs(scan.z_mm[:, None] - wanted).argmin(0)
        run = np.load(scan.file, mmap_mode="r", allow_pickle=False)[rows, ..., None]
        z_mm = scan.z_mm[rows, None].astype(np.float32)
        return np.concatenate([pictures, run]), np.concatenate([locations, z_mm])


def mixed_loss(batch: int) -> Callable[[Any, Any], Any]:
    """Make the loss of batches whose first `batch` rows are labelled and the others a run.

    It is the mean squared error of the former, and of the latter what is out of order, and how far
    their steps are from the usual ones, with `WEIGHT`.
    """

    def loss(truth: Any, predicted: Any) -> Any:
        labelled = ops.mean(ops.square(truth[:batch] - predicted[:batch]))
        down = truth[batch:-1] - truth[batch + 1 :]
        step = (predicted[batch + 1 :] - predicted[batch:-1]) / USUAL_STEP
        disorder = ops.softplus(-step / ORDER_MM)
        off = ops.abs(step - down) / ORDER_MM
        count = ops.maximum(ops.cast(ops.shape(down)[0], step.dtype), 1.0)
        return labelled + WEIGHT * ops.sum(disorder + off) / count

    return loss


def labelled_error(batch: int) -> keras.metrics.Metric:
    """Make the mean absolute error of the first `batch` rows."""

    def error(truth: Any, predicted: Any) -> Any:
        return ops.abs(truth[:batch] - predicted[:batch])

    return keras.metrics.MeanMetricWrapper(error, name="error")
