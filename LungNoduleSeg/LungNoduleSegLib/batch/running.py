"""Run a batch on Dask workers of this machine or of a cluster, or without Dask."""

import logging
import os
import queue
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from uuid import uuid4

from CTLungScreeningLib import software_versions
from CTLungScreeningLib.child_process import own_temporary, unwinding_at_signals
from CTLungScreeningLib.engine import THREADS
from CTLungScreeningLib.errors import DAMAGE, Cancelled, InputError, counted
from CTLungScreeningLib.files import FolderNames, refuse_links
from CTLungScreeningLib.json_files import parse_json, write_object
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_reading import IndexedScan
from CTLungScreeningLib.reading.dicom_headers import read_instance
from CTLungScreeningLib.staging import staging_folder
from CTLungScreeningLib.workers import without_main_module
from LungNoduleSegLib.batch.cases import Case, find_cases, voxels
from LungNoduleSegLib.batch.scan_work import (
    RESULTS_TABLE,
    Job,
    ScanRow,
    failed,
    has_its_facts,
    has_its_place,
    out_of_memory,
    read_table,
    run_job,
    write_table,
)
from LungNoduleSegLib.detectors.models import find_card
from LungNoduleSegLib.lungs.programs import require_method
from LungNoduleSegLib.options import BUNDLED, DEFAULT_MODEL, RunOptions
from LungNoduleSegLib.results.reading import has_its_files, is_run
from LungNoduleSegLib.run_cost import usual_cost

if TYPE_CHECKING:
    from distributed import Client, Future


USED_OF_FREE = 0.9
"""Share of the free memory that all workers may use."""

_CONNECT_S = 15

_CONFIG = {
    "distributed.worker.multiprocessing-method": "spawn",  # Threads do not survive a fork.
    # Memory is used by the run itself, which cannot be spilled; a paused worker would never resume.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


def count_workers(cases: Iterable[Case], cores: int, free_bytes: int) -> int:
    """Return the number of parallel scans: at most one per core, as the largest fits in memory."""
    sizes = [voxels(case) for case in cases]
    need = usual_cost(max(sizes, default=0) / 1e6).gib * 2**30
    return max(1, min(cores, len(sizes), int(USED_OF_FREE * free_bytes / need)))


@contextmanager
def local_workers(
    cases: Iterable[Case], folder: Path, count: int | None = None
) -> Iterator["Client"]:
    """Start a temporary cluster of single-threaded processes on this machine.

    Connections are encrypted, so that no other user can join. Workers start without the caller's
    main module, so that scripts need no main guard.

    Args:
        cases: the scans, whose sizes limit the number of workers.
        folder: for copies of scans; removed by the caller.
        count: number of workers; None for as many as memory and cores allow.
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
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # to share the GPU
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        **own_temporary(folder),
    }
    with (
        unwinding_at_signals(),
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
        if sys.platform != "win32":  # A closing terminal would kill them before what they run.
            client.register_worker_callbacks(os.setsid)
        yield client


@contextmanager
def workers_of(scheduler: str, folder: Path) -> Iterator["Client"]:
    """Connect to the user's own scheduler; its workers are left running.

    Args:
        scheduler: address such as `tcp://host:8786`.
        folder: must be accessible to every worker.

    Raises:
        InputError: if it cannot be reached, or a worker is not usable.
    """
    from distributed import Client  # noqa: PLC0415 - slow to import

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # replaced by InputError
    try:
        client = Client(scheduler, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{scheduler} cannot be reached: use the address that `dask scheduler` printed, such "
            "as tcp://127.0.0.1:8786."
        ) from error
    with client:
        _check(client, scheduler, folder)
        yield client


def _check(client: "Client", scheduler: str, folder: Path) -> None:
    """Refuse workers without this package and version, or without access to the folder."""
    here = software_versions(())["CTLungScreening"]
    try:
        found = client.run(_access, folder)
    except Exception as error:  # what a worker raises while it imports
        raise InputError(
            f"The workers of {scheduler} cannot run this ({type(error).__name__}: {error}): "
            "install CTLungScreening there."
        ) from error
    if not found:
        raise InputError(f"{scheduler} has no workers: start some with `dask worker {scheduler}`.")
    for worker, (version, has_access) in found.items():
        if version != here:
            raise InputError(
                f"The worker {worker} has CTLungScreening {version}, not {here}: install the same."
            )
        if not has_access:
            raise InputError(
                f"The worker {worker} cannot access {folder}: use folders that all machines share."
            )


def _access(folder: Path) -> tuple[str, bool]:
    with suppress(OSError):
        return software_versions(())["CTLungScreening"], os.access(folder, os.W_OK)
    return software_versions(())["CTLungScreening"], False


BATCH_RECORD = "batch.json"
SCANS = "scans"

_REPORT_S = 0.3
"""Minimum interval of a worker's progress reports within a stage."""

_POLL_S = 0.2


class ScanProgress(NamedTuple):
    """Progress of one scan; a finished scan has a row."""

    scan: str
    stage: str
    done: int
    total: int
    row: ScanRow | None = None


Watch: TypeAlias = Callable[[ScanProgress], None]


def unwatched(progress: ScanProgress) -> None:
    """Ignore the progress of scans."""


@dataclass(frozen=True)
class BatchOutcome:
    """The outcome of a batch: names of scans run and kept, errors by scan name, and notes."""

    added: tuple[str, ...]
    kept: tuple[str, ...]
    errors: dict[str, str]
    notes: tuple[str, ...]


def run_batch(
    source: Path,
    output: Path,
    options: RunOptions = BUNDLED,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: ProgressCallback = silent,
    watch: Watch = unwatched,
) -> BatchOutcome:
    """Run all scans of a folder or a CSV file, or one scan; write one table and all results.

    `results.csv` in `output` has one row per scan and is complete at any time; the complete files
    of each scan appear in a folder below `scans`. Scans with results are kept, so an interrupted
    batch continues where it stopped; failed ones are tried again. Where the facts of a kept scan
    changed, its row, report and record are made again; where it was moved, row and record name its
    place. A kept scan that has other files now fails. Rows of scans that are no longer there stay
    as long as their results. `batch.json` records source and options.

    Args:
        source: see `find_cases`.
        output: folder of the batch, new or of an earlier one with the same source and options.
        options: of each run.
        scheduler: address of the user's Dask scheduler; None for workers of this machine.
        workers: number of these; None for as many as memory and cores allow. Without Dask, scans
            run one after another in this process.
        progress: stages "Searching" and "Scans"; called several times a second.
        watch: called with the progress of each scan, in the caller's thread.

    Raises:
        InputError: if there are no scans, the options or the scheduler cannot be used, `output` is
            not a batch, or another run is writing there.
        Cancelled, or anything else that `progress` or `watch` raises: local workers are stopped
            first; others stop after their current scan.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file: name a folder for the results.")
    if options.model and options.model.exists():
        options = replace(options, model=options.model.resolve())
    record = _record(source, options)
    notes: list[str] = []
    cases = find_cases(source, progress, notes)
    output = output.resolve()
    refuse_links(*(output / name for name in (BATCH_RECORD, RESULTS_TABLE, SCANS)))
    with staging_folder(output, "writing") as staging:
        _require_same(output / BATCH_RECORD, record)
        names = FolderNames()

        def folder_of(name: str) -> Path:
            return names.child(output / SCANS, name)

        before = read_table(output / RESULTS_TABLE)
        cases = _with_kept_names(cases, before, folder_of)
        order = {case.name: number for number, case in enumerate(cases)}
        gone = [
            name
            for name, row in before.items()
            if name not in order and not row["error"] and is_run(folder_of(name))
        ]
        rows = {name: row for name, row in before.items() if name in order or name in gone}
        jobs = [Job(case, folder_of(case.name), output, staging, options) for case in cases]
        kept: list[Job] = []
        todo: list[Job] = []
        for job in jobs:
            (kept if _is_done(job, rows) else todo).append(job)
        outdated = [job for job in todo if _has_row(job, rows)]
        changed = {job.case.name for job in outdated if is_run(job.folder)}
        errors = {}

        def save() -> None:
            ordered = sorted(rows.values(), key=lambda row: order.get(row["scan"], len(order)))
            write_table(output / RESULTS_TABLE, ordered)

        for job in outdated:
            del rows[job.case.name]
        if len(rows) < len(before):
            save()  # before their results change
        if todo:
            with closing(
                _finished(scheduler, workers, todo, len(kept), staging, progress, watch)
            ) as finished:
                for row in finished:
                    rows[row.scan] = row.cells()
                    if row.error:
                        errors[row.scan] = row.error
                    with suppress(InputError):  # if opened elsewhere; the final save must succeed
                        save()
            save()
        progress("Scans", len(jobs), len(jobs))
    changed -= errors.keys()
    notes += [case.note for case in cases if case.note]
    moved = {name for name in changed if rows[name]["source"] != before[name]["source"]}
    notes += _notes_on(len(moved), len(changed - moved))
    if gone:
        notes.append(
            f"{output / RESULTS_TABLE} keeps {counted(len(gone), 'row')} of scans that {source} no "
            f"longer has: to drop a row, delete its results, such as {folder_of(gone[0])}."
        )
    ran = {job.case.name for job in todo} - errors.keys() - changed
    names_of = [job.case.name for job in jobs]
    return BatchOutcome(
        tuple(name for name in names_of if name in ran),
        tuple(name for name in names_of if name not in ran and name not in errors),
        errors,
        tuple(notes),
    )


def _notes_on(moved: int, with_other_facts: int) -> Iterator[str]:
    if moved:
        yield f"{counted(moved, 'kept scan')} found in another place: rows and records name it."
    if with_other_facts:
        yield (
            f"The facts of {counted(with_other_facts, 'kept scan')} changed: rows and reports were "
            "made again with them, without running the networks."
        )


def _record(source: Path, options: RunOptions) -> dict[str, Any]:
    card = find_card(options.model or DEFAULT_MODEL)
    require_method(options.lungs)
    return {
        "source": str(source.resolve()),
        "model": {"name": card.name, "sha256": card.sha256},
        "lung_method": str(options.lungs),
        "rules": dict(options.rules),
    }


def _require_same(file: Path, record: dict[str, Any]) -> None:
    """Write the batch's record, or refuse to continue another batch."""
    if not file.exists():
        write_object(file, record)
        return
    try:
        before = parse_json(file.read_bytes())
        other = [key.replace("_", " ") for key in record if record[key] != before[key]]
    except DAMAGE as error:
        raise InputError(
            f"{file} is not the record of a batch: choose another folder for the output."
        ) from error
    if other:
        raise InputError(
            f"{file.parent} has a batch with another {' and '.join(other)}: choose another folder, "
            f"or use the settings in its {file.name}."
        )


def _with_kept_names(
    cases: Sequence[Case], rows: Mapping[str, Mapping[str, str]], folder_of: Callable[[str], Path]
) -> list[Case]:
    """Give series the names under which they have results.

    Their own differ from these once another copy of the series appears, moves or goes.
    """
    free = rows.keys() - {case.name for case in cases}

    def name_of(case: Case) -> str:
        scan = case.source
        if not isinstance(scan, IndexedScan):
            return case.name
        others = [name for name in sorted(free) if rows[name]["series_instance_uid"] == scan.uid]
        names = [*[case.name] * (case.name in rows), *others]
        for name in names if others else ():
            if _is_of(scan, rows[name], folder_of(name)):
                free.discard(name)
                return name
        return case.name

    return [replace(case, name=name_of(case)) for case in cases]


def _is_of(scan: IndexedScan, row: Mapping[str, str], results: Path) -> bool:
    """Whether results, with their row, are those of a series; not of another patient's copy."""
    try:
        first = read_instance(scan.folder / scan.files[0])
        same_patient = first is not None and first.series.patient_id == row["patient_id"]
        return same_patient and is_run(results) and has_its_files(results, scan)
    except InputError:
        return False


def _has_row(job: Job, rows: dict[str, dict[str, str]]) -> bool:
    row = rows.get(job.case.name)
    return row is not None and not row["error"]


def _is_done(job: Job, rows: dict[str, dict[str, str]]) -> bool:
    try:
        return (
            _has_row(job, rows) and is_run(job.folder) and has_its_place(job) and has_its_facts(job)
        )
    except InputError:
        return False  # which its row will say


def _finished(
    scheduler: str | None,
    workers: int | None,
    jobs: Sequence[Job],
    kept: int,
    folder: Path,
    progress: ProgressCallback,
    watch: Watch,
) -> Generator[ScanRow, None, None]:
    """Yield the rows of scans as they finish, with or without Dask."""
    if scheduler:
        connection = workers_of(scheduler, folder)
    elif workers in (None, 1) and not _is_dask_installed():
        yield from _rows_here(jobs, kept, progress, watch)
        return
    else:
        connection = local_workers([job.case for job in jobs], folder, workers)
    with connection as client:
        yield from _rows_of(client, jobs, kept, progress, watch)


def _is_dask_installed() -> bool:
    return find_spec("distributed") is not None


def _rows_here(
    jobs: Sequence[Job], kept: int, progress: ProgressCallback, watch: Watch
) -> Generator[ScanRow, None, None]:
    """Run one scan after another in this process."""
    total = kept + len(jobs)
    for done, job in enumerate(jobs, start=kept):

        def report(stage: str, part: int, of: int, done: int = done, job: Job = job) -> None:
            watch(ScanProgress(job.case.name, stage, part, of))
            progress("Scans", done, total)

        progress("Scans", done, total)
        row = run_job(job, report)
        yield row
        watch(ScanProgress(job.case.name, "", 1, 1, row))


def _rows_of(
    client: "Client", jobs: Sequence[Job], kept: int, progress: ProgressCallback, watch: Watch
) -> Generator[ScanRow, None, None]:
    """Yield the rows of scans as they finish."""
    total = kept + len(jobs)
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    topic = f"lung-nodule-seg-{uuid4().hex}"
    client.subscribe_topic(topic, lambda event: messages.put(ScanProgress(*event[1])))
    futures: dict[Future, Job] = {}
    try:
        for job in jobs:
            future = client.submit(_run_on_worker, job, topic, pure=False)
            futures[future] = job
            future.add_done_callback(messages.put)
        while futures:
            progress("Scans", total - len(futures), total)
            try:
                message = messages.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if isinstance(message, ScanProgress):
                watch(message)
                continue
            job = futures.pop(message)
            row = _result(message, job)
            yield row
            watch(ScanProgress(job.case.name, "", 1, 1, row))
    finally:
        client.cancel(list(futures))
        client.unsubscribe_topic(topic)


def _result(future: "Future", job: Job) -> ScanRow:
    from distributed import KilledWorker  # noqa: PLC0415 - slow to import

    if future.cancelled():
        raise InputError(
            "The scheduler was lost or dropped the batch: start it again; finished scans are kept."
        )
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, KilledWorker):
        return failed(job, out_of_memory(job))
    return failed(job, f"{job.case.place}: {type(error).__name__}: {error}")


def _run_on_worker(job: Job, topic: str) -> ScanRow:
    """Run a job on a Dask worker, publishing its progress under a topic."""
    from distributed import Status, get_worker  # noqa: PLC0415 - slow to import

    worker = get_worker()
    reported: tuple[str, float] = ("", 0.0)

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal reported
        if worker.status in (Status.closing, Status.closed):
            raise Cancelled
        now = time.monotonic()
        if stage != reported[0] or now > reported[1] + _REPORT_S:
            reported = (stage, now)
            worker.log_event(topic, (job.case.name, stage, done, total))

    return run_job(job, progress)
