"""Lungs of a segmentation node taken instead of finding them, and what comes of a run with them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.nodules.measures import VOLUME_MEASUREMENT
from LungNoduleSegLib.results.reading import RECORD
from LungNoduleSegLib.risk.growth import method_of
from LungNoduleSegLib.run_cost import SETTINGS_FOLDER
from mrml_grids import LEFT, RIGHT, grid, masks, voxels_of, voxels_on, write_results

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

from CTLungScreeningLib.geometry import CroppedMask, Grid  # noqa: E402
from CTLungScreeningSlicer.scene.mrml_volume import add_volume  # noqa: E402
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: E402
from LungNoduleSegSlicer.scene.nodule_segments import labelmap_of  # noqa: E402
from LungNoduleSegSlicer.scene.result_nodes import RUN_RECORD, write_lungs  # noqa: E402


def add_segment(node: Any, image: sitk.Image, mask: np.ndarray[Any, Any], name: str) -> None:
    """Add a segment whose labelmap is no larger than it, as the Segment Editor leaves them."""
    z, y, x = (slice(0, n) for n in mask.shape)
    small = CroppedMask.of(Grid.of(image), (z, y, x), mask)
    assert small is not None
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.AddRepresentation("Binary labelmap", labelmap_of(small))
    assert node.GetSegmentation().AddSegment(segment, name)


def written(node: Any, folder: Path, image: sitk.Image) -> sitk.Image:
    file = folder / "lungs.nrrd"
    write_lungs(node, file)
    return sitk.Resample(
        sitk.ReadImage(file), image, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8
    )


@pytest.mark.parametrize("code", ["LPS", "RAI", "PIR"])
def test_lungs_of_a_run_are_written_as_they_are(
    logic: LungNoduleSegLogic, tmp_path: Path, code: str
) -> None:
    image = grid(code)
    volume = add_volume(image, "CT")
    node = logic.importResults(write_results(tmp_path / "out", image), volume).segmentation
    found = written(node, tmp_path, image)
    lungs, _ = masks(image)
    assert voxels_of(found, 1) == voxels_of(lungs, 1)
    assert voxels_of(found, 2) == voxels_of(lungs, 2)


def test_segments_by_name_in_labelmaps_of_their_own_lose_nothing(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    image = grid("RAI")
    lungs = sitk.GetArrayFromImage(masks(image)[0])
    node = logic.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Lobes")
    upper = np.zeros(lungs.shape, bool)
    upper[: len(upper) // 2] = True
    add_segment(node, image, (lungs == 2) & upper, "lung_upper_lobe_left")
    add_segment(node, image, (lungs == 2) & ~upper, "lung_lower_lobe_left")
    add_segment(node, image, lungs == 1, "Right Lung")
    add_segment(node, image, upper & (lungs == 0), "spleen")
    found = sitk.GetArrayFromImage(written(node, tmp_path, image))
    np.testing.assert_array_equal(found, lungs)


def test_one_segment_for_both_is_left_to_the_run(logic: LungNoduleSegLogic, tmp_path: Path) -> None:
    image = grid()
    lungs = sitk.GetArrayFromImage(masks(image)[0])
    node = logic.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    add_segment(node, image, lungs > 0, "Segment_1")
    found = sitk.GetArrayFromImage(written(node, tmp_path, image))
    np.testing.assert_array_equal(found, lungs > 0)


def test_what_has_no_lungs_is_refused_by_its_name(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    node = logic.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    volume = add_volume(grid(), "CT")
    for names in ([], ["liver", "spleen"]):
        for name in names:
            add_segment(node, grid(), np.ones((10, 12, 15), bool), name)
        with pytest.raises(InputError, match="Mine has no lungs"):
            logic.process(volume, lungsNode=node)
    assert not list(Path(slicer.app.temporaryPath).glob("LungNoduleSeg-*"))


def test_kept_lungs_stay_and_no_others_come(logic: LungNoduleSegLogic, tmp_path: Path) -> None:
    image = grid()
    volume = add_volume(image, "CT")
    node = logic.importResults(write_results(tmp_path / "1", image), volume).segmentation
    segmentation = node.GetSegmentation()
    slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, RIGHT)[0, 0, 0] = 1
    edited = {one: voxels_on(image, segmentation, one) for one in (RIGHT, LEFT)}
    again = write_results(tmp_path / "2", image, nodule_ids=(5,))
    logic.importResults(again, volume, node, lungsNode=node)
    assert list(segmentation.GetSegmentIDs()) == [RIGHT, LEFT, "CTLungScreening_Nodule_5"]
    assert {one: voxels_on(image, segmentation, one) for one in edited} == edited


def test_the_record_names_the_segmentation_of_the_lungs(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    node = logic.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    folder = write_results(tmp_path / "out", grid())
    record = {"input": {}, "parameters": {"lung_method": "/tmp/gone/lungs.nrrd"}}
    (folder / RECORD).write_text(json.dumps(record))
    found = logic.importResults(folder, add_volume(grid(), "CT"), lungsNode=node)
    kept = json.loads(found.table.GetAttribute(RUN_RECORD))
    assert kept["parameters"] == {"lung_method": "Mine"}


@pytest.mark.slow
def test_a_run_with_edited_lungs_looks_only_there_and_is_remembered(
    logic: LungNoduleSegLogic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from LungNoduleSegLib.phantom.chest import LesionRequest, PhantomSpec, make_phantom

    monkeypatch.setenv(SETTINGS_FOLDER, str(tmp_path / "settings"))
    lesions = (LesionRequest(18), LesionRequest(18))
    phantom = make_phantom(PhantomSpec(size=(224, 224, 75), spacing=(1.6, 1.6, 4), lesions=lesions))
    volume = add_volume(phantom.image, "Phantom")
    node = logic.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Edited")
    lungs = sitk.GetArrayFromImage(phantom.lungs)
    add_segment(node, phantom.image, lungs == 1, "right lung")
    assert logic.expectedCost(volume, lungs="given").runs == 0

    found = logic.process(volume, lungsNode=node, outputFolder=tmp_path / "out")

    cost = logic.expectedCost(volume, lungs="given")
    assert cost.runs == 1
    assert cost.seconds > 1
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["parameters"]["lung_method"].endswith("lungs.nrrd")
    assert method_of(record)["volume measurement"] == VOLUME_MEASUREMENT
    segmentation = found.segmentation.GetSegmentation()
    right = voxels_on(phantom.image, segmentation, RIGHT)
    assert right == voxels_of(phantom.lungs, 1)
    for one in logic.review.nodules(found):
        assert one.nodule.side == "right"
    before = [one.nodule for one in logic.review.nodules(found)]
    logic.review.setThreshold(found, 0.9)
    logic.review.setThreshold(found, 0.5)
    after = [one.nodule for one in logic.review.nodules(found)]
    assert [one.volume_mm3 for one in after] == [one.volume_mm3 for one in before]
