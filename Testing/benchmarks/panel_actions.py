"""How long what a reader does to 20 nodules on 512 × 512 × 300 holds the window.

    python Testing/benchmarks/panel_actions.py [SLICES]

An action is one step, or several between which the window answers; the longest of them counts. It
runs on Slicer's MRML without its window, so drawing is not in the times. Each event listed is one
for which Slicer updates its views or tables: of the segmentation, of the points, of the table.
The goal is 200 ms a step.
"""

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CTLungScreeningSlicer.scene import mrml_host

scene = mrml_host.start()

# ruff: noqa: E402 - the scene is made before what needs it is imported

from CTLungScreeningLib.child_process import RunningWork, Work
from CTLungScreeningLib.geometry import crop_to
from CTLungScreeningSlicer.scene.mrml_volume import add_volume
from LungNoduleSegLib.nodules.finding import NoduleRules, find_nodules
from LungNoduleSegLib.nodules.table import Verdict, write_nodules_csv
from LungNoduleSegLib.nodules.threshold import to_steps
from LungNoduleSegLib.results.reading import MASKS, PROBABILITY, RECORD, TABLE, RunMasks
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes

NODULES = 20
FAINT = 5
"""Balls more, that only a lower threshold finds."""

SIZE = 512
SPACING = (0.7, 0.7, 1.0)
RULES = NoduleRules(0.5, 0.6, 3.0, 0.5, 3.0)
GOAL_MS = 200


def chest(slices: int) -> tuple[sitk.Image, sitk.Image, sitk.Image]:
    """Make HU, lungs and probability: two boxes of lung with balls in them, one of them unseen."""
    shape = (slices, SIZE, SIZE)
    hu = np.full(shape, 40, np.int16)
    lungs = np.zeros(shape, np.uint8)
    probability = np.zeros(shape, np.float32)
    inside = slice(8, slices - 8), slice(110, 400)
    for label, columns in ((1, slice(60, 230)), (2, slice(280, 450))):
        lungs[(*inside, columns)] = label
        hu[(*inside, columns)] = -850
    rng = np.random.default_rng(0)
    tops = [*rng.uniform(0.6, 1, NODULES), *rng.uniform(0.46, 0.5, FAINT), 0.0]
    for number, top in enumerate(tops):
        middle = np.array(
            [
                20 + (slices - 40) * number // (len(tops) - 1),
                rng.integers(140, 370),
                rng.integers(90, 200) + (220 if number % 2 else 0),
            ]
        )
        radius = rng.uniform(3, 8)
        reach = np.ceil(1.5 * radius / np.array(SPACING[::-1])).astype(int)
        box = tuple(slice(m - r, m + r + 1) for m, r in zip(middle, reach, strict=True))
        steps = [np.arange(-r, r + 1) * s for r, s in zip(reach, SPACING[::-1], strict=True)]
        away = np.sqrt(sum(axis**2 for axis in np.meshgrid(*steps, indexing="ij")))
        hu[box][away < radius] = 30
        likely = top * np.clip(1.5 - away / radius, 0, 1)
        probability[box] = np.maximum(probability[box], likely)
    UNSEEN.extend((middle[::-1] * SPACING).tolist())
    images = [sitk.GetImageFromArray(array) for array in (hu, lungs, probability)]
    for image in images:
        image.SetSpacing(SPACING)
    return images[0], images[1], images[2]


UNSEEN: list[float] = []
"""Where the nodule lies that the network has not seen, LPS mm."""


class Events:
    """Counts the events of nodes for which Slicer does something."""

    def __init__(self, results: ResultNodes) -> None:
        self.counts: Counter[str] = Counter()
        for name, node in (
            ("segmentation", results.segmentation),
            ("points", results.fiducials),
            ("table", results.table),
        ):
            node.AddObserver("AnyEvent", lambda *_, name=name: self.counts.update([name]))


def timed(title: str, events: Events | None, action: Work[Any]) -> tuple[Any, float]:
    """Print the longest step of an action, and all of it; give the result and the longest's ms."""
    if events is not None:
        events.counts.clear()
    longest, busiest, total = 0.0, 0.0, 0.0
    running, more = RunningWork(action, lambda event: None), True
    while more:
        waits = running.child is not None and not running.importing
        began, busy = time.perf_counter(), time.process_time()
        more = running.advance(1 if waits else 0)
        took = 1000 * (time.perf_counter() - began)
        total += took
        if not waits:
            longest = max(longest, took)
            busiest = max(busiest, 1000 * (time.process_time() - busy))
    counted = ""
    if events is not None:
        counted = ", ".join(f"{count} {name}" for name, count in sorted(events.counts.items()))
    print(
        f"{title:<26}{longest:6.0f} ms ({busiest:4.0f} of the processor) of{total:6.0f}; "
        f"events: {counted or 'none'}"
    )
    return running.result, longest


def at_once(action: Callable[[], Any]) -> Work[Any]:
    """An action of one step."""
    return action()
    yield


def main(slices: int) -> None:
    """Do it all once."""
    hu, lungs, probability = chest(slices)
    box, hu_box, likely = crop_to(lungs, hu, probability)
    found = find_nodules(likely, hu_box, box, RULES, hu)
    labels = sitk.Resample(found.labels, hu, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    logic = LungNoduleSegLogic()
    volume = add_volume(hu, "CT")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_nodules_csv(folder / TABLE, found.nodules)
        sitk.WriteImage(to_steps(likely), folder / PROBABILITY)
        (folder / RECORD).write_text(json.dumps({"parameters": {"rules": vars(RULES)}}))
        RunMasks.of(lungs, labels).write(folder / MASKS)
        results, first = timed("import of a run", None, logic.importWork(folder, volume))
        review, events = logic.review, Events(results)
        number = found.nodules[0].id
        x, y, z = UNSEEN
        actions: dict[str, Callable[[], Work[Any]]] = {
            "make ready, once": lambda: review.prepareWork(results),
            "accept": lambda: at_once(lambda: review.setVerdict(results, number, Verdict.ACCEPTED)),
            "reject": lambda: at_once(lambda: review.setVerdict(results, number, Verdict.REJECTED)),
            "which were edited": lambda: at_once(lambda: review.edited(results)),
            "threshold 0.5 to 0.45": lambda: review.thresholdWork(results, 0.45),
            "threshold 0.45 to 0.7": lambda: review.thresholdWork(results, 0.7),
            "threshold back to 0.45": lambda: review.thresholdWork(results, 0.45),
            "undo all three": lambda: at_once(logic.history.undo),
            "add by click": lambda: review.addWork(results, (-x, -y, z)),
            "undo": lambda: at_once(logic.history.undo),
            "remove": lambda: at_once(lambda: review.removeNodule(results, number)),
            "undo remove": lambda: at_once(logic.history.undo),
            "risk": lambda: at_once(lambda: logic.risk.evaluate(results)),
            "report": lambda: logic.saving.reportWork(results, folder / "report.html"),
            "import of a second run": lambda: logic.importWork(
                folder, volume, results.segmentation, results.table, results.fiducials
            ),
        }
        longest = {"import of a run": first} | {
            title: timed(title, events, do())[1] for title, do in actions.items()
        }
    slow = [title for title, ms in longest.items() if ms > GOAL_MS]
    print(f"{len(found.nodules)} nodules; over {GOAL_MS} ms: {', '.join(slow) or 'none'}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
