"""Picture of the section Nodules at one of them, beside the slice views, for the docs.

Run it as a program: rendering ends in a crash in a process that has imported TensorFlow.

    python Testing/review_pictures.py SCAN RUN FOLDER
"""

import sys
from pathlib import Path

from PIL import Image

import slicer_host

slicer = slicer_host.start()

# ruff: noqa: E402 - Slicer is started before what needs it is imported
from LungNoduleSegLib.nodules.table import Verdict
from nodule_pictures import save_section
from panel_host import open_panel
from panel_pictures import load, save_view, side_by_side
from slicer_host.actions import process_events

VIEWS = ("Red", "Green")

VERDICTS = (Verdict.ACCEPTED, Verdict.REJECTED, Verdict.UNCERTAIN)
"""Of the first nodules of the table."""


def main(scan: Path, run: Path, folder: Path) -> None:
    """Import a run, judge the first nodules, and take the pictures at the first one."""
    folder.mkdir(parents=True, exist_ok=True)
    widget = open_panel("LungNoduleSeg")
    volume = load(scan)
    widget.logic.importResults(run, volume)
    widget.chooseVolume(volume)
    widget.refresh()
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    for verdict in VERDICTS:
        widget.nodules.table.step(1)
        widget.nodules.judge(verdict)
    widget.nodules.table.step(1 - len(VERDICTS))
    process_events()
    save_section(widget, widget.ui.nodulesSection, folder / "nodules.png")
    for view in VIEWS:
        save_view(view, folder / f"{view.lower()}.png")
    parts = ["nodules", *(view.lower() for view in VIEWS)]
    whole = folder / "panel-nodules.png"
    side_by_side([folder / f"{part}.png" for part in parts], whole)
    colors = Image.open(whole).quantize(
        256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
    )
    colors.save(whole, optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
