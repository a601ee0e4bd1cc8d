"""What a run costs, as earlier runs tell."""

from pathlib import Path

import pytest

from LungNoduleSegLib.run_cost import (
    FILE,
    KEPT_RUNS,
    SETTINGS_FOLDER,
    ExpectedCost,
    expected_cost,
    peak_gib,
    record_cost,
    run_kind,
    settings_folder,
)

KIND = run_kind("volume", "abc")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(SETTINGS_FOLDER, str(tmp_path / "settings"))
    return tmp_path / "settings"


@pytest.mark.parametrize(
    ("platform", "variable", "usual"),
    [
        ("linux", "XDG_STATE_HOME", ".local/state"),
        ("darwin", None, "Library/Application Support"),
        ("win32", "LOCALAPPDATA", "AppData/Local"),
    ],
)
def test_settings_lie_where_the_system_keeps_them(
    platform: str,
    variable: str | None,
    usual: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (SETTINGS_FOLDER, "XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert settings_folder() == tmp_path / usual / "CTLungScreening"
    if variable is not None:
        monkeypatch.setenv(variable, str(tmp_path / "other"))
        assert settings_folder() == tmp_path / "other" / "CTLungScreening"


def test_without_earlier_runs_the_estimate_says_that_none_was_measured() -> None:
    small, large = expected_cost(10_000_000, KIND), expected_cost(80_000_000, KIND)
    assert small.runs == large.runs == 0
    assert 0 < small.seconds < large.seconds
    assert 0 < small.gib < large.gib


def test_a_run_of_the_same_size_is_expected_to_take_the_same() -> None:
    record_cost(30_000_000, KIND, 100.0, 3.0)
    assert expected_cost(30_000_000, KIND) == ExpectedCost(100.0, 3.0, 1)
    assert expected_cost(60_000_000, KIND).seconds > 100
    assert expected_cost(30_000_000, run_kind("given", "abc")).runs == 0


def test_the_median_counts_and_old_runs_are_forgotten() -> None:
    for seconds in (50.0, 50.0, 900.0):
        record_cost(30_000_000, KIND, seconds, 2.0)
    assert expected_cost(30_000_000, KIND).seconds == 50
    for _ in range(KEPT_RUNS):
        record_cost(30_000_000, KIND, 20.0, 2.0)
    assert expected_cost(30_000_000, KIND) == ExpectedCost(20.0, 2.0, KEPT_RUNS)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"k": 3}', '{"volume abc": [{"seconds": 1}]}', '{"volume abc": [[]]}']
)
def test_a_damaged_file_is_as_none(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / FILE).write_text(text)
    assert expected_cost(1_000_000, KIND).runs == 0
    record_cost(1_000_000, KIND, 5.0, 1.0)
    assert expected_cost(1_000_000, KIND).runs == 1


def test_a_folder_that_cannot_be_written_ends_no_run(folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    record_cost(1_000_000, KIND, 5.0, 1.0)
    assert expected_cost(1_000_000, KIND).runs == 0


def test_the_peak_of_memory_is_in_gib() -> None:
    assert 0.02 < peak_gib() < 64
