"""Parallel work on many files; a file that fails does not stop the others."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from types import ModuleType
from typing import Any, TypeVar

import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError, sentence_of
from CTLungScreeningLib.progress import ProgressCallback

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(
    function: Callable[..., Result],
    items: Sequence[Item],
    stage: str,
    progress: ProgressCallback,
    worth_a_process: int,
    *shared: Any,
) -> Iterator[Result | InputError]:
    """Yield `function(*shared, item)` for each item in order, or the `InputError` that it raised.

    An item that is too large for the memory counts as an `InputError`, too, which names the item.

    Args:
        function: of a module that can be imported; it and its results can be pickled.
        items: likewise.
        stage: name of the work for `progress`, which counts the items and may raise.
        progress: callback.
        worth_a_process: how many items take several times as long as a process takes to start;
            fewer are done here.
        shared: what all items need; it is sent to each process once.

    Raises:
        InputError: if a process was ended from outside, as by a lack of memory.
    """
    count = min(os.cpu_count() or 1, len(items) // worth_a_process)
    if count < 2:
        here = partial(_guarded, partial(function, *shared))
        yield from _reported(map(here, items), len(items), stage, progress)
        return
    guarded = partial(_guarded, partial(with_shared, function))
    pool = process_pool(count, *shared)
    try:
        with without_main_module():
            results = pool.map(guarded, items, chunksize=max(1, worth_a_process // 16))
        with refusing_lost_processes(stage):
            yield from _reported(results, len(items), stage, progress)
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def refusing_lost_processes(work: str) -> Iterator[None]:
    """Raise an `InputError` that names the work if one of its processes is ended from outside."""
    try:
        yield
    except BrokenProcessPool as broken:
        raise InputError(
            f"{work} was cut short, as one of its processes was ended (lack of memory?): "
            "start it again, finished work is kept."
        ) from broken


MOST_PROCESSES = 61
"""Windows cannot wait for more than this many at once."""

_shared: tuple[Any, ...] = ()


def process_pool(count: int, *shared: Any) -> ProcessPoolExecutor:
    """Start processes for `with_shared`; submit within `without_main_module`.

    They are spawned, as this process may have threads. Ctrl-C is for this process alone.

    Args:
        count: of processes, `MOST_PROCESSES` of them at most; each computes on one core.
        shared: what all work needs; it is sent to each process once.
    """
    most = min(count, MOST_PROCESSES)
    return ProcessPoolExecutor(most, get_context("spawn"), _begin, (shared,))


def with_shared(function: Callable[..., Result], item: Any) -> Result:
    """Call `function(*shared, item)` in a process of `process_pool`."""
    return function(*_shared, item)


@contextmanager
def without_main_module() -> Iterator[None]:
    """Keep processes that start from running the caller's script again.

    They would do so to find functions defined in it, of which they get none; it would need a guard
    (`if __name__ == "__main__"`), and a file.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _reported(
    results: Iterator[Result | InputError], count: int, stage: str, progress: ProgressCallback
) -> Iterator[Result | InputError]:
    progress(stage, 0, count)
    for done, result in enumerate(results, 1):
        yield result
        progress(stage, done, count)


def _begin(shared: tuple[Any, ...]) -> None:
    global _shared  # noqa: PLW0603 - one per process
    _shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _guarded(function: Callable[[Item], Result], item: Item) -> Result | InputError:
    try:
        return function(item)
    except InputError as error:
        return error
    except (MemoryError, OverflowError) as error:
        return InputError(f"{item}: {sentence_of(error)}")
