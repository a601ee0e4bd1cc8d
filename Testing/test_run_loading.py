"""The results of a run in files brought into the scene with their scan."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import example, given, settings

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.phantom.dicom import write_dicom_series
from LungNoduleSegLib.results.reading import (
    LUNGS,
    MASKS,
    NODULES,
    PROBABILITY,
    RECORD,
    SCAN,
    TABLE,
    RunMasks,
    read_run,
    unpack_run,
)
from mrml_grids import grid, grids, masks, write_results

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

from CTLungScreeningLib.hu import LUNG_WINDOW  # noqa: E402
from CTLungScreeningSlicer.scene.mrml_volume import INSTANCE_UIDS  # noqa: E402
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: E402
from LungNoduleSegSlicer.scene.result_nodes import volume_node_of  # noqa: E402


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a run on a DICOM series leaves behind."""
    image = grid()
    write_dicom_series(image, tmp_path / "dicom", circle=False)
    folder = write_results(tmp_path / "results", image)
    for mask, name in zip(masks(image), (LUNGS, NODULES), strict=True):
        sitk.WriteImage(mask, folder / name)
    record = {"input": {"source": str(tmp_path / "dicom"), "series": None}}
    (folder / RECORD).write_text(json.dumps(record))
    return folder


def volumes() -> int:
    return slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")


def test_scan_and_results_come_together_and_once(logic: LungNoduleSegLogic, run: Path) -> None:
    results = logic.loadRun(run)
    volume = volume_node_of(results)
    assert volume.GetName() == "Chest CT phantom"
    assert volume.GetDisplayNode().GetWindow() == LUNG_WINDOW.width
    assert len(volume.GetAttribute(INSTANCE_UIDS).split()) == grid().GetSize()[2]
    assert results.table.GetNumberOfRows() == 2
    assert logic.resultsOf(volume) == results
    before = slicer.mrmlScene.GetNumberOfNodes()
    assert logic.loadRun(run) == results
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_damaged_results_leave_the_scene_as_it_was(logic: LungNoduleSegLogic, run: Path) -> None:
    before = slicer.mrmlScene.GetNumberOfNodes()
    (run / TABLE).write_text("id\nnone\n")
    with pytest.raises(InputError, match=TABLE):
        logic.loadRun(run)
    assert (slicer.mrmlScene.GetNumberOfNodes(), volumes()) == (before, 0)


def test_a_scan_that_is_gone_is_named(logic: LungNoduleSegLogic, run: Path) -> None:
    (run.parent / "dicom").rename(run.parent / "elsewhere")
    with pytest.raises(InputError, match="which is no longer there"):
        logic.loadRun(run)


def test_unpacking_leaves_all_files_or_none(run: Path, tmp_path: Path) -> None:
    (run / PROBABILITY).mkdir()  # cannot be copied, as on a full disk
    with pytest.raises(OSError, match="Is a directory"):
        unpack_run(run, tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()
    (run / PROBABILITY).rmdir()
    unpack_run(run, tmp_path / "unpacked")
    names = {file.name for file in (tmp_path / "unpacked").iterdir()}
    assert names == {SCAN, MASKS, TABLE, RECORD}


def test_a_row_without_voxels_is_named(run: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "unpacked"
    unpack_run(run, unpacked)
    emptied = replace(RunMasks.read(unpacked / MASKS), nodules={})
    (unpacked / MASKS).unlink()
    emptied.write(unpacked / MASKS)
    with pytest.raises(InputError, match=f"{TABLE} names the nodules 1.* {unpacked / MASKS} does"):
        read_run(unpacked)


@settings(max_examples=15)
@given(image=grids)
@example(grid("LPS", (5.0, 5.0, 5.0), (0.0, 0.0, 1.0), 0.0, (0.0, 0.0, 0.0)))
def test_masks_are_read_as_they_were_written_on_any_grid(image: sitk.Image) -> None:
    with TemporaryDirectory() as name:
        file = Path(name, MASKS)
        RunMasks.of(*masks(image)).write(file)
        read = RunMasks.read(file)
        with pytest.raises(InputError, match="already holds"):
            read.write(file)
    for found, expected in zip(read.images(image, "CT"), masks(image), strict=True):
        np.testing.assert_array_equal(*map(sitk.GetArrayViewFromImage, (found, expected)))
        assert found.IsSameImageGeometryAs(image)
    moved = sitk.Image(image)
    moved.SetOrigin([one + 7 for one in image.GetOrigin()])
    with pytest.raises(InputError, match="CT does not lie where its lungs and nodules lie"):
        read.images(moved, "CT")


@pytest.mark.parametrize("cut", [0, 100, -30])
def test_damaged_masks_are_named(tmp_path: Path, cut: int) -> None:
    file = tmp_path / MASKS
    RunMasks.of(*masks(grid())).write(file)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(InputError, match=f"{MASKS} is missing or damaged"):
        RunMasks.read(file)
