"""Permutation importance on held-out scans, correlated features permuted together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

CORRELATED = 0.8
"""Features whose ranks correlate by more than this, averaged over a group, are shuffled as one."""

REPEATS = 10
"""Shuffles of each group on each fold."""


@dataclass(frozen=True)
class Importance:
    """How much worse the Brier score gets without the values of a group of features.

    Attributes:
        features: of the group; the first stands for it best.
        increase: of the Brier score on held-out scans, mean over folds and shuffles.
        deviation: its standard deviation over folds and shuffles.
    """

    features: tuple[str, ...]
    increase: float
    deviation: float

    @property
    def name(self) -> str:
        """The first feature and how many go with it."""
        others = len(self.features) - 1
        return f"{self.features[0]} (+{others})" if others else self.features[0]


def correlated_groups(x: NDArray[np.float64]) -> list[list[int]]:
    """Group columns of (n, features) by average linkage of Spearman's rank correlation.

    Shuffling one of two features that say the same changes nothing, since the other one still
    says it; so they are shuffled together. The column that correlates best with its group leads.
    """
    filled = np.where(np.isnan(x), np.nanmean(x, axis=0), x)
    ranks = rankdata(filled, axis=0)
    spread = ranks.std(axis=0)
    scaled = (ranks - ranks.mean(axis=0)) / np.where(spread > 0, spread, 1)
    alike = np.abs(scaled.T @ scaled / len(x))
    if len(alike) == 1:
        return [[0]]
    apart = np.clip(1 - (alike + alike.T) / 2, 0, None)
    np.fill_diagonal(apart, 0)
    numbers = fcluster(linkage(squareform(apart), "average"), 1 - CORRELATED, "distance")
    groups = []
    for number in dict.fromkeys(numbers.tolist()):
        members = np.flatnonzero(numbers == number)
        best_first = np.argsort(-alike[np.ix_(members, members)].sum(axis=0), kind="stable")
        groups.append(members[best_first].tolist())
    return groups


def increases(
    predict: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    x: NDArray[np.float64],
    y: NDArray[np.int64],
    groups: Sequence[Sequence[int]],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Give the increase of the Brier score for each group and shuffle, (groups, `REPEATS`).

    Not of the log loss: a forest calls some scans 0 or 1, and one of these mistaken would outweigh
    all others.

    Args:
        predict: (n, features) to the probability of cancer (n,).
        x, y: held-out scans.
        groups: columns to be shuffled together.
        rng: fixes the shuffles.
    """
    before = np.mean((predict(x) - y) ** 2)
    result = np.empty((len(groups), REPEATS))
    for g, group in enumerate(groups):
        shuffled = np.tile(x, (REPEATS, 1, 1))
        for copy in shuffled:
            copy[:, group] = x[rng.permutation(len(x))][:, group]
        chances = predict(shuffled.reshape(-1, x.shape[1])).reshape(REPEATS, -1)
        result[g] = np.mean((chances - y) ** 2, axis=1) - before
    return result
