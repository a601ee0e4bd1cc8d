"""Slices per second that training is fed with, and its memory on data sets of two sizes.

    python Testing/benchmarks/training_pipeline.py [SLICES]

The baseline is the tutorial's pair generator: two `np.load` a slice of three channels and Keras'
`ImageDataGenerator`, one slice at a time. Ours is a whole epoch of `fit` on a network that does
next to nothing. Both take turns, and the best of a few rounds counts. Memory is the peak of a
process that trains for an epoch on SLICES (default 2000) and on four times as many.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BATCH = 32
BASELINE_BATCHES = 3
ROUNDS = 4


def make_slices(folder: Path, count: int, channels: int) -> list[Path]:
    """Write `.npz` slices as `convert` does, without or with three channels."""
    from CTSliceToolsLib.dataset.conversion import LabelledSlice

    rng = np.random.default_rng(1)
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    files = [folder / f"{n:06d}.npz" for n in range(count)]
    for n, file in enumerate(files):
        radius = 0.3 + 0.5 * n / count
        picture = ((x**2 + y**2 < radius**2) * 150 + rng.integers(0, 60, x.shape)).astype(np.uint8)
        pixels = picture if channels == 1 else np.stack([picture] * channels, axis=-1)
        LabelledSlice(pixels, n / count, "1.2.3").write(file)
    return files


def pairs_of_tutorial(files: list[Path]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield augmented slices one by one, as the tutorial's `_pair_generator` does."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    generator = ImageDataGenerator(
        rotation_range=10,
        width_shift_range=0.1,
        height_shift_range=0.1,
        shear_range=5,
        zoom_range=0.2,
        channel_shift_range=20,
        horizontal_flip=True,
    )
    while True:
        file = random.choice(files)
        pixels, location = np.load(file)["pixels"], np.load(file)["norm_loc"]
        yield next(generator.flow(np.array([pixels])))[0], location


def of_tutorial(files: list[Path]) -> Iterator[float]:
    """Give the slices a second of the tutorial's batch generator, again and again."""
    pairs = pairs_of_tutorial(files)
    next(pairs)
    while True:
        began = time.perf_counter()
        for _ in range(BASELINE_BATCHES):
            pixels, locations = zip(*[next(pairs) for _ in range(BATCH)], strict=True)
            np.array(pixels), np.array(locations)
        yield BASELINE_BATCHES * BATCH / (time.perf_counter() - began)


def of_pipeline(files: list[Path], folder: Path) -> Iterator[float]:
    """Give the slices a second of packing, then of each epoch of our pipeline."""
    from CTLungScreeningLib.keras_loader import keras
    from CTSliceToolsLib.localizer.slice_batches import SliceBatches, pack_slices
    from CTSliceToolsLib.localizer.training import augmentation

    began = time.perf_counter()
    pack = pack_slices(files, folder, "training")
    yield len(files) / (time.perf_counter() - began)
    batches = SliceBatches(pack, BATCH, seed=1)
    model = keras.Sequential(
        [
            keras.Input((256, 256, 1)),
            *augmentation(1),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    while True:
        began = time.perf_counter()
        model.fit(batches, verbose=0, shuffle=False)
        yield len(batches) * BATCH / (time.perf_counter() - began)
        batches.epoch += 1


def peak_mib(files: list[Path], folder: Path) -> float:
    """Give the peak memory of a process that packs the files and trains for an epoch."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", folder],
        input=json.dumps([str(file) for file in files]),
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def child(folder: Path) -> None:
    """Train for an epoch on the files that standard input names and print the peak memory."""
    rates = of_pipeline([Path(file) for file in json.load(sys.stdin)], folder)
    next(rates), next(rates)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Print both measurements."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("tutorial", "ours", "pack", "small", "large"):
            (folder / part).mkdir()
        files = make_slices(folder / "ours", 4 * count, 1)
        tutorial = of_tutorial(make_slices(folder / "tutorial", 200, 3))
        ours = of_pipeline(files[:count], folder / "pack")
        packing, _ = next(ours), next(ours)  # the first epoch pays for compiling
        rounds = [(next(tutorial), next(ours)) for _ in range(ROUNDS)]
        slow, fast = (max(rates) for rates in zip(*rounds, strict=True))
        print(f"tutorial  {slow:8.0f} slices a second, {os.cpu_count()} cores")
        print(f"ours      {fast:8.0f} slices a second, after packing {packing:.0f} a second")
        print(f"ratio     {fast / slow:8.1f} (goal: 10)")
        small = peak_mib(files[:count], folder / "small")
        large = peak_mib(files, folder / "large")
        data = 3 * count * 256 * 256 / 2**20
        print(f"memory    {small:8.0f} MiB at the peak with {count} slices")
        print(
            f"          {large:8.0f} MiB with {4 * count}, which are {data:.0f} MiB more of pixels"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]))
    else:
        main()
