"""The results of a run in files brought into the scene with their scan."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.phantom.dicom import write_dicom_series
from LungNoduleSegLib.results.reading import LUNGS, NODULES, RECORD, TABLE
from mrml_grids import grid, masks, write_results

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

from CTLungScreeningLib.hu import LUNG_WINDOW  # noqa: E402
from CTLungScreeningSlicer.scene import mrml_host  # noqa: E402
from CTLungScreeningSlicer.scene.mrml_volume import INSTANCE_UIDS  # noqa: E402
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: E402
from LungNoduleSegSlicer.scene.result_nodes import volume_node_of  # noqa: E402


@pytest.fixture
def logic() -> Iterator[LungNoduleSegLogic]:
    mrml_host.start().Clear()
    yield LungNoduleSegLogic()
    slicer.mrmlScene.Clear()


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
    volume = volume_node_of(results.segmentation)
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
    with pytest.raises(InputError, match="it is not there any more"):
        logic.loadRun(run)
