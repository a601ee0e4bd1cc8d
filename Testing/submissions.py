"""Made-up submissions to the LUNA16 challenge, in its own files."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HEADER = ("seriesuid", "coordX", "coordY", "coordZ")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_submission(path: Path, rows: Iterable[Sequence[object]]) -> Path:
    return write_csv(path, (*HEADER, "probability"), rows)


def write_findings(path: Path, rows: Iterable[Sequence[object]]) -> Path:
    return write_csv(path, (*HEADER, "diameter_mm"), rows)


def write_uids(path: Path, uids: Iterable[str]) -> Path:
    path.write_text("".join(f"{uid}\r\n" for uid in uids))
    return path


def luna_submission(folder: Path, path: Path, marks: int = 55_677, seed: int = 0) -> Path:
    """Write a submission on the challenge's truth files in `folder`.

    Nine nodules in ten get one to four marks near them, one excluded finding in four gets one, and
    the rest lie anywhere. Probabilities are rounded so that many are equal, and a few scans get
    far more than a hundred marks. Two scans are unknown to the truth files.
    """
    rng = np.random.default_rng(seed)
    nodules, excluded = (
        _read(folder / name) for name in ("annotations.csv", "annotations_excluded.csv")
    )
    uids = [line.strip() for line in (folder / "seriesuids.csv").read_text().split()]
    uids += ["1.2.3.4", "1.2.3.5"]
    rows: list[tuple[object, ...]] = []
    for uid, position, diameter in nodules:
        if rng.random() < 0.9:
            for _ in range(rng.integers(1, 5)):
                near = position + rng.normal(0, diameter / 4, 3)
                rows.append((uid, *near.tolist(), round(rng.beta(4, 1.2), 4)))
    for uid, position, _ in excluded:
        if rng.random() < 0.25:
            near = position + rng.normal(0, 2, 3)
            rows.append((uid, *near.tolist(), round(rng.beta(1, 3), 3)))
    crowd = rng.lognormal(0, 0.8, len(uids))
    owners = rng.choice(len(uids), size=marks - len(rows), p=crowd / crowd.sum())
    places = rng.uniform((-180, -250, -400), (180, 100, 100), (len(owners), 3))
    chances = rng.beta(0.6, 4, len(owners)).round(3)
    for owner, place, chance in zip(owners, places.tolist(), chances.tolist(), strict=True):
        rows.append((uids[owner], *place, chance))
    rng.shuffle(rows)
    return write_submission(path, rows)


def _read(path: Path) -> list[tuple[str, NDArray[np.float64], float]]:
    with path.open(newline="") as stream:
        return [
            (
                row["seriesuid"],
                np.array([float(row[axis]) for axis in HEADER[1:]]),
                float(row["diameter_mm"]),
            )
            for row in csv.DictReader(stream)
        ]
