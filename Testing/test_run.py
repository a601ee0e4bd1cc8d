"""The main job: a scan in, lungs and nodules out, the same whatever form the scan comes in."""

import json
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_reading import read_ct
from LungNoduleSegLib.nodules.table import Nodule, read_nodules_csv
from LungNoduleSegLib.options import DEFAULT_MODEL
from LungNoduleSegLib.phantom.chest import (
    LesionRequest,
    PhantomSpec,
    Place,
    compare_with_truth,
    make_phantom,
    write_phantom,
)
from LungNoduleSegLib.pipeline import too_coarse
from LungNoduleSegLib.results.reading import LUNGS, NODULES, RECORD, SCENE, TABLE, result_names
from LungNoduleSegLib.segmenter import NoduleSegmenter, SegmentedScan

LUNA16_NODULE = np.array([56.2, 86.3, -115.9])
LUNA16_DIAMETER = 23.4

SMALL = PhantomSpec(
    size=(224, 224, 75),
    spacing=(1.6, 1.6, 4.0),
    lesions=(LesionRequest(20), LesionRequest(24, place=Place.PLEURA)),
)


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "LungNoduleSegLib", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(make_phantom(SMALL), folder)
    return folder


@pytest.mark.xdist_group("phantom")
def test_a_phantom_goes_through_the_command_and_every_output_opens(
    phantom_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    wanted = ("--scene", "--probability", "--progress", "jsonl")
    done = command("run", phantom_folder / "dicom", "-o", output, *wanted)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["result"]["output"] == str(output)
    stages = list(dict.fromkeys(event["stage"] for event in events if "stage" in event))
    assert stages == [
        "Model",
        "Reading",
        "Searching",
        "Lungs",
        "Nodules",
        "Candidates",
        "Measures",
        "Results",
        "Scene",
        "Report",
    ]

    assert sorted(p.name for p in output.iterdir()) == sorted(
        result_names(scene=True, probability=True)
    )
    with zipfile.ZipFile(output / SCENE) as scene:
        mrml = next(name for name in scene.namelist() if name.endswith(".mrml"))
        assert "max_elongation" in scene.read(mrml).decode()  # the rules, for the slider
    scan = read_ct(phantom_folder / "dicom")
    lungs = sitk.ReadImage(output / LUNGS)
    labels = sitk.ReadImage(output / NODULES)
    for image in (lungs, labels):
        assert image.GetSize() == scan.image.GetSize()
        np.testing.assert_allclose(image.GetOrigin(), scan.image.GetOrigin(), atol=1e-3)
    nodules = read_nodules_csv(output / TABLE)
    counts = np.bincount(sitk.GetArrayViewFromImage(labels).ravel(), minlength=len(nodules) + 1)
    for nodule in nodules:
        volume = counts[nodule.id] * np.prod(scan.image.GetSpacing())
        voxel = float(np.prod(scan.image.GetSpacing()))
        # Half a voxel of rounding, and voxels that lie on the surface alike count all. The lung's
        # finer vessels in the edge count for the voxels, not for the volume.
        assert 0.98 * volume - 2 * voxel <= nodule.volume_mm3 <= volume + 2 * voxel
    # The mass on the pleura is cut off by the lungs, and found by few models.
    assert "20.0 mm solid      found" in compare_with_truth(phantom_folder / "truth", output)

    truth = sitk.GetArrayFromImage(sitk.ReadImage(phantom_folder / "truth" / LUNGS))
    found = sitk.GetArrayViewFromImage(lungs)
    for side in (1, 2):
        both = ((truth == side) & (found == side)).sum()
        assert 2 * both / ((truth == side).sum() + (found == side).sum()) > 0.9

    record = json.loads((output / RECORD).read_text(encoding="utf-8"))
    assert record["input"]["sop_instance_uids"] == [s.sop_instance_uid for s in scan.slices]
    assert record["nodules"] == len(nodules)
    assert len(record["model"]["sha256"]) == 64
    within = {"Searching", "Candidates"}
    assert list(record["timing_s"]) == [s for s in stages if s not in within]


@pytest.mark.xdist_group("phantom")
def test_nothing_is_overwritten_and_bad_input_gets_one_sentence(
    phantom_folder: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "full" / TABLE
    mine.parent.mkdir()
    mine.write_text("mine", encoding="utf-8")
    cases: list[tuple[list[str | Path], str]] = [
        (["run", phantom_folder / "dicom", "-o", mine.parent], "already holds nodules.csv"),
        (["run", tmp_path / "missing", "-o", tmp_path / "a"], "missing"),
        (["run", phantom_folder / "dicom", "-o", mine], "is a file"),
        (
            ["run", phantom_folder / "dicom", "-o", tmp_path / "b", "--model", mine],
            "a model is an .onnx or .keras file with a card",
        ),
        (["run", phantom_folder / "dicom", "-o", tmp_path / "c", "--series", "1.2"], "1.2"),
    ]
    for arguments, words in cases:
        done = command(*arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert mine.read_text(encoding="utf-8") == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full"]


def test_a_model_is_refused_when_its_card_is_anothers(tmp_path: Path) -> None:
    model = tmp_path / DEFAULT_MODEL.name
    shutil.copy(DEFAULT_MODEL, model)
    shutil.copy(DEFAULT_MODEL.with_suffix(".json"), model.with_suffix(".json"))
    model.write_bytes(model.read_bytes() + b"x")
    with pytest.raises(InputError, match=r"is not the file that nodule-unet\.json describes"):
        NoduleSegmenter(model).run(tmp_path, tmp_path / "out")


@pytest.fixture(scope="module")
def lidc(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> SegmentedScan:
    output = tmp_path_factory.mktemp("lidc")
    return NoduleSegmenter().run(shared_data / "LIDC-IDRI-0001", output)


def luna16_nodule(analysis: SegmentedScan) -> Nodule:
    near = [
        nodule
        for nodule in analysis.nodules
        if np.linalg.norm(np.array([nodule.x, nodule.y, nodule.z]) - LUNA16_NODULE)
        <= LUNA16_DIAMETER / 2
    ]
    assert len(near) == 1, analysis.nodules
    return near[0]


@pytest.mark.xdist_group("lidc")
def test_the_nodule_of_lidc_is_found(lidc: SegmentedScan) -> None:
    nodule = luna16_nodule(lidc)
    assert nodule.side == "left"
    assert nodule.kind == "solid"
    assert 0.6 * LUNA16_DIAMETER < nodule.diameter_mm < 1.6 * LUNA16_DIAMETER


def variant(lidc: SegmentedScan, form: str, folder: Path) -> Path:
    """Write the scan again in another form."""
    image = lidc.scan.image
    if form == "shuffled DICOM":
        files = [s.file for s in lidc.scan.slices]
        names = [f"{n:x}" for n in random.Random(5).sample(range(10**6), len(files))]
        for file, name in zip(files, names, strict=True):
            target = folder / name[-1] / name
            target.parent.mkdir(exist_ok=True)
            shutil.copy(file, target)
        return folder
    if form == "oblique":
        middle = image.TransformContinuousIndexToPhysicalPoint(
            [(n - 1) / 2 for n in image.GetSize()]
        )
        rotation = sitk.Euler3DTransform(middle, 0.15, -0.1, 0.2)
        turned = sitk.Image(image)
        turned.SetDirection(np.ravel(rotation.GetMatrix()).tolist())
        turned.SetOrigin(rotation.TransformPoint(image.GetOrigin()))
        image = sitk.Resample(image, turned, sitk.Transform(), sitk.sitkLinear, -1000)
    elif form == "flipped":
        image = sitk.DICOMOrient(image, "RAS")
    path = folder / ("scan.mhd" if form == "mhd" else "scan.nrrd")
    sitk.WriteImage(image, path)
    return path


@pytest.mark.xdist_group("lidc")
@pytest.mark.parametrize("form", ["shuffled DICOM", "mhd", "flipped", "oblique"])
def test_every_form_of_a_scan_gives_the_same_nodules(
    lidc: SegmentedScan, form: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    path = variant(lidc, form, source)
    other = NoduleSegmenter().run(path, tmp_path / "out")
    expected, found = luna16_nodule(lidc), luna16_nodule(other)
    centre = np.array([expected.x, expected.y, expected.z])
    away = np.linalg.norm(centre - (found.x, found.y, found.z))
    if form == "oblique":
        assert away < 2.5  # resampled twice, by up to 14 degrees
        assert found.volume_mm3 == pytest.approx(expected.volume_mm3, rel=0.15)
        return
    assert away < 0.01
    assert len(other.nodules) == len(lidc.nodules)
    for one, two in zip(lidc.nodules, other.nodules, strict=True):
        np.testing.assert_allclose((one.x, one.y, one.z), (two.x, two.y, two.z), atol=0.01)
        assert one.volume_mm3 == pytest.approx(two.volume_mm3, rel=1e-3)
        assert one.diameter_mm == pytest.approx(two.diameter_mm, abs=0.01)
    lungs = sitk.ReadImage(tmp_path / "out" / LUNGS)
    assert lungs.GetSize() == read_ct(path).image.GetSize()


def test_a_scan_that_shows_no_small_nodules_is_noted(shared_data: Path, tmp_path: Path) -> None:
    scan = shared_data / "chest_low_resolution" / "ct.nrrd"
    coarse = NoduleSegmenter().run(scan, tmp_path / "out")
    assert any("4.2 × 4.2 × 4 mm do not show small nodules" in note for note in coarse.notes)
    assert too_coarse((0.7, 0.7, 8.0))
    assert not too_coarse((1.0, 1.0, 5.0))
