"""Pictures of the panel LungNoduleSeg with the results of a run, beside views, for the docs.

Run it as a program: rendering ends in a crash in a process that has imported TensorFlow.

    python docs/nodule_pictures.py SCAN RUN FOLDER
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "Testing"))

import slicer_host

slicer = slicer_host.start()

# ruff: noqa: E402 - Slicer is started before what needs it is imported
from panel_pictures import load, save_panel, save_view, side_by_side

from LungNoduleSegLib.nodules.table import Verdict
from LungNoduleSegSlicer.panel.views import show_results
from panel_host import open_panel
from slice_views import save_surfaces
from slicer_host.actions import process_events

VIEWS = ("Red", "Green")

VERDICTS = (Verdict.ACCEPTED, Verdict.REJECTED)
"""Verdicts on the first nodules of the table."""


def show_run(widget: Any, run: Path, volume: Any) -> None:
    """Import a run and show it as the panel does at its end."""
    widget.chooseVolume(volume)
    show_results(widget.logic.importResults(run, volume), volume)
    widget.refresh()
    widget.segment.finished.emit()
    process_events()


def open_only(widget: Any, *names: str) -> None:
    """Open some sections and fold the others."""
    for name, one in vars(widget.ui).items():
        if one.className() == "ctkCollapsibleButton":
            one.collapsed = name not in names
    process_events()


def main(scan: Path, run: Path, folder: Path) -> None:
    """Set the pictures at the most suspicious nodule."""
    folder.mkdir(parents=True, exist_ok=True)
    widget = open_panel("LungNoduleSeg")
    show_run(widget, run, load(scan))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for view in VIEWS:
            save_view(view, work / f"{view}.png")
        save_surfaces(work / "surfaces.png")
        surfaces = Image.open(work / "surfaces.png")
        surfaces.thumbnail((400, 400))
        surfaces.save(work / "surfaces.png")
        open_only(widget, "segmentSection", "nodulesSection")
        save_panel(widget, work / "panel.png")
        parts = ["panel", *VIEWS, "surfaces"]
        join([work / f"{part}.png" for part in parts], folder / "panel-results.png")

        open_only(widget, "segmentSection", "advancedSection")
        save_panel(widget, folder / "panel-lungs.png")
        open_only(widget, "outputSection")
        save_panel(widget, folder / "panel-output.png")

        open_only(widget, "nodulesSection")
        for verdict in VERDICTS:
            widget.nodules.judge(verdict)
            widget.nodules.table.step(1)
        widget.nodules.table.step(-len(VERDICTS))
        process_events()
        save_panel(widget, work / "panel.png")
        for view in VIEWS:
            save_view(view, work / f"{view}.png")
        join([work / f"{part}.png" for part in ("panel", *VIEWS)], folder / "panel-nodules.png")


def join(parts: list[Path], file: Path) -> None:
    """Join pictures side by side in one of 256 colours."""
    side_by_side(parts, file)
    colors = Image.open(file).quantize(
        256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
    )
    colors.save(file, optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
