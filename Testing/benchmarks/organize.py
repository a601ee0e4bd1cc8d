"""Throughput of organize against a plain recursive copy of the same files in the same run.

    python Testing/benchmarks/organize.py [FOLDER]

FOLDER is ../shared/data/LIDC-IDRI-0001 unless given. All run in turn; medians count, and of each
round's ratio to its plain copy, as other work on the machine slows both.
"""

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from CTSliceToolsLib.options import Transfer
from CTSliceToolsLib.organizing.organizer import organize

ROUNDS = 21

source = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/LIDC-IDRI-0001")


def link(target: Path) -> None:
    organize(copy, target, Transfer.LINK)


ways: dict[str, Callable[[Path], object]] = {
    "plain copy": lambda target: shutil.copytree(source, target),
    "organize": lambda target: organize(source, target),
    "again": lambda target: organize(source, target),
    "links": link,
}
taken: dict[str, list[float]] = {name: [] for name in ways}
with tempfile.TemporaryDirectory() as folder:
    copy = Path(folder) / "source"
    shutil.copytree(source, copy)
    files = [file for file in copy.rglob("*") if file.is_file()]
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    for _ in range(ROUNDS):
        for name, way in ways.items():
            target = Path(folder) / ("organize" if name == "again" else name)
            began = time.perf_counter()
            way(target)
            taken[name].append(time.perf_counter() - began)
        for name in ("plain copy", "organize", "links"):
            shutil.rmtree(Path(folder) / name)

print(f"{len(files)} files, {megabytes:.1f} MB")
for name, times in taken.items():
    seconds = statistics.median(times)
    ratios = [plain / own for plain, own in zip(taken["plain copy"], times, strict=True)]
    print(
        f"{name:<12}{megabytes / seconds:8.0f} MB/s {len(files) / seconds:8.0f} files/s "
        f"{statistics.median(ratios):8.2f} of the plain copy"
    )
