"""Seconds to score 55,677 marks on the LUNA16 challenge, fast and step by step, in the same run.

    python Testing/benchmarks/detection.py [LUNA16]

LUNA16 holds annotations.csv, annotations_excluded.csv and seriesuids.csv and is
../shared/data/luna16 unless given.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import froc_oracle
from LungNoduleSegLib.evaluation.detection import score_detection
from LungNoduleSegLib.evaluation.luna_files import read_challenge
from submissions import luna_submission

BOOTSTRAPPED = 10

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/luna16")
nodules, excluded = folder / "annotations.csv", folder / "annotations_excluded.csv"
with tempfile.TemporaryDirectory() as scratch:
    submission = luna_submission(folder, Path(scratch) / "submission.csv")
    began = time.perf_counter()
    marks, truth, _ = read_challenge(submission, nodules, excluded, folder / "seriesuids.csv")
    score = score_detection(marks, truth, resamples=0)
    curve_s = time.perf_counter() - began
    score_detection(marks, truth, resamples=1000)
    band_s = time.perf_counter() - began - curve_s

    began = time.perf_counter()
    rows = [froc_oracle.read(path) for path in (submission, nodules, excluded)]
    uids = froc_oracle.read_uids(folder / "seriesuids.csv")
    listed, tally = froc_oracle.entries(rows[0], rows[1], rows[2], uids, 100)
    expected = froc_oracle.sensitivities(listed, len(uids))
    slow_curve_s = time.perf_counter() - began
    froc_oracle.bootstrap(listed, uids, BOOTSTRAPPED, 0)
    slow_band_s = (time.perf_counter() - began - slow_curve_s) * 1000 / BOOTSTRAPPED

difference = max(abs(a - b) for a, b in zip(score.sensitivity, expected, strict=True))
print(f"{len(marks.series)} marks on {len(uids)} scans, {tally['candidates']} of them looked at")
print(f"largest difference {difference:.1e}")
print(f"{'':28}{'fast':>9}{'literal':>10}")
print(f"{'reading and scoring':28}{curve_s:7.2f} s{slow_curve_s:8.1f} s")
print(f"{'1000 resamples':28}{band_s:7.2f} s{slow_band_s:8.1f} s (from {BOOTSTRAPPED})")
print(f"fast is {(slow_curve_s + slow_band_s) / (curve_s + band_s):.0f} times as fast")
