"""What networks learn from, read from a store when its turn comes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import new_file
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.keras_training import EpochBatches
from CTLungScreeningLib.progress import ProgressCallback
from CTLungScreeningLib.reading.volume_files import read_labels, write_image
from LungNoduleSegLib.network.patches import Batch, TrainingScan, training_scan
from LungNoduleSegLib.network.preparation import Preparation
from LungNoduleSegLib.network.training import with_mistakes
from LungNoduleSegLib.training_data.split import Example
from LungNoduleSegLib.training_data.store import StoredScan


class ExampleBatches(EpochBatches):
    """Whole slices, each once an epoch, in another order each time; the last batch is filled up.

    Args:
        examples: of a store.
        batch: slices in a batch.
        seed: of the order; None keeps it.
    """

    def __init__(self, examples: Sequence[Example], batch: int, seed: int | None) -> None:
        super().__init__()
        self._examples, self._batch, self._seed = examples, batch, seed

    def __len__(self) -> int:
        return math.ceil(len(self._examples) / self._batch)

    def __getitem__(self, index: int) -> Batch:
        """Give images and masks, (batch, 512, 512, 1)."""
        count = len(self._examples)
        order: NDArray[np.intp] = np.arange(count)
        if self._seed is not None:
            order = np.random.default_rng((self._seed, self.epoch)).permutation(count)
        numbers = np.arange(index * self._batch, (index + 1) * self._batch) % count
        chosen = [self._examples[n] for n in order[numbers]]
        images = np.stack([example.scan.images()[example.row, 0] for example in chosen])
        masks = np.stack([example.scan.masks()[example.row, 0] for example in chosen])
        return images[..., None], masks[..., None]


class StoredScans(Sequence[TrainingScan]):
    """Scans of a store to cut patches from, one in memory at a time.

    Args:
        scans: which.
        mistakes: folder that `note_mistakes` filled for each of them.
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
            mistaken = _read(_mistakes_file(self._mistakes, scan))
        return training_scan(scan.name, hu, lungs, nodules, mistaken)


def note_mistakes(
    model: keras.Model,
    preparation: Preparation,
    scans: Sequence[StoredScan],
    folder: Path,
    progress: ProgressCallback,
) -> None:
    """Write what a network wrongly marks in each scan, but for those that were done before.

    Args:
        model: trained.
        preparation: the one it was trained with.
        scans: those it was trained on.
        folder: for one mask a scan.
        progress: counts the scans, in the stage "Mistakes".
    """
    stored = StoredScans(scans)
    for n, scan in enumerate(scans):
        progress("Mistakes", n, len(scans))
        file = _mistakes_file(folder, scan)
        if not file.exists():
            mistaken = with_mistakes(model, stored[n], preparation).mistaken
            with new_file(file) as temporary:
                write_image(mistaken, temporary)
    progress("Mistakes", len(scans), len(scans))


def _mistakes_file(folder: Path, scan: StoredScan) -> Path:
    return folder / f"{scan.folder.name}.nrrd"


def _read(file: Path) -> sitk.Image:
    try:
        return read_labels(file)
    except InputError as error:
        raise InputError(f"{file} cannot be read: delete it and train again.") from error
