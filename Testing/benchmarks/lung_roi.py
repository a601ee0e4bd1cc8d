"""Milliseconds a slice of both ways of finding the lungs, on the same scan in the same run.

    python Testing/benchmarks/lung_roi.py [SCAN]

SCAN is ../shared/data/LIDC-IDRI-0001 unless given.
"""

import sys
import time
from pathlib import Path

from CTLungScreeningLib.reading.ct_reading import read_ct
from LungNoduleSegLib.lungs.labels import OWN_METHODS, LungMethod
from LungNoduleSegLib.lungs.segmentation import segment_lungs

scan = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/LIDC-IDRI-0001")
image = read_ct(scan).image
slices = image.GetDepth()

# The first call of each pays for loading libraries.
for method in OWN_METHODS:
    segment_lungs(image[:, :, slices // 2 : slices // 2 + 9], method)

elapsed = {}
for method in OWN_METHODS:
    began = time.perf_counter()
    segment_lungs(image, method)
    elapsed[method] = (time.perf_counter() - began) * 1000 / slices
    print(f"{method:<10}{elapsed[method]:8.1f} ms a slice ({slices} slices)")
ratio = elapsed[LungMethod.TUTORIAL] / elapsed[LungMethod.VOLUME]
print(f"volume is {ratio:.1f} times as fast as tutorial")
