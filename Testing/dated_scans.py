"""A phantom patient at two times with the truth as results of a run, for panels and pictures."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import slicer

from CTSliceToolsLib.scene.mrml_volume import add_volume
from LungNoduleSegLib.nodules.table import write_nodules_csv
from LungNoduleSegLib.results.names import SEGMENTATION, TABLE
from LungNoduleSegLib.results.segments import write_segmentation
from two_times import breathed, measured, taken_again, two_times


@functools.cache
def dated_results() -> tuple[tuple[Path, sitk.Image], tuple[Path, sitk.Image]]:
    """Write the results of the prior and the current scan, once a process; folder and HU each."""
    root = Path(tempfile.mkdtemp(prefix="two-times-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    prior, current = two_times()
    now = [taken_again(one, breathed()) for one in (current.image, current.lungs, current.nodules)]
    found = []
    for name, (image, lungs, labels) in {
        "before": (prior.image, prior.lungs, prior.nodules),
        "now": tuple(now),
    }.items():
        folder = root / name
        folder.mkdir()
        write_segmentation(folder / SEGMENTATION, lungs, labels)
        write_nodules_csv(folder / TABLE, measured(image, lungs, labels))
        found.append((folder, image))
    return found[0], found[1]


def add_scan(name: str, image: sitk.Image) -> Any:
    """Add a scan to the scene in lung window."""
    volume = add_volume(image, name)
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().AutoWindowLevelOff()
    volume.GetDisplayNode().SetWindowLevel(1400, -500)
    return volume


def date(volume: Any, day: str, patient: str = "P1", born: str = "", sex: str = "") -> None:
    """Put a volume under a patient and a study of a day, as Slicer's DICOM module does."""
    names = slicer.vtkMRMLSubjectHierarchyConstants
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    owner = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), patient)
    for name, value in (
        (names.GetDICOMPatientIDAttributeName(), patient),
        (names.GetDICOMPatientBirthDateAttributeName(), born),
        (names.GetDICOMPatientSexAttributeName(), sex),
    ):
        hierarchy.SetItemAttribute(owner, name, value)
    study = hierarchy.CreateStudyItem(owner, day)
    hierarchy.SetItemAttribute(study, names.GetDICOMStudyDateAttributeName(), day)
    item = hierarchy.GetItemByDataNode(volume) or hierarchy.CreateItem(study, volume)
    hierarchy.SetItemParent(item, study)
