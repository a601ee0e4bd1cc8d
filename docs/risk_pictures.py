"""Pictures of the sections Cancer risk and Follow-up, beside views and plot, for the docs.

Run it as a program: rendering ends in a crash in a process that has imported TensorFlow.

    python docs/risk_pictures.py FOLDER

The patient is a phantom at two times; the classifier is trained on artificial patients.
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
from panel_pictures import save_panel, save_view

from CTLungScreeningSlicer.panel.side_by_side import BESIDE_NAME
from dated_scans import add_scan, date, write_truth
from follow_up_scans import DOUBLED_NOW, breathed, follow_up_scans, taken_again
from LungNoduleSegLib.risk.training import train_risk
from LungNoduleSegSlicer.scene.growth_logic import CHART_ROLE
from panel_host import open_panel
from plot_pictures import save_chart
from risk_tables import cohort, write
from slicer_host.actions import process_events, wait_until


def main(folder: Path) -> None:
    """Compare two scans, enter facts, predict with a model, and take the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    widget = open_panel("LungNoduleSeg")
    before, now = ((one.image, one.lungs, one.nodules) for one in follow_up_scans())
    now = tuple(taken_again(one, breathed()) for one in now)
    prior, volume = add_scan("2023", before[0]), add_scan("2024", now[0])
    date(prior, "20230904")
    date(volume, "20240415", born="19600812", sex="F")
    with tempfile.TemporaryDirectory() as name:
        widget.logic.importResults(write_truth(Path(name) / "before", before), prior)
        results = widget.logic.importResults(write_truth(Path(name) / "now", now), volume)
    widget.chooseVolume(volume)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    widget.ui.priorSelector.setCurrentNode(prior)
    widget.followUp.run_bar.button.click()
    wait_until(lambda: not widget.followUp.run_bar.runner.busy, 600)
    show_only(widget, "followUpSection")
    rows = widget.ui.pairTable
    row = next(n for n in range(rows.rowCount) if rows.item(n, 0).text() == str(DOUBLED_NOW))
    rows.selectRow(row)
    rows.cellClicked.emit(row, 0)
    process_events()
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / f"{what}.png" for what in ("panel", "red", "beside", "plot")]
        save_panel(widget, files[0])
        save_view("Red", files[1])
        save_view(BESIDE_NAME, files[2])
        save_chart(widget.logic.growth.find(results).GetNodeReference(CHART_ROLE), files[3])
        arrange(files, folder / "panel-follow-up.png")
        widget.ui.followUpSideBySideBox.checked = False
        enter_facts(widget, results)
        widget.risk.model.choose(trained(Path(name)))
        widget.ui.predictRiskButton.click()
        show_only(widget, "riskSection")
        process_events()
        save_panel(widget, files[0])
        save_small(Image.open(files[0]), folder / "panel-risk.png")


def arrange(files: list[Path], file: Path) -> None:
    """Put the panel on the left, the two views beside it, and the plot below these, on white."""
    panel, red, beside, plot = (Image.open(one).convert("RGB") for one in files)
    width = panel.width + red.width + beside.width
    whole = Image.new("RGB", (width, max(panel.height, red.height + plot.height)), "white")
    for one, place in (
        (panel, (0, 0)),
        (red, (panel.width, 0)),
        (beside, (panel.width + red.width, 0)),
        (plot, (panel.width + (red.width + beside.width - plot.width) // 2, red.height)),
    ):
        whole.paste(one, place)
    save_small(whole, file)


def save_small(picture: Image.Image, file: Path) -> None:
    """Save a picture with few colours, which is enough for a panel."""
    picture.convert("RGB").quantize(96).save(file, optimize=True)


def show_only(widget: Any, name: str) -> None:
    """Fold all sections but one, and give the panel room for it."""
    for one in vars(widget.ui).values():
        if one.className() == "ctkCollapsibleButton":
            one.collapsed = one.objectName != name
    process_events()
    slicer.util.mainWindow().resize(1200, widget.parent.sizeHint.height() + 40)
    process_events()


def enter_facts(widget: Any, results: Any) -> None:
    """Enter facts as a reader would."""
    widget.ui.riskSection.collapsed = False
    widget.risk.choose(DOUBLED_NOW)
    for name in ("family_history", "emphysema", "ever_smoked", "high_risk", "screening"):
        widget.logic.risk.setFact(results, name, name != "family_history")
    for name, value in (("spiculation", True), ("upper_lobe", False)):
        widget.logic.risk.setFact(results, name, value, DOUBLED_NOW)
    widget.refresh()


def trained(folder: Path) -> Path:
    """Train classifiers on artificial patients and give one."""
    features, labels = cohort()
    feature_table, label_table = [
        write(folder / f"{name}.csv", rows)
        for name, rows in (("features", features), ("labels", labels))
    ]
    train_risk(feature_table, label_table, folder / "models")
    return folder / "models" / "xgboost.ubj"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
