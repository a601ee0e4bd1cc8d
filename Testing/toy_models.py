"""Toy detectors of each kind: all mark what is bright over some millimetres inside the lungs."""

import hashlib
import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from CTLungScreeningLib.model_card import ModelCard

BRIGHT_HU = -300

SHAPE = ("batch", 1, "z", "y", "x")

PROGRAM = f"""
import sys
import SimpleITK as sitk

hu, lungs = (sitk.ReadImage(name) for name in sys.argv[1:3])
smooth = sitk.SmoothingRecursiveGaussian(sitk.Cast(hu, sitk.sitkFloat32), 3.0)
bright = sitk.And(smooth > {BRIGHT_HU}, lungs > 0)
sitk.WriteImage(sitk.ConnectedComponent(bright), sys.argv[3] + "/nodules.nii.gz")
"""

PACKAGE = """
from CTLungScreeningLib.model_card import ModelCard
from LungNoduleSegLib.detectors.detection import Detector, Mark


class Toy(Detector):
    card = ModelCard("toy-python", "Marks one place.", "nodule", kind="python")

    def detect(self, hu, lungs, progress=None):
        return [Mark(*map(float, open(__file__ + ".txt").read().split()), probability=0.9)]
"""


def onnx_model(
    folder: Path,
    nodes: Sequence[Any] | None = None,
    out: Sequence[int | str] = SHAPE,
    **constants: Any,
) -> ModelCard:
    """A network for 2.5 mm voxels, by itself of one average over 3 × 3 × 3 and a threshold.

    `nodes` from `x` to `y` replace it, with other constants and the shape of what they give.
    """
    import onnx
    from onnx import helper

    given, found = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", SHAPE), ("y", out))
    )
    if nodes is None:
        nodes = [
            helper.make_node("AveragePool", ["x"], ["a"], kernel_shape=[3] * 3, pads=[1] * 6),
            helper.make_node("Sub", ["a", "bright"], ["b"]),
            helper.make_node("Mul", ["b", "steep"], ["y"]),
        ]
        constants = {"bright": (BRIGHT_HU + 1000) / 1400, "steep": 30.0}
    numbers = [
        onnx.numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "toy", [given], [found], numbers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    file = folder / "toy.onnx"
    onnx.save(model, file)
    return ModelCard(
        "toy-onnx",
        "Marks what is bright.",
        "probability that a voxel is bright",
        kind="onnx",
        files={file.name: hashlib.sha256(file.read_bytes()).hexdigest()},
        input={
            "spacing_mm": [2.5, 2.5, 2.5],
            "window_hu": [-1000, 400],
            "range": [0, 1],
            "axes": "bczyx",
            "patch": [48, 64, 64],
            "overlap": 0.25,
        },
        output={"values": "logits"},
        licence="MIT",
        cost={"seconds": 5, "gib": 0.5, "megavoxels": 4},
    )


def command_model(folder: Path, program: str = PROGRAM) -> ModelCard:
    """A program that thresholds a smoothed image and numbers what is connected."""
    file = folder / "toy.py"
    file.write_text(program, encoding="utf-8")
    return ModelCard(
        "toy-command",
        "Marks what is bright.",
        "bright voxels",
        kind="command",
        files={file.name: hashlib.sha256(file.read_bytes()).hexdigest()},
        command=[sys.executable, "{model}/toy.py", "{input}", "{lungs}", "{output}"],
        output={"file": "nodules.nii.gz"},
    )


def zipped(card: ModelCard, folder: Path, file: Path, **changed: Any) -> Path:
    """Pack a model; `changed` replaces fields of the card."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.json", json.dumps(asdict(card) | changed))
        for name in card.files:
            archive.write(folder / name, name)
    return file


def python_package(folder: Path, place: tuple[float, float, float]) -> None:
    """A package with an entry point, as pip lays it into `folder`."""
    (folder / "toy_detector.py").write_text(PACKAGE, encoding="utf-8")
    (folder / "toy_detector.py.txt").write_text(" ".join(map(str, place)), encoding="utf-8")
    info = folder / "toy_detector-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-detector\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[ctlungscreening.detectors]\ntoy-python = toy_detector:Toy\n", encoding="utf-8"
    )
