"""Risk and growth on nodes of a real MRML scene."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_reading import read_ct
from follow_up_scans import DOUBLED, DOUBLED_NOW, breathed, follow_up_scans, measured, taken_again
from LungNoduleSegLib.feature_extraction import features_of
from LungNoduleSegLib.lungs.segmentation import segment_lungs
from LungNoduleSegLib.nodules.table import read_nodules_csv, write_nodules_csv
from LungNoduleSegLib.options import SUSPICION_MODEL
from LungNoduleSegLib.results.reading import LUNGS, NODULES, RECORD, SEGMENTATION, TABLE
from LungNoduleSegLib.results.segments import TAG, write_segmentation
from LungNoduleSegLib.risk.assessment import assess
from LungNoduleSegLib.risk.facts import LungRads, PatientFacts, Sex, Status, measured_facts
from LungNoduleSegLib.risk.features import SCAN_FEATURES
from LungNoduleSegLib.risk.growth_table import GROWTH_COLUMNS
from LungNoduleSegLib.risk.published_models import MODELS, evaluate
from LungNoduleSegLib.risk.training import train_risk
from mrml_grids import OBLIQUE, grid, grids, masks, write_results
from risk_tables import INFORMATIVE, cohort, write

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

from CTLungScreeningSlicer.scene import mrml_host  # noqa: E402
from CTLungScreeningSlicer.scene.mrml_volume import add_volume  # noqa: E402
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic, ResultNodes  # noqa: E402
from LungNoduleSegSlicer.scene.mrml_results import (  # noqa: E402
    FEATURE_COLUMNS,
    PREDICTION_COLUMNS,
    SOURCE_ROLE,
    add_table,
)
from LungNoduleSegSlicer.scene.result_nodes import lungs_of, nodule_labels_of, nodules_of  # noqa: E402

PATIENT = PatientFacts(age=60, sex=Sex.MALE, family_history=False, emphysema=False)


@pytest.fixture
def scene() -> Iterator[Any]:
    mrml_host.start().Clear()
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained classifier of risk."""
    folder = tmp_path_factory.mktemp("risk")
    features, labels = cohort()
    feature_table = write(folder / "features.csv", features)
    train_risk(feature_table, write(folder / "labels.csv", labels), folder / "models")
    return folder / "models" / "xgboost.ubj"


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
    with pytest.raises(InputError, match="other is not a table of nodules"):
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


def enter(logic: LungNoduleSegLogic, found: ResultNodes, patient: PatientFacts) -> None:
    for name, value in asdict(patient).items():
        if value is not None:
            logic.risk.setFact(found, name, value)


def test_risk_is_that_of_the_core_with_the_facts_entered(scene: Any, tmp_path: Path) -> None:
    image = grid()
    logic = LungNoduleSegLogic()
    found = imported(write_results(tmp_path / "out", image), image)
    corrections = {3: {"upper_lobe": True, "spiculation": False}}
    enter(logic, found, PATIENT)
    for name, value in corrections[3].items():
        logic.risk.setFact(found, name, value, 3)
    risk = logic.risk.evaluate(found)
    lungs, _ = masks(image)
    facts = {one.id: one for one in measured_facts(nodules_of(found.table), lungs) if one.id}
    assert [one.nodule.id for one in risk.assessments] == list(facts)
    for number, one in facts.items():
        expected = assess(one.corrected(**corrections.get(number, {})), PATIENT)
        said = risk.of(number)
        assert said is not None
        assert len(said.models) == len(MODELS)
        assert [one.category for one in said.guidelines] == [
            one.category for one in expected.guidelines
        ]
        for model, other in zip(said.models, expected.models, strict=True):
            assert model.probability == pytest.approx(other.probability)
            assert model.missing == other.missing
    brock = evaluate(MODELS[1], facts[3].corrected(**corrections[3]), PATIENT)
    third = risk.of(3)
    assert third is not None and brock.probability is not None
    assert any(one.probability == pytest.approx(brock.probability) for one in third.models)
    assert risk.patient.age == 60
    assert third.nodule.origins["spiculation"] == "given"
    assert third.nodule.origins["longest_mm"] == "measured"


def follow_up_nodes(folder_of_both: Path) -> list[ResultNodes]:
    """Two scans of one patient in the scene, the earlier first."""
    prior, current = follow_up_scans()
    images = (current.image, current.lungs, current.nodules)
    nodes = []
    for name, (image, lungs, labels) in {
        "before": (prior.image, prior.lungs, prior.nodules),
        "after": [taken_again(one, breathed(), code="RPI") for one in images],
    }.items():
        folder = folder_of_both / name
        folder.mkdir()
        write_segmentation(folder / SEGMENTATION, lungs, labels)
        write_nodules_csv(folder / TABLE, measured(image, lungs, labels))
        nodes.append(imported(folder, image, name))
    return nodes


def test_growth_is_a_table_and_survives_saving(scene: Any, tmp_path: Path) -> None:
    nodes = follow_up_nodes(tmp_path)
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
    grown_one = LungNoduleSegLogic().risk.evaluate(nodes[1]).of(DOUBLED_NOW)
    assert grown_one is not None
    assert grown_one.nodule.status == "growing"
    assert grown_one.nodule.previous_mean_mm == grown["prior_mean_mm"]
    assert grown_one.nodule.origins["status"] == "measured"
    categories = {one.guideline: one.category for one in grown_one.guidelines}
    assert categories["Lung-RADS v2022"] == "4B"
    ids = nodes[1].table.GetTable().GetColumnByName("id")
    for row in range(nodes[1].table.GetNumberOfRows()):  # as a threshold may number them
        ids.SetValue(row, ids.GetValue(row) + 1)
    risk = LungNoduleSegLogic().risk.evaluate(nodes[1])
    again = risk.of(DOUBLED_NOW + 1)
    assert again is not None
    assert again.nodule.previous_mean_mm == grown["prior_mean_mm"]
    assert again.guidelines == grown_one.guidelines
    assert any("compare again" in note for note in risk.notes)
    assert LungNoduleSegLogic().growth.find(nodes[0]) is None
    with pytest.raises(InputError, match="names no volume"):
        scene.RemoveNode(nodes[0].segmentation.GetNodeReference("referenceImageGeometryRef"))
        LungNoduleSegLogic().growth.compare(nodes[0], nodes[1])
    assert not list(Path(slicer.app.temporaryPath).glob("LungNoduleSeg-*"))
    LungNoduleSegLogic().saveScene(tmp_path / "growth.mrb")
    name = node.GetName()
    scene.Clear()
    assert scene.ReadFromMRB(str(tmp_path / "growth.mrb"))
    again = scene.GetFirstNodeByName(name)
    assert again.GetAttribute(f"{TAG}.days") == "100"
    assert len(sources(again)) == 4
    assert [row["change"] for row in rows(again)] == [row["change"] for row in table]


def test_baseline_after_a_comparison_is_a_fact_of_one_nodule(scene: Any, tmp_path: Path) -> None:
    before, after = follow_up_nodes(tmp_path)
    logic = LungNoduleSegLogic()
    logic.risk.setFact(after, "status", Status.BASELINE, 1)
    assert dict(logic.risk.enteredFacts(after).shared) == {"status": "baseline"}
    logic.growth.compare(before, after, days=100)
    for number, status in ((1, Status.STABLE), (DOUBLED_NOW, Status.BASELINE)):
        logic.risk.setFact(after, "status", status, number)
    entered = logic.risk.enteredFacts(after).nodules
    assert entered == {1: {"status": "stable"}, DOUBLED_NOW: {"status": "baseline"}}
    risk = logic.risk.evaluate(after)
    given = {
        one.nodule.id: one.nodule.status
        for one in risk.assessments
        if one.nodule.origins.get("status") == "given"
    }
    assert given == {1: "stable", DOUBLED_NOW: "baseline"}
    logic.risk.setFact(after, "status", None, DOUBLED_NOW)
    again = logic.risk.evaluate(after).of(DOUBLED_NOW)
    assert again is not None and again.nodule.status == "growing"


def test_the_last_table_is_taken_back_and_a_failure_leaves_nothing(
    scene: Any, model: Path, tmp_path: Path
) -> None:
    image = grid()
    found = imported(write_results(tmp_path / "out", image), image)
    before = scene.GetNumberOfNodes()
    logic = LungNoduleSegLogic()
    node = logic.classifier.predict(found, model)
    name = node.GetName()
    logic.history.undo()
    assert scene.GetNumberOfNodes() == before
    assert scene.GetFirstNodeByName(name) is None
    logic.history.undo()
    assert scene.GetNumberOfNodes() == before
    with pytest.raises(KeyError), logic.history.allOrNothing():
        add_table(scene, "half", FEATURE_COLUMNS, [{"scan": "CT"}], "features", {}, [])
    assert scene.GetNumberOfNodes() == before


# Not stored axially: voxels would lie midway between two, and a file's 32-bit geometry decides.
@pytest.mark.parametrize("code", ["PIR", "SAL"])
def test_features_of_nodes_are_those_of_the_files(
    scene: Any, model: Path, tmp_path: Path, code: str
) -> None:
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
    node = logic.classifier.predict(found, model).GetNodeReference(SOURCE_ROLE)
    (row,) = rows(node)
    assert list(row) == list(FEATURE_COLUMNS)
    assert (row["scan"], row["source"]) == ("CT", "run")
    for name, value in expected.features.items():
        assert row[name] == pytest.approx(value, abs=1e-3, nan_ok=True), name
    assert node.GetAttribute(TAG) == "features"
    assert sources(node) == [found.table.GetID(), found.segmentation.GetID()]
    found.segmentation.GetSegmentation().RemoveSegment("CTLungScreening_Nodule_3")
    with pytest.raises(InputError, match="has no segment of nodule 3"):
        logic.classifier.predict(found, model)


def test_a_trained_model_is_asked_about_nodes(scene: Any, model: Path, tmp_path: Path) -> None:
    image = grid()
    found = imported(write_results(tmp_path / "out", image), image)
    logic = LungNoduleSegLogic()
    node = logic.classifier.predict(found, model)
    (row,) = rows(node)
    assert list(row) == list(PREDICTION_COLUMNS)
    assert 0 < row["probability"] < 1
    assert INFORMATIVE in row["moved_by"]
    (everything,) = json.loads(node.GetAttribute(f"{TAG}.predictions"))
    assert len(everything["contributions"]) == len(SCAN_FEATURES)
    prediction, doubts = logic.classifier.prediction(found)
    assert prediction is not None and doubts == []
    assert prediction.probability == row["probability"]
    logic.history.undo()
    assert logic.classifier.prediction(found) == (None, [])
    assert not logic.history.canUndo


def test_a_model_of_single_nodules_gives_a_scan_without_one_nothing(
    scene: Any, tmp_path: Path
) -> None:
    image = grid()
    found = imported(write_results(tmp_path / "out", image, ()), image)
    logic = LungNoduleSegLogic()
    (row,) = rows(logic.classifier.predict(found, SUSPICION_MODEL))
    assert math.isnan(row["probability"])
    assert (row["moved_by"], row["warnings"]) == ("", "No nodule was found in this scan.")
    prediction = logic.risk.evaluate(found).prediction
    assert prediction is not None and prediction.probability is None


@pytest.mark.slow
def test_a_real_scan_on_nodes(scene: Any, model: Path, shared_data: Path, tmp_path: Path) -> None:
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
    (features,) = rows(logic.classifier.predict(after, model).GetNodeReference(SOURCE_ROLE))
    assert features["nodule_count"] == len(nodules_of(after.table))
    assert features["largest_diameter_mm"] == pytest.approx(30, abs=6)
    assert all(math.isfinite(features[name]) for name in SCAN_FEATURES)
    growth = logic.growth.compare(before, after, days=182)
    assert {row["change"] for row in rows(growth)} == {"no measurable change"}
    logic.risk.setFact(after, "previous_category", LungRads.VERY_SUSPICIOUS, 1)
    largest = logic.risk.evaluate(after).of(1)
    assert largest is not None
    categories = {one.guideline: one.category for one in largest.guidelines}
    assert categories["Lung-RADS v2022"] == "4B"
    assert largest.models[0].missing == ("sex", "upper lobe location")
