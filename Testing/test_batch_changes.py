"""Scans that are moved, copied, replaced or taken away between two runs of a batch."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pydicom
import pytest
import SimpleITK as sitk

from bright_model import write_bright_model
from LungNoduleSegLib.batch import running
from LungNoduleSegLib.batch.cases import find_cases
from LungNoduleSegLib.batch.running import SCANS, run_batch
from LungNoduleSegLib.batch.scan_work import RESULTS_TABLE
from LungNoduleSegLib.lesions import Lesion
from LungNoduleSegLib.options import RunOptions
from LungNoduleSegLib.phantom.chest import PhantomSpec, make_phantom
from LungNoduleSegLib.phantom.dicom import write_dicom_series
from LungNoduleSegLib.results.reading import RECORD, SHA256, read_run
from LungNoduleSegLib.results.writing import write_dicom_of_run

SIZE = (96, 96, 40)
SPACING = (3.7, 3.7, 7.5)

pytestmark = pytest.mark.xdist_group("batch")


@pytest.fixture(scope="module")
def phantom() -> sitk.Image:
    lesions = (Lesion((-70, 20, 45), 34, lobulation=0),)
    return make_phantom(PhantomSpec(0, SIZE, SPACING, lesions)).image


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> RunOptions:
    return RunOptions(model=write_bright_model(tmp_path_factory.mktemp("model") / "bright.keras"))


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_is_dask_installed", lambda: False)


@pytest.fixture
def series(phantom: sitk.Image, tmp_path: Path) -> list[Path]:
    """The files of a series, from feet to head, in `scans/patient`."""
    return write_dicom_series(phantom, tmp_path / "scans" / "patient")


def table(output: Path) -> dict[str, dict[str, str]]:
    with (output / RESULTS_TABLE).open(encoding="utf-8", newline="") as stream:
        return {row["scan"]: row for row in csv.DictReader(stream)}


def input_of(results: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((results / RECORD).read_text())["input"]
    return about


@pytest.mark.parametrize("listed", [False, True])
def test_a_scan_with_more_slices_than_were_run_is_not_kept(
    series: list[Path], options: RunOptions, tmp_path: Path, listed: bool
) -> None:
    source, output, late = tmp_path / "scans", tmp_path / "out", tmp_path / "late"
    late.mkdir()
    for file in series[28:]:
        file.rename(late / file.name)
    if listed:
        source = tmp_path / "list.csv"
        source.write_text("path\nscans/patient\n")
    (name,) = run_batch(source, output, options).added
    folder = output / table(output)[name]["results"]
    assert run_batch(source, output, options).kept == (name,)
    for file in late.iterdir():
        file.rename(series[0].with_name(file.name))
    problem = f"has other files now than when it was run: delete {folder} to run it again."
    for _ in range(2):
        outcome = run_batch(source, output, options)
        assert (outcome.added, outcome.kept) == ((), ())
        assert problem in outcome.errors[name] and problem in table(output)[name]["error"]
    assert len(input_of(folder)["sop_instance_uids"]) == 28
    shutil.rmtree(folder)
    assert run_batch(source, output, options).added == (name,)
    assert read_run(folder).scan.image.GetDepth() == len(series)


def test_files_of_a_series_that_are_no_slices_change_nothing(
    series: list[Path], options: RunOptions, tmp_path: Path
) -> None:
    run_batch(tmp_path / "scans", tmp_path / "out", options)
    scout = pydicom.dcmread(series[0])
    scout.ImageType, scout.SOPInstanceUID = ["ORIGINAL", "PRIMARY", "LOCALIZER"], "1.2.3"
    scout.save_as(series[0].with_name("scout.dcm"))
    outcome = run_batch(tmp_path / "scans", tmp_path / "out", options)
    assert len(outcome.kept) == 1 and outcome.notes == ()


def test_a_volume_file_that_was_replaced_is_not_kept(
    phantom: sitk.Image, options: RunOptions, tmp_path: Path
) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    file = scans / "volume.nrrd"
    sitk.WriteImage(phantom, file)
    run_batch(scans, output, options)
    results = output / table(output)["volume.nrrd"]["results"]
    whole = file.read_bytes()
    os.utime(file)
    assert run_batch(scans, output, options).kept == ("volume.nrrd",)
    sitk.WriteImage(phantom + 1, file)
    (problem,) = run_batch(scans, output, options).errors.values()
    assert problem.startswith(f"{file} has other files now than when it was run: delete {results}")
    file.write_bytes(whole)
    assert run_batch(scans, output, options).added == ("volume.nrrd",)  # nothing was run

    record = json.loads((results / RECORD).read_text())
    del record["input"][SHA256]  # as of an earlier version
    (results / RECORD).write_text(json.dumps(record))
    os.utime(file)
    assert run_batch(scans, output, options).kept == ("volume.nrrd",)
    sitk.WriteImage(phantom[:, :, 1:], file)
    assert "has other files now" in run_batch(scans, output, options).errors["volume.nrrd"]


def test_results_of_a_series_that_was_moved_can_be_used(
    series: list[Path], options: RunOptions, tmp_path: Path
) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    (name,) = run_batch(scans, output, options).added
    before = table(output)[name]
    (scans / "patient").rename(scans / "study-001")
    outcome = run_batch(scans, output, options)
    assert (outcome.added, outcome.kept) == ((), (name,))
    assert outcome.notes == ("1 kept scan found in another place: rows and records name it.",)
    assert table(output) == {name: before | {"source": str(scans / "study-001")}}
    assert input_of(output / before["results"])["source"] == str(scans / "study-001")
    write_dicom_of_run(output / before["results"])
    assert run_batch(scans, output, options).notes == ()


def test_a_copy_of_a_series_makes_no_second_row(
    series: list[Path], options: RunOptions, tmp_path: Path
) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    (name,) = run_batch(scans, output, options).added
    row = table(output)[name]
    backup = scans / "backup" / "patient"
    shutil.copytree(scans / "patient", backup)
    outcome = run_batch(scans, output, options)
    assert (outcome.added, outcome.kept) == ((), (name,))
    assert outcome.notes == (f"Exact copies of series left out: 1, such as {backup}.",)
    assert table(output) == {name: row}

    (backup / series[0].name).unlink()  # a copy that is another scan
    outcome = run_batch(scans, output, options)
    assert (outcome.added, outcome.kept) == ((f"{name} backup/patient",), (name,))
    assert table(output)[name] == row

    shutil.rmtree(scans / "patient")
    backup.rename(scans / "renamed")
    outcome = run_batch(scans, output, options)
    assert (outcome.added, outcome.kept) == ((), (f"{name} backup/patient",))
    assert outcome.notes[1] == (
        f"{output / RESULTS_TABLE} keeps 1 row of scans that {scans} no longer has: to drop a row, "
        f"delete its results, such as {output / row['results']}."
    )
    assert table(output)[name] == row
    shutil.rmtree(output / row["results"])
    assert run_batch(scans, output, options).notes == ()
    assert list(table(output)) == [f"{name} backup/patient"]
    assert len(list((output / SCANS).iterdir())) == 1


def test_a_pseudonymous_copy_within_is_another_scan(
    series: list[Path], options: RunOptions, tmp_path: Path
) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    (name,) = run_batch(scans, output, options).added
    inner = scans / "patient" / "anonymous"
    inner.mkdir()
    for file in series:
        image = pydicom.dcmread(file)
        image.PatientID = image.PatientName = "A7"
        image.save_as(inner / file.name)
    assert [case.place for case in find_cases(scans)] == [scans / "patient", inner]
    outcome = run_batch(scans, output, options)
    other = f"{name} patient/anonymous"
    assert (outcome.added, outcome.kept) == ((other,), (name,))
    rows = table(output)
    assert {row["patient_id"] for row in rows.values()} == {"PHANTOM", "A7"}
    for row in rows.values():
        run = read_run(output / row["results"])
        assert run.scan.series and run.scan.series.patient_id == row["patient_id"]
        assert {one.file.parent for one in run.scan.slices} == {Path(row["source"])}
    for file in series:
        file.unlink()
    assert run_batch(scans, output, options).kept == (other,)
