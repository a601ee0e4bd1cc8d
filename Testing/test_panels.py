"""Runs the tests of the panels, each file in a process without TensorFlow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import PANEL_TESTS


def run_file(name: str, which: str) -> None:
    """Run the tests of a file that a marker selects; skip if all of them are skipped."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", "-rs", "-m", which, name],
        cwd=Path(__file__).parent,
        env={**os.environ, "PANEL_PROCESS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        pytest.skip(done.stdout[-400:])
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.parametrize("name", PANEL_TESTS)
def test_panel(name: str) -> None:
    run_file(name, "not slow")


@pytest.mark.slow
@pytest.mark.parametrize("name", PANEL_TESTS)
def test_panel_to_the_end_of_a_run(name: str) -> None:
    run_file(name, "slow")
