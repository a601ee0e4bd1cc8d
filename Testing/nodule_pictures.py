"""Pictures of the panel LungNoduleSeg with the results of a run, beside slice and 3-D views.

Run it as a program: rendering ends in a crash in a process that has imported TensorFlow.

    python Testing/nodule_pictures.py SCAN RUN FOLDER
"""

import sys
from pathlib import Path
from typing import Any

from PIL import Image

import slicer_host

slicer = slicer_host.start()

# ruff: noqa: E402 - Slicer is started before what needs it is imported
from LungNoduleSegSlicer.panel.result_views import show_results
from panel_host import open_panel
from panel_pictures import load, save_view, side_by_side
from slice_views import save_surfaces
from slicer_host.actions import process_events, save_picture

VIEWS = ("Red", "Green")
WIDTH = 420
"""Of the panel, as people have it beside the views."""


def main(scan: Path, run: Path, folder: Path) -> None:
    """Import a run, and take the pictures at its longest nodule."""
    folder.mkdir(parents=True, exist_ok=True)
    widget = open_panel("LungNoduleSeg")
    widget.ui.nodulesSection.collapsed = True
    volume = load(scan)
    volume.GetDisplayNode().AutoWindowLevelOn()
    widget.chooseVolume(volume)
    results = widget.logic.importResults(run, volume)
    show_results(results, volume)
    widget.refresh()
    longest = max(widget.logic.review.nodules(results), key=lambda one: one.nodule.diameter_mm)
    for view in VIEWS:
        node = slicer.app.layoutManager().sliceWidget(view).mrmlSliceNode()
        node.JumpSliceByOffsetting(*widget.logic.review.place(results, longest.nodule.id))
    process_events()
    ui = widget.ui
    save_section(widget, ui.segmentSection, folder / "panel-segment.png")
    for section, name in ((ui.lungsSection, "lungs"), (ui.outputSection, "output")):
        section.collapsed = False
        save_section(widget, section, folder / f"panel-{name}.png")
    for view in VIEWS:
        save_view(view, folder / f"{view.lower()}.png")
    save_surfaces(folder / "surfaces.png")
    picture = Image.open(folder / "surfaces.png")
    picture.thumbnail((400, 400))
    picture.save(folder / "surfaces.png")
    parts = ["panel-segment", *(view.lower() for view in VIEWS), "surfaces"]
    side_by_side([folder / f"{part}.png" for part in parts], folder / "panel-results.png")
    shrink(folder / "panel-results.png", 360)


def save_section(widget: Any, section: Any, file: Path) -> None:
    """Save what a section looks like."""
    widget.parent.resize(WIDTH, widget.parent.height)
    process_events()
    save_picture(section, file)


def shrink(file: Path, height: int) -> None:
    """Make a picture smaller, with 256 colours."""
    picture = Image.open(file).convert("RGB")
    picture.thumbnail((10_000, height))
    picture.quantize(method=Image.Quantize.FASTOCTREE).save(file, optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
