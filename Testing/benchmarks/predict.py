"""Whole-scan prediction against the tutorial's loop, and how much memory many series take.

    python Testing/benchmarks/predict.py [SCAN] [--model MODEL.keras]

SCAN is ../shared/data/LIDC-IDRI-0001 unless given, MODEL the bundled localizer or, where there is
none yet, the same network untrained. The tutorial calls `model.predict` once for each slice, of
256 × 256 × 3, with ResNet50; pixels and weights do not matter to the time, so they are at random
and the reading of files is left out on both sides.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pydicom

from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.model_card import ModelCard, save_model
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTSliceToolsLib.localizer.networks import build_compact
from CTSliceToolsLib.localizer.prediction import DEFAULT_MODEL, open_model, predict_scan

LOOP_SLICES = 30
"""The loop is timed on so many slices and scaled to the whole scan: it takes long."""


def tutorial_model() -> keras.Model:
    """ResNet50 with the tutorial's head."""
    base = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=(256, 256, 3), pooling=None
    )
    x = keras.layers.Flatten()(base.output)
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dense(128, activation="relu")(x)
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    return keras.Model(base.input, keras.layers.Dense(1, activation="sigmoid")(x))


def loop_seconds(slices: int) -> float:
    """Seconds of the tutorial's loop over so many slices."""
    model = tutorial_model()
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.float32)
    model.predict(np.array([pixels]), batch_size=1, verbose=0)  # compiled before it is timed
    began = time.perf_counter()
    for _ in range(slices):
        float(model.predict(np.array([pixels]), batch_size=1, verbose=0)[0, 0])
    return time.perf_counter() - began


def peak_gib(folder: Path, output: Path, model: Path) -> float:
    """Peak memory of `predict --all` on a folder, in GiB, of a process of its own."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
        "stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = ["-m", "CTSliceToolsLib", "predict", folder, "--all", "-o", output]
    command += ["--model", model, "--no-plot", "--progress", "none"]
    done = subprocess.run(
        [sys.executable, "-c", code, sys.executable, *map(str, command)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout) / (1024**3 if sys.platform == "darwin" else 1024**2)


def copy_as_series(scan: Path, folder: Path, number: int) -> None:
    """Copy a scan, a DICOM folder with another Series Instance UID."""
    if scan.is_file():
        folder.mkdir(parents=True)
        shutil.copy(scan, folder)
        return
    shutil.copytree(scan, folder)
    for file in folder.rglob("*.dcm"):
        image = pydicom.dcmread(file)
        image.SeriesInstanceUID = f"{image.SeriesInstanceUID[:60]}.{number}"
        image.save_as(file)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("scan", type=Path, nargs="?", default=Path("../shared/data/LIDC-IDRI-0001"))
parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
options = parser.parse_args()

with tempfile.TemporaryDirectory() as name:
    work = Path(name)
    model_file = options.model
    if not model_file.exists():
        model_file = work / "untrained.keras"
        save_model(build_compact(), ModelCard("untrained", "", "", {}), model_file)
    open_model(model_file)
    scan = read_ct(options.scan)
    predict_scan(scan, model_file)  # compiled before it is timed
    count = scan.image.GetDepth()
    ours, loop = [], []
    for _ in range(3):  # in turns, as other work on the machine comes and goes
        began = time.perf_counter()
        predict_scan(scan, model_file)
        ours.append(time.perf_counter() - began)
        loop.append(loop_seconds(LOOP_SLICES) * count / LOOP_SLICES)
    print(f"whole scan, {count} slices   {np.median(ours):8.2f} s")
    print(f"the tutorial's loop       {np.median(loop):8.2f} s")
    print(f"times as fast             {np.median(loop) / np.median(ours):8.1f}   (goal: 20)")

    for series in (1, 3):
        data = work / f"data{series}"
        for number in range(series):
            copy_as_series(options.scan, data / str(number), number)
        peak = peak_gib(data, work / f"out{series}", model_file)
        made = len(list((work / f"out{series}").rglob("*.json")))
        print(f"peak memory, {made} series     {peak:8.2f} GiB")
