"""Small chests of a few ellipsoids with round nodules, as LUNA16 comes: .mhd files and a CSV."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.hu import AIR_HU

SPACING = (3.0, 3.0, 5.0)
ORIGIN = (-165.0, -120.0, -310.0)
SIZE = (110, 80, 50)

Nodule = tuple[tuple[float, float, float], float]
"""Centre in LPS mm and diameter in mm."""

NODULES: tuple[Nodule, ...] = (((-70.0, 10.0, -190.0), 29.7), ((75.0, 20.0, -170.0), 20.3))


@dataclass(frozen=True)
class Chest:
    """A scan and its nodules."""

    image: sitk.Image
    nodules: tuple[Nodule, ...]


def chest(seed: int, nodules: tuple[Nodule, ...] = NODULES) -> Chest:
    """Body, lungs, heart, vessels and nodules, with noise; each seed is another patient."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[: SIZE[2], : SIZE[1], : SIZE[0]]
    z, y, x = (o + i * mm for o, i, mm in zip(ORIGIN[::-1], (z, y, x), SPACING[::-1], strict=True))

    def ball(centre: tuple[float, float, float], *radii: float) -> NDArray[np.bool_]:
        offsets = zip((x, y, z), centre, radii, strict=True)
        return np.asarray(sum(((v - c) / r) ** 2 for v, c, r in offsets)) <= 1

    hu = np.full(SIZE[::-1], AIR_HU, np.float32)
    hu[ball((0, 0, -190), 150, 105, 1000)] = 40
    for side in (-1, 1):
        hu[ball((75 * side, 0, -185), 58 + rng.uniform(-4, 4), 78, 100)] = -850
        for _ in range(6):
            place = (side * rng.uniform(50, 100), rng.uniform(-40, 40), -185)
            hu[ball(place, 4, 4, 60) & (hu < -800)] = 0
    for centre, diameter in nodules:
        hu[ball(centre, *[diameter / 2] * 3)] = 40
    image = sitk.GetImageFromArray((hu + rng.normal(0, 20, hu.shape)).round().astype(np.int16))
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    return Chest(image, nodules)


def write_luna(
    folder: Path, chests: dict[str, Chest], flipped: tuple[str, ...] = ()
) -> tuple[Path, Path]:
    """Write subsets of scans and annotations; some with both in-plane axes turned round."""
    annotations, luna = folder / "annotations.csv", folder / "luna"
    luna.mkdir(parents=True)
    with annotations.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"])
        for n, (uid, scan) in enumerate(chests.items()):
            subset = luna / f"subset{n % 2}"
            subset.mkdir(exist_ok=True)
            image = scan.image
            if uid in flipped:
                image = sitk.Flip(image, (True, True, False))
            sitk.WriteImage(image, subset / f"{uid}.mhd")
            rows.writerows([uid, *centre, diameter] for centre, diameter in scan.nodules)
    return luna, annotations
