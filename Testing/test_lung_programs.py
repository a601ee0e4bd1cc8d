"""Lungs and lobes from lungmask and TotalSegmentator, where the user has installed them."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from highdicom import sr
from pydicom import dcmread

from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.errors import Cancelled, InputError
from CTLungScreeningLib.geometry import AxialView
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.reading.ct_reading import read_ct
from lung_programs import CALLED, LOWER, LUNGS, UPPER, install
from LungNoduleSegLib.cli import app
from LungNoduleSegLib.evaluation.dice import compare_lungs
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, LOBES, RIGHT_LUNG, Lobe, LungMethod
from LungNoduleSegLib.lungs.programs import PROGRAMS, find_lobes, lungs_of
from LungNoduleSegLib.lungs.segmentation import segment_lungs
from LungNoduleSegLib.nodules.finding import NoduleFindings, with_lobes
from LungNoduleSegLib.nodules.table import Nodule, read_nodules_csv
from LungNoduleSegLib.phantom.chest import LesionRequest, PhantomSpec
from LungNoduleSegLib.results.dicom_report import lobe_of
from LungNoduleSegLib.risk.assessment import assess_scan
from LungNoduleSegLib.risk.clinical_data import ClinicalData
from LungNoduleSegLib.risk.facts import Origin, measured_facts
from LungNoduleSegLib.segmenter import NoduleSegmenter, SegmentedScan

BOTH = [LungMethod.LUNGMASK, LungMethod.TOTALSEGMENTATOR]
SPEC = PhantomSpec(
    size=(160, 160, 75), spacing=(2.2, 2.2, 4.0), lesions=(LesionRequest(22), LesionRequest(16))
)


@pytest.fixture(scope="module")
def programs(files: Path) -> Iterator[None]:
    """Both programs on the PATH."""
    folder = files / "bin"
    folder.mkdir()
    for method in BOTH:
        install(folder, PROGRAMS[method].name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder), prepend=os.pathsep)
        patch.setenv(LUNGS, str(files / "truth" / "lungs.nii.gz"))
        yield


def true_lobe(z: float, right: bool, lungs: sitk.Image) -> Lobe:
    """The lobe at a height (LPS mm) of a lung as the programs divide it."""
    array = sitk.GetArrayViewFromImage(lungs) == (RIGHT_LUNG if right else LEFT_LUNG)
    rows = np.flatnonzero(array.any(axis=(1, 2)))
    k = lungs.TransformPhysicalPointToContinuousIndex((0.0, 0.0, z))[2]
    height = (k - rows[0]) / (rows[-1] - rows[0])
    if height >= UPPER:
        return Lobe.RIGHT_UPPER if right else Lobe.LEFT_UPPER
    if right and height >= LOWER:
        return Lobe.RIGHT_MIDDLE
    return Lobe.RIGHT_LOWER if right else Lobe.LEFT_LOWER


@pytest.mark.parametrize("method", BOTH)
def test_lobes_come_back_onto_the_grid_of_the_scan(
    method: LungMethod, files: Path, programs: None
) -> None:
    image = read_ct(files / "dicom").image
    view = AxialView.of(image, AIR_HU)
    truth = sitk.ReadImage(files / "truth" / "lungs.nii.gz")
    lobes = find_lobes(view.image, PROGRAMS[method])
    assert lobes.GetSize() == view.image.GetSize()
    labels = sitk.GetArrayViewFromImage(lobes)
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4, 5}
    for number, lobe in enumerate(LOBES, 1):
        k, j, i = (int(one) for one in np.argwhere(labels == number)[1000])
        x, _, z = lobes.TransformIndexToPhysicalPoint((i, j, k))
        assert true_lobe(z, lobe.is_right, truth) is lobe
        assert (x < 0) == lobe.is_right  # LPS: the patient's right
    expected = sitk.Resample(truth, view.image, sitk.Transform(), sitk.sitkNearestNeighbor)
    lungs = sitk.GetArrayFromImage(lungs_of(lobes))
    np.testing.assert_array_equal(lungs, sitk.GetArrayViewFromImage(expected))
    tilted = sitk.PermuteAxes(image, (2, 0, 1))
    there = segment_lungs(tilted, method)
    assert there.GetSize() == tilted.GetSize()
    assert there.GetDirection() == tilted.GetDirection()


@pytest.mark.parametrize(
    ("method", "device", "arguments"),
    [
        (LungMethod.LUNGMASK, None, ["LTRCLobes_R231"]),
        (LungMethod.LUNGMASK, Device.GPU, ["LTRCLobes_R231"]),
        (LungMethod.LUNGMASK, Device.CPU, ["LTRCLobes_R231", "--cpu"]),
        (LungMethod.TOTALSEGMENTATOR, None, ["lung_lower_lobe_left"]),
        (LungMethod.TOTALSEGMENTATOR, Device.GPU, ["lung_lower_lobe_left", "--device", "gpu"]),
        (LungMethod.TOTALSEGMENTATOR, Device.CPU, ["lung_lower_lobe_left", "--device", "cpu"]),
    ],
)
def test_the_device_of_a_run_is_that_of_the_program(
    method: LungMethod,
    device: Device | None,
    arguments: list[str],
    files: Path,
    programs: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def until_the_lungs_are_found(stage: str, _done: int, _total: int) -> None:
        if stage == "Nodules":
            raise Cancelled

    monkeypatch.setenv(CALLED, str(tmp_path / "arguments"))
    with pytest.raises(Cancelled):
        NoduleSegmenter(lungs=method, device=device).apply(
            files / "dicom", progress=until_the_lungs_are_found
        )
    called = (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()
    assert called[-len(arguments) :] == arguments


@pytest.mark.parametrize("other", [*BOTH, "file"])
def test_one_command_compares_the_lungs(
    other: str, files: Path, programs: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = files / "truth" / "lungs.nii.gz"
    apart = tmp_path / "apart.nrrd"
    named = str(truth) if other == "file" else str(other)
    options = ["--differences", str(apart), "--progress", "jsonl"]
    app(["evaluate", "lungs", str(files / "dicom"), named, *options], standalone_mode=False)
    agreement = json.loads(capsys.readouterr().out.splitlines()[-1])["result"]
    assert min(agreement["dice"].values()) > 0.9
    shown, lungs = sitk.ReadImage(apart), sitk.ReadImage(truth)
    values, true = sitk.GetArrayFromImage(shown), sitk.GetArrayFromImage(lungs)
    ml = np.prod(shown.GetSpacing()) / 1000
    assert agreement["only_other_ml"] == pytest.approx(np.count_nonzero(values == 2) * ml)
    assert (true[values == 2] > 0).all()
    assert not true[values == 1].any()
    assert agreement["other_ml"]["left"] == pytest.approx(np.count_nonzero(true == LEFT_LUNG) * ml)
    assert 0 < agreement["largest_ml"] <= max(agreement["only_own_ml"], agreement["only_other_ml"])


def test_differences_of_another_suffix_are_refused_before_the_work(tmp_path: Path) -> None:
    missing, there = tmp_path / "scan", tmp_path / "apart.txt"
    with pytest.raises(InputError, match=r"apart\.txt does not end in \.nii\.gz or \.nrrd"):
        compare_lungs(missing, missing, there)


@pytest.fixture(scope="module")
def found(files: Path, programs: None) -> SegmentedScan:
    segmenter = NoduleSegmenter(lungs=LungMethod.TOTALSEGMENTATOR)
    return segmenter.run(files / "dicom", files / "out", dicom=True)


def test_the_lobe_stands_in_table_report_and_dicom(found: SegmentedScan, files: Path) -> None:
    truth = sitk.ReadImage(files / "truth" / "lungs.nii.gz")
    nodules = read_nodules_csv(files / "out" / "nodules.csv")
    assert len(nodules) >= 2
    for one in nodules:
        assert one.lobe is true_lobe(one.z, one.side == "right", truth)
    page = (files / "out" / "report.html").read_text(encoding="utf-8")
    record = json.loads((files / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["parameters"]["lung_method"] == "totalsegmentator"
    segmentation = dcmread(files / "out" / "segmentation.dcm")
    algorithms = {one.SegmentAlgorithmName for one in segmentation.SegmentSequence}
    assert "CTLungScreening lungs, totalsegmentator" in algorithms
    report = sr.srread(files / "out" / "measurements.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()[2:]
    codes = {"upper": "45653009", "middle": "72481006", "lower": "90572001"}  # SNOMED CT, CID 6170
    for one, group in zip(nodules, groups, strict=True):
        assert f"{one.lobe} lobe" in page
        (site,) = group.finding_sites
        assert one.lobe is not None
        assert site.value.value == codes[one.lobe.split()[1]]
        assert site.laterality.meaning.lower() == one.side


def test_the_lobe_enters_the_risk_models_and_the_user_overrules_it(found: SegmentedScan) -> None:
    for nodule, facts in zip(found.nodules, measured_facts(found.nodules), strict=True):
        assert nodule.lobe is not None
        assert facts.upper_lobe is nodule.lobe.is_upper
        assert facts.origins["upper_lobe"] == Origin.MEASURED
        other = facts.corrected(upper_lobe=not facts.upper_lobe)
        (assessed,) = assess_scan([nodule], found.analysis.lungs, ClinicalData())
        overruled = replace(assessed, nodule=other)
        code = lobe_of(nodule, overruled)
        assert (code is not None and code.value == "45653009") == other.upper_lobe


def test_a_nodule_beside_the_lobes_lies_in_the_nearest() -> None:
    lobes, labels = np.zeros((8, 9, 10), np.uint8), np.zeros((8, 9, 10), np.uint16)
    lobes[:4, :, :5], lobes[4:, :, :5] = 3, 1  # right lower, right upper
    labels[6, 4, 6:8] = 1
    labels[1, 2, 3:6] = 2
    values: dict[str, Any] = dict.fromkeys(Nodule.__dataclass_fields__)
    rows = tuple(Nodule(**{**values, "id": number}) for number in (1, 2))
    findings = NoduleFindings(sitk.GetImageFromArray(labels), rows, ())
    named = with_lobes(findings, sitk.GetImageFromArray(lobes))
    assert [one.lobe for one in named.nodules] == [Lobe.RIGHT_UPPER, Lobe.RIGHT_LOWER]


@pytest.mark.parametrize(
    ("method", "name", "package"),
    [(BOTH[0], "lungmask", "lungmask"), (BOTH[1], "TotalSegmentator", "TotalSegmentator")],
)
def test_a_missing_program_is_named_before_the_scan_is_read(
    method: LungMethod, name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError) as refused:
        NoduleSegmenter(lungs=method).run(tmp_path / "no scan", tmp_path / "out")
    assert str(refused.value) == (
        f"{name} is not installed: install it with `pip install {package}`, or have the lungs "
        "found in another way."
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import sys; sys.exit('no memory left')", "lungmask failed: "),
        ("pass", "lungmask wrote no lobes.nii.gz"),
        (
            "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])",
            "What lungmask wrote marks something with a median of",
        ),
    ],
)
def test_a_program_that_fails_is_named(
    text: str, why: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "lungmask", text)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=why):
        NoduleSegmenter(lungs=LungMethod.LUNGMASK).run(files / "dicom", tmp_path / "out")
    assert not (tmp_path / "out").exists()
