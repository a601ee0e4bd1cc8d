"""A scan with the results of its run as one file that Slicer opens."""

from pathlib import Path

import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.scene import mrml_host
from CTLungScreeningSlicer.scene.mrml_volume import show_in_lung_window
from LungNoduleSegLib.nodules.candidates import NoduleRules

SCAN_NAME = "Chest CT"


def write_scene(
    path: Path, image: sitk.Image, results: Path, rules: NoduleRules | None = None
) -> None:
    """Write scan, segments, table and control points as a new `.mrb` file.

    Args:
        path: the new file.
        image: the scan, LPS mm.
        results: folder with the segmentation and the table of the run.
        rules: by which the nodules were found, where the run has not written its record yet.

    Raises:
        InputError: if `path` exists, slicer-core is missing, the results cannot be read or the
            scene of this process is in use.
    """
    scene = mrml_host.start()
    if scene.GetNumberOfNodesByClass("vtkMRMLDisplayableNode"):
        raise InputError(f"{path} was not written: the scene holds other data, save that instead.")
    from CTLungScreeningSlicer.scene.mrml_volume import add_volume  # noqa: PLC0415 - needs what start() checks
    from LungNoduleSegSlicer.scene import probability_node  # noqa: PLC0415
    from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: PLC0415

    logic = LungNoduleSegLogic()
    try:
        volume = add_volume(image, SCAN_NAME)
        show_in_lung_window(volume)
        nodes = logic.importResults(results, volume)
        if rules is not None and nodes.probability is not None:
            probability_node.set_rules(nodes.probability, rules)
        logic.saveScene(path)
    finally:
        scene.Clear(False)
