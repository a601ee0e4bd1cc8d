"""Ten hostile inputs of the risk commands, each with the sentence that the docs print."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.model_card import file_sha256
from LungNoduleSegLib.feature_extraction import features_of, write_feature_table
from LungNoduleSegLib.options import RiskTrainingPlan
from LungNoduleSegLib.risk.features import NODULE_FEATURES, SCAN_FEATURES
from LungNoduleSegLib.risk.prediction import predict_risk
from LungNoduleSegLib.risk.risk_models import load_risk_model
from LungNoduleSegLib.risk.training import train
from LungNoduleSegLib.risk.training_data import FeatureSet, TrainingData, read_training_data
from risk_tables import cohort, image, write, write_run

DOCS = Path(__file__).parents[1] / "docs" / "risk.md"
Rows = list[dict[str, str]]


def sentence(folder: Path, action: Callable[[], object]) -> str:
    """What is said of the input, with files by their names alone."""
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value).replace(f"{folder}/", "")


def read(folder: Path, change: Callable[[Rows, Rows], tuple[Rows, Rows]]) -> TrainingData:
    features, labels = change(*cohort())
    files = write(folder / "features.csv", features), write(folder / "labels.csv", labels)
    return read_training_data(*files, FeatureSet.TUTORIAL)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small XGBoost model with its card."""
    from LungNoduleSegLib.risk.risk_models import Algorithm, save_risk_model

    folder = tmp_path_factory.mktemp("model")
    result = train(read(folder, lambda f, t: (f, t)), RiskTrainingPlan(folds=2))
    save_risk_model(result.models[Algorithm.XGBOOST], folder / "xgboost.ubj")
    return folder / "xgboost.ubj"


def empty(folder: Path, model: Path) -> str:
    write_run(folder / "chest", nodules=0)
    scan = features_of(folder / "chest", "chest", folder)
    assert set(scan.features.values()) == {0.0}
    return predict_risk(scan, model).warnings[-1]


def one_voxel(folder: Path, model: Path) -> str:
    mask = np.zeros((5, 30, 30), np.uint8)
    mask[2, 10, 10] = 1
    sitk.WriteImage(image(mask), folder / "mask.nrrd")
    scan = features_of(folder / "mask.nrrd", "mask.nrrd", folder)
    nodule = scan.nodules[1]
    shape = list(NODULE_FEATURES)[: list(NODULE_FEATURES).index("mean_hu")]
    assert all(np.isfinite(nodule[name]) for name in shape)
    assert scan.features["nodule_count"] == 1 and scan.features["std_diameter_mm"] == 0
    unknown = [name for name in SCAN_FEATURES if np.isnan(scan.features[name])]
    assert {name.removeprefix("largest_") for name in unknown} == set(NODULE_FEATURES) - set(shape)
    warnings = predict_risk(scan, model).warnings
    return next(text for text in warnings if text.startswith("average_area"))


def neither(folder: Path, _: Path) -> str:
    sitk.WriteImage(image(np.full((3, 4, 4), np.nan, np.float32)), folder / "odd.nrrd")
    outcome = write_feature_table(folder, folder / "out" / "features.csv")
    return outcome.errors["odd.nrrd"].replace(f"{folder}/", "")


def nan_label(folder: Path, _: Path) -> str:
    return sentence(
        folder, lambda: read(folder, lambda f, t: (f, [t[0] | {"label": "nan"}, *t[1:]]))
    )


def no_label(folder: Path, _: Path) -> str:
    return sentence(folder, lambda: read(folder, lambda f, t: (f, t[1:])))


def twice(folder: Path, _: Path) -> str:
    return sentence(folder, lambda: read(folder, lambda f, t: (f, [*t, t[7]])))


def one_class(folder: Path, _: Path) -> str:
    return sentence(
        folder, lambda: read(folder, lambda f, t: (f, [row | {"label": "1"} for row in t]))
    )


def too_few(folder: Path, _: Path) -> str:
    few = ("p0", "p1", "p2")
    data = read(folder, lambda f, t: ([row for row in f if row["patient_id"] in few], t))
    return sentence(folder, lambda: train(data))


def other_version(folder: Path, model: Path) -> str:
    file = folder / model.name
    file.write_bytes(model.read_bytes())
    card = json.loads(model.with_suffix(".json").read_text())
    file.with_suffix(".json").write_text(json.dumps(card | {"features_version": 1}))
    return sentence(folder, lambda: load_risk_model(file))


class Evil:
    """A pickle that would leave a mark, were it ever loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


def renamed_pickle(folder: Path, model: Path) -> str:
    file = folder / "forest.skops"
    file.write_bytes(pickle.dumps(Evil(folder / "mark")))
    card = json.loads(model.with_suffix(".json").read_text())
    card |= {"algorithm": "random-forest", "sha256": file_sha256(file)}
    file.with_suffix(".json").write_text(json.dumps(card))
    said = sentence(folder, lambda: load_risk_model(file))
    assert not (folder / "mark").exists()
    return said


CASES = {
    "A segmentation without a nodule": empty,
    "One nodule of one voxel": one_voxel,
    "A volume of NaN": neither,
    "A label that is NaN": nan_label,
    "A patient without a label": no_label,
    "A patient with two labels": twice,
    "Labels of one class only": one_class,
    "Fewer patients than folds": too_few,
    "A model of another version": other_version,
    "A pickle renamed .skops": renamed_pickle,
}


@pytest.mark.parametrize("name", CASES)
def test_hostile_input_has_the_sentence_of_the_docs(name: str, tmp_path: Path, model: Path) -> None:
    said = CASES[name](tmp_path, model)
    assert f"| {name} | {said} |" in DOCS.read_text(encoding="utf-8"), said
