"""The examples of a store as the four arrays of the tutorial."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.files import new_file, refuse_existing
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.staging import whole_output
from LungNoduleSegLib.training_data.split import Example, Split, split_examples
from LungNoduleSegLib.training_data.store import EXAMPLE_PREPARATION, read_store

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

    `examples.csv` beside them says what each row is. Load them with `numpy.load(...,
    mmap_mode="r")` where they do not fit into memory.

    Args:
        store: made by `prepare_luna` or `prepare_lidc`.
        output: folder for the files, made if missing.
        seed: of the split and the order.
        tutorial_split: a fifth of the slices for the test, not of the patients.
        progress: callback, in the stage "Examples".

    Raises:
        InputError: if a file exists, or the store cannot be used.
    """
    refuse_existing(output, [*ARRAYS, ROWS])
    with whole_output(output, "writing") as folder:
        split = split_examples(read_store(store), seed, tutorial_split)
        total = len(split.training) + len(split.test)
        progress("Examples", 0, total)
        _write(folder, ARRAYS[:2], split.training, 0, total, progress)
        _write(folder, ARRAYS[2:], split.test, len(split.training), total, progress)
        with (
            new_file(folder / ROWS) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as stream,
        ):
            rows = csv_files.Writer(stream)
            rows.writerow(["part", "row", "patient", "scan", "slice"])
            for part, examples in (("train", split.training), ("test", split.test)):
                for n, example in enumerate(examples):
                    scan = example.scan
                    rows.writerow([part, n, scan.patient, scan.name, scan.slices[example.row]])
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
    with new_file(output / names[0]) as image_file, new_file(output / names[1]) as mask_file:
        images, masks = (
            np.lib.format.open_memmap(
                file, mode="w+", dtype=np.float32, shape=(len(examples), 1, size, size)
            )
            for file in (image_file, mask_file)
        )
        for n, example in enumerate(examples):
            images[n] = example.scan.images()[example.row]
            masks[n] = example.scan.masks()[example.row]
            progress("Examples", done + n + 1, total)
        images.flush()
        masks.flush()
        del images, masks
