"""The page *Bring your own model*, held against what it says."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.model_card import ModelCard, card_from_text
from extension_files import ROOT
from LungNoduleSegLib.detectors.added_detectors import CommandDetector, NetworkInput, OnnxDetector
from LungNoduleSegLib.detectors.models import (
    add_model,
    added_models,
    open_detector,
    read_zip_card,
    what_runs,
)
from LungNoduleSegLib.detectors.network_detector import NoduleDetector
from LungNoduleSegLib.run_cost import SETTINGS_FOLDER
from test_classifier import save_networks
from toy_models import onnx_model, zipped

PAGE = (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_zip_that_the_page_makes_is_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTINGS_FOLDER, str(tmp_path / "settings"))
    onnx_model(tmp_path)
    (tmp_path / "toy.onnx").rename(tmp_path / "my-detector.onnx")
    (tmp_path / "model.json").write_text(blocks("json")[0], encoding="utf-8")
    subprocess.run([sys.executable, "-c", blocks("python")[1]], cwd=tmp_path, check=True)
    detector = open_detector(add_model(tmp_path / "my-detector.zip"))
    assert isinstance(detector, OnnxDetector)
    assert detector.card.rules == {"threshold": 0.5, "min_probability": 0.6}


def test_the_page_packs_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTINGS_FOLDER, str(tmp_path / "settings"))
    (tmp_path / "model.json").write_text(blocks("json")[1], encoding="utf-8")
    subprocess.run([sys.executable, "-c", blocks("python")[1]], cwd=tmp_path, check=True)
    file = tmp_path / "totalsegmentator.zip"
    detector = open_detector(add_model(file, what_runs(read_zip_card(file))))
    assert isinstance(detector, CommandDetector)


def test_the_page_packs_a_trained_network_with_its_classifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTINGS_FOLDER, str(tmp_path / "settings"))
    card = save_networks(tmp_path, "second.keras").with_suffix(".json")
    half = zipped(card_from_text(card.read_text(), "card"), tmp_path, tmp_path / "half.zip")
    with pytest.raises(InputError, match=r"half\.zip/second\.json is missing"):
        add_model(half)
    assert not list(added_models())
    card.rename(tmp_path / "model.json")
    subprocess.run([sys.executable, "-c", blocks("python")[1]], cwd=tmp_path, check=True)
    detector = open_detector(add_model(tmp_path / "unet.zip"))
    assert isinstance(detector, NoduleDetector)
    assert detector.classifier is not None


def test_cards_of_the_page_are_cards() -> None:
    ours, program = (card_from_text(text, "the page") for text in blocks("json"))
    assert NetworkInput.of(ours).patch == [96, 96, 96]
    assert program.kind == "command"
    fields = set(re.findall(r"`([a-z_]+)(?:\.[a-z_]+)?`", PAGE.split("## The card")[1]))
    assert {"input", "output", "rules", "training_cases", "results", "cost"} <= fields
    assert {"input", "output"} < set(ModelCard.__dataclass_fields__)


def test_the_export_of_the_page_runs(tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("onnx")
    network = torch.nn.Conv3d(1, 1, 3, padding=1)
    code = blocks("python")[0].replace('"my-detector.onnx"', repr(str(tmp_path / "a.onnx")))
    exec(code, {"network": network})
    card = json.loads(blocks("json")[0]) | {"files": {"a.onnx": ""}}
    detector = OnnxDetector(ModelCard(**card), tmp_path / "model.json")
    assert detector.card.name == "my-detector"


def test_a_zip_without_a_card_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"nothing")
    refused = r"is not a model: it must be a zip file with a model\.json"
    with pytest.raises(InputError, match=refused):
        read_zip_card(tmp_path / "a.zip")
