"""The headless host is made once, and says so when slicer-core is missing."""

import subprocess
import sys

import pytest

WITHOUT_SLICER = """
import sys
sys.modules["slicer"] = None
from CTLungScreeningSlicer.scene import mrml_host
from CTLungScreeningLib.errors import InputError
try:
    mrml_host.start()
except InputError as problem:
    print(problem)
"""


def test_without_slicer_core_one_sentence_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SLICER], capture_output=True, text=True, check=True
    )
    assert "pip install 'slicer-core>=5.12,<5.13'" in done.stdout


def test_a_second_start_returns_the_same_scene() -> None:
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
    from CTLungScreeningSlicer.scene import mrml_host

    scene = mrml_host.start()
    assert mrml_host.start() is scene is slicer.mrmlScene is slicer.app.mrmlScene()
    assert slicer.modules.segmentations.logic().GetMRMLScene() is scene
