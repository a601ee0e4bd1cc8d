"""A picture of a training in the panel, with its live loss curve, for the docs.

Run it as a program: rendering ends in a crash in a process that has imported TensorFlow.

    python docs/training_pictures.py DATASET EPOCHS PICTURE

DATASET holds annotated DICOM series; slices, parts and model are written beside it.
"""

import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "Testing"))

import slicer_host

slicer = slicer_host.start()

# ruff: noqa: E402 - Slicer is started before what needs it is imported
from panel_pictures import save_panel, side_by_side, wait_for_last_third

from panel_host import open_panel
from plot_pictures import save_chart

PATIENCE_S = 3600


def main(dataset: Path, epochs: int, picture: Path) -> None:
    """Train by the panel, and take the picture when two thirds of the epochs are over."""
    widget = open_panel("CTSliceTools")
    widget.ui.annotateSection.collapsed = True
    widget.ui.trainingSection.collapsed = False
    widget.ui.datasetFolder.text = str(dataset)
    widget.ui.epochsBox.value = epochs
    runner = widget.training.run_bar.runner
    widget.training.run_bar.button.click()
    wait_for_last_third(runner, epochs, PATIENCE_S)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("panel.png", "chart.png")]
        save_panel(widget, files[0])
        save_chart(slicer.util.getNodesByClass("vtkMRMLPlotChartNode")[0], files[1])
        side_by_side(files, picture)
    runner.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
