"""Pictures of the panel CTSliceTools beside the slice views, for the docs and to be looked at.

Run it as a program: rendering ends in a crash in a process that has imported TensorFlow.

    python Testing/panel_pictures.py SCAN FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

import slicer_host

slicer = slicer_host.start()

# ruff: noqa: E402 - Slicer is started before what needs it is imported
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningSlicer.scene.mrml_volume import add_volume
from CTLungScreeningSlicer.scene.volume_slices import INSTANCE_UIDS
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME
from panel_host import open_panel, scroll_to
from slicer_host.actions import press, process_events, save_picture

SHOWN = "Bifurcation of trachea"
"""Landmark at which the picture is taken."""


def load(source: Path) -> Any:
    """Load a scan as Slicer would."""
    scan = read_ct(source)
    volume = add_volume(scan.image, source.stem)
    volume.SetAttribute(INSTANCE_UIDS, " ".join(one.sop_instance_uid for one in scan.slices))
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().AutoWindowLevelOff()
    volume.GetDisplayNode().SetWindowLevel(1400, -200)
    return volume


def save_view(name: str, file: Path) -> None:
    """Save what a slice view shows."""
    slicer.app.layoutManager().sliceWidget(name).sliceView().save(file)


def main(source: Path, folder: Path) -> None:
    """Annotate the scan by keys at the known heights, and take the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    known = json.loads((source.parent / "landmarks.json").read_text())[source.name]
    widget = open_panel("CTSliceTools")
    volume = load(source)
    widget.chooseVolume(volume)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    slicer.util.mainWindow().activateWindow()
    widget.ui.annotateButton.click()
    for name, place in known.items():
        scroll_to(place["z_mm"])
        press(LANDMARK_BY_NAME[name].key)
    scroll_to(known[SHOWN]["z_mm"])
    process_events()
    save_picture(widget.parent, folder / "annotate-panel.png")
    for view in ("Red", "Green"):
        save_view(view, folder / f"annotate-{view.lower()}.png")
    side_by_side(
        [folder / f"annotate-{what}.png" for what in ("panel", "red", "green")],
        folder / "annotate.png",
    )


def side_by_side(files: list[Path], file: Path) -> None:
    """Put pictures beside each other on black."""
    pictures = [Image.open(one).convert("RGB") for one in files]
    size = (sum(one.width for one in pictures), max(one.height for one in pictures))
    whole = Image.new("RGB", size)
    left = 0
    for one in pictures:
        whole.paste(one, (left, 0))
        left += one.width
    whole.save(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
