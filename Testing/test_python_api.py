"""The names that scripts may rely on, and the examples of the page Using it from Python."""

import contextlib
import importlib
import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk

from CTLungScreeningLib.engine import Device, OnnxNetwork
from CTLungScreeningLib.errors import InputError
from CTSliceToolsLib import SliceLocalizer, organize
from CTSliceToolsLib.localizer.prediction import open_model
from CTSliceToolsLib.options import LocalizerTrainingPlan
from extension_files import ROOT
from LungNoduleSegLib import LungMethod, NoduleSegmenter, PatientFacts, segment_lungs, train_risk
from LungNoduleSegLib.options import (
    ExampleChoice,
    RiskTrainingPlan,
    RunOptions,
    StoreTrainingPlan,
)
from LungNoduleSegLib.risk.facts import Sex

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


def text(value: str) -> Any:
    """What a script gives for a choice or a path."""
    return value


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: NoduleSegmenter(lungs=text("lungmsk")),
            "`lungs` must be one of volume, tutorial, lung",
        ),
        (
            lambda: NoduleSegmenter(device=text("cuda")),
            "`device` must be one of cpu, gpu, not 'cuda'",
        ),
        (
            lambda: NoduleSegmenter(rules={"min_diameter": 6}),
            "`rules`: leave out min_diameter, which is not known here; known are threshold, .*mm",
        ),
        (lambda: NoduleSegmenter(rules={"threshold": 6}), "`rules`: `threshold` must be a number"),
        (
            lambda: SliceLocalizer(device=text("cuda")),
            "`device` must be one of cpu, gpu, not 'cuda'",
        ),
        (lambda: OnnxNetwork(Path("a.onnx"), text("cuda")), "`device` must be one of cpu, gpu"),
        (
            lambda: segment_lungs(sitk.Image(9, 9, 9, sitk.sitkInt16), text("lungs")),
            "`method` must be",
        ),
        (lambda: PatientFacts(sex=text("woman")), "`sex` must be one of female, male, not 'woman'"),
        (lambda: RunOptions(lungs=text("lungmsk")), "`lungs` must be one of volume"),
        (lambda: ExampleChoice(lungs=text("lungmsk")), "`lungs` must be one of volume"),
        (lambda: StoreTrainingPlan.of(text("all")), "`preset` must be one of tutorial, patches"),
        (
            lambda: RiskTrainingPlan(weighting=text("equal")),
            "`weighting` must be one of tutorial, bal",
        ),
        (
            lambda: LocalizerTrainingPlan(backbone=text("vgg")),
            "`backbone` must be one of compact, ince",
        ),
        (
            lambda: organize(Path("a"), Path("b"), text("mv")),
            "`transfer` must be one of copy, link, mov",
        ),
        (lambda: train_risk(*map(Path, "abc"), chosen=text("best")), "`chosen` must be one of"),
    ],
)
def test_a_name_that_does_not_exist_is_refused(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def test_choices_and_files_may_be_text(tmp_path: Path) -> None:
    segmenter = NoduleSegmenter(
        text("nodule-unet"), text("tutorial"), text("a.nii.gz"), device=text("cpu")
    )
    assert segmenter.lungs is LungMethod.TUTORIAL
    assert segmenter.device is Device.CPU
    assert (segmenter.model, segmenter.lungs_file) == (Path("nodule-unet"), Path("a.nii.gz"))
    assert PatientFacts(sex=text("female")).sex is Sex.FEMALE
    assert StoreTrainingPlan.of(text("tutorial")).epochs == 20
    with pytest.raises(InputError, match=r"a\.onnx is missing"):
        open_model(text(str(tmp_path / "a.onnx")))
