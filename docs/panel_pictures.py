"""Pictures of the panel CTSliceTools beside the slice views, for the docs and to be looked at.

Run it as a program: rendering ends in a crash in a process that has imported TensorFlow.

    python docs/panel_pictures.py SCAN FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

sys.path.append(str(Path(__file__).parents[1] / "Testing"))

import slicer_host

slicer = slicer_host.start()

# ruff: noqa: E402 - Slicer is started before what needs it is imported
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningSlicer.scene.mrml_volume import INSTANCE_UIDS, add_volume
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME
from panel_host import WIDTH, docked, open_panel, scroll_to
from slicer_host.actions import press, process_events, save_picture, wait_until

SHOWN = "Bifurcation of trachea"
"""Landmark at which the picture is taken."""

MARGIN = 9
"""Below the picture of a panel, in pixels."""


def save_panel(widget: Any, file: Path, height: int = 0) -> None:
    """Save a panel at its width; at a height with what the user sees without scrolling."""
    panel = widget.parent
    with docked(widget, WIDTH, height or panel.sizeHint.height()) as dock:
        for _ in range(0 if height else 2):  # texts are wrapped at the width of the first time
            wanted = panel.layout().totalHeightForWidth(WIDTH)
            dock.resize(WIDTH, max(wanted, panel.minimumSizeHint.height()) + 80)
            process_events()
        save_picture(dock, file)
    if not height:
        crop_bottom(file)


def crop_bottom(file: Path) -> None:
    """Crop a picture below the last row that has more than one colour."""
    picture = Image.open(file).convert("RGB")
    empty = Image.new("RGB", picture.size, picture.getpixel((1, picture.height - 1)))
    box = ImageChops.difference(picture, empty).getbbox()
    if box is not None:
        picture.crop((0, 0, picture.width, min(picture.height, box[3] + MARGIN))).save(file)


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


def wait_for_last_third(runner: Any, epochs: int, patience_s: float) -> None:
    """Wait until two thirds of a training's epochs are in its table, or it ends."""

    def done() -> int:
        tables = slicer.util.getNodesByClass("vtkMRMLTableNode")
        return tables[0].GetTable().GetNumberOfRows() if tables else 0

    wait_until(lambda: done() >= epochs * 2 // 3 or not runner.busy, patience_s)


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
    save_panel(widget, folder / "annotate-panel.png")
    for view in ("Red", "Green"):
        save_view(view, folder / f"annotate-{view.lower()}.png")
    side_by_side(
        [folder / f"annotate-{what}.png" for what in ("panel", "red", "green")],
        folder / "annotate.png",
    )


def side_by_side(files: list[Path], file: Path) -> None:
    """Join pictures side by side on white."""
    pictures = [Image.open(one).convert("RGB") for one in files]
    size = (sum(one.width for one in pictures), max(one.height for one in pictures))
    whole = Image.new("RGB", size, "white")
    left = 0
    for one in pictures:
        whole.paste(one, (left, 0))
        left += one.width
    whole.save(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
