"""Pictures of the sections Training and Batch of LungNoduleSeg with results, for the docs.

Run it as a program: rendering ends in a crash in a process that has imported TensorFlow.

    python docs/batch_pictures.py FOLDER training
    python docs/batch_pictures.py FOLDER batch

The scans of the training are small phantoms, so that it takes minutes; its figures say nothing.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "Testing"))

import slicer_host

slicer = slicer_host.start()

# ruff: noqa: E402 - Slicer is started before what needs it is imported
import SimpleITK as sitk
from panel_pictures import save_panel, save_view, side_by_side, wait_for_last_third
from PIL import Image

from annotated_scans import chest, write_luna
from LungNoduleSegLib.phantom.chest import PhantomSpec, make_phantom
from panel_host import open_panel
from plot_pictures import save_chart
from slicer_host.actions import process_events, save_picture, wait_until

PATIENCE_S = 7200
PATIENTS, EPOCHS = 2, 6


def show_section(widget: Any, name: str) -> None:
    """Open one section and close the others."""
    for other in vars(widget.ui):
        if other.endswith("Section"):
            getattr(widget.ui, other).collapsed = other != name
    process_events()


def join(parts: list[Path], file: Path) -> None:
    """Join pictures side by side in a small file."""
    side_by_side(parts, file)
    shrink(file)


def shrink(file: Path) -> None:
    """Write a picture anew with few colours."""
    Image.open(file).convert("RGB").quantize(128).save(file, optimize=True)


def picture_of_training(widget: Any, work: Path, folder: Path) -> None:
    """Prepare, check and train by the panel; the picture is taken before the last third."""
    show_section(widget, "trainingSection")
    ui, runner = widget.ui, widget.training.run_bar.runner
    scans, annotations = write_luna(work, {f"1.2.{n}": chest(n) for n in range(PATIENTS)})
    ui.scansLine.text, ui.annotationsLine.text = str(scans), str(annotations)
    ui.trainStep.click()
    ui.epochsBox.value, ui.stepsBox.value = EPOCHS, 4
    ui.batchBox.value = ui.filtersBox.value = 2
    widget.training.run_bar.button.click()
    wait_for_last_third(runner, EPOCHS, PATIENCE_S)
    check = folder / "panel-check-pictures.png"
    save_picture(widget.training.pages.window, check)
    shrink(check)
    widget.training.pages.close()
    parts = [work / "panel.png", work / "chart.png"]
    save_panel(widget, parts[0])
    save_chart(slicer.util.getNodesByClass("vtkMRMLPlotChartNode")[0], parts[1])
    join(parts, folder / "panel-training-lung.png")
    runner.stop()


def picture_of_batch(widget: Any, work: Path, folder: Path) -> None:
    """Run two phantoms and a damaged file by the bundled model, and load the first."""
    show_section(widget, "batchSection")
    ui, scans = widget.ui, work / "scans"
    scans.mkdir()
    for seed in (1, 2):
        file = scans / f"phantom {seed}.nrrd"
        sitk.WriteImage(make_phantom(PhantomSpec(seed=seed)).image, file)
    whole = file.read_bytes()
    (scans / "cut.nrrd").write_bytes(whole[: len(whole) // 2])
    ui.batchScansLine.text, ui.batchOutputLine.text = str(scans), str(work / "results")
    ui.batchWorkersBox.value = 1
    runner = widget.batch.run_bar.runner
    widget.batch.run_bar.button.click()
    wait_until(lambda: not runner.busy, PATIENCE_S)
    done = [row for row in range(3) if ui.batchTable.item(row, 4).text() == "Done"]
    ui.batchTable.selectRow(done[0])
    ui.loadScanButton.click()
    wait_until(lambda: not widget.batch.load_bar.runner.busy, PATIENCE_S)
    process_events()
    parts = [work / "batch.png", work / "red.png"]
    save_panel(widget, parts[0])
    save_view("Red", parts[1])
    join(parts, folder / "panel-batch.png")


def main(folder: Path, section: str) -> None:
    """Set the picture of one section."""
    folder.mkdir(parents=True, exist_ok=True)
    take = {"training": picture_of_training, "batch": picture_of_batch}[section]
    widget = open_panel("LungNoduleSeg")
    with tempfile.TemporaryDirectory() as work:
        take(widget, Path(work), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
