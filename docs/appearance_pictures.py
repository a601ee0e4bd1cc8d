"""Pictures of both panels at 350 px and of the whole window at two sizes, light and dark.

Run it as a program: rendering ends in a crash in a process that has imported TensorFlow.

    python docs/appearance_pictures.py SCAN RUN FOLDER

The window is put together from the panel as Qt draws it and the views as VTK draws them.
"""

import sys
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "Testing"))

import slicer_host

slicer = slicer_host.start()

# ruff: noqa: E402 - Slicer is started before what needs it is imported
import qt

from __feature__ import true_property  # isort: skip  # noqa: F401

from nodule_pictures import open_only, show_run
from panel_pictures import load, save_panel, save_view

from panel_host import WIDTH, open_panel
from slice_views import save_surfaces
from slicer_host.actions import process_events

WINDOWS = ((1280, 800), (1920, 1080))
TOP = 60
"""Height of menus and tool bars above panel and views."""

DARK = {
    qt.QPalette.Window: "#353535",
    qt.QPalette.WindowText: "#ffffff",
    qt.QPalette.Base: "#2a2a2a",
    qt.QPalette.AlternateBase: "#424242",
    qt.QPalette.Text: "#ffffff",
    qt.QPalette.Button: "#353535",
    qt.QPalette.ButtonText: "#ffffff",
    qt.QPalette.BrightText: "#ff0000",
    qt.QPalette.ToolTipBase: "#ffffff",
    qt.QPalette.ToolTipText: "#ffffff",
    qt.QPalette.Highlight: "#2a82da",
    qt.QPalette.HighlightedText: "#000000",
    qt.QPalette.PlaceholderText: "#9a9a9a",
    qt.QPalette.Light: "#505050",
    qt.QPalette.Mid: "#282828",
    qt.QPalette.Dark: "#232323",
}


def use_style(dark: bool) -> None:
    """Return the application light or dark colours."""
    palette = slicer.app.style().standardPalette()
    if dark:
        palette = qt.QPalette()
        for role, color in DARK.items():
            palette.setColor(role, qt.QColor(color))
        for role in (qt.QPalette.Text, qt.QPalette.WindowText, qt.QPalette.ButtonText):
            palette.setColor(qt.QPalette.Disabled, role, qt.QColor("#7f7f7f"))
    slicer.app.setPalette(palette)
    process_events()


def sections(widget: Any) -> dict[str, Any]:
    """Return the collapsible sections of a panel by name."""
    found = vars(widget.ui).items()
    return {name: one for name, one in found if one.className() == "ctkCollapsibleButton"}


def save_window(
    widget: Any, size: tuple[int, int], dark: bool, surfaces_file: Path, file: Path
) -> None:
    """Save what the whole window looks like: the panel on the left, four views."""
    width, height = (size[0] - WIDTH) // 2, (size[1] - TOP) // 2
    for view in ("Red", "Green", "Yellow"):
        logic = slicer.app.layoutManager().sliceWidget(view).sliceLogic()
        logic.ResizeSliceNode(width, height)
        logic.FitSliceToBackground()
    widget.nodules.go_to_most_suspicious()
    process_events()
    whole = Image.new("RGB", size, DARK[qt.QPalette.Window] if dark else "#efefef")
    save_panel(widget, file, size[1] - TOP)
    whole.paste(Image.open(file), (0, TOP))
    places = {"Red": (0, 0), "Green": (0, 1), "Yellow": (1, 1)}
    for view, (column, row) in places.items():
        save_view(view, file)
        place = (WIDTH + column * width, TOP + row * height)
        whole.paste(Image.open(file).resize((width - 2, height - 2)), place)
    surfaces = Image.open(surfaces_file).convert("RGB").resize((height, height))
    field = Image.new("RGB", (width - 2, height - 2), surfaces.getpixel((0, 0)))
    field.paste(surfaces, ((width - height) // 2, 0))
    whole.paste(field, (WIDTH + width, TOP))
    whole.save(file)


def main(scan: Path, run: Path, folder: Path) -> None:
    """Set the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    widget = open_panel("LungNoduleSeg")
    volume = load(scan)
    show_run(widget, run, volume)
    surfaces = folder / "surfaces.png"
    save_surfaces(surfaces)
    for dark in (False, True):
        use_style(dark)
        style = "dark" if dark else "light"
        widget = open_panel("LungNoduleSeg")
        for name in sections(widget):
            open_only(widget, *with_parents(widget, name))
            save_panel(widget, folder / f"nodules-{name}-{style}.png")
        open_only(widget, "segmentSection", "nodulesSection")
        for size in WINDOWS:
            save_window(widget, size, dark, surfaces, folder / f"window-{size[0]}-{style}.png")
        widget = open_panel("CTSliceTools")
        widget.chooseVolume(volume)
        for name in sections(widget):
            open_only(widget, name)
            save_panel(widget, folder / f"slices-{name}-{style}.png")


def with_parents(widget: Any, name: str) -> list[str]:
    """Name a section with those that hold it."""
    names, one = [], getattr(widget.ui, name)
    while one is not None:
        if one.className() == "ctkCollapsibleButton":
            names.append(one.objectName)
        one = one.parent()
    return names


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
