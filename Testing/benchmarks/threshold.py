"""Milliseconds that another threshold takes, against finding the nodules anew, on 300 slices.

    python Testing/benchmarks/threshold.py [SCAN]

SCAN, ../shared/data/LIDC-IDRI-0001 unless given, is resampled to 300 slices and run once, in a
process of its own as TensorFlow and a scene need. The last figures are those of the panel: from a
move of the slider to the table, and to three slice views drawn, by software if there is no GPU.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).parents[1]))

import slicer_host

slicer = slicer_host.start()

# ruff: noqa: E402 - Slicer is started before what needs it is imported
from CTLungScreeningLib.child_process import complete
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningSlicer.scene.mrml_volume import add_volume
from LungNoduleSegLib.nodules.finding import find_nodules
from LungNoduleSegLib.nodules.marks import STEPS
from LungNoduleSegLib.results.reading import PROBABILITY
from LungNoduleSegSlicer.scene import result_nodes
from panel_host import open_panel
from slice_views import ORIENTATIONS, SliceView
from slicer_host.actions import process_events

SLICES = 300
THRESHOLDS = (0.5, 0.45, 0.4, 0.35, 0.3, 0.55, 0.6, 0.7, 0.8, 0.9)


def resampled(image: sitk.Image) -> sitk.Image:
    width, height, depth = image.GetSize()
    x, y, z = image.GetSpacing()
    step = z * (depth - 1) / (SLICES - 1)
    return sitk.Resample(
        image,
        (width, height, SLICES),
        sitk.Transform(),
        sitk.sitkLinear,
        image.GetOrigin(),
        (x, y, step),
        image.GetDirection(),
    )


def timed(title: str, action: Callable[[float], Any]) -> float:
    """Print the median and the longest time in ms, with that of the processor alone."""
    wall, cpu = [], []
    for threshold in THRESHOLDS:
        began, busy = time.perf_counter(), time.process_time()
        action(threshold)
        wall.append((time.perf_counter() - began) * 1000)
        cpu.append((time.process_time() - busy) * 1000)
    print(
        f"{title:<28}{median(wall):8.0f} ms, {max(wall):6.0f} at most; "
        f"{median(cpu):6.0f} of the processor, {max(cpu):6.0f} at most"
    )
    return median(wall)


scan = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/LIDC-IDRI-0001")
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    image = resampled(read_ct(scan).image)
    sitk.WriteImage(image, folder / "scan.nrrd")
    command = ["run", folder / "scan.nrrd", "-o", folder / "out", "--probability"]
    subprocess.run([sys.executable, "-m", "LungNoduleSegLib", *map(str, command)], check=True)
    steps = sitk.ReadImage(folder / "out" / PROBABILITY)
    volume = add_volume(image, "CT")
    widget = open_panel("LungNoduleSeg")
    logic = widget.logic
    results = logic.importResults(folder / "out", volume)

began = time.perf_counter()
prepared = logic.review.prepare(results)
print(f"{'x'.join(map(str, image.GetSize()))} voxels, {'x'.join(map(str, steps.GetSize()))} kept")
print(f"{'once, to make ready':<28}{(time.perf_counter() - began) * 1000:8.0f} ms")
assert prepared.finder is not None
finder, ruler = prepared.finder, prepared.axial
rules = result_nodes.rules_of(results.probability)
probability = sitk.Cast(steps, sitk.sitkFloat32) / STEPS


def anew(threshold: float) -> None:
    at = replace(rules, threshold=threshold)
    find_nodules(probability, ruler.hu, ruler.lungs, at, ruler.original)


baseline = timed("found anew", anew)
core = timed(
    "found and measured", lambda t: complete(finder.find_work(replace(rules, threshold=t)))
)
scene = timed("with segments and table", lambda t: logic.review.setThreshold(results, t))
print(f"{baseline / core:.0f} and {baseline / scene:.0f} times as fast as finding them anew")

results.segmentation.CreateClosedSurfaceRepresentation()
widget.chooseVolume(volume)
widget.refresh()
first = logic.review.nodules(results)[0].nodule
views = [SliceView(volume, one, (-first.x, -first.y, first.z)) for one in ORIENTATIONS]


def slide(threshold: float) -> None:
    widget.ui.thresholdSlider.value = threshold
    process_events()  # they are found
    process_events()  # and shown


def slide_and_draw(threshold: float) -> None:
    slide(threshold)
    for view in views:
        view.draw()


slide_and_draw(0.52)
timed("slider to table", slide)
timed("slider to three views", slide_and_draw)
