"""Results saved as they are in the scene: DICOM read back by others, table, report, places."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

import dicom_files as files
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import LPS_TO_RAS
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningLib.reading.ct_scan import CTScan
from dicom_results import RECORD, SHOWN_VOLUME, VOLUME, dcmqi, groups, measures, segments
from LungNoduleSegLib.nodules.table import Verdict, read_nodules_csv, write_nodules_csv
from LungNoduleSegLib.results.reading import DICOM_REPORT, DICOM_SEGMENTATION, SEGMENTATION, TABLE
from LungNoduleSegLib.results.reading import RECORD as RECORD_FILE
from LungNoduleSegLib.results.segments import ALGORITHM_TAGS, LUNG_STYLES, write_segmentation
from mrml_grids import masks, nodule_row

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

from CTLungScreeningSlicer.scene.mrml_volume import (  # noqa: E402
    INSTANCE_UIDS,
    add_volume,
)
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: E402
from LungNoduleSegSlicer.scene.nodule_segments import read_voxels, segment_id, tag  # noqa: E402
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes, volume_node_of  # noqa: E402
from LungNoduleSegSlicer.scene.saving_logic import EDITED  # noqa: E402

Points = NDArray[np.int64]


def place_in_study(volume: Any) -> int:
    """Put a volume into a study of the subject hierarchy, as Slicer does with one from DICOM."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.CreateItem(study, volume)
    return int(study)


def results_of(
    logic: LungNoduleSegLogic, folder: Path, code: str = "LPS"
) -> tuple[ResultNodes, list[Path]]:
    """Results on a small DICOM series, its volume in the scene with its axes in any order."""
    scan = read_ct(folder / "ct") if (folder / "ct").exists() else new_scan(folder / "ct")
    image = sitk.DICOMOrient(scan.image, code)
    volume = add_volume(image, "CT")
    volume.SetAttribute(INSTANCE_UIDS, " ".join(one.sop_instance_uid for one in scan.slices))
    place_in_study(volume)
    out = folder / "out"
    out.mkdir()
    lungs, labels = masks(image)
    write_segmentation(out / SEGMENTATION, lungs, labels)
    write_nodules_csv(out / TABLE, [nodule_row(labels, one) for one in (1, 3)])
    record = RECORD | {"command": ["run"], "input": {"source": "/home/jane/scan.nrrd"}}
    (out / RECORD_FILE).write_text(json.dumps(record))
    return logic.importResults(out, volume), [one.file for one in scan.slices]


def new_scan(folder: Path) -> CTScan:
    files.write_series(folder, files.AXIAL, files.positions(files.AXIAL))
    return read_ct(folder)


def keys(points: Any) -> Points:
    """Places, LPS mm, as sorted numbers; steps that no spacing is a multiple of leave no ties."""
    steps = np.rint(np.asarray(points).reshape(-1, 3) * 19.3731).astype(np.int64) + 2**19
    return np.sort(steps @ np.array([2**40, 2**20, 1]))


def assert_same(found: dict[str, Points], expected: dict[str, Points]) -> None:
    """Fail unless the same segments have the same voxels."""
    assert list(found) == list(expected)
    for name, places in expected.items():
        np.testing.assert_array_equal(found[name], places, name)


def in_scene(segmentation_node: Any) -> dict[str, Points]:
    """Each segment's name and its voxels' places."""
    segmentation = segmentation_node.GetSegmentation()
    found = {}
    for one in segmentation.GetSegmentIDs():
        mask = read_voxels(segmentation_node, one)
        if mask is None:
            continue
        image = mask.image
        to_lps = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        where = np.argwhere(mask.voxels)[:, ::-1]
        points = where @ to_lps.T + image.GetOrigin()
        found[segmentation.GetSegment(one).GetName()] = keys(points)
    return found


def by_highdicom(file: Path) -> dict[str, Points]:
    return {name: keys(points) for name, points in segments(file)}


def by_slicer(file: Path, folder: Path) -> dict[str, Points]:
    """Read as Slicer's own plugin does: dcmqi makes label volumes, the scene makes segments."""
    folder.mkdir()
    dcmqi(
        "segimage2itkimage",
        *("--inputDICOM", file, "--outputDirectory", folder, "-t", "nrrd", "--mergeSegments"),
    )
    listed = json.loads((folder / "meta.json").read_text())["segmentAttributes"]
    scene = slicer.mrmlScene
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "read back")
    for number, attributes in enumerate(listed, 1):
        labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
        image = sitk.ReadImage(folder / f"{number}.nrrd")
        slicer.util.updateVolumeFromArray(labels, sitk.GetArrayFromImage(image))
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        matrix[:3, 3] = image.GetOrigin()
        labels.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(LPS_TO_RAS @ matrix))
        before = node.GetSegmentation().GetNumberOfSegments()
        logic = slicer.modules.segmentations.logic()
        assert logic.ImportLabelmapToSegmentationNode(labels, node)
        for offset, attribute in enumerate(sorted(attributes, key=lambda one: one["labelID"])):
            segment = node.GetSegmentation().GetNthSegment(before + offset)
            segment.SetName(attribute["SegmentLabel"])
        scene.RemoveNode(labels)
    return in_scene(node)


def measured_volumes(file: Path) -> list[float]:
    """Volumes that a DICOM SR tells, of voxels or as the image shows them, mm3."""
    found = (measures(group) for group in groups(file))
    return [next(one[code][0] for code in (VOLUME, SHOWN_VOLUME) if code in one) for one in found]


@pytest.mark.parametrize("code", ["LPS", "RAI", "PIR"])
def test_dicom_holds_the_voxels_of_the_scene_for_others(
    logic: LungNoduleSegLogic, tmp_path: Path, code: str
) -> None:
    results, sources = results_of(logic, tmp_path, code)
    logic.saving.saveDicom(results, tmp_path / "dicom", sources)
    expected = in_scene(results.segmentation)
    assert list(expected) == ["Right lung", "Left lung", "Nodule 1", "Nodule 3"]
    assert_same(by_highdicom(tmp_path / "dicom" / DICOM_SEGMENTATION), expected)
    assert_same(by_slicer(tmp_path / "dicom" / DICOM_SEGMENTATION, tmp_path / "read"), expected)
    volumes = measured_volumes(tmp_path / "dicom" / DICOM_REPORT)
    rows = logic.review.nodules(results)
    assert volumes[2:] == pytest.approx([one.nodule.volume_mm3 for one in rows], abs=1e-3)


def test_a_reader_s_changes_are_saved(logic: LungNoduleSegLogic, tmp_path: Path) -> None:
    results, sources = results_of(logic, tmp_path)
    logic.review.setVerdict(results, 1, Verdict.REJECTED)
    logic.review.setVerdict(results, 3, Verdict.ACCEPTED)
    right = LUNG_STYLES[1].id
    array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(results.segmentation, right)
    array[0, 0, 0] = 1
    hu = slicer.util.arrayFromVolume(volume_node_of(results))
    hu[0] = -1000  # as read from a file, it must look like CT
    logic.saving.saveDicom(results, tmp_path / "dicom", sources)
    logic.saving.saveTable(results, tmp_path / "n.csv")
    logic.saving.saveReport(results, tmp_path / "r.html")
    expected = in_scene(results.segmentation)
    del expected["Nodule 1"]
    assert_same(by_highdicom(tmp_path / "dicom" / DICOM_SEGMENTATION), expected)
    lung = hd.seg.segread(tmp_path / "dicom" / DICOM_SEGMENTATION).get_segment_description(1)
    assert lung.algorithm_type.value == "MANUAL"
    assert [one.id for one in read_nodules_csv(tmp_path / "n.csv")] == [3]
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Nodule 3" in page
    assert "Nodule 1<" not in page
    assert EDITED in page
    assert "accepted" in page
    assert "jane" not in page


@pytest.mark.parametrize("left", [0.5, 0.0, None])
def test_what_was_edited_since_it_was_measured_is_not_saved(
    logic: LungNoduleSegLogic, tmp_path: Path, left: float | None
) -> None:
    """`left` is the part of the nodule's voxels, None without its segment."""
    results, sources = results_of(logic, tmp_path)
    segment = segment_id(1)
    if left is None:
        results.segmentation.GetSegmentation().RemoveSegment(segment)
    else:
        array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(results.segmentation, segment)
        places = np.argwhere(array)
        array[tuple(places[int(left * len(places)) :].T)] = 0
    hu = slicer.util.arrayFromVolume(volume_node_of(results))
    hu[0] = -1000  # as read from a file, it must look like CT
    saves: tuple[Callable[[], object], ...] = (
        lambda: logic.saving.saveTable(results, tmp_path / "n.csv"),
        lambda: logic.saving.saveReport(results, tmp_path / "r.html"),
        lambda: logic.saving.saveDicom(results, tmp_path / "dicom", sources),
    )
    for save in saves:
        with pytest.raises(InputError, match=r"Nodule 1 of CT was edited .* press Remeasure"):
            save()
    logic.review.setVerdict(results, 1, Verdict.REJECTED)
    for save in saves:
        save()


def test_nothing_is_overwritten(logic: LungNoduleSegLogic, tmp_path: Path) -> None:
    results, sources = results_of(logic, tmp_path)
    for name in ("n.csv", "r.html", DICOM_REPORT):
        (tmp_path / name).write_text("mine")
    for save in (
        lambda: logic.saving.saveTable(results, tmp_path / "n.csv"),
        lambda: logic.saving.saveReport(results, tmp_path / "r.html"),
        lambda: logic.saving.saveDicom(results, tmp_path, sources),
    ):
        with pytest.raises(InputError, match="already holds"):
            save()
    for name in ("n.csv", "r.html", DICOM_REPORT):
        assert (tmp_path / name).read_text() == "mine"
    assert not (tmp_path / DICOM_SEGMENTATION).exists()


def test_files_of_another_place_are_refused(logic: LungNoduleSegLogic, tmp_path: Path) -> None:
    results, _ = results_of(logic, tmp_path)
    places = files.positions(files.AXIAL, (-5.0, 4, 40))
    elsewhere = files.write_series(tmp_path / "other", files.AXIAL, places)
    with pytest.raises(InputError, match="CT does not lie where its lungs and nodules lie"):
        logic.saving.saveDicom(results, tmp_path / "dicom", elsewhere)


def test_slicer_s_own_dicom_export_finds_what_it_needs(
    logic: LungNoduleSegLogic, tmp_path: Path
) -> None:
    results, _ = results_of(logic, tmp_path)
    node = results.segmentation
    volume = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(logic.scene)
    item = hierarchy.GetItemByDataNode(node)
    parent = hierarchy.GetItemParent(item)
    assert parent == hierarchy.GetItemParent(hierarchy.GetItemByDataNode(volume))
    assert hierarchy.GetItemLevel(parent) == "Study"
    uids = hierarchy.GetItemAttribute(item, "DICOM.ReferencedInstanceUIDs")
    assert uids == volume.GetAttribute(INSTANCE_UIDS)
    segmentation = node.GetSegmentation()
    for one in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(one)
        for name, value in ALGORITHM_TAGS.items():
            assert tag(segment, name) == value
        _, category, kind, *_ = segment.GetTerminology().split("~")
        assert category.startswith("SCT^")
        assert kind in ("SCT^39607008^Lung", "SCT^27925004^Nodule")


@pytest.mark.slow
def test_dicom_of_a_real_scan_reads_back_as_the_scene_holds_it(
    logic: LungNoduleSegLogic, shared_data: Path, tmp_path: Path
) -> None:
    scan = read_ct(shared_data / "LIDC-IDRI-0001")
    results = logic.process(add_volume(scan.image, "LIDC-IDRI-0001"))
    number = logic.review.nodules(results)[-1].nodule.id
    logic.review.setVerdict(results, number, Verdict.REJECTED)
    logic.saving.saveDicom(results, tmp_path / "dicom", [one.file for one in scan.slices])
    expected = in_scene(results.segmentation)
    del expected[f"Nodule {number}"]
    assert segment_id(number) in results.segmentation.GetSegmentation().GetSegmentIDs()
    assert_same(by_highdicom(tmp_path / "dicom" / DICOM_SEGMENTATION), expected)
    assert_same(by_slicer(tmp_path / "dicom" / DICOM_SEGMENTATION, tmp_path / "read"), expected)
    volumes = measured_volumes(tmp_path / "dicom" / DICOM_REPORT)
    rows = [one.nodule.volume_mm3 for one in logic.review.nodules(results)[:-1]]
    assert volumes[2:] == pytest.approx(rows, abs=1e-3)
