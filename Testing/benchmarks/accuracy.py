"""What a run finds in LIDC-IDRI-0001, held against its radiologists' outlines.

    python Testing/benchmarks/accuracy.py [DATA] [--model MODEL.keras]

DATA is ../shared/data unless given.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from LungNoduleSegLib.options import DEFAULT_MODEL
from LungNoduleSegLib.results.reading import LUNGS, NODULES
from LungNoduleSegLib.segmenter import NoduleSegmenter

sys.path.insert(0, str(Path(__file__).parents[1]))
from lidc_outlines import outlined_nodules
from trachea import trachea_lumen

SCAN = "LIDC-IDRI-0001"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
options = parser.parse_args()

with tempfile.TemporaryDirectory() as folder:
    output = Path(folder) / "out"
    found = NoduleSegmenter(options.model).run(options.data / SCAN, output)
    lungs = sitk.GetArrayFromImage(sitk.ReadImage(output / LUNGS))
    labels = sitk.GetArrayFromImage(sitk.ReadImage(output / NODULES))

image = found.scan.image
outlined = sitk.GetArrayFromImage(outlined_nodules(options.data / SCAN / "069.xml", image, 1)) > 0
landmarks = json.loads((options.data / "landmarks.json").read_text(encoding="utf-8"))[SCAN]
trachea = trachea_lumen(
    image, landmarks["C7"]["index"], landmarks["Bifurcation of trachea"]["index"]
)
majority = sitk.ReadImage(options.data / f"{SCAN}_nodules_ge2of4readers.nrrd")
truth = sitk.GetArrayFromImage(
    sitk.Resample(majority, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
).astype(bool)
hits = np.isin(labels, [n for n in np.unique(labels[truth]) if n])

print(f"outlined voxels inside the lungs      {np.mean(lungs[outlined] > 0):8.4f}")
print(f"trachea left inside the lungs         {np.mean(lungs[trachea] > 0):8.4f}")
dice = 2 * (hits & truth).sum() / (hits.sum() + truth.sum())
print(f"Dice of the nodule with the majority  {dice:8.3f}")
print(f"nodules found                         {len(found.nodules):8d}")
print(f"of them on the outlined nodule        {len(np.unique(labels[hits])):8d}")
for nodule in found.nodules:
    print(
        f"  {nodule.id:3d} ({nodule.x:6.1f}, {nodule.y:6.1f}, {nodule.z:7.1f}) mm "
        f"{nodule.diameter_mm:5.1f} mm {nodule.kind:<10} {nodule.probability:.3f}"
    )
