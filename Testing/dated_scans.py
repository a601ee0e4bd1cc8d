"""A patient at two times as results of a run in the scene, for panels and pictures.

The scans of `small_chests` are as coarse as can be compared, so that tests of panels take no time.
"""

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer
from numpy.typing import NDArray

from CTLungScreeningSlicer.scene.mrml_volume import add_volume
from follow_up_scans import measured
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG
from LungNoduleSegLib.nodules.table import write_nodules_csv
from LungNoduleSegLib.results.reading import RECORD, SEGMENTATION, TABLE
from LungNoduleSegLib.results.segments import write_segmentation

Point = tuple[float, float, float]
Images = tuple[sitk.Image, sitk.Image, sitk.Image]

DOUBLED, STEADY, HALVED, GONE = 1, 2, 3, 4
"""Numbers of the nodules of the prior scan."""

NEW_NOW, HALVED_NOW, DOUBLED_NOW, STEADY_NOW = 1, 2, 3, 4
"""Numbers of those of the current scan."""

BEFORE = (
    ((-75.0, 10.0, 50.0), 12.0),
    ((-80.0, -20.0, -30.0), 11.0),
    ((70.0, 5.0, 20.0), 14.0),
    ((75.0, 20.0, -40.0), 10.0),
)
NOW = (
    ((60.0, -20.0, 60.0), 11.0),
    ((70.0, 5.0, 20.0), 14.0 / 2 ** (1 / 3)),
    ((-75.0, 10.0, 50.0), 12.0 * 2 ** (1 / 3)),
    ((-80.0, -20.0, -30.0), 11.0),
)
"""Centre in the body and diameter of each nodule, mm."""

MOVED, STRETCH = (8.0, -6.0, 15.0), 1.05
"""The second scan: the patient lies elsewhere, and has breathed in deeper."""

RADII = (55.0, 75.0, 110.0)
MIDDLE = 75.0
"""Of the lungs, which are ellipsoids."""


def small_chests() -> tuple[Images, Images]:
    """Make the prior and the current scan: HU, lungs and labels of the nodules of each."""
    return _chest(BEFORE, (0.0, 0.0, 0.0), 1.0), _chest(NOW, MOVED, STRETCH)


def _chest(lesions: tuple[tuple[Point, float], ...], moved: Point, stretch: float) -> Images:
    size, spacing = np.array((130, 90, 90)), np.array((2.2, 2.2, 3.0))
    origin = -(size - 1) / 2 * spacing
    k, j, i = np.ogrid[: size[2], : size[1], : size[0]]
    here = [one * step + start for one, step, start in zip((i, j, k), spacing, origin, strict=True)]
    x, y, z = (one - by for one, by in zip(here, moved, strict=True))
    z = z / stretch
    lungs = np.zeros(size[::-1], np.uint8)
    for label, middle in ((RIGHT_LUNG, -MIDDLE), (LEFT_LUNG, MIDDLE)):
        a, b, c = RADII
        lungs[((x - middle) / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 < 1] = label
    vessels = np.sin(x / 9) * np.sin(y / 11) * np.sin(z / 13)
    hu = np.where(lungs > 0, -850 + 250 * np.maximum(vessels - 0.3, 0), 30)
    labels = np.zeros(lungs.shape, np.uint16)
    for number, (centre, diameter) in enumerate(lesions, 1):
        at = np.array(centre) * (1, 1, stretch) + moved
        apart = sum((one - there) ** 2 for one, there in zip(here, at, strict=True))
        labels[apart < (diameter / 2) ** 2] = number
    hu[labels > 0] = 40
    return (
        _image(hu.astype(np.int16), spacing, origin),
        _image(lungs, spacing, origin),
        _image(labels, spacing, origin),
    )


def _image(array: NDArray[Any], spacing: NDArray[Any], origin: NDArray[Any]) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin.tolist())
    return image


def write_truth(folder: Path, images: Images) -> Path:
    """Write the truth of a scan as the results of a run, as far as a scene needs it."""
    image, lungs, labels = images
    folder.mkdir()
    write_segmentation(folder / SEGMENTATION, lungs, labels)
    write_nodules_csv(folder / TABLE, measured(image, lungs, labels))
    record = {"input": {}, "parameters": {"lung_method": "the truth"}}
    (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")
    return folder


@functools.cache
def dated_results() -> tuple[tuple[Path, sitk.Image], tuple[Path, sitk.Image]]:
    """Write the truth of the prior and the current scan, once a process; folder and HU each."""
    root = Path(tempfile.mkdtemp(prefix="two-times-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    before, now = small_chests()
    return (write_truth(root / "before", before), before[0]), (
        write_truth(root / "now", now),
        now[0],
    )


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
