"""The Dask workers of a batch: processes of this machine, or those of a cluster of the user's."""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from CTLungScreeningLib.engine import THREADS
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.provenance import software_versions
from CTLungScreeningLib.workers import without_main_module
from LungNoduleSegLib.batch.cases import Case, voxels
from LungNoduleSegLib.run_cost import usual_cost

if TYPE_CHECKING:
    from distributed import Client

USED_OF_FREE = 0.9
"""Share of the free memory that workers may use together."""

_CONNECT_S = 15

_CONFIG = {
    "distributed.worker.multiprocessing-method": "spawn",  # Threads do not survive a fork.
    # Results are rows of a table: what a worker uses is the run itself, which cannot be spilled,
    # and a worker that waits for less of it would wait for ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


def count_workers(cases: Iterable[Case], cores: int, free_bytes: int) -> int:
    """Give how many scans fit side by side: one a core, each with the memory the largest needs."""
    sizes = [voxels(case) for case in cases]
    need = usual_cost(max(sizes, default=0) / 1e6).gib * 2**30
    return max(1, min(cores, len(sizes), int(USED_OF_FREE * free_bytes / need)))


@contextmanager
def local_workers(cases: Iterable[Case], count: int | None = None) -> Iterator["Client"]:
    """Start a cluster on this machine: processes of one thread each, ended at the end.

    They talk over encrypted connections of this machine, so that no other user can join in, and
    start without the caller's main module, so that a script needs no guard.

    Args:
        cases: the scans, whose sizes decide how many fit.
        count: how many workers; None for what memory and cores allow.
    """
    import dask  # noqa: PLC0415 - slow to import, as the others
    import psutil  # noqa: PLC0415
    from dask.system import CPU_COUNT  # noqa: PLC0415
    from distributed import Client, LocalCluster  # noqa: PLC0415
    from distributed.system import MEMORY_LIMIT  # noqa: PLC0415

    free = min(psutil.virtual_memory().available, MEMORY_LIMIT)
    count = count or count_workers(cases, CPU_COUNT, free)
    threads = str(max(1, CPU_COUNT // count))
    environment = {
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": threads,
        THREADS: threads,
        "TF_NUM_INTRAOP_THREADS": threads,  # for a model that Keras runs
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # They share the GPU.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    with (
        without_main_module(),
        dask.config.set(_CONFIG),
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            memory_limit=int(USED_OF_FREE * free / count),
            env=environment,
            security=True,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # no fixed port
            silence_logs="CRITICAL",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def workers_of(scheduler: str, folder: Path) -> Iterator["Client"]:
    """Connect to a scheduler of the user's own; its workers go on when this ends.

    Args:
        scheduler: address such as `tcp://host:8786`.
        folder: must be there for every worker, too.

    Raises:
        InputError: if it cannot be reached, or a worker cannot do the work.
    """
    from distributed import Client  # noqa: PLC0415 - slow to import

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # We say it in a sentence.
    try:
        client = Client(scheduler, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{scheduler} cannot be reached: give the address that `dask scheduler` printed, such "
            "as tcp://127.0.0.1:8786."
        ) from error
    with client:
        _check(client, scheduler, folder)
        yield client


def _check(client: "Client", scheduler: str, folder: Path) -> None:
    """Refuse workers that lack this package, have another version, or do not see the folder."""
    here = software_versions(())["CTLungScreening"]
    try:
        found = client.run(_sight, folder)
    except Exception as error:  # what a worker raises while it imports
        raise InputError(
            f"The workers of {scheduler} cannot run this ({type(error).__name__}: {error}): "
            "install CTLungScreening where they run."
        ) from error
    if not found:
        raise InputError(f"{scheduler} has no workers: start some with `dask worker {scheduler}`.")
    for worker, (version, sees) in found.items():
        if version != here:
            raise InputError(
                f"The worker {worker} has CTLungScreening {version}, not {here}: install the same."
            )
        if not sees:
            raise InputError(
                f"The worker {worker} does not see {folder}: give folders that all machines share."
            )


def _sight(folder: Path) -> tuple[str, bool]:
    with suppress(OSError):
        return software_versions(())["CTLungScreening"], os.access(folder, os.W_OK)
    return software_versions(())["CTLungScreening"], False
