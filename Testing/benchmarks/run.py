"""A whole run, the localizer and the demonstration, through ONNX and through Keras by turns.

    python Testing/benchmarks/run.py [SCAN] [--only start|run|predict|demo]

SCAN is ../shared/data/LIDC-IDRI-0001 unless given. Seconds count from the start of Python to its
end, with our modules compiled as pip leaves them. The load, the number of processes that wanted to
run in the last minute before a line, should be 0 to 2 for those of our own: others' work slows all
down, and also inflates the processor seconds, which are summed over the cores. `start` is a run
until its networks are loaded, as the panel's child process does it. Then come the stages of the
run, and how far its nodules are from those that Keras finds.
"""

import argparse
import compileall
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import psutil

import CTLungScreeningLib
import CTSliceToolsLib
import LungNoduleSegLib
from CTLungScreeningLib.child_process import ChildProcess
from CTLungScreeningLib.model_card import RUN, TRAIN, read_card
from CTSliceToolsLib.localizer.prediction import DEFAULT_MODEL as LOCALIZER
from LungNoduleSegLib.nodules.table import read_nodules_csv
from LungNoduleSegLib.options import DEFAULT_MODEL
from LungNoduleSegLib.results.reading import RECORD, TABLE


def keras_only(model: Path, folder: Path) -> Path:
    """Copy a model without its .onnx files, where it has others, so that Keras runs it."""
    unet = read_card(model)
    for name in filter(None, (model.name, unet.second_opinion, unet.classifier)):
        card = read_card(model.with_name(name))
        file = card.file(TRAIN) or card.file(RUN)
        assert file is not None
        shutil.copy(model.with_name(file), folder)
        text = json.dumps(asdict(replace(card, files={file: card.files[file]})))
        (folder / file).with_suffix(".json").write_text(text, encoding="utf-8")
    return (folder / model.name).with_suffix(TRAIN)


def measured(*command: str | Path) -> tuple[float, float, float]:
    """Seconds, processor seconds and GiB at the peak of a command in a process of its own."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
        "stdout=subprocess.DEVNULL); used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss)"
    )
    began = time.perf_counter()
    call = [sys.executable, "-c", code, sys.executable, "-m", *map(str, command)]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    processor, peak = map(float, done.stdout.split())
    return time.perf_counter() - began, processor, peak / 2**20


def start(*command: str | Path) -> tuple[float, float, float]:
    """The same of a command's start, until it begins to read the scan; then it is cancelled."""
    began = time.perf_counter()
    with ChildProcess([sys.executable, "-m", *map(str, command)]) as child:
        while not any(event.get("stage") == "Reading" for event in child.poll(0.01)):
            if not child.running:
                child.result()
        seconds = time.perf_counter() - began
        (process,) = psutil.Process().children()
        used, memory = process.cpu_times(), process.memory_info().rss
    return seconds, used.user + used.system, memory / 2**30


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("scan", type=Path, nargs="?", default=Path("../shared/data/LIDC-IDRI-0001"))
parser.add_argument("--only", choices=("start", "run", "predict", "demo"))
options = parser.parse_args()

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
for package in (CTLungScreeningLib, CTSliceToolsLib, LungNoduleSegLib):
    compileall.compile_dir(Path(str(package.__file__)).parent, quiet=1)

with tempfile.TemporaryDirectory() as name:
    work = Path(name)
    print(f"{os.cpu_count()} cores")
    print(f"{'':<18}{'seconds':>9}{'processor':>11}{'GiB':>7}{'load':>7}")
    for task, program, bundled in (
        ("start", "LungNoduleSegLib", DEFAULT_MODEL),
        ("run", "LungNoduleSegLib", DEFAULT_MODEL),
        ("predict", "CTSliceToolsLib", LOCALIZER),
        ("demo", "LungNoduleSegLib", DEFAULT_MODEL),
    ):
        if options.only not in (None, task):
            continue
        for engine, model in (("ONNX", bundled), ("Keras", keras_only(bundled, work))):
            load = os.getloadavg()[0]
            output = work / f"{task}-{engine}{'.json' if task == 'predict' else ''}"
            command: list[str | Path] = [program, "run" if task == "start" else task]
            command += [] if task == "demo" else [options.scan]
            command += ["-o", output, "--model", model]
            if task == "start":
                seconds, processor, gib = start(*command, "--progress", "jsonl")
            else:
                seconds, processor, gib = measured(*command, "--progress", "none")
            figures = f"{seconds:9.2f}{processor:11.2f}{gib:7.2f}{load:7.1f}"
            print(f"{f'{task}, {engine}':<18}{figures}", flush=True)

    folders = [work / f"run-{engine}" for engine in ("ONNX", "Keras")]
    if folders[0].exists():
        record = json.loads((folders[0] / RECORD).read_text(encoding="utf-8"))
        print(f"\n{record['input']['size']} voxels on {record['model']['device']}")
        for stage, spent in record["timing_s"].items():
            print(f"{stage:<18}{spent:9.2f}")
        ours, theirs = (read_nodules_csv(folder / TABLE) for folder in folders)
        print(f"\n{len(ours)} nodules, {len(theirs)} through Keras; the largest differences:")
        values = ("x", "y", "z", "diameter_mm", "probability")
        a, b = (np.array([[getattr(n, v) for v in values] for n in one]) for one in (ours, theirs))
        for value, difference in zip(values, np.abs(a - b).max(axis=0), strict=True):
            print(f"{value:<18}{difference:9.3f}")
