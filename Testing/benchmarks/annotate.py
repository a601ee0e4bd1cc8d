"""From a key press to the updated table and the saved file, for a scan of 512×512×600.

Prints milliseconds a key, and the ratio to writing and reading the same file with the standard
library alone, measured in the same run.

    python Testing/benchmarks/annotate.py
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import slicer_host

slicer = slicer_host.start()

# ruff: noqa: E402 - Slicer is started before what needs it is imported
from CTSliceToolsLib.landmarks import LANDMARKS
from panel_host import open_panel, scroll_to
from slicer_host.actions import press, process_events

REPEATS = 5


def main() -> None:
    """Annotate the scan several times over and print the figures."""
    widget = open_panel("CTSliceTools")
    hu = np.full((600, 512, 512), -1000, np.int16)
    volume = slicer.util.addVolumeFromArray(hu, np.diag([-0.7, -0.7, 1, 1.0]), "scan")
    widget.chooseVolume(volume)
    widget.ui.annotateButton.checked = True
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "annotation.json"
        widget.annotate.changed.connect(lambda: widget.annotate.save(file))
        keys, plain = [], []
        for repeat in range(REPEATS):
            for row, landmark in enumerate(LANDMARKS):
                scroll_to(590 - 50 * row - repeat)
                start = time.perf_counter()
                press(landmark.key)
                process_events()
                keys.append(time.perf_counter() - start)
                assert file.exists()
                start = time.perf_counter()
                other = Path(folder) / "plain.json"
                other.write_text(json.dumps(json.loads(file.read_text())), encoding="utf-8")
                other.replace(other.with_name("moved.json"))
                plain.append(time.perf_counter() - start)
    print(
        f"key to table and file: median {1000 * np.median(keys):.1f} ms, "
        f"slowest {1000 * max(keys):.1f} ms; "
        f"{np.median(keys) / np.median(plain):.0f} times the file alone"
    )


if __name__ == "__main__":
    main()
