"""The tutorial's experiment on real outcomes: 1,397 scans of the Data Science Bowl 2017.

    python docs/dsb2017_experiment.py shared/data/dsb2017/stage1_features.csv.gz

The features are those that the second place's solution published (columns `dewit_luna16*`: the
largest and median nodule, their number, chance and place at three zooms, and mass); the label is
cancer within a year. Both classifiers are trained as the tutorial does: 100 trees, a weight of 3
for cancer, 3 folds.
"""

import csv
import gzip
import sys
from pathlib import Path

import numpy as np

from LungNoduleSegLib.risk.training import train
from LungNoduleSegLib.risk.training_data import TrainingData


def main() -> None:
    """Print the tutorial's report."""
    path = Path(sys.argv[1])
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = tuple(name for name in rows[0] if name.startswith("dewit_luna16"))
    data = TrainingData(
        scans=tuple(row["id"] for row in rows),
        patients=tuple(row["id"] for row in rows),
        groups=tuple(row["id"] for row in rows),
        features=names,
        empty=(),
        x=np.array([[float(row[name] or "nan") for name in names] for row in rows]),
        y=np.array([int(row["cancer"]) for row in rows]),
        sha256={},
    )
    print(train(data).report)


if __name__ == "__main__":
    main()
