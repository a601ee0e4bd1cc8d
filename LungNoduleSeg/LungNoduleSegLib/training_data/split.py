"""The split of examples into training and test."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.training_data.store import StoredScan

TEST_SHARE = 0.2
"""Of the patients, or of the slices in the tutorial's split."""


@dataclass(frozen=True)
class Example:
    """One slice of a stored scan, by its row in `StoredScan.images`."""

    scan: StoredScan
    row: int


@dataclass(frozen=True)
class Split:
    """Examples in random order."""

    training: tuple[Example, ...]
    test: tuple[Example, ...]


def split_scans(
    scans: Sequence[StoredScan], seed: int = 0
) -> tuple[list[StoredScan], list[StoredScan]]:
    """Part scans into those for training and those for the test, no patient in both.

    A fifth of the patients, at least one, is for the test: those with the lowest SHA-256 of seed
    and name, so that a patient who comes later moves few others.

    Raises:
        InputError: if there is one patient only.
    """
    patients = sorted(
        {scan.patient for scan in scans},
        key=lambda patient: hashlib.sha256(f"{seed} {patient}".encode()).digest(),
    )
    if len(patients) < 2:
        raise InputError(
            f"{scans[0].folder.parent} holds one patient only: a test needs another one."
        )
    test = set(patients[: max(1, round(TEST_SHARE * len(patients)))])
    return (
        [scan for scan in scans if scan.patient not in test],
        [scan for scan in scans if scan.patient in test],
    )


def split_examples(scans: Sequence[StoredScan], seed: int = 0, tutorial: bool = False) -> Split:
    """Part the examples of a store by patient, or a fifth of the slices as in the tutorial.

    The tutorial has slices of one nodule on both sides, which makes its test too easy.

    Args:
        scans: of the store.
        seed: of the choice and of the order.
        tutorial: its split.

    Raises:
        InputError: if either side has no example.
    """
    rng = np.random.default_rng(seed)
    if tutorial:
        order = _shuffled(scans, rng)
        count = int(TEST_SHARE * len(order))
        split = Split(order[count:], order[:count])
    else:
        training, test = split_scans(scans, seed)
        split = Split(_shuffled(training, rng), _shuffled(test, rng))
    for side, name in ((split.training, "training"), (split.test, "the test")):
        if not side:
            raise InputError(
                f"{scans[0].folder.parent} holds no example for {name}: prepare more scans."
            )
    return split


def _shuffled(scans: Sequence[StoredScan], rng: np.random.Generator) -> tuple[Example, ...]:
    examples = [Example(scan, row) for scan in scans for row in range(len(scan.slices))]
    return tuple(examples[n] for n in rng.permutation(len(examples)))
