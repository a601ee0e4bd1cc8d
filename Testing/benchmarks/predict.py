"""Whole-scan prediction by stage, against the tutorial's loop, and how much memory series take.

    python Testing/benchmarks/predict.py [SCAN] [--model MODEL.keras] [--stages]

SCAN is ../shared/data/LIDC-IDRI-0001 unless given, MODEL the bundled localizer or, where there is
none yet, the same network untrained. The tutorial calls `model.predict` once for each slice, of
256 × 256 × 3, with ResNet50; pixels and weights do not matter to the time, so they are at random
and the reading of files is left out on both sides. With --stages only the processor time of each
stage is printed, from the start of Python to the result.
"""

import argparse
import os
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


STAGES = """
import sys, time
from pathlib import Path
stage = lambda name: print(f"{name:<26}{time.process_time():6.2f} s", flush=True)
from CTLungScreeningLib.reading.ct_reading import read_ct
import scipy.ndimage, scipy.optimize
from CTSliceToolsLib.localizer import prediction
stage("packages imported")
scan = read_ct(Path(sys.argv[1]))
stage("scan read")
network, _ = prediction.open_model(Path(sys.argv[2]))
stage("network loaded")
seen = prediction.ScanPictures.of(scan.image, scan.slices)
stage("slice images made")
raw = prediction.predict_locations(seen.pictures, network)
stage("slices located")
next(seen.anatomies())
stage("anatomy found")
prediction.fit_scan(seen.z_mm, raw)
stage("fitted (without anatomy)")
"""


def print_stages(scan: Path, model: Path) -> None:
    """Print seconds of the processors, summed up, after each stage of a process of its own.

    Then that of the whole command, with its seconds on the clock.
    """
    subprocess.run([sys.executable, "-c", STAGES, scan, model], check=True)
    with tempfile.TemporaryDirectory() as folder:
        command = ("-m", "CTSliceToolsLib", "predict", scan, "-o", Path(folder) / "a.json")
        before, began = os.times(), time.perf_counter()
        subprocess.run(
            [sys.executable, *map(str, command), "--no-plot", "--progress", "none"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    clock, after = time.perf_counter() - began, os.times()
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    print(f"ct-slice-tools predict    {used:6.2f} s, on the clock {clock:.2f} s   (goal: 3)")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("scan", type=Path, nargs="?", default=Path("../shared/data/LIDC-IDRI-0001"))
parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
parser.add_argument("--stages", action="store_true")
options = parser.parse_args()
if options.stages:
    print_stages(options.scan, options.model)
    sys.exit()

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
