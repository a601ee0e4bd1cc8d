"""Pictures of the sections Match, beside its two slice views, and Localize, for the docs.

Run it as a program: rendering ends in a crash in a process that has imported TensorFlow.

    python docs/match_pictures.py SCAN OTHER FOLDER [MODEL]
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "Testing"))

import slicer_host

slicer = slicer_host.start()

# ruff: noqa: E402 - Slicer is started before what needs it is imported
from panel_pictures import load, save_panel, save_view, side_by_side

from CTLungScreeningSlicer.panel.side_by_side import BESIDE_NAME
from CTSliceToolsLib.localizer.prediction import DEFAULT_MODEL
from panel_host import open_panel
from slicer_host.actions import process_events, wait_until

SHOWN = "Aortic arch"
"""Landmark at which the picture is taken, as it is found in the first scan."""


def main(source: Path, other: Path, folder: Path, model: Path = DEFAULT_MODEL) -> None:
    """Localize two scans, show them side by side with the list of slices, and what was found."""
    folder.mkdir(parents=True, exist_ok=True)
    widget = open_panel("CTSliceTools")
    ui, match = widget.ui, widget.match
    ui.annotateSection.collapsed = True
    ui.matchSection.collapsed = False
    volume, second = load(source), load(other)
    widget.chooseVolume(volume)
    ui.otherSelector.setCurrentNode(second)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    widget.localize.model.choose(model)
    match.run_bar.button.click()
    wait_until(lambda: not match.run_bar.runner.busy, 600)
    ui.sideBySideBox.click()
    names = [ui.foundTable.item(row, 0).text() for row in range(ui.foundTable.rowCount)]
    ui.foundTable.cellClicked.emit(names.index(SHOWN), 0)
    process_events()
    save_panel(widget, folder / "match-panel.png")
    ui.matchSection.collapsed, ui.localizeSection.collapsed = True, False
    save_panel(widget, folder / "localize.png")
    views = {"Red": "red", BESIDE_NAME: "beside"}
    for view, name in views.items():
        save_view(view, folder / f"match-{name}.png")
    side_by_side(
        [folder / f"match-{what}.png" for what in ("panel", *views.values())],
        folder / "match.png",
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
