"""XGBoost's model files, checked before XGBoost reads them: it follows what is in them unchecked.

The format is UBJSON, https://ubjson.org, as XGBoost writes it:
https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

_NUMBERS = {"i": ">i1", "U": ">u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8"}
_CONSTANTS = {"Z": None, "T": True, "F": False}

_MOST_LEVELS = 64
"""Of a tree; XGBoost's explanations call themselves once for each."""

_ROOT = 2**31 - 1
"""The parent of the first node."""


def load_booster(file: Path, features: int) -> xgboost.Booster:
    """Read a binary classifier, of whose file XGBoost gets only what was checked.

    Raises:
        ValueError: if it is something else, has other features, or its trees lead astray.
        OSError: if it cannot be read.
    """
    try:
        model = _Reader(file.read_bytes()).value()
        if not _sound(model, features):
            raise ValueError("not trees of these features")
    except (LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError("not UBJ") from error
    booster = xgboost.Booster()
    booster.load_model(bytearray(json.dumps(model).encode()))
    return booster


class _Reader:
    """Reads the values of a file, each of which begins with a letter for its type."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def value(self) -> Any:
        kind = self._take(1).decode("latin-1")
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]
        if kind == "S":
            return self._take(self._count()).decode()
        if kind == "{":
            found = {}
            while not self._follows("}"):
                key = self._take(self._count()).decode()
                found[key] = self.value()
            return found
        if kind == "[":
            return self._list()
        return self._numbers(kind, 1)[0]

    def _list(self) -> list[Any]:
        if self._follows("$"):
            kind = self._take(1).decode("latin-1")
            if not self._follows("#"):
                raise ValueError("a list without a length")
            return self._numbers(kind, self._count())
        if self._follows("#"):
            return [self.value() for _ in range(self._count())]
        found = []
        while not self._follows("]"):
            found.append(self.value())
        return found

    def _count(self) -> int:
        count = self.value()
        if not isinstance(count, int) or not 0 <= count <= len(self._content):
            raise ValueError(f"a length of {count}")
        return count

    def _numbers(self, kind: str, count: int) -> list[Any]:
        dtype = np.dtype(_NUMBERS[kind])
        return np.frombuffer(self._take(count * dtype.itemsize), dtype).tolist()

    def _follows(self, mark: str) -> bool:
        found = self._content[self._at : self._at + 1] == mark.encode()
        self._at += found
        return found

    def _take(self, count: int) -> bytes:
        self._at += count
        if self._at > len(self._content):
            raise ValueError("cut short")
        return self._content[self._at - count : self._at]


def _sound(model: Any, features: int) -> bool:
    """Whether a file holds trees of these features for one probability, and nothing else."""
    learner = model["learner"]
    sizes, booster = learner["learner_model_param"], learner["gradient_booster"]
    forest = booster["model"]
    trees, rounds = forest["trees"], forest["iteration_indptr"]
    counts = forest["gbtree_model_param"]
    return (
        booster["name"] == "gbtree"
        and learner["objective"]["name"] == "binary:logistic"
        and not learner["feature_names"]
        and not learner["feature_types"]
        and sizes["num_feature"] == str(features)
        and sizes["num_class"] == "0"
        and sizes["num_target"] == "1"
        and np.size(json.loads(sizes["base_score"])) == 1
        and len(trees) > 0
        and counts["num_trees"] == str(len(trees))
        and counts["num_parallel_tree"] == "1"
        and forest["tree_info"] == [0] * len(trees)
        and rounds == list(range(len(trees) + 1))
        and not any(forest.get("cats", {}).values())
        and all(_sound_tree(tree, features) for tree in trees)
    )


_PER_NODE = (
    *("left_children", "right_children", "parents", "split_indices", "split_type"),
    *("split_conditions", "default_left", "loss_changes", "sum_hessian", "base_weights"),
)
_CATEGORIES = ("categories", "categories_nodes", "categories_segments", "categories_sizes")


def _sound_tree(tree: Any, features: int) -> bool:
    """Whether all arrays of a tree have its length, and its nodes lead to later ones, each once."""
    sizes = tree["tree_param"]
    count = len(tree["left_children"])
    arrays: dict[str, NDArray[Any]] = {name: np.array(tree[name]) for name in _PER_NODE}
    if count < 1 or any(
        array.shape != (count,) or array.dtype.kind not in "iufb" for array in arrays.values()
    ):
        return False
    left, right, parents, column, split_type, *_ = arrays.values()
    inner = np.flatnonzero(left != -1)
    children = np.concatenate([left[inner], right[inner]])
    return bool(
        sizes["num_nodes"] == str(count)
        and sizes["num_feature"] == str(features)
        and sizes["size_leaf_vector"] in ("0", "1")
        and sizes["num_deleted"] == "0"
        and not any(tree[name] for name in _CATEGORIES)
        and not split_type.any()
        and parents[0] == _ROOT
        and (right[left == -1] == -1).all()
        and (np.sort(children) == np.arange(1, count)).all()
        and (children > np.tile(inner, 2)).all()
        and (parents[children] == np.tile(inner, 2)).all()
        and ((column[inner] >= 0) & (column[inner] < features)).all()
        and _levels(parents) <= _MOST_LEVELS
    )


def _levels(parents: NDArray[np.int64]) -> int:
    """Levels of a tree whose nodes come after their parents."""
    levels = [0]
    for parent in parents[1:].tolist():
        levels.append(levels[parent] + 1)
    return max(levels)
