"""The headless host is made once, and says so when slicer-core is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT_SLICER_CORE = """
import importlib.metadata, sys
version = importlib.metadata.version
def without(name):
    if name == "slicer-core":
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = without
from LungNoduleSegLib.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("project", ["", "raise RuntimeError('another project of this name')"])
def test_without_slicer_core_one_sentence_says_what_to_install(
    project: str, tmp_path: Path
) -> None:
    if project:
        (tmp_path / "slicer.py").write_text(project)
    (tmp_path / "scan.nii.gz").touch()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SLICER_CORE, "run", "scan.nii.gz", "-o", "out", "--scene"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "needs slicer-core, which is not installed" in done.stderr
    assert "pip install '.[host]'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_second_start_returns_the_same_scene() -> None:
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
    from CTLungScreeningSlicer.scene import mrml_host

    scene = mrml_host.start()
    assert mrml_host.start() is scene is slicer.mrmlScene is slicer.app.mrmlScene()
    assert slicer.modules.segmentations.logic().GetMRMLScene() is scene
