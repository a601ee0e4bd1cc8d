"""Many scans: one table, a folder each, an error per case, and on where it was."""

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import TestCase
from unittest.mock import Mock

import numpy as np
import psutil
import pydicom
import pytest
import SimpleITK as sitk
from distributed import KilledWorker, LocalCluster

from bright_model import write_bright_model
from CTLungScreeningLib.child_process import FAILED_IN_PART
from CTLungScreeningLib.command_line import INTERRUPTED
from CTLungScreeningLib.errors import Cancelled, InputError
from CTLungScreeningLib.reading.ct_reading import IndexedScan
from CTLungScreeningLib.staging import staging_folder
from LungNoduleSegLib.batch import running, scan_work
from LungNoduleSegLib.batch.cases import Case, find_cases, voxels, write_list
from LungNoduleSegLib.batch.running import (
    BATCH_RECORD,
    SCANS,
    ScanProgress,
    count_workers,
    local_workers,
    run_batch,
)
from LungNoduleSegLib.batch.scan_work import COLUMNS, RESULTS_TABLE, Job, run_job
from LungNoduleSegLib.detectors.models import add_model, what_runs
from LungNoduleSegLib.lesions import Lesion
from LungNoduleSegLib.lungs.labels import lung_volumes_ml
from LungNoduleSegLib.nodules.table import read_nodules_csv
from LungNoduleSegLib.options import RunOptions
from LungNoduleSegLib.phantom.chest import PhantomSpec, make_phantom
from LungNoduleSegLib.phantom.dicom import write_dicom_series
from LungNoduleSegLib.results.reading import (
    DICOM_NAMES,
    LUNGS,
    NODULES,
    RECORD,
    REPORT,
    TABLE,
    result_names,
)
from LungNoduleSegLib.results.writing import write_dicom_of_run
from LungNoduleSegLib.run_cost import SETTINGS_FOLDER
from toy_models import command_model, zipped

SIZE = (96, 96, 40)
SPACING = (3.7, 3.7, 7.5)
GIB = 2**30
FACTS = {
    "age": 64,
    "sex": "female",
    "family_history": False,
    "emphysema": True,
    "ever_smoked": True,
    "prior_cancer": "none",
    "screening": True,
    "nodules": {"all": {"spiculation": False, "status": "baseline"}},
}

pytestmark = pytest.mark.xdist_group("batch")


@pytest.fixture(scope="module")
def phantoms() -> list[sitk.Image]:
    lesions = (Lesion((-70, 20, 45), 34, lobulation=0),)  # in a right upper lobe
    return [make_phantom(PhantomSpec(seed, SIZE, SPACING, lesions)).image for seed in (0, 1)]


@pytest.fixture
def scans(phantoms: list[sitk.Image], tmp_path: Path) -> Path:
    """A DICOM series, a volume file, a folder of damaged files and a file that is cut short."""
    folder = tmp_path / "scans"
    write_dicom_series(phantoms[0], folder / "one" / "deep")
    for name in ("two", "broken"):
        (folder / name).mkdir()
    sitk.WriteImage(phantoms[1], folder / "two" / "volume.nrrd")
    for number in range(3):
        (folder / "broken" / f"{number}.dcm").write_bytes(b"no DICOM at all")
    whole = (folder / "two" / "volume.nrrd").read_bytes()
    (folder / "two" / "cut.nrrd").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> RunOptions:
    file = tmp_path_factory.mktemp("model") / "bright.keras"
    return RunOptions(model=write_bright_model(file))


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a cluster within this process."""
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(params=["workers", "no Dask"])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """A scheduler, or None where the scans have to be run in this process."""
    if request.param == "no Dask":
        monkeypatch.setattr(running, "_is_dask_installed", lambda: False)
        return None
    address: str = request.getfixturevalue("scheduler")
    return address


def table(output: Path) -> dict[str, dict[str, str]]:
    with (output / RESULTS_TABLE).open(encoding="utf-8", newline="") as stream:
        return {row["source"].rsplit("/", 1)[-1]: row for row in csv.DictReader(stream)}


def times(output: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in output.rglob(RECORD)}


def test_each_scan_has_a_row_and_its_results_and_errors_stop_nothing(
    scans: Path, options: RunOptions, workers: str | None, tmp_path: Path
) -> None:
    output = scans / "out"  # below the source: no scan of the next time
    seen: list[ScanProgress] = []
    stages: list[tuple[str, int, int]] = []
    outcome = run_batch(
        scans,
        output,
        options,
        scheduler=workers,
        progress=lambda *stage: stages.append(stage),
        watch=seen.append,
    )
    rows = table(output)
    assert set(rows) == {"deep", "volume.nrrd", "0.dcm", "cut.nrrd"}
    assert len(outcome.added) == 2 and len(outcome.errors) == 2
    assert "cut.nrrd is cut short" in rows["cut.nrrd"]["error"]
    assert "0.dcm is not in any of the formats read here" in rows["0.dcm"]["error"]
    assert rows["deep"]["patient_id"] == "PHANTOM"
    assert rows["deep"]["scan"] == rows["deep"]["series_instance_uid"]
    assert rows["volume.nrrd"]["scan"] == "two/volume.nrrd"
    for name in ("deep", "volume.nrrd"):
        row, results = rows[name], output / rows[name]["results"]
        assert results.parent == output / SCANS
        assert sorted(file.name for file in results.iterdir()) == sorted(result_names(scene=False))
        nodules = read_nodules_csv(results / TABLE)
        assert int(row["nodules"]) == len(nodules) > 0
        assert float(row["largest_diameter_mm"]) == pytest.approx(
            max(one.diameter_mm for one in nodules), rel=1e-5
        )
        assert float(row["total_volume_mm3"]) == pytest.approx(
            sum(one.volume_mm3 for one in nodules), rel=1e-5
        )
        lungs = lung_volumes_ml(sitk.ReadImage(results / LUNGS))
        assert float(row["right_lung_ml"]) == pytest.approx(lungs["right"], rel=1e-5)
        assert float(row["seconds"]) > 0 and not row["error"]
    assert {entry.name for entry in output.iterdir()} == {RESULTS_TABLE, SCANS, BATCH_RECORD}
    assert ("Scans", 0, 4) in stages and stages[-1] == ("Scans", 4, 4)
    of_volume = [one.stage for one in seen if one.scan == "two/volume.nrrd"]
    assert {"Reading", "Lungs", "Nodules"} <= set(of_volume)
    assert len([one for one in seen if one.row]) == 4

    before = times(output)
    shutil.rmtree(scans / "broken")
    shutil.copy(scans / "two" / "volume.nrrd", scans / "two" / "cut.nrrd")
    again = run_batch(scans, output, options, scheduler=workers)
    assert set(again.kept) == set(outcome.added)
    assert again.added == ("two/cut.nrrd",) and not again.errors
    assert set(table(output)) == {"deep", "volume.nrrd", "cut.nrrd"}
    assert {file: now for file, now in times(output).items() if file in before} == before
    assert table(output)["cut.nrrd"]["nodules"] == rows["volume.nrrd"]["nodules"]
    assert table(output)["deep"] == rows["deep"]


def test_a_cancelled_batch_goes_on_and_takes_results_without_a_row(
    scans: Path, options: RunOptions, workers: str | None, tmp_path: Path
) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "Scans" and len(list((tmp_path / "out" / SCANS).rglob(RECORD))) == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        run_batch(scans, tmp_path / "out", options, scheduler=workers, progress=stop)
    (done,) = times(tmp_path / "out").items()
    assert not [one for one in (tmp_path / "out").iterdir() if one.name.startswith(".")]
    (tmp_path / "out" / RESULTS_TABLE).unlink(missing_ok=True)  # as if killed before its row
    outcome = run_batch(scans, tmp_path / "out", options, scheduler=workers)
    assert len(outcome.added) == 2
    assert times(tmp_path / "out")[done[0]] == done[1]
    assert [row["error"] == "" for row in table(tmp_path / "out").values()].count(True) == 2


def test_a_csv_file_lists_scans_with_facts(
    scans: Path, options: RunOptions, scheduler: str, tmp_path: Path
) -> None:
    (scans / "facts.json").write_text(json.dumps(FACTS))
    (scans / "wrong.json").write_text('{"age": "old"}')
    (scans / "list.csv").write_text(
        "path,facts\none/deep,facts.json\ntwo/volume.nrrd,wrong.json\n../away,\none/deep,\n\n"
    )
    outcome = run_batch(scans / "list.csv", tmp_path / "out", options, scheduler=scheduler)
    assert outcome.added == ("one/deep",)  # once, as it was listed first
    rows = table(tmp_path / "out")
    assert 0 < float(rows["deep"]["pancan_2b"]) < 1 and 0 < float(rows["deep"]["mayo"]) < 1
    assert rows["deep"]["lung_rads"] and not rows["deep"]["fleischner"]
    assert "wrong.json: age is 'old'; write a number." in rows["volume.nrrd"]["error"]
    assert rows["away"]["error"].startswith(f"{tmp_path / 'away'} does not exist")
    assert list(rows) == ["deep", "volume.nrrd", "away"]
    results = [folder.name for folder in (tmp_path / "out" / SCANS).iterdir()]
    assert results == ["one+2fdeep"]
    assert outcome.notes == (
        f"{scans / 'list.csv'} line 5 repeats the scan of line 2: it is run once.",
    )


def test_facts_that_change_are_used_without_running_the_networks(
    scans: Path,
    options: RunOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "_is_dask_installed", lambda: False)
    output, listed, facts = tmp_path / "out", scans / "list.csv", scans / "facts.json"
    listed.write_text("path,facts\none/deep,\ntwo/volume.nrrd,\n")
    run_batch(listed, output, options)
    before, volume = table(output)["deep"], table(output)["volume.nrrd"]
    record = output / before["results"] / RECORD
    labelled = record.with_name(NODULES).stat().st_mtime_ns
    assert not before["pancan_2b"]

    facts.write_text(json.dumps(FACTS))
    listed.write_text("path,facts\none/deep,facts.json\ntwo/volume.nrrd,\n")
    outcome = run_batch(listed, output, options)
    assert (outcome.added, set(outcome.kept)) == ((), {"one/deep", "two/volume.nrrd"})
    assert "The facts of 1 kept scan changed" in outcome.notes[0]
    added = table(output)["deep"]
    assert 0 < float(added["pancan_2b"]) < 1
    assert "Age" in record.with_name(REPORT).read_text(encoding="utf-8")
    assert json.loads(record.read_text())["parameters"]["clinical_data"] == FACTS
    assert record.with_name(NODULES).stat().st_mtime_ns == labelled

    assert run_batch(listed, output, options).notes == ()
    facts.write_text(json.dumps(FACTS | {"age": 80}))
    assert run_batch(listed, output, options).notes == outcome.notes
    assert float(table(output)["deep"]["pancan_2b"]) > float(added["pancan_2b"])
    facts.write_text('{"age": "old"}')
    assert list(run_batch(listed, output, options).errors) == ["one/deep"]
    listed.write_text("path,facts\none/deep,\ntwo/volume.nrrd,\n")
    run_batch(listed, output, options)
    assert table(output) == {"deep": before, "volume.nrrd": volume}


def test_facts_that_change_reach_the_dicom_report_too(
    scans: Path, options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_is_dask_installed", lambda: False)
    output, listed = tmp_path / "out", scans / "list.csv"
    listed.write_text("path,facts\none/deep,\n")
    run_batch(listed, output, options)
    folder = output / table(output)["deep"]["results"]
    write_dicom_of_run(folder)
    segmentation, earlier = (pydicom.dcmread(folder / name) for name in DICOM_NAMES)
    assert "PanCan" not in str(earlier)

    (scans / "facts.json").write_text(json.dumps(FACTS))
    listed.write_text("path,facts\none/deep,facts.json\n")
    assert not run_batch(listed, output, options).errors
    same, report = (pydicom.dcmread(folder / name) for name in DICOM_NAMES)
    assert "PanCan" in str(report)
    assert same == segmentation and segmentation.SOPInstanceUID in str(report)
    assert report.SOPInstanceUID != earlier.SOPInstanceUID

    (folder / DICOM_NAMES[0]).write_bytes(b"")
    (scans / "facts.json").write_text(json.dumps(FACTS | {"age": 80}))
    (problem,) = run_batch(listed, output, options).errors.values()
    assert "segmentation.dcm is missing, damaged or lacks a nodule" in problem
    assert json.loads((folder / RECORD).read_text())["parameters"]["clinical_data"] == FACTS


def test_a_batch_killed_while_facts_change_leaves_no_row_of_the_old_ones(
    scans: Path,
    options: RunOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "_is_dask_installed", lambda: False)
    output, listed = tmp_path / "out", scans / "list.csv"
    listed.write_text("path,facts\ntwo/volume.nrrd,\n")
    run_batch(listed, output, options)
    (scans / "facts.json").write_text(json.dumps(FACTS))
    listed.write_text("path,facts\ntwo/volume.nrrd,facts.json\n")
    with monkeypatch.context() as patch, pytest.raises(Cancelled):
        patch.setattr(scan_work, "_row", Mock(side_effect=Cancelled))
        run_batch(listed, output, options)
    run_batch(listed, output, options)
    assert table(output)["volume.nrrd"]["pancan_2b"]


def test_a_full_disk_is_not_blamed_on_the_scan(
    options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "lungs.nii.gz"))
    monkeypatch.setattr(scan_work, "_run", Mock(side_effect=full))
    job = Job(Case("a", tmp_path / "a.nrrd"), tmp_path / "r", tmp_path, tmp_path, options)
    assert run_job(job).error == (
        f"{tmp_path / 'lungs.nii.gz'} cannot be read or written (No space left on device): free "
        "space on the disk."
    )


def test_a_repeated_scan_with_other_facts_or_series_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    for first, second in (("a,,f.json", "a,,g.json"), ("a,,", "a,,g.json"), ("a b,,", "a,b,")):
        table.write_text(f"path,series,facts\nc,,\n{first}\n\n{second}\n")
        with pytest.raises(InputError, match=r"list\.csv line 5 repeats the scan of line 3 with"):
            find_cases(table)
    table.write_text("path,series,facts\na,1,f.json\na,2,g.json\na,1,\na,1,f.json\n")
    one, two = find_cases(table)
    assert (one.series, two.series) == ("1", "2")
    assert "line 5 repeats the scan of line 2" in one.note and not two.note


def test_a_list_that_was_written_is_read_and_replaces_none_but_its_own(
    phantoms: list[sitk.Image], tmp_path: Path
) -> None:
    series = tmp_path / "a folder, with a comma"
    write_dicom_series(phantoms[0], series)
    table = tmp_path / "new" / "list.csv"
    write_list(table, [(tmp_path / "gone", "1.2")])
    write_list(table, [(series, "1.2.3"), (series, "1.2.4")])
    cases = find_cases(table)
    assert [(case.place, case.series) for case in cases] == [(series, "1.2.3"), (series, "1.2.4")]
    table.write_text("name\nmine\n")
    with pytest.raises(InputError, match="is not a list of scans from this program"):
        write_list(table, [])
    assert table.read_text() == "name\nmine\n"
    with pytest.raises(InputError, match="cannot be made"):
        write_list(table / "below a file" / "list.csv", [])


def test_a_list_that_a_spreadsheet_saved_is_read(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text("Path, SERIES,\na,1.2,\n,,\n", encoding="utf-8-sig")
    (case,) = find_cases(table)
    assert (case.place, case.series) == (tmp_path / "a", "1.2")
    table.write_text("path;series;facts\na;;\n")
    with pytest.raises(InputError, match=r"list\.csv line 1 separates its columns by semicolons"):
        find_cases(table)
    table.write_text("path,series\na,b,1.2\n")
    with pytest.raises(InputError, match=r"list\.csv line 2 has 3 values for 2 columns"):
        find_cases(table)


def test_one_scan_is_a_batch_of_one(phantoms: list[sitk.Image], tmp_path: Path) -> None:
    sitk.WriteImage(phantoms[0], tmp_path / "scan.mha")
    (case,) = find_cases(tmp_path / "scan.mha")
    assert case == Case("scan.mha", tmp_path / "scan.mha")


def test_results_of_runs_are_no_scans(scans: Path, tmp_path: Path) -> None:
    results = scans / "earlier"
    results.mkdir()
    (results / RECORD).write_text("{}")
    shutil.copy(scans / "two" / "volume.nrrd", results / LUNGS)
    shutil.copytree(scans / "two", scans / "out" / ".unfinished-x" / "results")
    names = [case.name for case in find_cases(scans)]
    assert len(names) == 4 and not [name for name in names if name.startswith(("earlier", "out"))]


def test_scouts_are_no_scans(scans: Path) -> None:
    image = pydicom.dcmread(next((scans / "one" / "deep").iterdir()))
    image.ImageType, image.SeriesInstanceUID = ["ORIGINAL", "PRIMARY", "LOCALIZER"], "1.2.3"
    image.save_as(scans / "one" / "scout.dcm")
    notes: list[str] = []
    names = [case.name for case in find_cases(scans, notes=notes)]
    assert len(names) == 4 and "1.2.3" not in names
    assert notes == ["Series of localizers (scouts) or pictures left out: 1."]


def test_a_damaged_copy_of_a_series_spoils_no_other(scans: Path) -> None:
    whole, copy = scans / "one" / "deep", scans / "broken" / "copy"
    files = sorted(whole.iterdir())
    copy.mkdir()
    (copy / "1.dcm").write_bytes(files[1].read_bytes()[:3000])
    found = {case.place: case.source for case in find_cases(scans)}
    good, bad = found[whole], found[copy]
    assert isinstance(good, IndexedScan) and isinstance(bad, IndexedScan)
    assert good.read().image.GetDepth() == len(files)
    with pytest.raises(InputError, match="only 1 slice"):
        bad.read()

    spread = scans / "one" / "spread"
    spread.mkdir()
    for file in files[::2]:
        file.rename(spread / file.name)
    shutil.rmtree(copy)
    found = {case.place: case.source for case in find_cases(scans)}
    good = found[scans / "one"]
    assert isinstance(good, IndexedScan)
    assert good.read().image.GetDepth() == len(files)


def test_what_cannot_be_used_is_named(
    scans: Path, options: RunOptions, scheduler: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    bad = scans / "bad.csv"
    bad.write_text("scan\none\n")
    with pytest.raises(InputError, match="has no column path"):
        run_batch(bad, output, options)
    bad.write_text("path\n\n")
    with pytest.raises(InputError, match="lists no scans"):
        run_batch(bad, output, options)
    with pytest.raises(InputError, match="does not exist"):
        run_batch(tmp_path / "missing", output, options)
    with pytest.raises(InputError, match="missing: give one of a model"):
        run_batch(scans, output, RunOptions(model=tmp_path / "no.keras"))
    assert not output.exists()
    with pytest.raises(InputError, match="cannot be reached"):
        run_batch(scans, output, options, scheduler="nonsense")
    with staging_folder(output, "writing"), pytest.raises(InputError, match="Another run"):
        run_batch(scans, output, options, scheduler=scheduler)
    with pytest.raises(InputError, match="another rules"):
        run_batch(scans, output, RunOptions(model=options.model, threshold=0.3))
    with pytest.raises(InputError, match="another source"):
        run_batch(scans / "one", output, options)
    (output / RESULTS_TABLE).write_text(f"{','.join(COLUMNS)}\n{',' * len(COLUMNS)}1\n")
    with pytest.raises(InputError, match=r"results\.csv line 2 has \d+ values for \d+ columns"):
        run_batch(scans, output, options, scheduler=scheduler)
    (output / RESULTS_TABLE).write_text("mine")
    with pytest.raises(InputError, match=r"results\.csv is not the table of a batch"):
        run_batch(scans, output, options, scheduler=scheduler)
    assert (output / RESULTS_TABLE).read_text() == "mine"


def test_as_many_workers_as_cores_and_memory_allow(scans: Path) -> None:
    cases = find_cases(scans)
    sizes = {case.place.name: voxels(case) for case in cases}
    assert sizes["volume.nrrd"] == np.prod(SIZE)
    assert sizes["deep"] >= np.prod(SIZE)
    assert count_workers(cases, 2, 64 * GIB) == 2
    assert count_workers(cases, 64, 64 * GIB) == len(cases)
    assert count_workers(cases, 64, 4 * GIB) == 3
    assert count_workers(cases, 64, GIB) == 1
    large = Case("large", IndexedScan(scans, "1.2", tuple(["one"] * 800)))
    assert count_workers([large] * 8, 64, 16 * GIB) == 4


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "LungNoduleSegLib", "batch", *map(str, arguments)]


@pytest.mark.slow
def test_a_killed_batch_leaves_no_process_and_goes_on(
    scans: Path, options: RunOptions, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    model = ("--model", str(options.model), "--workers", "1")
    run = command(scans, "-o", output, *model, "--progress", "jsonl")
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event.get("scan_stage") == "Lungs":
                break
        tree = psutil.Process(process.pid).children(recursive=True)
        assert tree
        os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    _, alive = psutil.wait_procs(tree, timeout=20)
    assert not alive
    before = times(output)

    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == FAILED_IN_PART, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    result = events[-1]["result"]
    assert len(result["added"]) + len(result["kept"]) == 2
    assert len(result["errors"]) == 2
    assert {file: now for file, now in times(output).items() if file in before} == before
    assert {entry.name for entry in output.iterdir()} == {RESULTS_TABLE, SCANS, BATCH_RECORD}
    assert len([event for event in events if "row" in event]) == len(result["added"]) + 2

    last = subprocess.run(
        command(scans, "-o", output, *model, "--progress", "none"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert last.returncode == FAILED_IN_PART, last.stderr
    assert "0 scans run, 2 kept, 2 failed" in last.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("end", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("whole_group", [False, True], ids=["alone", "with its terminal"])
@pytest.mark.usefixtures("heeding_hangup")
def test_a_stopped_batch_leaves_no_program_and_no_copy(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, whole_group: bool
) -> None:
    monkeypatch.setenv(SETTINGS_FOLDER, str(tmp_path / "settings"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    started = tmp_path / "pid"
    sleep = "import os, pathlib, sys, time\n"
    sleep += f"pathlib.Path({str(started)!r}).write_text(f'{{os.getpid()}} {{sys.argv[1]}}\\n')\n"
    card = command_model(tmp_path, f"{sleep}time.sleep(600)\n")
    model = add_model(zipped(card, tmp_path, tmp_path / "a.zip"), may_run=what_runs(card))
    run = command(scans, "-o", tmp_path / "out", "--model", model.parent.name, "--workers", "1")
    with subprocess.Popen(run, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        while not (started.exists() and started.read_text().endswith("\n")):
            assert process.poll() is None
            time.sleep(0.1)
        (os.killpg if whole_group else os.kill)(process.pid, getattr(signal, end))
    pid, copy = started.read_text().split()
    assert process.returncode == INTERRUPTED
    assert not psutil.pid_exists(int(pid))
    assert not Path(copy).exists()
    assert [one.name for one in (tmp_path / "tmp").iterdir()] in ([], ["dask-scratch-space"])


@pytest.mark.slow
def test_the_workers_of_this_machine_are_closed_to_others_and_end_with_it(tmp_path: Path) -> None:
    with local_workers([], tmp_path, 1) as client:
        assert str(client.scheduler_info()["address"]).startswith("tls://127.0.0.1")
        (worker,) = (psutil.Process(pid) for pid in client.run(os.getpid).values())
        mine = [*psutil.Process().net_connections(), *worker.net_connections()]
        listening = [one for one in mine if one.status == psutil.CONN_LISTEN]
        assert listening and {one.laddr.ip for one in listening} == {"127.0.0.1"}
        (threads,) = client.run(os.getenv, "TF_NUM_INTRAOP_THREADS").values()
        assert int(threads) >= 1
        with TestCase().assertLogs("distributed.scheduler", "ERROR"):
            future = client.submit(os._exit, 1, pure=False)
            assert isinstance(future.exception(timeout=120), KilledWorker)
    assert not worker.is_running()
