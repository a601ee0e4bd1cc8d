"""How well a click outlines a nodule: from the network's mark, and by region growing alone.

    python Testing/benchmarks/clicks.py [--nodules 120] [--data ../shared/data]

Nodules of other patients are transplanted into copies of LIDC-IDRI-0012, each is clicked on once,
somewhere in its inner part, and what the click outlines is compared with its mask; then the same
with the scan's own nodules. "Marked" are those where the network has a mark. A bundled network may
have learnt from these nodules: its card says.
"""

import argparse
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.child_process import complete
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import AxialView, Box, crop_to, onto_grid
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.reading.ct_reading import read_ct
from LungNoduleSegLib.detectors.models import open_detector
from LungNoduleSegLib.evaluation.lesion_placement import find_lung_sites, insert_real_nodules
from LungNoduleSegLib.evaluation.synthetic_lesions import REAL_PER_COPY, nodule_spheres
from LungNoduleSegLib.lungs.segmentation import segment_lungs
from LungNoduleSegLib.network.transplants import read_cubes
from LungNoduleSegLib.nodules.region_growing import grow_nodule
from LungNoduleSegLib.nodules.threshold import ThresholdedNodules, to_steps
from LungNoduleSegLib.options import DEFAULT_MODEL

SCAN = "LIDC-IDRI-0012.nii.gz"
NODULES = "LIDC-IDRI-0012_nodules_ge2of4readers.nrrd"
INNER = 0.4
"""Share of the greatest depth from which on a voxel may be clicked."""

Nodule = tuple[tuple[slice, ...], NDArray[np.bool_]]


def dice(one: Nodule, other: Nodule) -> float:
    """Dice coefficient of two masks in boxes of the same grid."""
    (box, mask), (other_box, other_mask) = one, other
    voxels = {tuple(v) for v in (np.argwhere(mask) + [b.start for b in box]).tolist()}
    others = {tuple(v) for v in (np.argwhere(other_mask) + [b.start for b in other_box]).tolist()}
    return 2 * len(voxels & others) / (len(voxels) + len(others))


def clicks(
    hu: sitk.Image, lungs: sitk.Image, nodules: list[Nodule], rng: np.random.Generator
) -> list[tuple[float, float, bool]]:
    """Dice of each nodule from the mark or else grown, grown alone, and whether it has a mark."""
    steps = to_steps(open_detector(DEFAULT_MODEL).detect(hu, lungs))
    finder = complete(ThresholdedNodules.work(steps, hu, lungs, hu))
    spacing = np.array(hu.GetSpacing())[::-1]
    result = []
    for box, mask in nodules:
        depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
        inner = np.argwhere(depth >= INNER * depth.max())
        voxel = inner[rng.integers(len(inner))] + [b.start for b in box]
        point = hu.TransformIndexToPhysicalPoint([int(v) for v in voxel[::-1]])
        mark = finder.mark_at(point)
        grown = 0.0
        try:
            found = grow_nodule(hu, lungs, point)
            grown = outlined(finder, (found.box, found.sure), (box, mask))
        except InputError:
            pass  # the panel says why; nothing is outlined
        marked = grown if mark is None else outlined(finder, mark, (box, mask))
        result.append((marked, grown, mark is not None))
    return result


def outlined(
    finder: ThresholdedNodules, mark: tuple[Box, NDArray[np.bool_]], truth: Nodule
) -> float:
    """Dice of what the image shows from a mark."""
    outline, *_ = finder.ruler.outlines([mark])
    return dice((outline.box, outline.mask), truth)


def show(title: str, result: list[tuple[float, float, bool]]) -> None:
    """Print mean Dice of both ways, of all nodules and of those with a mark."""
    table = np.array(result)
    for name, rows in (("all", table), ("marked", table[table[:, 2] > 0])):
        network, growing, _ = rows.mean(axis=0)
        print(f"{title}, {name:<6} {len(rows):4d}: network {network:.2f}, growing {growing:.2f}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--nodules", type=int, default=120)
parser.add_argument("--data", type=Path, default=Path("../shared/data"))
options = parser.parse_args()

view = AxialView.of(read_ct(options.data / SCAN).image, AIR_HU).image
lungs, hu = crop_to(segment_lungs(view), view)
own = sitk.ConnectedComponent(onto_grid(sitk.ReadImage(options.data / NODULES), hu) > 0)
rng = np.random.default_rng(1)
labels = sitk.GetArrayFromImage(own)
boxes = enumerate(ndimage.find_objects(labels), 1)
show("own", clicks(hu, lungs, [(box, labels[box] == n) for n, box in boxes], rng))
cubes = read_cubes(options.data / "lidc_nodules")
drawn = rng.permutation(len(cubes))[: options.nodules]
sites, balls = find_lung_sites(hu, lungs), nodule_spheres(own)
result = []
for start in range(0, len(drawn), REAL_PER_COPY):
    chosen = [cubes[n] for n in drawn[start : start + REAL_PER_COPY]]
    changed, placed = insert_real_nodules(hu, lungs, sites, balls, chosen, rng)
    result += clicks(changed, lungs, [(one.box, one.mask) for one in placed], rng)
show("transplanted", result)
