"""Nodules of two scans of a patient find each other, and the command reports their growth."""

import csv
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressCallback, ProgressStyle
from CTLungScreeningLib.reading.ct_reading import read_ct
from follow_up_scans import (
    DOUBLED,
    DOUBLED_NOW,
    GONE,
    HALVED,
    HALVED_NOW,
    NEW_NOW,
    PRIOR_SPEC,
    STEADY,
    STEADY_NOW,
    breathed,
    follow_up_scans,
    measured,
    taken_again,
    write_truth_as_run,
)
from LungNoduleSegLib.commands import risk as commands
from LungNoduleSegLib.lungs.segmentation import segment_lungs
from LungNoduleSegLib.nodules.table import Side
from LungNoduleSegLib.phantom.chest import Phantom, make_phantom
from LungNoduleSegLib.results import growth_results
from LungNoduleSegLib.results.growth_results import GROWTH_PAGE, GROWTH_TABLE, compare_runs
from LungNoduleSegLib.results.reading import RECORD, RunResult, read_run
from LungNoduleSegLib.risk.alignment import align
from LungNoduleSegLib.risk.facts import Status
from LungNoduleSegLib.risk.growth import ChestScan, Growth, compare_scans
from LungNoduleSegLib.risk.growth_rate import Change
from LungNoduleSegLib.risk.growth_table import GROWTH_COLUMNS

pytestmark = pytest.mark.xdist_group("follow-up")


@pytest.fixture(scope="module")
def phantoms() -> tuple[Phantom, Phantom]:
    return follow_up_scans()


def scan(phantom: Phantom, again: Callable[[sitk.Image], sitk.Image], day: date) -> ChestScan:
    image, lungs, labels = (again(one) for one in (phantom.image, phantom.lungs, phantom.nodules))
    return ChestScan(str(day), image, lungs, measured(image, lungs, labels), day)


def as_it_is(image: sitk.Image) -> sitk.Image:
    return image


def pairs(growth: Growth) -> dict[tuple[int | None, int | None], Change]:
    return {
        (
            one.prior.id if one.prior else None,
            one.current.id if one.current else None,
        ): one.change
        for one in growth.nodules
    }


EXPECTED = {
    (DOUBLED, DOUBLED_NOW): Change.GROWN,
    (STEADY, STEADY_NOW): Change.UNCHANGED,
    (HALVED, HALVED_NOW): Change.SHRUNK,
    (None, NEW_NOW): Change.NEW,
    (GONE, None): Change.VANISHED,
}


def test_lesions_find_themselves_after_another_breath_on_any_grid(
    phantoms: tuple[Phantom, Phantom],
) -> None:
    prior, current = phantoms
    was = scan(prior, as_it_is, date(2020, 1, 1))
    for tilt, code in ((0.35, "RPI"), (0.0, "SAR")):
        again = partial(taken_again, to_phantom=breathed(), tilt=tilt, code=code)
        now = scan(current, again, date(2020, 7, 1))
        growth = compare_scans(was, now)
        assert pairs(growth) == EXPECTED, code
        assert [one.current.id for one in growth.nodules if one.current] == [1, 2, 3, 4]
        assert growth.days == 182
        for one in growth.nodules:
            assert one.apart_mm is None or one.apart_mm < 3
        (grown,) = (one for one in growth.nodules if one.change is Change.GROWN)
        assert grown.lung_rads is Status.GROWING
        # twice the volume, and what the deeper breath added by stretching everything
        assert 1 + (grown.volume_change or 0) == pytest.approx(2 / (0.97 * 0.93), rel=0.08)
        (gone,) = (one for one in growth.nodules if one.change is Change.VANISHED)
        true = breathed().GetInverse().TransformPoint(prior.lesions[GONE - 1].centre)
        assert np.linalg.norm(np.subtract(gone.current_point, true)) < 4
        (new,) = (one for one in growth.nodules if one.change is Change.NEW)
        assert np.linalg.norm(np.subtract(new.prior_point, current.lesions[0].centre)) < 4


def test_alignment_is_the_same_each_time_and_starts_far_away(
    phantoms: tuple[Phantom, Phantom],
) -> None:
    prior, current = phantoms
    far = sitk.AffineTransform(breathed())
    far.SetTranslation((300.0, -500.0, 1200.0))
    moved = [taken_again(one, far) for one in (current.image, current.lungs)]
    one, other = (align(prior.image, prior.lungs, *moved) for _ in range(2))
    for side in Side:
        assert one.to_current[side].GetParameters() == other.to_current[side].GetParameters()
        assert one.overlap[side] > 0.95
        assert one.likeness[side] > 0.9
    for lesion in prior.lesions:
        side = Side.RIGHT if lesion.centre[0] < 0 else Side.LEFT
        found = one.current_point(side, lesion.centre)
        assert (
            np.linalg.norm(np.subtract(found, far.GetInverse().TransformPoint(lesion.centre))) < 4
        )
        assert one.prior_point(side, found) == pytest.approx(lesion.centre, abs=1e-6)


@pytest.mark.parametrize("blank", [0, 30])
def test_a_lung_base_that_was_cut_off_is_not_a_nodule_that_vanished(
    phantoms: tuple[Phantom, Phantom], blank: int
) -> None:
    """Nor where blank slices stand in its place."""
    prior, _ = phantoms
    was = scan(prior, as_it_is, date(2020, 1, 1))
    heights = sorted((one.z, one.id) for one in was.nodules)
    gone = {one for _, one in heights[:3]}
    cut = prior.image.TransformPhysicalPointToIndex((0, 0, heights[2][0] + 12))[2]
    now = scan(
        prior,
        lambda image: sitk.ConstantPad(image[:, :, cut:], [0, 0, min(blank, cut)], [0, 0, 0], 0),
        date(2021, 1, 1),
    )
    assert {one.id for one in now.nodules} == {1, 2, 3, 4} - gone
    forth = compare_scans(was, now)
    back = compare_scans(replace(now, date=was.date), replace(was, date=now.date))
    for one in (1, 2, 3, 4):
        lost = one in gone
        assert pairs(forth)[(one, None if lost else one)] is (
            Change.NOT_SHOWN_NOW if lost else Change.UNCHANGED
        )
        assert pairs(back)[(None if lost else one, one)] is (
            Change.NOT_SHOWN_BEFORE if lost else Change.UNCHANGED
        )


def test_other_patients_and_other_parts_of_the_chest_do_not_look_alike(
    phantoms: tuple[Phantom, Phantom],
) -> None:
    prior, _ = phantoms
    other = make_phantom(replace(PRIOR_SPEC, seed=PRIOR_SPEC.seed + 1))
    middle = prior.image.GetDepth() // 2
    upper, lower = slice(middle, None), slice(None, middle)
    for one, two in (
        ((prior.image, prior.lungs), (other.image, other.lungs)),
        *(
            tuple([image[:, :, part] for image in (prior.image, prior.lungs)] for part in parts)
            for parts in ((upper, lower), (lower, upper))
        ),
    ):
        found = align(*one, *two)
        for side in Side:
            assert found.likeness[side] < 0.6
            assert not found.agrees(side)


def test_a_run_tells_which_nodules_the_scan_cuts(
    phantoms: tuple[Phantom, Phantom], tmp_path: Path
) -> None:
    prior, _ = phantoms
    whole = (prior.image, prior.lungs, prior.nodules)
    height = prior.image.TransformPhysicalPointToIndex(prior.lesions[STEADY - 1].centre)[2]
    image, lungs, labels = (one[:, :, height:] for one in whole)
    folders = [
        write_truth_as_run(tmp_path / "1", image, lungs, labels, "20200101"),
        write_truth_as_run(tmp_path / "2", *whole, date="20200701"),
    ]
    timeline = compare_runs(folders, tmp_path / "out")
    assert timeline.scans[0].cut == set(np.unique(sitk.GetArrayFromImage(labels)[0])) - {0}
    assert STEADY in timeline.scans[0].cut
    (track,) = (one for one in timeline.tracks if one.nodules[-1] and one.last.id == STEADY)
    assert track.change is Change.NOT_COMPARABLE
    assert any(
        f"Nodule {STEADY} of" in note and "end of the scan" in note for note in timeline.notes
    )


@pytest.fixture(scope="module")
def runs(
    phantoms: tuple[Phantom, Phantom], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    prior, current = phantoms
    folder = tmp_path_factory.mktemp("runs")
    image, lungs, labels = (
        taken_again(one, breathed()) for one in (current.image, current.lungs, current.nodules)
    )
    return (
        write_truth_as_run(folder / "1", prior.image, prior.lungs, prior.nodules, "20200101"),
        write_truth_as_run(folder / "2", image, lungs, labels, "20200701"),
    )


def test_the_command_writes_table_and_page(runs: tuple[Path, Path], tmp_path: Path) -> None:
    call = [sys.executable, "-m", "LungNoduleSegLib", "growth", *map(str, runs)]
    call += ["-o", str(tmp_path / "out")]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"Nodule 3, \w+ lung: grown, volume \+1\d\d % since the last scan, "
        r"doubling time (\d+) days \(95 %: (\d+) to (\d+)\)",
        done.stdout,
    )
    with (tmp_path / "out" / GROWTH_TABLE).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == list(GROWTH_COLUMNS)
    found = {(row["prior_id"], row["current_id"]): row["change"] for row in rows}
    assert found == {
        (str(a or ""), str(b or "")): str(change) for (a, b), change in EXPECTED.items()
    }
    grown = next(row for row in rows if row["change"] == "grown")
    before, after = (
        np.count_nonzero(sitk.GetArrayFromImage(image) == number) * np.prod(image.GetSpacing())
        for image, number in (
            (sitk.ReadImage(runs[0] / "nodules.nii.gz"), DOUBLED),
            (sitk.ReadImage(runs[1] / "nodules.nii.gz"), DOUBLED_NOW),
        )
    )
    by_hand = 182 / math.log2(after / before)
    assert float(grown["doubling_days"]) == pytest.approx(by_hand, abs=0.06)
    assert grown["days"] == "182"
    page = (tmp_path / "out" / GROWTH_PAGE).read_text(encoding="utf-8")
    assert page.count("Research use only") == 1
    measured_twice = [row for row in rows if row["prior_id"] and row["current_id"]]
    assert page.count("<svg") == 2 * len(rows) + len(measured_twice)
    assert "growing (measured)" in page
    assert re.search(r"Nodule 3: [^<]+; Lung-RADS v2022: 4B", page)
    assert "2020-01-01" in page
    assert "182 days" in page
    for article in re.findall(r"<article class=.track.*?</article>", page, re.DOTALL):
        pictures = article.split('<svg class="curve"')[0]
        boxes = re.findall(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ([\d.]+)"', pictures)
        assert len(boxes) == 2
        assert boxes[0] == boxes[1], "the same scale"
    again = subprocess.run(call, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "already holds growth.csv, growth.html, timeline.csv" in again.stderr


def test_runs_that_cannot_be_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    prior, current = runs
    with pytest.raises(InputError, match="named twice"):
        compare_runs([prior, prior], tmp_path)
    with pytest.raises(InputError, match="is later than the current scan"):
        compare_runs([current, prior], tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / RECORD).write_text("[1]", encoding="utf-8")
    with pytest.raises(InputError, match="not the record of a run"):
        compare_runs([broken, current], tmp_path)
    (broken / RECORD).write_text(
        json.dumps({"input": {"source": str(tmp_path / "away"), "series": None}}), encoding="utf-8"
    )
    with pytest.raises(InputError, match="no longer there"):
        compare_runs([broken, current], tmp_path)
    whole = json.loads((prior / RECORD).read_text(encoding="utf-8"))
    series = whole["input"]["series"]
    for change in (
        {"parameters": 3},
        {"model": [1]},
        {"parameters": {"rules": "x"}},
        {"input": 3},
        {"input": whole["input"] | {"source": 3}},
        {"input": whole["input"] | {"series": "x"}},
        {"input": whole["input"] | {"series": series | {"study_date": 5}}},
    ):
        (broken / RECORD).write_text(json.dumps(whole | change), encoding="utf-8")
        with pytest.raises(InputError, match=r"broken/run\.json is not the record of a run"):
            compare_runs([broken, current], tmp_path)
    away = json.loads((prior / RECORD).read_text(encoding="utf-8"))
    (broken / RECORD).write_text(json.dumps(away), encoding="utf-8")
    with pytest.raises(InputError, match=r"lungs\.nii\.gz is missing or damaged"):
        compare_runs([broken, current], tmp_path)
    assert not list(tmp_path.glob("growth.*"))


def test_scans_that_cannot_be_compared_are_not_segmented(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    prior, current = runs
    scans = [run.parent / "dicom" for run in runs]
    out = tmp_path / "out"
    again = tmp_path / "again"
    shutil.copytree(prior, again)
    with pytest.raises(InputError, match="again, too: name different scans"):
        compare_runs([prior, again], out)
    damaged = tmp_path / "damaged.nrrd"
    sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkInt16), damaged)
    damaged.write_bytes(damaged.read_bytes()[:-100])
    for named, days, words in (
        ([scans[0], scans[0]], None, "was named twice: name different scans"),
        ([prior, scans[0]], 3, f"{prior} is {scans[0]}, too: name different scans"),
        ([scans[0], damaged], 3, "damaged.nrrd"),
        ([scans[1], prior], None, "is later than the current scan"),
        ([prior, scans[1], current], 3, "Days can be set for two scans only"),
        ([scans[0]], None, "Growth needs at least two scans"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            commands.growth(named, out, days, progress=ProgressStyle.NONE)
        assert not out.exists()
    out.mkdir()
    (out / "prior").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link, and nothing"):
        commands.growth(scans, out, progress=ProgressStyle.NONE)
    (out / "prior").unlink()
    shutil.copytree(current, out / "prior")
    with pytest.raises(InputError, match=r"already holds lungs\.nii\.gz"):
        commands.growth(scans, out, progress=ProgressStyle.NONE)


def test_a_scan_segmented_by_an_earlier_call_is_not_segmented_again_nor_a_run_read_twice(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior, current = runs
    out = tmp_path / "out"
    shutil.copytree(prior, out / "prior")
    before = sorted((out / "prior").iterdir())
    read: list[Path] = []

    def noted(folder: Path, progress: ProgressCallback) -> RunResult:
        read.append(folder)
        return read_run(folder, progress)

    monkeypatch.setattr(growth_results, "read_run", noted)
    commands.growth([prior.parent / "dicom", current], out, progress=ProgressStyle.NONE)
    assert (out / GROWTH_TABLE).is_file()
    assert sorted((out / "prior").iterdir()) == before
    assert sorted(read) == sorted([current, out / "prior"])


@pytest.mark.slow
def test_a_real_nodule_is_found_again_in_the_scan_moved(shared_data: Path) -> None:
    folder = shared_data / "LIDC-IDRI-0001"
    image = read_ct(folder).image
    (mask,) = shared_data.rglob("LIDC-IDRI-0001_nodules_ge2of4readers.nrrd")
    lungs = segment_lungs(image)
    labels = sitk.Resample(
        sitk.ReadImage(mask, sitk.sitkUInt16) > 0,
        image,
        sitk.Transform(),
        sitk.sitkNearestNeighbor,
    )
    labels = sitk.RelabelComponent(sitk.ConnectedComponent(labels), 50)
    labels = sitk.Cast(labels, sitk.sitkUInt16)
    middle = image.TransformContinuousIndexToPhysicalPoint([n / 2 for n in image.GetSize()])
    to_scan = sitk.VersorRigid3DTransform((0.36, 0.48, 0.8), 0.1, (25.0, -40.0, 60.0), middle)
    moved = [
        sitk.Resample(
            one,
            (400, 400, 190),
            to_scan,
            sitk.sitkLinear if number == 0 else sitk.sitkNearestNeighbor,
            np.subtract(to_scan.GetInverse().TransformPoint(middle), (200, 200, 190)).tolist(),
            (1.0, 1.0, 2.0),
            np.eye(3).ravel().tolist(),
            -1000 if number == 0 else 0,
        )
        for number, one in enumerate((image, lungs, labels))
    ]
    was = ChestScan("before", image, lungs, measured(image, lungs, labels))
    now = ChestScan("after", moved[0], moved[1], measured(*moved))
    assert was.nodules
    growth = compare_scans(was, now, 90)
    assert pairs(growth) == {(one.id, one.id): Change.UNCHANGED for one in was.nodules}
    for one in growth.nodules:
        assert one.apart_mm is not None
        assert one.apart_mm < 3
    for lung, overlap in growth.alignment.overlap.items():
        assert overlap > 0.95, lung
