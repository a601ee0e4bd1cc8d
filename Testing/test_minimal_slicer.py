"""The panels open in a Slicer to which nothing was added; only a run asks for packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_both_panels_open_before_any_package_is_installed(tmp_path: Path) -> None:
    here = Path(__file__).parent
    unset = {"CTLUNGSCREENING_SETTINGS", "XDG_STATE_HOME"}  # the tests set the first one
    env = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, here / "minimal_slicer.py"],
        cwd=here,
        env=env | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "the panels need" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "LungNoduleSeg is open", done.stderr[-3000:]
