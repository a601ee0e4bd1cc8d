"""Risk and growth on nodes of a real MRML scene."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings

from CTSliceToolsLib.errors import InputError
from LungNoduleSegLib.nodules.table import read_nodules_csv, write_nodules_csv
from LungNoduleSegLib.results.names import SEGMENTATION, TABLE
from LungNoduleSegLib.results.segments import TAG, write_segmentation
from LungNoduleSegLib.risk.assessment import assess
from LungNoduleSegLib.risk.facts import PatientFacts, Sex, measured_facts
from LungNoduleSegLib.risk.growth_table import GROWTH_COLUMNS
from LungNoduleSegLib.risk.published_models import MODELS, evaluate
from mrml_grids import OBLIQUE, grid, grids, masks, write_results
from two_times import DOUBLED, DOUBLED_NOW, breathed, measured, taken_again, two_times

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

from CTSliceToolsLib.scene import mrml_host  # noqa: E402
from CTSliceToolsLib.scene.mrml_volume import add_volume  # noqa: E402
from LungNoduleSegLib.scene.logic import LungNoduleSegLogic, ResultNodes  # noqa: E402
from LungNoduleSegLib.scene.risk_logic import (  # noqa: E402
    RISK_COLUMNS,
    SOURCE_ROLE,
    RiskLogic,
    lungs_of,
    nodules_of,
)

PATIENT = PatientFacts(age=60, sex=Sex.MALE, family_history=False, emphysema=False)


@pytest.fixture
def scene() -> Iterator[Any]:
    mrml_host.start().Clear()
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear()


def imported(folder: Path, image: sitk.Image, name: str = "CT") -> ResultNodes:
    return LungNoduleSegLogic().importResults(folder, add_volume(image, name))


def rows(node: Any) -> list[dict[str, Any]]:
    table = node.GetTable()
    return [
        {
            table.GetColumnName(c): table.GetColumn(c).GetValue(r)
            for c in range(table.GetNumberOfColumns())
        }
        for r in range(table.GetNumberOfRows())
    ]


def sources(node: Any) -> list[str]:
    count = node.GetNumberOfNodeReferences(SOURCE_ROLE)
    return [node.GetNthNodeReferenceID(SOURCE_ROLE, i) for i in range(count)]


def test_nodules_come_back_from_the_table(scene: Any, tmp_path: Path) -> None:
    image = grid("RPI", **OBLIQUE)
    results = write_results(tmp_path / "out", image)
    found = imported(results, image)
    assert nodules_of(found.table) == read_nodules_csv(results / TABLE)
    other = scene.AddNewNodeByClass("vtkMRMLTableNode", "other")
    with pytest.raises(InputError, match="other is no table of nodules"):
        nodules_of(other)


@settings(deadline=None, max_examples=10)
@given(image=grids)
def test_lungs_come_back_where_they_lie(
    tmp_path_factory: pytest.TempPathFactory, image: sitk.Image
) -> None:
    mrml_host.start().Clear()
    found = imported(write_results(tmp_path_factory.mktemp("run") / "out", image), image)
    lungs, _ = masks(image)
    back = sitk.Resample(
        lungs_of(found.segmentation), lungs, sitk.Transform(), sitk.sitkNearestNeighbor, 0
    )
    np.testing.assert_array_equal(
        sitk.GetArrayViewFromImage(back), sitk.GetArrayViewFromImage(lungs)
    )


def test_risk_is_a_table_that_says_what_it_was_made_of(scene: Any, tmp_path: Path) -> None:
    image = grid()
    found = imported(write_results(tmp_path / "out", image), image)
    corrections = {3: {"upper_lobe": True, "spiculation": False}}
    node = RiskLogic().assessRisk(found.table, PATIENT, found.segmentation, corrections)
    table = rows(node)
    lungs, _ = masks(image)
    facts = measured_facts(nodules_of(found.table), lungs)
    by_id = {one.id: one for one in facts if one.id is not None}
    assert len(table) == len(by_id) * (len(MODELS) + 2)
    assert list(table[0]) == list(RISK_COLUMNS)
    expected = {
        (number, result.model): result
        for number, one in by_id.items()
        for result in assess(one.corrected(**corrections.get(number, {})), PATIENT).models
    }
    for row in table:
        result = expected.get((row["id"], row["model"]))
        if result is not None:
            given = np.nan if result.probability is None else result.probability
            assert row["probability"] == pytest.approx(given, nan_ok=True)
            assert row["missing"] == ", ".join(result.missing)
    brock = evaluate(MODELS[1], by_id[3].corrected(**corrections[3]), PATIENT)
    assert brock.probability is not None
    assert any(row["probability"] == pytest.approx(brock.probability) for row in table)
    assert node.GetAttribute(TAG) == "risk"
    assert json.loads(node.GetAttribute(f"{TAG}.patient"))["age"] == 60
    told = {one["id"]: one for one in json.loads(node.GetAttribute(f"{TAG}.nodules"))}
    assert told[3]["origins"]["spiculation"] == "given"
    assert told[3]["origins"]["longest_mm"] == "measured"
    assert sources(node) == [found.table.GetID(), found.segmentation.GetID()]
    with pytest.raises(InputError, match="holds no nodule 2"):
        RiskLogic().assessRisk(found.table, PATIENT, corrections={2: {}})


def test_growth_is_a_table_and_survives_saving(scene: Any, tmp_path: Path) -> None:
    prior, current = two_times()
    images = (current.image, current.lungs, current.nodules)
    nodes = []
    for name, (image, lungs, labels) in {
        "before": (prior.image, prior.lungs, prior.nodules),
        "after": [taken_again(one, breathed(), code="RPI") for one in images],
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        write_segmentation(folder / SEGMENTATION, lungs, labels)
        write_nodules_csv(folder / TABLE, measured(image, lungs, labels))
        nodes.append(imported(folder, image, name))
    node = RiskLogic().compareGrowth(nodes[0], nodes[1], days=100)
    table = rows(node)
    assert list(table[0]) == list(GROWTH_COLUMNS)
    assert [row["change"] for row in table] == [
        "new",
        "shrunk",
        "grown",
        "within variability",
        "not found again",
    ]
    grown = table[DOUBLED_NOW - 1]
    assert (grown["prior_id"], grown["current_id"]) == (DOUBLED, DOUBLED_NOW)
    ratio = grown["current_volume_mm3"] / grown["prior_volume_mm3"]
    assert grown["doubling_days"] == pytest.approx(100 / math.log2(ratio), abs=0.06)
    assert math.isnan(table[0]["prior_id"])
    assert node.GetAttribute(f"{TAG}.days") == "100"
    assert node.GetAttribute(f"{TAG}.prior") == "before"
    assert sources(node)[0] == nodes[0].table.GetID()
    with pytest.raises(InputError, match="names no volume"):
        scene.RemoveNode(nodes[0].segmentation.GetNodeReference("referenceImageGeometryRef"))
        RiskLogic().compareGrowth(nodes[0], nodes[1])
    LungNoduleSegLogic().saveScene(tmp_path / "growth.mrb")
    name = node.GetName()
    scene.Clear()
    assert scene.ReadFromMRB(str(tmp_path / "growth.mrb"))
    again = scene.GetFirstNodeByName(name)
    assert again.GetAttribute(f"{TAG}.days") == "100"
    assert len(sources(again)) == 4
    assert [row["change"] for row in rows(again)] == [row["change"] for row in table]
