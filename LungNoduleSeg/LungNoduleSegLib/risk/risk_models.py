"""Risk model files: forests as skops, XGBoost as UBJ, each with a JSON card.

Neither format runs code when it is read.
"""

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import skops.io
import xgboost
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from CTLungScreeningLib.errors import DAMAGE, InputError, counted
from CTLungScreeningLib.files import new_file, require_unpacked
from CTLungScreeningLib.json_files import parse_json, write_object
from CTLungScreeningLib.model_card import file_sha256
from LungNoduleSegLib.risk.features import FEATURES_VERSION, SCAN_FEATURES
from LungNoduleSegLib.risk.prediction import CANCER
from LungNoduleSegLib.risk.xgboost_files import load_booster

VERSIONS = {
    "scikit-learn": sklearn.__version__,
    "skops": skops.__version__,
    "xgboost": xgboost.__version__,
}
"""Versions of the packages; XGBoost's may be called xgboost or xgboost-cpu."""

TREE = "sklearn.tree._tree.Tree"
"""The only type that skops does not trust by default; `_check_trees` validates it."""


class Algorithm(StrEnum):
    """The two classifiers of the tutorial."""

    RANDOM_FOREST = "random-forest"
    XGBOOST = "xgboost"

    @property
    def label(self) -> str:
        """Display name."""
        return "Random Forest" if self is Algorithm.RANDOM_FOREST else "XGBoost"

    @property
    def file_name(self) -> str:
        """Name of its model file."""
        return f"{self}.skops" if self is Algorithm.RANDOM_FOREST else f"{self}.ubj"

    @property
    def package(self) -> str:
        """The package whose version decides whether the file can be read."""
        return "scikit-learn" if self is Algorithm.RANDOM_FOREST else "xgboost"


@dataclass(frozen=True)
class RiskCard:
    """Everything needed to use a risk model and to judge it.

    Attributes:
        algorithm: see `Algorithm`.
        features_version: `FEATURES_VERSION` at training.
        features: columns of the model's input, in order.
        ranges: lowest and highest value of each feature in the training data.
        software: versions of the packages.
        training: data with their SHA-256, numbers of scans, seed and parameters.
        scores: out of fold, see `Scores`.
        importance: names of groups of features and the increase of the Brier score without them.
        sha256: of the model file.
        target: meaning of its probability.
        about: data, their licence, and accuracy, in sentences.
    """

    algorithm: Algorithm
    features_version: int
    features: list[str]
    ranges: dict[str, list[float]]
    software: dict[str, str]
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    importance: list[list[Any]] = field(default_factory=list)
    sha256: str = ""
    target: str = CANCER
    about: str = ""


@dataclass(frozen=True)
class RiskModel:
    """A trained model with its card."""

    card: RiskCard
    model: RandomForestClassifier | xgboost.Booster

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of cancer (n,) for (n, features)."""
        if isinstance(self.model, xgboost.Booster):
            return np.asarray(self.model.predict(xgboost.DMatrix(x)), np.float64)
        return np.asarray(self.model.predict_proba(x)[:, 1])

    def contributions(self, x: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """SHAP values in log odds (n, features + 1), the constant last; None for a forest."""
        if isinstance(self.model, xgboost.Booster):
            return np.asarray(self.model.predict(xgboost.DMatrix(x), pred_contribs=True))
        return None


def save_risk_model(model: RiskModel, file: Path) -> None:
    """Write a model and its card as new files.

    Raises:
        InputError: if either file exists, or `load_risk_model` would refuse the model.
    """
    with new_file(file) as temporary:
        if isinstance(model.model, xgboost.Booster):
            model.model.save_model(temporary)
            _require_loadable(temporary, model.card)
        else:
            skops.io.dump(model.model, temporary)
        card = replace(model.card, sha256=file_sha256(temporary))
        write_object(file.with_suffix(".json"), asdict(card))


def _require_loadable(file: Path, card: RiskCard) -> None:
    try:
        load_booster(file, len(card.features))
    except ValueError as error:
        parameters = card.training.get("parameters", {})
        named = ", ".join(f"{name}={value}" for name, value in parameters.items())
        raise InputError(
            f"XGBoost with the parameters {named} makes a model that this program does not read: "
            "leave out those that change the kind of its trees."
        ) from error


def load_risk_model(file: Path) -> RiskModel:
    """Read a model that `save_risk_model` wrote; no code in the file is ever run.

    Raises:
        InputError: if it is not a risk model, of another version, or not what its card describes.
    """
    card = _read_card(file)
    if card.sha256 != file_sha256(file):
        raise InputError(f"{file} is not the file that its card describes: get both again.")
    if card.algorithm is Algorithm.XGBOOST:
        return RiskModel(card, _load_booster(file, len(card.features)))
    return RiskModel(card, _load_forest(file, len(card.features)))


def _read_card(file: Path) -> RiskCard:
    suffixes = {Path(algorithm.file_name).suffix: algorithm for algorithm in Algorithm}
    if file.suffix.lower() not in suffixes:
        raise InputError(
            f"{file} is not a risk model: choose a .skops or .ubj file of `train-risk`."
        )
    path = file.with_suffix(".json")
    for part in (file, path):
        if not part.is_file():
            raise InputError(f"{part} is missing: a risk model is a file with its .json card.")
    try:
        card = RiskCard(**parse_json(path.read_bytes()))
        card = replace(card, algorithm=Algorithm(card.algorithm))
        made_with = card.software[card.algorithm.package]
        for name in card.features:
            low, high = card.ranges[name]
            float(low), float(high)
    except DAMAGE as error:
        raise InputError(f"{path} is not the card of a risk model: train it again.") from error
    if card.features_version != FEATURES_VERSION:
        raise InputError(
            f"{file} was trained on version {card.features_version} of the features and this "
            f"program has version {FEATURES_VERSION}: train it again."
        )
    unknown = [name for name in card.features if name not in SCAN_FEATURES]
    if unknown or not card.features:
        raise InputError(
            f"{file} uses {unknown[0] if unknown else 'no feature'}, which this program does not "
            "compute: train it again."
        )
    installed = VERSIONS[card.algorithm.package]
    if _series(made_with, card.algorithm) != _series(installed, card.algorithm):
        raise InputError(
            f"{file} was made with {card.algorithm.package} {made_with} and {installed} is "
            "installed: train it again."
        )
    if suffixes[file.suffix.lower()] is not card.algorithm:
        raise InputError(f"{file} is not the file that its card describes: get both again.")
    return card


def _series(release: str, algorithm: Algorithm) -> list[str]:
    """The part of a version within which files stay readable; longer for UBJ."""
    return release.split(".")[: 2 if algorithm is Algorithm.RANDOM_FOREST else 1]


def _load_booster(file: Path, features: int) -> xgboost.Booster:
    try:
        return load_booster(file, features)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} is not an XGBoost model of {counted(features, 'feature')}: train it again."
        ) from error


def _load_forest(file: Path, features: int) -> RandomForestClassifier:
    try:
        require_unpacked(file)
        unknown = set(skops.io.get_untrusted_types(file=file)) - {TREE}
        if unknown:
            raise InputError(
                f"{file} contains {sorted(unknown)[0]}, which a forest does not need, and was not "
                "opened: train it again."
            )
        forest = skops.io.load(file, trusted=[TREE])
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(
            f"{file} is not a skops file, perhaps a renamed pickle, and was not opened: train it "
            "again."
        ) from error
    if not isinstance(forest, RandomForestClassifier) or not _check_trees(forest, features):
        raise InputError(
            f"{file} is not a valid forest of {counted(features, 'feature')}: train it again."
        )
    return forest


def _check_trees(forest: RandomForestClassifier, features: int) -> bool:
    """Check that no tree leads outside its arrays, in circles, or to another feature, and it runs.

    scikit-learn follows these indices unchecked, so a forged file could read foreign memory.
    """
    try:
        trees = [estimator.tree_ for estimator in forest.estimators_]
        if forest.n_features_in_ != features or list(forest.classes_) != [0, 1]:
            return False
        if not trees or not all(_sound(tree, features) for tree in trees):
            return False
        return bool(forest.predict_proba(np.zeros((1, features))).shape == (1, 2))
    except DAMAGE:
        return False


def _sound(tree: Any, features: int) -> bool:
    left, right, column = tree.children_left, tree.children_right, tree.feature
    count = tree.node_count
    here = np.arange(count)
    leaf = left == -1
    inner = ~leaf
    return bool(
        count > 0
        and tree.n_features == features
        and tree.value.shape == (count, 1, 2)
        and len(left) == len(right) == len(column) == count
        and (right[leaf] == -1).all()
        and (left[inner] > here[inner]).all()
        and (right[inner] > here[inner]).all()
        and (left < count).all()
        and (right < count).all()
        and ((column[inner] >= 0) & (column[inner] < features)).all()
    )
