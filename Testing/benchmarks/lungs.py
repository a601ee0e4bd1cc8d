"""How much of a mass on the pleura the lungs hold, and how they agree with another outline.

    python Testing/benchmarks/lungs.py [DATA] [--spheres N]

DATA is ../shared/data unless given. Spheres of soft tissue are put into the lungs of two scans,
one at a time, with centres a sixth of their diameter from the pleura: it cuts a part of each off.
"""

import argparse
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.geometry import AxialView
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.progress import silent
from CTLungScreeningLib.reading.ct_reading import read_ct
from LungNoduleSegLib.evaluation.dice import compare_lungs
from LungNoduleSegLib.lungs.volume import find_lungs

SCANS = ("LIDC-IDRI-0001", "LIDC-IDRI-0012.nii.gz")
DIAMETERS_MM = (12, 20, 30, 45)
FROM_PLEURA = 1 / 6
TISSUE_HU, NOISE_HU = 40, 20
OUTLINED = "chest_low_resolution"
"""Folder of a scan with outlined lobes."""


def place_of(inward: NDArray[np.float64], right: bool) -> str:
    """Name the part of the pleura that a mass grows on by its inward normal, (z, y, x) in LPS."""
    axis = int(np.abs(inward).argmax())
    if axis == 2:
        return "mediastinum" if (inward[2] < 0) == right else "ribs"
    return (("diaphragm", "apex"), ("front", "back"))[axis][int(inward[axis] < 0)]


def held(
    image: sitk.Image,
    lungs: NDArray[np.uint8],
    start: NDArray[np.intp],
    diameter_mm: float,
    rng: np.random.Generator,
) -> tuple[str, float]:
    """Put a sphere on the pleura at voxel `start`; give the place and the share held."""
    spacing = np.array(image.GetSpacing())[::-1]
    inside = lungs > 0
    reach = np.ceil(diameter_mm / spacing).astype(int)
    box = tuple(
        slice(max(0, int(s - r)), int(s + r) + 1) for s, r in zip(start, reach, strict=True)
    )
    grid = [np.arange(b.start, b.start + n) for b, n in zip(box, inside[box].shape, strict=True)]
    apart = np.stack(np.meshgrid(*grid, indexing="ij"), -1) - start
    near = np.linalg.norm(apart * spacing, axis=-1) < diameter_mm / 2
    inward = (apart[near & inside[box]] * spacing).mean(0)
    inward /= np.linalg.norm(inward)
    offset = apart * spacing - FROM_PLEURA * diameter_mm * inward
    mass = (np.linalg.norm(offset, axis=-1) < diameter_mm / 2) & inside[box]
    hu = sitk.GetArrayFromImage(image)
    hu[box][mass] = rng.normal(TISSUE_HU, NOISE_HU, np.count_nonzero(mass))
    changed = sitk.GetImageFromArray(hu)
    changed.CopyInformation(image)
    found = find_lungs(changed, silent)[box][mass] > 0
    return place_of(inward, bool(lungs[tuple(start)] == 1)), float(found.mean())


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
parser.add_argument("--spheres", type=int, default=30, help="in each scan")
options = parser.parse_args()

rows: list[tuple[str, int, float]] = []
rng = np.random.default_rng(1)
for name in SCANS:
    scan = AxialView.of(read_ct(options.data / name).image, AIR_HU).image
    whole = find_lungs(scan, silent)
    surface = np.argwhere((whole > 0) & ~ndimage.binary_erosion(whole > 0))
    for number in range(options.spheres):
        diameter = DIAMETERS_MM[number % len(DIAMETERS_MM)]
        start = surface[rng.integers(len(surface))]
        place, share = held(scan, whole, start, diameter, rng)
        rows.append((place, diameter, share))

print("share of a mass on the pleura inside the lungs: mean, least, number")
for label, column in (("place", 0), ("mm", 1)):
    for key in sorted({row[column] for row in rows}, key=str):
        shares = [row[2] for row in rows if row[column] == key]
        print(f"{label:6} {key!s:12} {np.mean(shares):6.3f} {min(shares):6.3f} {len(shares):4d}")
print(f"all                 {np.mean([row[2] for row in rows]):6.3f}")

agreement = compare_lungs(
    options.data / OUTLINED / "ct.nrrd", options.data / OUTLINED / "lobes.nrrd"
)
print(f"Dice of the lungs with the lobes of {OUTLINED}: {agreement.dice['both']:.3f}")
