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

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_reading import read_ct
from follow_up_scans import DOUBLED, DOUBLED_NOW, breathed, follow_up_scans, measured, taken_again
from LungNoduleSegLib.feature_extraction.scan_sources import features_of
from LungNoduleSegLib.lungs.segmentation import segment_lungs
from LungNoduleSegLib.nodules.table import Column, read_nodules_csv, write_nodules_csv
from LungNoduleSegLib.results.names import LUNGS, NODULES, RECORD, SEGMENTATION, TABLE
from LungNoduleSegLib.results.segments import TAG, write_segmentation
from LungNoduleSegLib.risk.assessment import assess
from LungNoduleSegLib.risk.clinical_data import ClinicalData
from LungNoduleSegLib.risk.facts import LungRads, PatientFacts, Sex, measured_facts
from LungNoduleSegLib.risk.features import SCAN_FEATURES
from LungNoduleSegLib.risk.growth_table import GROWTH_COLUMNS
from LungNoduleSegLib.risk.logistic_model import evaluate
from LungNoduleSegLib.risk.published_models import MODELS
from mrml_grids import OBLIQUE, grid, grids, masks, write_results
from risk_tables import INFORMATIVE, cohort

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

from CTLungScreeningSlicer.scene import mrml_host  # noqa: E402
from CTLungScreeningSlicer.scene.mrml_volume import add_volume  # noqa: E402
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic, ResultNodes  # noqa: E402
from LungNoduleSegSlicer.scene.result_nodes import lungs_of, nodule_labels_of, nodules_of  # noqa: E402
from LungNoduleSegSlicer.scene.result_tables import (  # noqa: E402
    FEATURE_COLUMNS,
    PREDICTION_COLUMNS,
    RISK_COLUMNS,
    SCORE_COLUMNS,
    SOURCE_ROLE,
    add_table,
    rows_of,
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


@settings(max_examples=10)
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
    given = ClinicalData(PATIENT, nodules=corrections)
    node = LungNoduleSegLogic().risk.assessRisk(found.table, given, found.segmentation)
    table = rows(node)
    lungs, _ = masks(image)
    facts = measured_facts(nodules_of(found.table), lungs)
    by_id = {one.id: one for one in facts if one.id is not None}
    assert len(table) == len(by_id) * (len(MODELS) + 4)
    assert list(table[0]) == list(RISK_COLUMNS)
    expected = {
        (number, result.model): result
        for number, one in by_id.items()
        for result in assess(one.corrected(**corrections.get(number, {})), PATIENT).models
    }
    for row in table:
        result = expected.get((row["id"], row["model"]))
        if result is not None:
            said = np.nan if result.probability is None else result.probability
            assert row["probability"] == pytest.approx(said, nan_ok=True)
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
        LungNoduleSegLogic().risk.assessRisk(found.table, ClinicalData(nodules={2: {}}))


def test_growth_is_a_table_and_survives_saving(scene: Any, tmp_path: Path) -> None:
    prior, current = follow_up_scans()
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
    node = LungNoduleSegLogic().growth.compare(nodes[0], nodes[1], days=100)
    table = rows(node)
    assert list(table[0]) == list(GROWTH_COLUMNS)
    assert [row["change"] for row in table] == [
        "new",
        "shrunk",
        "grown",
        "no measurable change",
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
    classes = LungNoduleSegLogic().risk.assessRisk(nodes[1].table, growthNode=node)
    told = {one["id"]: one for one in json.loads(classes.GetAttribute(f"{TAG}.nodules"))}
    assert told[DOUBLED_NOW]["status"] == "growing"
    assert told[DOUBLED_NOW]["previous_mean_mm"] == grown["prior_mean_mm"]
    assert told[DOUBLED_NOW]["origins"]["status"] == "measured"
    by_row = {(row["id"], row["model"]): row["category"] for row in rows(classes)}
    assert by_row[DOUBLED_NOW, "Lung-RADS v2022"] == "4B"
    with pytest.raises(InputError, match="before nodule table"):
        LungNoduleSegLogic().risk.assessRisk(nodes[0].table, growthNode=node)
    with pytest.raises(InputError, match="names no volume"):
        scene.RemoveNode(nodes[0].segmentation.GetNodeReference("referenceImageGeometryRef"))
        LungNoduleSegLogic().growth.compare(nodes[0], nodes[1])
    LungNoduleSegLogic().saveScene(tmp_path / "growth.mrb")
    name = node.GetName()
    scene.Clear()
    assert scene.ReadFromMRB(str(tmp_path / "growth.mrb"))
    again = scene.GetFirstNodeByName(name)
    assert again.GetAttribute(f"{TAG}.days") == "100"
    assert len(sources(again)) == 4
    assert [row["change"] for row in rows(again)] == [row["change"] for row in table]


def test_the_last_table_is_taken_back_and_a_failure_leaves_nothing(
    scene: Any, tmp_path: Path
) -> None:
    image = grid()
    found = imported(write_results(tmp_path / "out", image), image)
    before = scene.GetNumberOfNodes()
    logic = LungNoduleSegLogic()
    node = logic.risk.assessRisk(found.table, ClinicalData(PATIENT))
    name = node.GetName()
    logic.history.undo()
    assert scene.GetNumberOfNodes() == before
    assert scene.GetFirstNodeByName(name) is None
    logic.history.undo()
    assert scene.GetNumberOfNodes() == before
    with pytest.raises(KeyError), logic.history.allOrNothing():
        add_table(scene, "half", RISK_COLUMNS, [{"id": 1}], "risk", {}, [])
    assert scene.GetNumberOfNodes() == before


@pytest.mark.parametrize("code", ["LPS", "SAL"])
def test_features_of_nodes_are_those_of_the_files(scene: Any, tmp_path: Path, code: str) -> None:
    image = grid(code, **OBLIQUE)
    folder = write_results(tmp_path / "out", image)
    lungs, labels = masks(image)
    sitk.WriteImage(lungs, folder / LUNGS)
    sitk.WriteImage(labels, folder / NODULES)
    series = {"patient_id": "", "series_instance_uid": ""}
    (folder / RECORD).write_text(json.dumps({"input": {"series": series}}))
    expected = features_of(folder, "CT", tmp_path)
    found = imported(folder, image)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(nodule_labels_of(found)), sitk.GetArrayViewFromImage(labels)
    )
    logic = LungNoduleSegLogic()
    node = logic.classifier.computeFeatures([found])
    (row,) = rows(node)
    assert list(row) == list(FEATURE_COLUMNS)
    assert (row["scan"], row["source"]) == ("CT", "run")
    for name, value in expected.features.items():
        assert row[name] == pytest.approx(value, abs=1e-3, nan_ok=True), name
    assert node.GetAttribute(TAG) == "features"
    assert sources(node) == [found.table.GetID(), found.segmentation.GetID()]
    with pytest.raises(InputError, match="No scan was given"):
        logic.classifier.computeFeatures([])
    found.segmentation.GetSegmentation().RemoveSegment("CTLungScreening_Nodule_3")
    with pytest.raises(InputError, match="has no segment of nodule 3"):
        logic.classifier.computeFeatures([found])


@pytest.mark.slow
def test_classifiers_are_trained_and_asked_on_tables(scene: Any, tmp_path: Path) -> None:
    features, labels = cohort()
    logic = LungNoduleSegLogic()
    table = add_table(
        scene,
        "F",
        FEATURE_COLUMNS,
        [{k: float(v) if k in SCAN_FEATURES else v for k, v in row.items()} for row in features],
        "features",
        {},
        [],
    )
    columns = {"patient_id": FEATURE_COLUMNS["patient_id"], "label": Column("Label", "", "")}
    truth = [row | {"label": float(row["label"])} for row in labels]
    answers = add_table(scene, "L", columns, truth, "labels", {}, [])
    seen: list[str] = []
    scores = logic.classifier.trainRisk(
        table, answers, tmp_path / "models", progress=lambda stage, *_: seen.append(stage)
    )
    assert "Training" in seen
    assert list(rows(scores)[0]) == list(SCORE_COLUMNS)
    assert [row["classifier"] for row in rows(scores)] == ["Random Forest", "XGBoost"]
    assert all(row["roc_auc"] > 0.7 for row in rows(scores))
    training = json.loads(scores.GetAttribute(f"{TAG}.training"))
    assert training["XGBoost"]["patients"] == len(labels)
    assert sources(scores) == [table.GetID(), answers.GetID()]
    found = logic.classifier.predictRisk(table, tmp_path / "models" / "xgboost.ubj")
    assert list(rows(found)[0]) == list(PREDICTION_COLUMNS)
    assert len(rows(found)) == len(features)
    assert all(0 < row["probability"] < 1 for row in rows(found))
    assert INFORMATIVE in rows(found)[0]["moved_by"]
    everything = json.loads(found.GetAttribute(f"{TAG}.predictions"))
    assert len(everything[0]["contributions"]) == len(SCAN_FEATURES)
    with pytest.raises(InputError, match=r"^L gives every scan the label 1|^L has no label"):
        short = add_table(scene, "short", columns, truth[:3], "labels", {}, [])
        short.SetName("L")
        logic.classifier.trainRisk(table, short, tmp_path / "none")
    with pytest.raises(InputError, match="L has no column scan"):
        logic.classifier.predictRisk(answers, tmp_path / "models" / "xgboost.ubj")
    assert rows_of(answers, columns)[0]["patient_id"] == "p0"


@pytest.mark.slow
def test_a_real_scan_on_nodes(scene: Any, shared_data: Path, tmp_path: Path) -> None:
    image = read_ct(shared_data / "LIDC-IDRI-0001").image
    mask = sitk.ReadImage(shared_data / "LIDC-IDRI-0001_nodules_ge2of4readers.nrrd") > 0
    labels = sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor)
    labels = sitk.Cast(sitk.RelabelComponent(sitk.ConnectedComponent(labels), 50), sitk.sitkUInt16)
    lungs = segment_lungs(image)
    folder = tmp_path / "out"
    folder.mkdir()
    write_segmentation(folder / SEGMENTATION, lungs, labels)
    write_nodules_csv(folder / TABLE, measured(image, lungs, labels))
    before, after = (imported(folder, image, name) for name in ("2000-01-01", "2000-07-01"))
    logic = LungNoduleSegLogic()
    (features,) = rows(logic.classifier.computeFeatures([after]))
    assert features["nodule_count"] == len(nodules_of(after.table))
    assert features["largest_diameter_mm"] == pytest.approx(30, abs=6)
    assert all(math.isfinite(features[name]) for name in SCAN_FEATURES)
    growth = logic.growth.compare(before, after, days=182)
    assert {row["change"] for row in rows(growth)} == {"no measurable change"}
    told = ClinicalData(nodules={1: {"previous_category": LungRads.VERY_SUSPICIOUS}})
    risk = logic.risk.assessRisk(after.table, told, after.segmentation, growth)
    classes = {row["id"]: row for row in rows(risk) if row["model"] == "Lung-RADS v2022"}
    assert classes[1]["category"] == "4B"
    assert "age in years" in rows(risk)[0]["missing"]
