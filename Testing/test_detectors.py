"""Detectors that a user brings: each kind is added, run, batched and refused alike."""

import csv
import json
import os
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.model_card import ModelCard
from CTLungScreeningLib.progress import ProgressStyle
from lung_programs import install
from LungNoduleSegLib.commands.evaluate import detection
from LungNoduleSegLib.detectors.added_detectors import CommandDetector
from LungNoduleSegLib.detectors.detection import Detection, Mark
from LungNoduleSegLib.detectors.models import (
    add_model,
    added_models,
    find_card,
    model_names,
    models_folder,
    open_detector,
    read_zip_card,
    remove_model,
    what_runs,
)
from LungNoduleSegLib.evaluation.model_check import check_model
from LungNoduleSegLib.options import DEFAULT_MODEL
from LungNoduleSegLib.phantom.chest import LesionRequest, Phantom, PhantomSpec
from LungNoduleSegLib.pipeline import too_coarse
from LungNoduleSegLib.run_cost import SETTINGS_FOLDER
from LungNoduleSegLib.segmenter import NoduleSegmenter, SegmentedScan
from toy_models import PROGRAM, command_model, onnx_model, python_package, zipped

SPEC = PhantomSpec(size=(160, 160, 75), spacing=(2.2, 2.2, 4.0), lesions=(LesionRequest(22),))


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTINGS_FOLDER, str(tmp_path / "settings"))


def toy(kind: str, phantom: Phantom, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Add a toy model of a kind; returns its name."""
    if kind == "python":
        python_package(folder, phantom.lesions[0].centre)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("PYTHONPATH", str(folder))
        return "toy-python"
    card = onnx_model(folder) if kind == "onnx" else command_model(folder)
    file = zipped(card, folder, folder / f"{kind}.zip")
    add_model(file, may_run=what_runs(card))
    return card.name


def found_lesion(found: SegmentedScan, phantom: Phantom) -> bool:
    lesion = phantom.lesions[0]
    places = np.array([(one.x, one.y, one.z) for one in found.nodules]).reshape(-1, 3)
    near = np.linalg.norm(places - np.array(lesion.centre), axis=1) < lesion.diameter_mm / 2
    return bool(near.any())


def missed(found: SegmentedScan, phantom: Phantom, folder: Path) -> int:
    """Have `evaluate detection` count the missed lesions, whatever the number of marks."""
    uid = found.scan.series.series_instance_uid if found.scan.series else ""
    places, lesion = "seriesuid,coordX,coordY,coordZ", phantom.lesions[0]
    marks = [f"{uid},{one.x},{one.y},{one.z},{one.probability}" for one in found.nodules]
    x, y, z = lesion.centre
    files = {
        "submission": [f"{places},probability", *marks],
        "annotations": [f"{places},diameter_mm", f"{uid},{x},{y},{z},{lesion.diameter_mm}"],
        "seriesuids": [uid],
    }
    for name, lines in files.items():
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    detection(
        submission=folder / "submission.csv",
        annotations=folder / "annotations.csv",
        seriesuids=folder / "seriesuids.csv",
        json_file=folder / "score.json",
        max_marks=0,
        resamples=0,
        progress=ProgressStyle.NONE,
    )
    return int(json.loads((folder / "score.json").read_text(encoding="utf-8"))["missed"])


@pytest.mark.parametrize("kind", ["onnx", "command", "python"])
def test_each_kind_goes_the_whole_way(
    kind: str, phantom: Phantom, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = toy(kind, phantom, tmp_path, monkeypatch)
    assert name in model_names()
    segmenter = NoduleSegmenter(Path(name), lungs_file=files / "truth" / "lungs.nii.gz")
    found = segmenter.run(files / "dicom", tmp_path / "out", dicom=True, probability=True)
    assert found_lesion(found, phantom)
    volume = np.pi / 6 * phantom.lesions[0].diameter_mm ** 3
    largest = max(one.volume_mm3 for one in found.nodules)
    assert largest == pytest.approx(volume, rel=0.6)
    assert missed(found, phantom, tmp_path) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert (record["model"]["name"], record["model"]["kind"]) == (name, kind)
    assert {"report.html", "segmentation.dcm", "measurements.dcm"} <= {
        one.name for one in (tmp_path / "out").iterdir()
    }


def test_a_program_has_its_own_python_in_slicer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", str(tmp_path / "nowhere"))
    install(tmp_path, "finder", PROGRAM)
    words = ["{model}/finder", "{input}", "{lungs}", "{output}"]
    output = {"file": "nodules.nii.gz"}
    card = ModelCard("finder", "b", "nodule", kind="command", command=words, output=output)
    hu = sitk.GetImageFromArray(np.zeros((20, 20, 20), np.int16))
    found = CommandDetector(card, tmp_path / "model.json").detect(hu, hu > -1)
    assert isinstance(found, sitk.Image)
    assert sitk.GetArrayViewFromImage(found).max() == 1


def test_an_image_that_a_program_cuts_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.py").write_text(
        "import pathlib, sys\n"
        "whole = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "pathlib.Path(sys.argv[2]).write_bytes(whole[: len(whole) // 2])\n"
    )
    words = [sys.executable, "{model}/cut.py", "{input}", "{output}/a.nii.gz"]
    output = {"file": "a.nii.gz"}
    card = ModelCard("cut", "b", "nodule", kind="command", command=words, output=output)
    noise = np.random.default_rng(0).integers(-900, 100, (20, 20, 20)).astype(np.int16)
    hu = sitk.GetImageFromArray(noise)
    with pytest.raises(InputError, match=r"cut wrote a a\.nii\.gz that cannot be read"):
        CommandDetector(card, tmp_path / "model.json").detect(hu, hu > 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "command", "python"])
def test_each_kind_goes_through_a_batch(
    kind: str, phantom: Phantom, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = toy(kind, phantom, tmp_path, monkeypatch)
    command = [sys.executable, "-m", "LungNoduleSegLib", "batch", str(files / "dicom")]
    command += ["-o", str(tmp_path / "batch"), "--model", name, "--progress", "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "batch" / "results.csv").open(encoding="utf-8") as rows:
        (row,) = csv.DictReader(rows)
    assert row["error"] == ""
    assert int(row["nodules"]) > 0


def test_labels_that_touch_stay_apart() -> None:
    hu = sitk.Image(20, 20, 20, sitk.sitkInt16) - 800
    lungs = sitk.Image(20, 20, 20, sitk.sitkUInt8) + 1
    array = np.zeros((20, 20, 20), np.uint8)
    array[8:12, 8:12, 4:9], array[8:12, 8:12, 9:14] = 7, 3
    detection = Detection.of(sitk.GetImageFromArray(array), hu, lungs)
    assert detection.labels is not None
    labels = sitk.GetArrayFromImage(detection.labels)
    found = [np.unique(labels[array == value]).tolist() for value in (0, 3, 7)]
    assert [len(one) for one in found] == [1, 1, 1]
    assert found[0] == [0] and len(np.unique(labels)) == 3
    assert sitk.GetArrayFromImage(detection.probability).sum() == np.count_nonzero(array)


def test_pieces_of_one_value_that_do_not_touch_are_nodules_of_their_own() -> None:
    hu = sitk.Image(20, 20, 20, sitk.sitkInt16) - 800
    array = np.zeros((20, 20, 20), np.uint8)
    array[2:6, 2:6, 2:6] = array[6, 6, 6] = array[12:16, 12:16, 12:16] = 1
    labels = Detection.of(sitk.GetImageFromArray(array), hu, hu).labels
    assert labels is not None
    values = sitk.GetArrayFromImage(labels)
    assert values[3, 3, 3] == values[6, 6, 6] != values[14, 14, 14]
    assert len(np.unique(values)) == 3


def test_a_mark_without_a_nodule_is_a_ball_or_is_named() -> None:
    hu = sitk.Image(30, 30, 30, sitk.sitkInt16) - 800
    lungs = sitk.Image(30, 30, 30, sitk.sitkUInt8) + 1
    marks = [Mark(15, 15, 15, 0.4, diameter_mm=6), Mark(5, 5, 5, 0.9)]
    detection = Detection.of(marks, hu, lungs)
    values = sitk.GetArrayFromImage(detection.probability)
    assert Detection.of(iter(marks), hu, lungs).notes == detection.notes
    assert values.max() == pytest.approx(0.4)
    assert np.count_nonzero(values) == pytest.approx(np.pi / 6 * 6**3, rel=0.15)
    (note,) = detection.notes
    assert note.startswith("The model's mark at (5.0, 5.0, 5.0) is left out")


@pytest.mark.parametrize("x", [-5.0, 1e9, 1e300])
def test_a_mark_whose_ball_misses_the_scan_is_named(x: float) -> None:
    hu = sitk.Image(30, 30, 30, sitk.sitkInt16) - 800
    detection = Detection.of([Mark(x, 15, 15, diameter_mm=6)], hu, hu < 0)
    assert not sitk.GetArrayViewFromImage(detection.probability).any()
    (note,) = detection.notes
    assert note.startswith(f"The model's mark at ({x:.1f}, 15.0, 15.0) is left out")


def test_the_smallest_ball_has_the_voxel_of_its_middle() -> None:
    hu = sitk.Image(30, 30, 30, sitk.sitkInt16) - 800
    hu.SetSpacing((0.7, 0.7, 1.1))
    for x, y, z in np.random.default_rng(0).uniform(0, 20, (30, 3)).tolist():
        detection = Detection.of([Mark(x, y, z, diameter_mm=1e-3)], hu, hu < 0)
        ((k, j, i),) = np.argwhere(sitk.GetArrayViewFromImage(detection.probability))
        assert (i, j, k) == hu.TransformPhysicalPointToIndex((x, y, z))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_mark_that_is_nowhere_is_refused(axis: int, value: float) -> None:
    hu = sitk.Image(9, 9, 9, sitk.sitkInt16)
    mark = replace(Mark(5, 5, 5, diameter_mm=6), **{"xyz"[axis]: value})
    with pytest.raises(InputError, match=r"mark at \(.*(nan|inf).*\) has no place: have it give"):
        Detection.of([mark], hu, hu)


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        (Mark(5, 5, 5, 87), "a probability of 87: have it give 0 to 1"),
        (Mark(5, 5, 5, -1), "a probability of -1: have it give 0 to 1"),
        (Mark(5, 5, 5, float("nan")), "a probability of nan: have it give 0 to 1"),
        (Mark(5, 5, 5, 0.5, 0), "a diameter of 0 mm: have it give a length above 0"),
        (Mark(5, 5, 5, 0.5, float("inf")), "a diameter of inf mm: have it give"),
    ],
)
def test_a_mark_that_cannot_be_is_refused(mark: Mark, words: str) -> None:
    hu = sitk.Image(9, 9, 9, sitk.sitkInt16)
    with pytest.raises(InputError, match=rf"mark at \(5\.0, 5\.0, 5\.0\) has {words}"):
        Detection.of([Mark(1, 1, 1), mark], hu, hu)


def test_a_table_with_other_separators_is_refused_as_such(tmp_path: Path) -> None:
    write = "import sys; open(sys.argv[1], 'w').write('x;y;z\\n1;2;3\\n')"
    words = [sys.executable, "-c", write, "{output}/m.csv"]
    output = {"file": "m.csv"}
    card = ModelCard("prog", "b", "nodule", kind="command", command=words, output=output)
    hu = sitk.Image(9, 9, 9, sitk.sitkInt16)
    refused = r"prog wrote a m\.csv that cannot be read: m\.csv line 1 separates .* by semicolons"
    with pytest.raises(InputError, match=refused):
        CommandDetector(card, tmp_path / "model.json").detect(hu, hu > 0)


def test_what_is_no_probability_is_refused() -> None:
    hu = sitk.Image(4, 4, 4, sitk.sitkInt16)
    with pytest.raises(InputError, match=r"values from 0 to 3, which are not probabilities"):
        image = sitk.Image(4, 4, 4, sitk.sitkFloat32)
        image[0, 0, 0] = 3
        Detection.of(image, hu, hu)


def test_models_are_found_by_name_and_removed(
    phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = toy("onnx", phantom, tmp_path, monkeypatch)
    assert find_card(Path(name)).kind == "onnx"
    assert find_card(Path("nodule-unet")) == find_card(DEFAULT_MODEL)
    assert open_detector(Path(name)) is open_detector(Path(name))
    with pytest.raises(InputError, match="There is a model toy-onnx already: remove it first"):
        add_model(tmp_path / "onnx.zip")
    remove_model(name)
    assert list(added_models()) == []
    for gone in (name, "../evil"):
        with pytest.raises(InputError, match=r"is missing: give one of a model's files, or a name"):
            find_card(Path(gone))
    with pytest.raises(InputError, match="No model nodule-unet was added"):
        remove_model("nodule-unet")


def test_a_program_runs_only_after_consent(tmp_path: Path) -> None:
    card = command_model(tmp_path)
    file = zipped(card, tmp_path, tmp_path / "a.zip")
    with pytest.raises(InputError, match=r"runs a program on this computer, .*: agree to it first"):
        add_model(file)
    with pytest.raises(InputError, match="agree to it first"):
        add_model(file, may_run="something else")
    assert not list(added_models())
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(file).extractall(unpacked)
    with pytest.raises(InputError, match="runs a program on this computer: add it first"):
        open_detector(unpacked / "model.json")
    call = [sys.executable, "-m", "LungNoduleSegLib", "models", "add", str(file)]
    done = subprocess.run(call, capture_output=True, text=True, check=False, input="")
    assert done.returncode == 2
    assert sys.executable in done.stdout
    assert "was not added: agree to its program, or use --yes" in done.stderr
    done = subprocess.run([*call, "--yes"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [one.parent.name for one in added_models()] == ["toy-command"]


def rename(name: str) -> Callable[[zipfile.ZipFile], None]:
    return lambda archive: archive.writestr(name, "x")


def link(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("toy.onnx")
    entry.external_attr = 0o120777 << 16
    archive.writestr(entry, "/etc/passwd")


@pytest.mark.parametrize(
    "change", [rename("../evil"), rename("/tmp/evil"), rename("extra.py"), rename("a\\..\\b"), link]
)
def test_nothing_leaves_the_folder_of_a_zip(
    change: Callable[[zipfile.ZipFile], None], tmp_path: Path
) -> None:
    card = replace(onnx_model(tmp_path), files={"toy.onnx": "0" * 64})
    file = tmp_path / "bad.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.json", json.dumps(card.__dict__))
        change(archive)
    with pytest.raises(InputError, match=r"bad\.zip holds .* which its card does not name"):
        add_model(file)
    assert not models_folder().exists()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bad.zip", "toy.onnx"]


def bomb(archive: zipfile.ZipFile) -> None:
    """Half a GiB of zeros in half a MB."""
    with archive.open("toy.onnx", "w", force_zip64=True) as entry:
        for _ in range(512):
            entry.write(bytes(2**20))


def large_card(archive: zipfile.ZipFile) -> None:
    with archive.open("model.json", "w", force_zip64=True) as entry:
        for _ in range(64):
            entry.write(b" " * 2**20)


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("claimed", [None, 1000])
def test_a_card_does_not_fill_the_memory(packing: int, claimed: int | None, tmp_path: Path) -> None:
    file = tmp_path / "bad.zip"
    with zipfile.ZipFile(file, "w", packing) as archive:
        large_card(archive)
        if claimed:
            archive.getinfo("model.json").file_size = claimed
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"bad\.zip"):
            read_zip_card(file)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


def test_a_model_that_is_packed_by_another_method_is_refused(tmp_path: Path) -> None:
    card = onnx_model(tmp_path)
    file = tmp_path / "bad.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.json", json.dumps(card.__dict__))
        archive.write(tmp_path / "toy.onnx", "toy.onnx", zipfile.ZIP_BZIP2)
    with pytest.raises(InputError, match=r"toy\.onnx cannot be unpacked"):
        add_model(file)


def test_a_zip_with_an_entry_without_a_name_is_refused(tmp_path: Path) -> None:
    card = onnx_model(tmp_path)
    file = tmp_path / "bad.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.json", json.dumps(card.__dict__))
        archive.writestr("x", "")
    content = bytearray(file.read_bytes())
    last = content.rindex(b"PK\1\2")
    content[last + 28 : last + 32] = b"\0\0\1\0"  # lengths of the name and of further data
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.zip"):
        add_model(file)


def second_card(archive: zipfile.ZipFile) -> None:
    """Another card than the one whose program the user may be asked about."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("model.json", "{}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (bomb, "unpacks to hundreds of times its size"),
        (second_card, "is not a model card|cannot be unpacked"),
    ],
)
def test_a_zip_made_to_harm_is_refused(
    change: Callable[[zipfile.ZipFile], None], words: str, tmp_path: Path
) -> None:
    card = onnx_model(tmp_path)
    file = tmp_path / "bad.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.json", json.dumps(card.__dict__))
        change(archive)
    with pytest.raises(InputError, match=words):
        add_model(file)
    assert not list(added_models())


def test_what_macos_adds_to_a_zip_is_passed_over(tmp_path: Path) -> None:
    file = zipped(onnx_model(tmp_path), tmp_path, tmp_path / "mac.zip")
    with zipfile.ZipFile(file, "a") as archive:
        for name in ("__MACOSX/._model.json", ".DS_Store"):
            archive.writestr(name, b"macOS")
    folder = add_model(file).parent
    assert sorted(one.name for one in folder.iterdir()) == ["model.json", "toy.onnx"]


@pytest.mark.parametrize("part", ["model.json", "toy.onnx"])
@pytest.mark.parametrize("damage", ["compressed data", "encrypted"])
def test_a_damaged_zip_is_refused_in_a_sentence(part: str, damage: str, tmp_path: Path) -> None:
    card = onnx_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(card.__dict__), encoding="utf-8")
    file = tmp_path / "bad.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("model.json", "toy.onnx"):
            archive.write(tmp_path / name, name)
        here = archive.getinfo(part).header_offset
        entries = archive.start_dir
    content = bytearray(file.read_bytes())
    if damage == "encrypted":
        content[here + 6] |= 1
        content[content.index(part.encode(), entries) - 46 + 8] |= 1
    else:
        data = here + 30 + len(part)
        content[data : data + 8] = bytes([255] * 8)
    file.write_bytes(content)
    refused = r"bad\.zip(: toy\.onnx cannot be unpacked| is not a model)"
    with pytest.raises(InputError, match=refused):
        add_model(file)
    assert not list(added_models())


def test_a_card_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bad.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.json", "[" * 500_000)
    with pytest.raises(InputError, match="is not a model card"):
        read_zip_card(file)


def test_a_zip_cannot_bring_python_code(tmp_path: Path) -> None:
    card = replace(onnx_model(tmp_path), kind="python")
    with pytest.raises(InputError, match="Python models come with an installed package"):
        add_model(zipped(card, tmp_path, tmp_path / "a.zip"))


def test_a_model_is_described_before_it_runs(tmp_path: Path) -> None:
    text = read_zip_card(zipped(onnx_model(tmp_path), tmp_path, tmp_path / "a.zip")).description
    assert "Marks what is bright." in text
    assert "Licence: MIT" in text
    assert "Measured: 5 s and 0.5 GiB for 4 million voxels" in text


def test_a_slice_network_sees_slices(tmp_path: Path) -> None:
    from LungNoduleSegLib.detectors.added_detectors import NetworkInput

    card = onnx_model(tmp_path)
    flat = card.input | {"axes": "bcyx", "patch": [1, 32, 32]}
    assert NetworkInput.of(replace(card, input=flat)).patch == [1, 32, 32]
    with pytest.raises(InputError, match=r"`input\.patch` must be 1 along z"):
        NetworkInput.of(replace(card, input=card.input | {"axes": "bcyx"}))


def test_the_report_says_that_the_scan_was_trained_on(
    phantom: Phantom, files: Path, tmp_path: Path
) -> None:
    card = onnx_model(tmp_path)
    found = NoduleSegmenter(
        add_model(zipped(card, tmp_path, tmp_path / "a.zip")),
        lungs_file=files / "truth" / "lungs.nii.gz",
    ).apply(files / "dicom")
    assert found.notes == (*found.scan.notes, *too_coarse(found.scan.image.GetSpacing()))
    assert found.scan.series is not None
    remove_model(card.name)
    cases = [found.scan.series.series_instance_uid]
    again = add_model(zipped(card, tmp_path, tmp_path / "b.zip", training_cases=cases))
    NoduleSegmenter(again, lungs_file=files / "truth" / "lungs.nii.gz").run(
        files / "dicom", tmp_path / "out"
    )
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "toy-onnx was trained on this scan" in report


def test_a_volume_file_that_was_trained_on_is_known_by_its_name(
    phantom: Phantom, files: Path, tmp_path: Path
) -> None:
    sitk.WriteImage(phantom.image, tmp_path / "1.2.3.nii.gz")
    lungs = files / "truth" / "lungs.nii.gz"
    card = onnx_model(tmp_path)
    for name, told in (("1.2.3", True), ("1.2", False)):
        changed = {"name": f"toy{told:d}", "training_cases": [name]}
        model = add_model(zipped(card, tmp_path, tmp_path / f"{told}.zip", **changed))
        found = NoduleSegmenter(model, lungs_file=lungs).apply(tmp_path / "1.2.3.nii.gz")
        assert any("was trained on this scan" in note for note in found.notes) is told


def test_the_bundled_model_was_trained_on_a_scan_that_its_report_names(shared_data: Path) -> None:
    first = min((shared_data / "LIDC-IDRI-0001").rglob("*.dcm"))
    uid = dcmread(first, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID
    assert uid in find_card(DEFAULT_MODEL).training_cases


@pytest.mark.slow
def test_check_finds_what_a_model_does(tmp_path: Path) -> None:
    card = onnx_model(tmp_path)
    add_model(zipped(card, tmp_path, tmp_path / "a.zip"))
    command = [sys.executable, "-m", "LungNoduleSegLib", "models", "check", card.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "toy-onnx found " in done.stdout
    assert "Its card states" in done.stdout


@pytest.mark.slow
def test_check_takes_a_mask_of_all_nodules(tmp_path: Path) -> None:
    """As TotalSegmentator and nnU-Net write it, with 1 in all; the third hangs on a vessel."""
    card = command_model(tmp_path, PROGRAM.replace("sitk.ConnectedComponent(bright)", "bright"))
    model = add_model(zipped(card, tmp_path, tmp_path / "a.zip"), may_run=what_runs(card))
    assert "found 2 of 3 lesions" in check_model(model)


@pytest.mark.slow
def test_check_says_no_orientation_of_a_model_that_finds_nothing(tmp_path: Path) -> None:
    rules = {"min_probability": 1.0}
    model = add_model(zipped(onnx_model(tmp_path), tmp_path, tmp_path / "a.zip", rules=rules))
    assert "found 0 of 3 lesions" in (told := check_model(model))
    assert "which does not show its orientation" in told


def test_a_card_without_files_has_a_hash_of_its_own() -> None:
    one, other = (ModelCard("a", "b", "c", kind="command", command=[word]) for word in "xy")
    assert len(one.sha256) == 64
    assert one.sha256 != other.sha256
