"""Scans to try the module on, in Slicer's module Sample Data."""

import tempfile
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from CTLungScreeningLib.errors import Cancelled
from CTLungScreeningSlicer.panel.packages import ensure_packages
from CTLungScreeningSlicer.panel.run_bar import ProgressWindow
from CTLungScreeningSlicer.panel.widgets import shown_errors
from CTLungScreeningSlicer.scene.mrml_volume import show_in_lung_window

CATEGORY = "Lung screening"

CHEST_SHA256 = "4507b664690840abb6cb9af2d919377ffc4ef75b167cb6fd0f747befdb12e38e"
"""Checksum of the chest CT in Slicer's sample data, which is part of its address."""

CHEST_URL = f"https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/{CHEST_SHA256}"


def register_sample_data(requirements: Path, title: str) -> None:
    """Offer a public chest CT, and a phantom that is made on this computer without a network.

    Args:
        requirements: packages that the phantom needs, installed when it is first asked for.
        title: of the module, for the question whether to install them.
    """
    import SampleData  # noqa: PLC0415 - a module of Slicer, there once it has started

    register = SampleData.SampleDataLogic.registerCustomSampleDataSource
    register(
        category=CATEGORY,
        sampleName="ChestCT",
        uris=CHEST_URL,
        fileNames="CT-chest.nrrd",
        nodeNames="Chest CT",
        checksums=f"SHA256:{CHEST_SHA256}",
    )
    register(
        category=CATEGORY,
        sampleName="ChestPhantom",
        uris="",  # Slicer takes its length although there is nothing to download
        nodeNames="Chest phantom",
        customDownloader=lambda source: _ask_and_add(requirements, title),
    )


def add_phantom() -> Any | None:
    """Make a chest phantom with nodules in a child process, and add it to the scene.

    Returns:
        The volume node; None if the user has cancelled it.

    Raises:
        ChildError: if it could not be made; its log is named.
    """
    # Not at the top of the file, which is imported when Slicer starts.
    from CTLungScreeningLib.reading.ct_reading import read_ct  # noqa: PLC0415
    from CTLungScreeningSlicer.scene.mrml_volume import add_volume  # noqa: PLC0415
    from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: PLC0415

    name = _("Chest phantom")
    with (
        tempfile.TemporaryDirectory(dir=slicer.app.temporaryPath) as folder,
        ProgressWindow(name, _("Making the phantom")) as window,
    ):
        made = Path(folder, "phantom")
        try:
            LungNoduleSegLogic().commands.run("phantom", "-o", made, progress=window.report)
        except Cancelled:
            return None
        volume = add_volume(read_ct(made / "dicom").image, name)
    show_in_lung_window(volume)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    return volume


def _ask_and_add(requirements: Path, title: str) -> Any:
    with shown_errors():
        if ensure_packages(requirements, title):
            return add_phantom()
    return None
