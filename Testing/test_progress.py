"""Progress for people and for a parent process."""

import io
import json
import time

import pytest

from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.progress import JsonLines, ProgressStyle, shown
from LungNoduleSegLib.batch.running import ScanProgress
from LungNoduleSegLib.commands.batch import _bars


def test_json_lines_count_and_estimate() -> None:
    stream = io.StringIO()
    report = JsonLines(stream)
    for done in range(3):
        report("Lungs", done, 2)
    first, second, third = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["stage"], first["done"], first["total"]) == ("Lungs", 0, 2)
    assert first["remaining_s"] is None
    assert second["remaining_s"] == pytest.approx(second["elapsed_s"], abs=2e-3)
    assert third["remaining_s"] == 0


def test_a_resumed_stage_is_judged_by_what_it_did_since(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    report = JsonLines(stream)
    for now, done in ((100.0, 90), (110.0, 91)):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        report("Training", done, 100)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["remaining_s"] is None
    assert (second["elapsed_s"], second["remaining_s"]) == (10, 90)


def test_bad_input_is_reported_to_the_parent(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError), shown(ProgressStyle.JSONL):
        raise InputError("x.nrrd is empty: give another.")
    assert json.loads(capsys.readouterr().out) == {"error": "x.nrrd is empty: give another."}


def test_one_thing_is_counted_without_an_s() -> None:
    assert [counted(n, "scan") for n in (0, 1, 2)] == ["0 scans", "1 scan", "2 scans"]


def test_bars_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(ProgressStyle.BAR) as report:
        report("Lungs", 0, 4)
        report("Lungs", 4, 4)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Lungs" in captured.err
    assert "100%" in captured.err


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that bars go by, in seconds."""
    now = [0.0]
    monkeypatch.setattr("rich.console.monotonic", lambda: now[0])
    return now


def test_bars_say_how_long_slow_steps_take_on(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with shown(ProgressStyle.BAR) as report:
        for done in range(9):
            clock[0] = done * 120.0
            report("Scans", done, 20)
    assert "0:24:00" in capsys.readouterr().err


def test_the_bar_of_a_scan_of_a_batch_begins_anew_with_each_stage(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with _bars() as (report, watch):
        for done in range(9):
            clock[0] = done * 120.0
            report("Scans", done, 20)
        for time_s, stage, done in ((0, "Reading", 0), (9, "Reading", 4), (10, "Lungs", 0)):
            clock[0] = 960.0 + time_s
            watch(ScanProgress("a[b]", stage, done, 4))
    scans, scan = capsys.readouterr().err.splitlines()[-2:]
    assert "Scans" in scans and "0:24:00" in scans
    assert "a[b] Lungs" in scan and "0%" in scan and "-:--:--" in scan


@pytest.mark.parametrize("style", ProgressStyle)
def test_a_result_is_said_to_people_and_written_for_a_parent(
    style: ProgressStyle, capsys: pytest.CaptureFixture[str]
) -> None:
    with shown(style) as report:
        report("Lungs", 0, 4)
        report.warn("a.dcm is empty.")
        report.emit({"nodules": 3}, "3 nodules", ["thick slices"])
    captured = capsys.readouterr()
    if style is ProgressStyle.JSONL:
        events = [json.loads(line) for line in captured.out.splitlines()][1:]
        said = [{"message": "a.dcm is empty."}, {"message": "thick slices"}]
        assert events == [*said, {"result": {"nodules": 3}}]
    else:
        assert captured.out == "3 nodules\nNote: thick slices\n"
        assert "a.dcm is empty." in captured.err
