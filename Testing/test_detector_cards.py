"""Cards and networks that a user brings: what is wrong is named by its field."""

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import SimpleITK as sitk
from onnx import helper

from CTLungScreeningLib.errors import InputError
from CTSliceToolsLib.localizer.prediction import DEFAULT_MODEL as LOCALIZER
from LungNoduleSegLib.detectors.added_detectors import CommandDetector, OnnxDetector
from LungNoduleSegLib.detectors.detection import Mark
from LungNoduleSegLib.detectors.models import add_model, added_models, find_card, open_detector
from LungNoduleSegLib.options import DEFAULT_MODEL
from LungNoduleSegLib.run_cost import SETTINGS_FOLDER
from toy_models import command_model, onnx_model, zipped


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTINGS_FOLDER, str(tmp_path / "settings"))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "", "the field `name` may have letters"),
        ("name", "../evil", "the field `name` may have letters"),
        ("summary", 3, "the field `summary` must be a string"),
        ("colour", "red", "it has no field `colour`"),
        ("kind", "magic", "the field `kind` must be one of network, onnx, command, python"),
        ("files", {"../evil": "0"}, r"the field `files` has '\.\./evil'"),
        ("files", {"toy.onnx": "0"}, "is not the file that"),
        ("files", [], "the field `files` must be an object"),
        ("name", "nodule-unet", "There is a model nodule-unet already"),
        ("cost", {"seconds": "x"}, "the field `cost` must hold only numbers"),
        ("rules", {"threshold": 5}, "`threshold` must be a number from 0 to 1, not 5"),
    ],
)
def test_a_wrong_card_is_named_by_its_field(
    field: str, value: object, words: str, tmp_path: Path
) -> None:
    card = onnx_model(tmp_path)
    file = zipped(card, tmp_path, tmp_path / "a.zip", **{field: value})
    with pytest.raises(InputError, match=words) as error:
        add_model(file)
    assert str(file) in str(error.value) or field == "name"
    assert not list(added_models())


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("rules", {"threshold": 5}, "`threshold` must be a number from 0 to 1, not 5"),
        ("rules", {"threshold": float("nan")}, "number from 0 to 1, not nan"),
        ("rules", {"threshold": None}, "`threshold` must be a number from 0 to 1, not None"),
        ("rules", {"max_elongation": "high"}, "`max_elongation` must be a number from 0 to 1000"),
        ("rules", {"foo": 1}, "leave out foo"),
        ("preparation", {"size": "abc"}, "`size` must be a whole number from 1 to 4096"),
        ("preparation", {"slab_mm": -1}, "`slab_mm` must be a number from 0 to 100"),
        ("preparation", {"per_slice": 2}, "`per_slice` must be true or false"),
        ("preparation", {"foo": 1}, "leave out foo"),
        ("preparation", {"context": 1}, "for 512 × 512 × 3 values, but its file takes .* × 5"),
    ],
)
def test_a_network_with_a_wrong_card_is_not_opened(
    field: str, value: object, words: str, tmp_path: Path
) -> None:
    shutil.copy(DEFAULT_MODEL, tmp_path / "m.onnx")
    card = asdict(find_card(DEFAULT_MODEL)) | {"second_opinion": "", "classifier": ""}
    card |= {"files": {"m.onnx": find_card(DEFAULT_MODEL).sha256}, field: value}
    (tmp_path / "m.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(InputError, match=words) as error:
        open_detector(tmp_path / "m.onnx")
    assert str(tmp_path / "m.json") in str(error.value)


def test_a_model_of_another_kind_is_named_as_such() -> None:
    with pytest.raises(
        InputError, match=r"slice-localizer\.json describes a localizer of CT Slice"
    ):
        find_card(LOCALIZER)
    with pytest.raises(InputError, match=r"its file takes 16 × 36 × 36 × 1: .* of the right kind"):
        open_detector(DEFAULT_MODEL.with_name("nodule-classifier.json"))


def test_a_network_for_other_axes_is_not_opened(tmp_path: Path) -> None:
    card = onnx_model(tmp_path)
    flat = card.input | {"axes": "bcyx", "patch": [1, 64, 64]}
    file = zipped(card, tmp_path, tmp_path / "a.zip", input=flat)
    with pytest.raises(InputError, match=r"`input` gives arrays of \(1, 1, 64, 64\), but"):
        open_detector(add_model(file))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("spacing_mm", [1, 2]),
        ("window_hu", [400, -1000]),
        ("window_hu", [-1000, 10**400]),
        ("range", None),
        ("axes", "yxc"),
        ("patch", [0, 1, 1]),
        ("overlap", 1),
        ("colour", 1),
    ],
)
def test_a_wrong_input_is_named_by_its_field(field: str, value: object, tmp_path: Path) -> None:
    card = onnx_model(tmp_path)
    changed = zipped(card, tmp_path, tmp_path / "a.zip", input=card.input | {field: value})
    with pytest.raises(InputError, match=rf"The card of toy-onnx: `input\.{field}` must be"):
        open_detector(add_model(changed))


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"values": "logits", "chanel": 1}, "chanel` must be left out: there is no such field"),
        ({"values": "logits", "channel": -3}, "channel` must be a whole number, 0 or more"),
        ({"values": "logits", "channel": True}, "channel` must be a whole number, 0 or more"),
        ({"values": "scores"}, "values` must be probability or logits"),
    ],
)
def test_a_wrong_output_is_named_by_its_field(
    output: dict[str, object], words: str, tmp_path: Path
) -> None:
    model = add_model(zipped(onnx_model(tmp_path), tmp_path, tmp_path / "a.zip", output=output))
    with pytest.raises(InputError, match=rf"The card of toy-onnx: `output\.{words}"):
        open_detector(model)


def test_a_program_has_no_other_output_than_a_file(tmp_path: Path) -> None:
    card = replace(command_model(tmp_path), output={"file": "a.csv", "values": "logits"})
    with pytest.raises(InputError, match=r"`output\.values` must be left out"):
        CommandDetector(card, tmp_path / "model.json")


@pytest.mark.parametrize("file", ["../a.csv", "/a.csv", r"C:a.csv", r"\a.csv", "", 3])
def test_a_program_writes_into_its_output_folder(file: object, tmp_path: Path) -> None:
    card = replace(command_model(tmp_path), output={"file": file})
    with pytest.raises(InputError, match=r"`output\.file` must be a path in the output folder"):
        CommandDetector(card, tmp_path / "model.json")


def test_a_program_may_name_its_output_folder_by_a_dot(tmp_path: Path) -> None:
    write = "import sys; open(sys.argv[1], 'w').write('x,y,z\\n1,2,3\\n')"
    words = [sys.executable, "-c", write, "{output}/a.csv"]
    card = replace(command_model(tmp_path), command=words, output={"file": "./a.csv"})
    hu = sitk.Image(9, 9, 9, sitk.sitkInt16)
    found = CommandDetector(card, tmp_path / "model.json").detect(hu, hu > 0)
    assert found == [Mark(1, 2, 3)]


def test_a_network_that_fails_on_its_patches_is_named(tmp_path: Path) -> None:
    """As a U-Net whose levels halve an odd length."""
    halve = [
        helper.make_node("MaxPool", ["x"], ["half"], kernel_shape=[2] * 3, strides=[2] * 3),
        helper.make_node("Resize", ["half", "", "twice"], ["again"], mode="nearest"),
        helper.make_node("Add", ["again", "x"], ["y"]),
    ]
    card = onnx_model(tmp_path, halve, twice=[1, 1, 2, 2, 2])
    card = replace(card, input=card.input | {"patch": [47, 64, 64]})
    detector = OnnxDetector(card, tmp_path / "model.json")
    hu = sitk.Image(64, 64, 64, sitk.sitkInt16)
    with pytest.raises(InputError, match=r"toy-onnx cannot run on patches of 47 × 64 × 64 \(.*pat"):
        detector.detect(hu, hu + 1)


def test_an_answer_without_dimensions_is_named(tmp_path: Path) -> None:
    mean = [helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0)]
    detector = OnnxDetector(onnx_model(tmp_path, mean, out=[]), tmp_path / "model.json")
    hu = sitk.Image(64, 64, 64, sitk.sitkInt16)
    with pytest.raises(InputError, match="toy-onnx gives 0 dimensions, not those of its input"):
        detector.detect(hu, hu + 1)


def test_steep_logits_are_probabilities(tmp_path: Path) -> None:
    steep = [helper.make_node("Mul", ["x", "thousand"], ["y"])]
    card = onnx_model(tmp_path, steep, thousand=1000)
    card = replace(card, input=card.input | {"range": [-1, 1]})
    hu = sitk.Image(64, 64, 64, sitk.sitkInt16) - 1000
    found = OnnxDetector(card, tmp_path / "model.json").detect(hu, hu > -2000)
    assert sitk.GetArrayViewFromImage(found).max() == 0
