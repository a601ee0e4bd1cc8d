"""Runs on a made-up chest in the scene, for the tests of what a reader changes."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer

from CTLungScreeningLib.geometry import AxialView, CroppedMask, Grid, box_between, crop_to
from CTLungScreeningSlicer.scene.mrml_volume import add_volume
from LungNoduleSegLib.nodules.finding import NoduleRules, find_nodules
from LungNoduleSegLib.nodules.table import Nodule, write_nodules_csv
from LungNoduleSegLib.nodules.threshold import to_steps
from LungNoduleSegLib.results.reading import (
    MASKS,
    PROBABILITY,
    RECORD,
    SEGMENTATION,
    TABLE,
    RunMasks,
)
from LungNoduleSegLib.results.segments import write_segmentation
from LungNoduleSegSlicer.scene import nodule_segments
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic
from LungNoduleSegSlicer.scene.mrml_results import BINARY_LABELMAP
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes, nodules_of
from LungNoduleSegSlicer.scene.review_state import VERDICT_TAG
from mrml_grids import voxels_on

SPACING = (1.2, 1.2, 2.0)
RULES = NoduleRules(0.5, 0.6, 3.0, 0.5, 3.0)
BALLS = {
    # centre (x, y, z) mm from the first voxel, radius mm, highest probability
    (30.0, 40.0, 40.0): (6.0, 0.99),
    (90.0, 45.0, 50.0): (5.0, 0.9),
    (88.0, 30.0, 24.0): (5.0, 0.45),
}
UNSEEN = (34.0, 36.0, 68.0)
"""A nodule that the network missed."""


@dataclass
class Case:
    """A run on a made-up chest, in the scene; images lie on the scan's grid, LPS mm."""

    hu: sitk.Image
    lungs: sitk.Image
    probability: sitk.Image
    results: ResultNodes

    def found(self, threshold: float) -> tuple[sitk.Image, tuple[Nodule, ...]]:
        """What a run at that threshold gives, on the scan's grid."""
        return run(self.hu, self.lungs, self.probability, replace(RULES, threshold=threshold))[:2]

    def ras(self, centre: tuple[float, float, float]) -> tuple[float, float, float]:
        origin = np.array(self.axial_origin)
        x, y, z = (origin + centre).tolist()
        return -x, -y, z

    @property
    def axial_origin(self) -> tuple[float, ...]:
        return AxialView.of(self.hu, -1000).image.GetOrigin()


def run(
    hu: sitk.Image, lungs: sitk.Image, probability: sitk.Image, rules: NoduleRules
) -> tuple[sitk.Image, tuple[Nodule, ...], sitk.Image]:
    """Find nodules: labels on the scan's grid, table, and the probability cropped to the lungs."""
    view = AxialView.of(hu, -1000)
    axial = [AxialView.of(one, 0).image for one in (lungs, probability)]
    box, hu_box, likely = crop_to(axial[0], view.image, axial[1])
    found = find_nodules(likely, hu_box, box, rules, hu)
    return view.restore(found.labels), found.nodules, likely


def chest() -> tuple[sitk.Image, sitk.Image, sitk.Image]:
    """Make HU, lungs and probability, axial."""
    shape = (50, 70, 100)
    z, y, x = np.meshgrid(
        *(np.arange(n) * s for n, s in zip(shape, SPACING[::-1], strict=True)),
        indexing="ij",
        sparse=True,
    )
    rng = np.random.default_rng(0)
    lungs = np.zeros(shape, np.uint8)
    for label, middle in ((1, 32.0), (2, 87.0)):
        inside = ((x - middle) / 24) ** 2 + ((y - 42) / 34) ** 2 + ((z - 49) / 44) ** 2 < 1
        lungs[inside] = label
    hu = np.where(lungs > 0, -850, 40) + rng.normal(0, 15, shape)
    likely = np.zeros(shape, np.float32)
    for (cx, cy, cz), (radius, top) in [*BALLS.items(), (UNSEEN, (5.0, 0.0))]:
        away = np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)
        hu = np.where(away < radius, 30 + rng.normal(0, 15, shape), hu)
        likely = np.maximum(likely, top * np.clip(1.5 - away / radius, 0, 1)).astype(np.float32)
    images = []
    for array in (hu.astype(np.int16), lungs, likely * (lungs > 0)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(SPACING)
        image.SetOrigin((-60, -30, 200))
        images.append(image)
    return images[0], images[1], images[2]


def make_case(
    logic: LungNoduleSegLogic,
    folder: Path,
    code: str,
    *,
    probability: bool = True,
    lobes: sitk.Image | None = None,
    missed_lung: int = 0,
    name: str = "CT",
) -> Case:
    """Write a run on the chest, its axes named by `code`, and import it into the scene.

    `missed_lung` is one that the run did not find; `name` is that of the volume.
    """
    hu, lungs, likely = (sitk.DICOMOrient(image, code) for image in chest())
    if missed_lung:
        lungs = sitk.ChangeLabel(lungs, {missed_lung: 0})
        likely = sitk.Mask(likely, lungs)
    labels, nodules, cropped = run(hu, lungs, likely, RULES)
    folder.mkdir()
    write_segmentation(folder / SEGMENTATION, lungs, labels)
    write_nodules_csv(folder / TABLE, nodules)
    if lobes is not None:
        RunMasks.of(lungs, labels, lobes).write(folder / MASKS)
    if probability:
        sitk.WriteImage(to_steps(cropped), folder / PROBABILITY)
        (folder / RECORD).write_text(json.dumps({"parameters": {"rules": vars(RULES)}}))
    return Case(hu, lungs, likely, logic.importResults(folder, add_volume(hu, name)))


def segments(case: Case) -> dict[str, set[tuple[int, ...]]]:
    """Give the voxels of each segment as indices (x, y, z) of the scan, by the segment's id."""
    segmentation = case.results.segmentation.GetSegmentation()
    return {one: voxels_on(case.hu, segmentation, one) for one in segmentation.GetSegmentIDs()}


def state(case: Case) -> Any:
    """Give all that a review may change, to be compared."""
    table = case.results.table.GetTable()
    verdicts = table.GetColumnByName("verdict")
    points = case.results.fiducials
    segmentation = case.results.segmentation.GetSegmentation()
    return (
        segments(case),
        nodules_of(case.results.table, rejected=True),
        [verdicts.GetValue(i) for i in range(table.GetNumberOfRows())] if verdicts else None,
        [points.GetNthControlPointLabel(i) for i in range(points.GetNumberOfControlPoints())],
        {
            one: nodule_segments.tag(segmentation.GetSegment(one), VERDICT_TAG)
            for one in segmentation.GetSegmentIDs()
        },
    )


def numbers(logic: LungNoduleSegLogic, case: Case) -> list[int]:
    """Give the numbers of the nodules in the order of the table."""
    return [one.nodule.id for one in logic.review.nodules(case.results)]


def redraw(case: Case, segment_id: str, mask: sitk.Image) -> None:
    """Give a segment other voxels, as a reader does in the Segment Editor."""
    array = sitk.GetArrayFromImage(mask) > 0
    whole = box_between((0, 0, 0), array.shape)
    voxels = CroppedMask(Grid.of(mask), whole, array)
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    logic.SetBinaryLabelmapToSegment(
        nodule_segments.labelmap_of(voxels),
        case.results.segmentation,
        segment_id,
        logic.MODE_REPLACE,
    )


def erase_upper_half(case: Case, number: int) -> None:
    """Erase the upper half of a nodule's segment, as a reader does in the Segment Editor."""
    node, one = case.results.segmentation, nodule_segments.segment_id(number)
    array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, one)
    value = node.GetSegmentation().GetSegment(one).GetLabelValue()
    slices = np.flatnonzero((array == value).any(axis=(1, 2)))
    half = array[slices[len(slices) // 2] :]
    half[half == value] = 0
    node.GetSegmentation().GetSegment(one).GetRepresentation(BINARY_LABELMAP).Modified()
