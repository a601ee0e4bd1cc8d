"""Results of a scan that was moved after its run: nothing is measured in the wrong place."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from CTLungScreeningLib.child_process import complete
from CTLungScreeningLib.errors import InputError

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

from LungNoduleSegLib.nodules.table import Verdict  # noqa: E402
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic  # noqa: E402
from LungNoduleSegSlicer.scene.result_nodes import (  # noqa: E402
    chest_of,
    volume_node_of,
    write_lungs,
)
from LungNoduleSegSlicer.scene.saving_logic import run_work  # noqa: E402
from review_cases import SPACING, UNSEEN, Case, erase_upper_half, make_case, state  # noqa: E402

MOVED = "CT was moved since its nodules were found"


def move(case: Case, slices: int) -> Any:
    """Put the scan under a transform by so many slices; return the scan."""
    volume = volume_node_of(case.results)
    transform = volume.GetScene().AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[2, 3] = slices * SPACING[2]
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    return volume


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("probability", [False, True])
def test_nothing_is_measured_until_it_is_back(
    logic: LungNoduleSegLogic, tmp_path: Path, prepared: bool, probability: bool
) -> None:
    case = make_case(logic, tmp_path / "run", "LPS", probability=probability)
    erase_upper_half(case, 1)
    if prepared:
        logic.review.prepare(case.results)
    before = state(case)
    volume = move(case, 1)
    for change in (
        lambda: logic.review.setThreshold(case.results, 0.7),
        lambda: logic.review.remeasure(case.results),
        lambda: logic.review.addNodule(case.results, case.ras(UNSEEN)),
        lambda: complete(run_work(case.results, tmp_path / "saved")),
        lambda: logic.saving.saveTable(case.results, tmp_path / "nodules.csv"),
        lambda: chest_of(case.results),
        lambda: logic.importResults(
            tmp_path / "run", volume, *list(vars(case.results).values())[:3]
        ),
    ):
        with pytest.raises(InputError, match=MOVED):
            change()
    assert state(case) == before
    volume.SetAndObserveTransformNodeID(None)
    assert logic.review.remeasure(case.results) == (1,)
    assert logic.review.nodules(case.results)[0].nodule.kind == "solid"


def test_no_run_searches_in_lungs_of_another_place(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path
) -> None:
    volume, lungs = move(plain, 3), plain.results.segmentation
    with pytest.raises(InputError, match="are from before its scan was moved"):
        logic.process(volume, lungsNode=lungs)
    volume.SetAndObserveTransformNodeID(None)
    write_lungs(lungs, tmp_path / "lungs.nrrd")


def test_it_is_known_after_the_scene_was_loaded(
    logic: LungNoduleSegLogic, plain: Case, tmp_path: Path
) -> None:
    logic.review.setVerdict(plain.results, 1, Verdict.ACCEPTED)
    move(plain, 3)
    logic.saveScene(tmp_path / "scene.mrb")
    logic.scene.Clear()
    slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    (volume,) = (
        one
        for one in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if one.GetName() == "CT"
    )
    results = logic.resultsOf(volume)
    assert results is not None
    with pytest.raises(InputError, match=MOVED):
        logic.review.setThreshold(results, 0.7)
    volume.SetAndObserveTransformNodeID(None)
    logic.review.setThreshold(results, 0.7)
