"""Batches of patches for Keras, prepared in the background."""

import os
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import psutil

from CTLungScreeningLib.keras_training import EpochBatches
from CTLungScreeningLib.workers import (
    process_pool,
    refusing_lost_processes,
    with_shared,
    without_main_module,
)
from LungNoduleSegLib.network.inference import Preparation
from LungNoduleSegLib.network.patches import (
    KINDS,
    Batch,
    PatchPool,
    PatchTrainingPlan,
    TrainingScan,
    patch_pool,
)
from LungNoduleSegLib.network.transplants import NoduleCube

THREADS = min(4, os.cpu_count() or 1)
"""Threads that prepare scans where there are no processes for that."""

MEMORY = 2 * 2**30
"""Bytes that a process needs to prepare a scan with slices of about 1 mm."""


def spare_processes() -> int:
    """Return how many processes prepare scans: as cores and memory are to spare; 0 for threads."""
    cores = os.cpu_count() or 1
    return 0 if cores <= 4 else min(cores - 1, psutil.virtual_memory().available // MEMORY)


class PatchBatches(EpochBatches):
    """Batches of patches from a few prepared scans, of which the oldest is replaced in turn.

    They are prepared by `spare_processes`, each with a copy of the arguments, or by `THREADS`.
    Scans, lesions and patches depend only on the plan's seed and the number of the batch. Each
    patch is used once.

    Args:
        scans: to draw from, read on demand; they need not fit into memory together.
        preparation: of the slices; training varies its size.
        plan: settings.
        count: batches in an epoch.
        cubes: real nodules that are inserted beside artificial lesions.
    """

    def __init__(
        self,
        scans: Sequence[TrainingScan],
        preparation: Preparation,
        plan: PatchTrainingPlan,
        count: int,
        cubes: Sequence[NoduleCube] = (),
    ) -> None:
        super().__init__()
        self._plan, self._count = plan, count
        self._kept: dict[int, Future[PatchPool]] = {}
        work = scans, preparation, plan, cubes
        processes = spare_processes()
        self._pool: Executor
        if processes:
            self._pool = process_pool(processes, *work)
            self._make = partial(with_shared, patch_pool)
        else:
            self._pool = ThreadPoolExecutor(THREADS)
            self._make = partial(patch_pool, *work)
        self._ahead = max(1, processes)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Batch:
        """Return a batch: (batch, patch, patch, channels) and masks (batch, patch, patch, 1).

        Raises:
            InputError: if a process was ended from outside, as by a lack of memory.
        """
        plan = self._plan
        step = self.epoch * self._count + index
        with refusing_lost_processes("Training"):
            kept = self._keep(step // plan.refresh)
        patches = []
        for n in range(step * plan.batch, (step + 1) * plan.batch):
            turn, kind = divmod(n, KINDS)
            use = turn // plan.kept
            scan = (turn + kind * plan.kept // KINDS) % plan.kept  # different ones in a batch
            patches.append(kept[scan].patch(kind, use))
        x, y = zip(*patches, strict=True)
        return np.stack(x), np.stack(y)

    def close(self) -> None:
        """End the preparation in the background."""
        self._pool.shutdown(cancel_futures=True)

    def _keep(self, first: int) -> dict[int, PatchPool]:
        """Patches of preparation `first` and later; the next ones are made in the background.

        Each is kept under its number modulo the number that is kept, so that one in its place is
        replaced and the others stay in theirs.
        """
        plan = self._plan
        self._kept = {number: kept for number, kept in self._kept.items() if number >= first}
        last = first + plan.kept
        with without_main_module():
            for number in range(first, last + self._ahead):
                if number not in self._kept:
                    self._kept[number] = self._pool.submit(self._make, number)
        return {n % plan.kept: self._kept[n].result() for n in range(first, last)}
