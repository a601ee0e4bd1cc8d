"""The names that scripts may rely on, and the examples of the page Using it from Python."""

import contextlib
import importlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from extension_files import ROOT

PAGE = ROOT / "docs" / "python.md"
PACKAGES = ("LungNoduleSegLib", "CTSliceToolsLib")


def examples() -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_examples_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    printed = []
    assert len(examples()) == 10
    for example in examples():
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(example, str(PAGE), "exec"), namespace)
        printed.append(output.getvalue())
    assert len(examples()[0].splitlines()) < 10
    assert re.match(r"1: \d+\.\d mm, \w", printed[0])
    assert "report.html" in printed[1]
    assert "Bifurcation of trachea" in printed[-1]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        _ = module.nothing_of_that_name


@pytest.mark.parametrize("package", PACKAGES)
def test_import_loads_nothing_heavy(package: str) -> None:
    heavy = ("keras", "matplotlib", "numpy", "SimpleITK")
    code = f"import sys, {package}; print([one for one in {heavy} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_command_line_starts_with_nothing_heavy(package: str) -> None:
    heavy = ("keras", "matplotlib", "onnxruntime", "pydicom", "scipy")
    code = f"import sys, {package}.cli; print([one for one in {heavy} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


SMALL_MATRICES = """
import os, {package}.cli, numpy
numpy.ones((500, 500)) @ numpy.ones((500, 500))
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are not counted here")
@pytest.mark.parametrize("package", PACKAGES)
def test_a_command_multiplies_matrices_by_one_thread(package: str) -> None:
    code = SMALL_MATRICES.format(package=package)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_the_page_names_what_is_public() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for package in PACKAGES:
        public = set(importlib.import_module(package).__all__)
        row = re.search(rf"^\| `{package}` \| (.*) \|$", page, re.MULTILINE)
        assert row and set(re.findall(r"`(\w+)`", row[1])) <= public
