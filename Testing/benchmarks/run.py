"""Time of each stage and peak memory of a whole run.

    python Testing/benchmarks/run.py [SCAN]

SCAN is ../shared/data/LIDC-IDRI-0001 unless given.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from LungNoduleSegLib.results.names import RECORD

scan = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/LIDC-IDRI-0001")
with tempfile.TemporaryDirectory() as folder:
    output = Path(folder) / "out"
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "LungNoduleSegLib", "run", scan, "-o", output, "--progress", "none"],
        check=True,
    )
    elapsed = time.perf_counter() - began
    record = json.loads((output / RECORD).read_text(encoding="utf-8"))

for stage, seconds in record["timing_s"].items():
    print(f"{stage:<10}{seconds:8.2f} s")
print(
    f"{'all':<10}{elapsed:8.2f} s, with the start of Python, for {record['input']['size']} voxels"
)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
print(f"{'memory':<10}{peak:8.2f} GiB at the peak")
