"""Work on many files by several processes: like one, whatever is broken or cancelled."""

import multiprocessing
import os
import sys
from pathlib import Path

import pytest

from CTLungScreeningLib.errors import Cancelled, InputError
from CTLungScreeningLib.json_files import read_object
from CTLungScreeningLib.progress import silent
from CTLungScreeningLib.workers import each, process_pool


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


@pytest.fixture
def objects(tmp_path: Path) -> list[Path]:
    """Five JSON files, the second of which is none."""
    names = [tmp_path / f"{k}.json" for k in range(5)]
    for k, file in enumerate(names):
        file.write_text("nonsense" if k == 1 else f'{{"number": {k}}}')
    return names


@pytest.mark.parametrize("worth_a_process", [1, 99], ids=["two processes", "this process"])
def test_results_come_in_order_and_refusals_among_them(
    objects: list[Path], worth_a_process: int
) -> None:
    stages: list[tuple[str, int, int]] = []
    results = list(
        each(read_object, objects, "Reading", lambda *stage: stages.append(stage), worth_a_process)
    )
    assert isinstance(results[1], InputError)
    assert str(objects[1]) in str(results[1])
    others = [result for result in results if not isinstance(result, InputError)]
    assert others == [{"number": k} for k in (0, 2, 3, 4)]
    assert stages == [("Reading", done, 5) for done in range(6)]


@pytest.mark.parametrize("worth_a_process", [1, 99], ids=["two processes", "this process"])
def test_an_item_too_large_for_the_memory_stops_no_other(worth_a_process: int) -> None:
    results = list(each(bytes, [2, 2**60, 3], "Filling", silent, worth_a_process))
    assert results[::2] == [bytes(2), bytes(3)]
    assert isinstance(results[1], InputError)
    assert f"{2**60}: There is not enough memory" in str(results[1])


def test_cancelled_processes_end(objects: list[Path]) -> None:
    def cancel(stage: str, done: int, total: int) -> None:
        if done:
            raise Cancelled

    with pytest.raises(Cancelled):
        list(each(read_object, objects, "Reading", cancel, 1))
    assert not multiprocessing.active_children()


def test_a_process_that_dies_is_reported() -> None:
    with pytest.raises(InputError, match="Reading was cut short"):
        list(each(os._exit, [3, 3], "Reading", silent, 1))


@pytest.mark.parametrize("worth_a_process", [1, 99], ids=["two processes", "this process"])
def test_what_all_items_need_is_shared(worth_a_process: int) -> None:
    assert list(each(pow, [1, 2, 3], "Powers", silent, worth_a_process, 10)) == [10, 100, 1000]


def test_windows_runs_as_many_processes_as_it_can_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    process_pool(128).shutdown()
