"""Annotated scans brought into a store, parted by patient, and written as the tutorial's arrays."""

import csv
import errno
import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from annotated_scans import NODULES, chest, write_luna
from CTLungScreeningLib.errors import Cancelled, InputError, sentence_of
from LungNoduleSegLib.cli import app
from LungNoduleSegLib.network.inference import BACKGROUND_STD
from LungNoduleSegLib.phantom.dicom import write_dicom_series
from LungNoduleSegLib.training_data import store as store_module
from LungNoduleSegLib.training_data.lidc_idri import prepare_lidc
from LungNoduleSegLib.training_data.luna16 import prepare_luna
from LungNoduleSegLib.training_data.preparation import ERRORS, ExampleChoice
from LungNoduleSegLib.training_data.store import (
    ARRAYS,
    export_arrays,
    read_store,
    split_examples,
    split_scans,
)

UIDS = ("1.2.840.1", "1.2.840.2", "1.2.840.3")


@pytest.fixture(scope="module")
def luna(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Three patients: the folder of the scans, the annotations and the store."""
    folder = tmp_path_factory.mktemp("luna16")
    scans, annotations = write_luna(folder, {uid: chest(n) for n, uid in enumerate(UIDS)})
    prepare_luna(scans, annotations, folder / "store")
    return scans, annotations, folder / "store"


def test_the_examples_are_the_slices_around_each_nodule(luna: tuple[Path, Path, Path]) -> None:
    scans = read_store(luna[2])
    assert [scan.name for scan in scans] == list(UIDS)
    for scan in scans:
        hu, lungs = scan.volume("hu"), scan.volume("lungs")
        assert hu.GetSize() == lungs.GetSize() == scan.volume("nodules").GetSize()
        centres = [hu.TransformPhysicalPointToIndex((n.x, n.y, n.z))[2] for n in scan.nodules]
        expected = sorted({k + step for k in centres for step in (-1, 0, 1)})
        assert list(scan.slices) == expected
        images, masks = scan.images(), scan.masks()
        assert images.shape == masks.shape == (len(expected), 1, 512, 512)
        assert images.dtype == masks.dtype == np.float32
        assert images[:, :, 0, 0] == pytest.approx(BACKGROUND_STD, abs=1e-5)
        for image, mask in zip(images, masks, strict=True):
            assert mask.min() == 0 and mask.max() == pytest.approx(1)
            assert image[mask > 0.99].min() > 0.5  # denser than the lung


def test_a_repeated_nodule_is_not_said_to_lie_outside_the_lungs(tmp_path: Path) -> None:
    scans, annotations = write_luna(tmp_path, {"1.2": chest(1, (*NODULES, NODULES[0]))})
    notes = prepare_luna(scans, annotations, tmp_path / "store").notes["1.2"]
    assert notes == ("Nodule 3 of 29.7 mm lies within another nodule or outside the scan.",)


@pytest.mark.parametrize("neighbours", [0, 2])
def test_neighbours_and_the_largest_nodule_can_be_chosen(tmp_path: Path, neighbours: int) -> None:
    scans, annotations = write_luna(tmp_path, {"1.2": chest(1, NODULES[::-1])})
    choice = ExampleChoice(neighbours=neighbours, largest_only=True)
    prepare_luna(scans, annotations, tmp_path / "store", choice)
    (scan,) = read_store(tmp_path / "store")
    assert [nodule.example for nodule in scan.nodules] == [False, True]
    assert len(scan.slices) == 2 * neighbours + 1
    labels = sitk.GetArrayFromImage(scan.volume("nodules"))
    assert set(np.unique(labels)) == {0, 1, 2}  # the smaller one stays marked in the scan
    here = [set(np.unique(labels[k])) for k in scan.slices]
    assert all(2 in numbers for numbers in here)
    if neighbours:
        assert any(1 in numbers for numbers in here)
    for k, mask in zip(scan.slices, scan.masks(), strict=True):
        assert mask.any() == (2 in np.unique(labels[k]))
        assert (
            len(
                np.unique(
                    sitk.GetArrayFromImage(
                        sitk.ConnectedComponent(
                            sitk.GetImageFromArray((mask[0] > 0.5).astype(np.uint8))
                        )
                    )
                )
            )
            == 2
        )


def test_a_preparation_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    scans, annotations = write_luna(tmp_path, {uid: chest(n) for n, uid in enumerate(UIDS[:2])})
    store = tmp_path / "store"
    store.mkdir()
    (store / ".lock").touch()  # of a run that was killed

    def stop(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("Scans", 1):
            raise Cancelled

    with pytest.raises(Cancelled):
        prepare_luna(scans, annotations, store, progress=stop)
    (first,) = read_store(store)
    written = (first.folder / "scan.json").stat().st_mtime_ns
    outcome = prepare_luna(scans, annotations, store)
    assert (outcome.kept, len(outcome.added)) == ((first.name,), 1)
    assert (first.folder / "scan.json").stat().st_mtime_ns == written
    with pytest.raises(InputError, match=r"other settings \(neighbours\)"):
        prepare_luna(scans, annotations, store, ExampleChoice(neighbours=2))
    with pytest.raises(InputError, match="is not a store"):
        prepare_luna(scans, annotations, scans)


def test_one_broken_scan_is_listed_and_tried_again(tmp_path: Path) -> None:
    scans, annotations = write_luna(tmp_path, {uid: chest(n) for n, uid in enumerate(UIDS[:2])})
    (raw,) = scans.rglob(f"{UIDS[0]}.raw")
    kept = raw.read_bytes()
    raw.write_bytes(kept[: len(kept) // 2])
    store = tmp_path / "store"
    outcome = prepare_luna(scans, annotations, store)
    assert outcome.added == (UIDS[1],) and len(outcome.failed) == 1
    (listed,) = csv.DictReader((store / ERRORS).open())
    assert UIDS[0] in listed["scan"] and "is cut short" in listed["error"]
    raw.write_bytes(kept)
    outcome = prepare_luna(scans, annotations, store)
    assert outcome.added == (UIDS[0],) and not outcome.failed
    assert len((store / ERRORS).read_text().splitlines()) == 1
    raw.write_bytes(b"")
    shutil.rmtree(scans / "subset1")
    with pytest.raises(InputError, match=ERRORS):
        prepare_luna(scans, annotations, tmp_path / "other")


def test_scans_of_one_name_are_listed_and_not_one_of_them_taken(tmp_path: Path) -> None:
    scans, annotations = write_luna(tmp_path, {uid: chest(n) for n, uid in enumerate(UIDS[:2])})
    sitk.WriteImage(chest(2).image, scans / f"{UIDS[0]}.nrrd")
    outcome = prepare_luna(scans, annotations, tmp_path / "store")
    assert (outcome.added, outcome.without, list(outcome.failed)) == ((UIDS[1],), 0, [UIDS[0]])
    (listed,) = csv.DictReader((tmp_path / "store" / ERRORS).open())
    for suffix in (".mhd", ".nrrd"):
        assert f"{UIDS[0]}{suffix}" in listed["error"]


def test_the_masks_of_luna16_are_no_scans(tmp_path: Path) -> None:
    scans, annotations = write_luna(tmp_path, {uid: chest(n) for n, uid in enumerate(UIDS[:2])})
    masks = scans / "seg-lungs-LUNA16"
    masks.mkdir()
    for uid in UIDS[:2]:
        (subset,) = scans.rglob(f"{uid}.mhd")
        lungs = sitk.Cast(sitk.ReadImage(subset) < -500, sitk.sitkUInt8) * 3
        sitk.WriteImage(lungs, masks / subset.name, useCompression=True)
    outcome = prepare_luna(scans, annotations, tmp_path / "store")
    assert (set(outcome.added), outcome.without, outcome.failed) == ({*UIDS[:2]}, 0, {})
    note = "Label maps (8-bit volumes) left out: 2."
    assert outcome.notes == {str(scans): (note,)}


def test_a_store_among_the_scans_is_none_of_them(tmp_path: Path) -> None:
    scans, annotations = write_luna(tmp_path, {UIDS[0]: chest(1)})
    for _ in range(2):
        outcome = prepare_luna(scans, annotations, scans / "store")
        assert (outcome.without, outcome.failed, outcome.notes) == (0, {}, {})
    assert outcome.kept == (UIDS[0],)


def reading(uid: str, more: str = "") -> str:
    header = f"<ResponseHeader><SeriesInstanceUid>{uid}</SeriesInstanceUid></ResponseHeader>"
    return f"<LidcReadMessage>{header}{more}</LidcReadMessage>"


def test_readings_that_are_there_twice_or_without_a_scan_are_no_failures(tmp_path: Path) -> None:
    lidc, apart = tmp_path / "LIDC-IDRI", tmp_path / "LIDC-IDRI" / "tcia-lidc-xml"
    file, *_ = write_dicom_series(chest(1, ()).image, lidc / "scan")
    uid = pydicom.dcmread(file).SeriesInstanceUID
    apart.mkdir()
    for xml in (lidc / "scan" / "069.xml", apart / "158.xml"):
        xml.write_text(reading(uid))
    for n in range(3):
        (apart / f"{n}.xml").write_text(reading(f"1.2.{n}"))
    outcome = prepare_lidc(lidc, tmp_path / "store", empty_scans=True)
    assert (outcome.added, outcome.failed) == ((uid,), {})
    note = "Readings left out as their scans are not there: 3, such as tcia-lidc-xml/0.xml."
    assert outcome.notes == {str(lidc): (note,)}
    (apart / "158.xml").write_text(reading(uid, "<readingSession/>"))
    outcome = prepare_lidc(lidc, tmp_path / "store", empty_scans=True)
    assert list(outcome.failed) == ["tcia-lidc-xml/158.xml"]
    otherwise = f"reads series {uid} otherwise than {lidc / 'scan' / '069.xml'}: keep one."
    assert outcome.failed["tcia-lidc-xml/158.xml"].endswith(otherwise)


def test_readings_of_one_name_are_all_listed(tmp_path: Path) -> None:
    write_dicom_series(sitk.Image((16, 16, 6), sitk.sitkInt16), tmp_path / "scan")
    for place in "ab":
        (tmp_path / place).mkdir()
        (tmp_path / place / "068.xml").write_text("<LidcReadMessage")
    with pytest.raises(InputError, match="cannot be read"):
        prepare_lidc(tmp_path, tmp_path / "store")
    listed = [row["scan"] for row in csv.DictReader((tmp_path / "store" / ERRORS).open())]
    assert listed == ["a/068.xml", "b/068.xml"]


def test_scans_without_nodules_are_kept_on_request(tmp_path: Path) -> None:
    scans, annotations = write_luna(tmp_path, {"1.1": chest(1), "1.2": chest(2, ())})
    outcome = prepare_luna(scans, annotations, tmp_path / "store")
    assert (outcome.added, outcome.without) == (("1.1",), 1)
    outcome = prepare_luna(scans, annotations, tmp_path / "all", empty_scans=True)
    assert set(outcome.added) == {"1.1", "1.2"}
    empty = read_store(tmp_path / "all")[1]
    assert empty.slices == empty.nodules == () and empty.images().shape == (0, 1, 512, 512)
    assert not sitk.GetArrayFromImage(empty.volume("nodules")).any()


def test_no_patient_is_on_both_sides(luna: tuple[Path, Path, Path], tmp_path: Path) -> None:
    patients = tmp_path / "patients.csv"
    patients.write_text(
        "seriesuid,patient_id\n"
        + "".join(f"{uid},{name}\n" for uid, name in zip(UIDS, "aab", strict=True))
    )
    outcome = prepare_luna(luna[0], luna[1], tmp_path / "store", patients=patients)
    assert not outcome.notes
    scans = read_store(tmp_path / "store")
    assert [scan.patient for scan in scans] == ["a", "a", "b"]
    for seed in range(6):
        training, test = split_scans(scans, seed)
        assert {s.patient for s in training} | {s.patient for s in test} == {"a", "b"}
        assert not {s.patient for s in training} & {s.patient for s in test}
        split = split_examples(scans, seed)
        assert {e.scan.patient for e in split.training}.isdisjoint(
            e.scan.patient for e in split.test
        )
        assert len(split.training) + len(split.test) == sum(len(s.slices) for s in scans)
        assert split == split_examples(scans, seed)
    tutorial = split_examples(scans, 0, tutorial=True)
    assert len(tutorial.test) == int(0.2 * 18)
    assert {e.scan.patient for e in tutorial.training} == {"a", "b"}
    with pytest.raises(InputError, match="only one patient"):
        split_scans(scans[:2])


def test_scans_without_a_patient_are_counted_and_two_patients_refused(
    luna: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    patients = tmp_path / "patients.csv"
    patients.write_text(f"seriesuid,patient_id\n{UIDS[0]},a\n{UIDS[0]},a\n{UIDS[1]}.mhd,a\n")
    outcome = prepare_luna(luna[0], luna[1], tmp_path / "store", patients=patients)
    note = "It does not list 2 scans: each counts as a patient of its own."
    assert outcome.notes == {"patients.csv": (note,)}
    assert [scan.patient for scan in read_store(tmp_path / "store")] == ["a", *UIDS[1:]]
    patients.write_text(f"seriesuid,patient_id\n{UIDS[0]},a\n{UIDS[1]},a\n{UIDS[0]},b\n")
    with pytest.raises(InputError, match=r"patients\.csv line 4 names another patient"):
        prepare_luna(luna[0], luna[1], tmp_path / "other", patients=patients)


def test_the_tutorials_arrays_hold_each_example_once(
    luna: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    split = export_arrays(luna[2], tmp_path / "arrays", seed=4)
    arrays = {name: np.load(tmp_path / "arrays" / name, mmap_mode="r") for name in ARRAYS}
    counts = {"train": len(split.training), "test": len(split.test)}
    assert counts == {"train": 12, "test": 6}
    for name, array in arrays.items():
        assert array.shape == (counts["train" if name.startswith("train") else "test"], 1, 512, 512)
        assert array.dtype == np.float32
    scans = {scan.name: scan for scan in read_store(luna[2])}
    with (tmp_path / "arrays" / "examples.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len({(row["scan"], row["slice"]) for row in rows}) == 18
    for row in rows:
        scan = scans[row["scan"]]
        n = scan.slices.index(int(row["slice"]))
        for kind, stored in (("Images", scan.images()), ("Masks", scan.masks())):
            exported = arrays[f"{row['part']}{kind}.npy"][int(row["row"])]
            np.testing.assert_array_equal(exported, stored[n])
    with pytest.raises(InputError, match="already holds"):
        export_arrays(luna[2], tmp_path / "arrays")


def test_a_damaged_store_is_named(luna: tuple[Path, Path, Path], tmp_path: Path) -> None:
    store = shutil.copytree(luna[2], tmp_path / "store")
    scan = read_store(store)[0]
    (scan.folder / "images.npy").write_bytes(b"no array")
    (scan.folder / "hu.nrrd").write_bytes(b"no volume")
    with pytest.raises(InputError, match=r"images\.npy cannot be read"):
        scan.images()
    with pytest.raises(InputError, match=r"hu\.nrrd cannot be read"):
        scan.volume("hu")
    shutil.copytree(luna[2], store, dirs_exist_ok=True)
    count = len(scan.slices)
    for name, shape in (("images", (count - 1, 1, 512, 512)), ("masks", (count, 512, 512))):
        array = np.zeros(shape, np.float32)
        np.save(scan.folder / f"{name}.npy", array)
        with pytest.raises(InputError, match=rf"{name}\.npy does not fit .*scan\.json"):
            getattr(scan, name)()
    record = json.loads((scan.folder / "scan.json").read_text())
    for slices, words in (([9999], "hu.nrrd does not fit"), ([-1], "damaged"), (["1"], "damaged")):
        (scan.folder / "scan.json").write_text(json.dumps(record | {"slices": slices}))
        with pytest.raises(InputError, match=words):
            read_store(store)[0].volume("hu")
    (scan.folder / "scan.json").write_text('{"name": "x"}')
    with pytest.raises(InputError, match=r"scan\.json is damaged"):
        read_store(store)
    with pytest.raises(InputError, match="not a store of scans"):
        read_store(tmp_path)


def test_the_commands_prepare_and_export(luna: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run = CliRunner()
    store, arrays = tmp_path / "store", tmp_path / "arrays"
    call = ["prepare-luna", str(luna[0]), str(luna[1]), str(store), "--largest-only"]
    shown = run.invoke(app, [*call, "--neighbours", "0", "--progress", "none"])
    assert shown.exit_code == 0, shown.output
    assert "3 scans added, 0 kept, 0 without a nodule left out, 0 failed" in shown.output
    call = ["export-arrays", str(store), "-o", str(arrays), "--progress", "jsonl"]
    shown = run.invoke(app, [*call, "--tutorial-split"])
    assert isinstance(shown.exception, InputError)  # a fifth of three slices is none
    shown = run.invoke(app, call)
    result = json.loads(shown.output.splitlines()[-1])["result"]
    assert (result["training"], result["test"]) == (2, 1)


@pytest.mark.parametrize(
    ("writer", "error"),
    [
        ("write_image", InputError("hu.nrrd cannot be written.")),
        ("write_array", OSError(errno.ENOSPC, "No space left on device")),
    ],
)
def test_a_full_disk_ends_the_preparation_and_is_not_blamed_on_the_scan(
    luna: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    writer: str,
    error: Exception,
) -> None:
    monkeypatch.setattr(store_module, writer, Mock(side_effect=error))
    with pytest.raises(OSError, match=r"No space left|Input/output error") as raised:
        prepare_luna(luna[0], luna[1], tmp_path / "store")
    assert str(tmp_path / "store" / "scans") in sentence_of(raised.value)
    assert not (tmp_path / "store" / ERRORS).exists()


def test_lidc_idri_is_prepared_from_its_dicom_and_xml(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "LIDC-IDRI-0001"
    outcome = prepare_lidc(folder, tmp_path / "store", agreement=2)
    (scan,) = read_store(tmp_path / "store")
    assert outcome.added == (scan.name,) and not outcome.failed
    assert scan.patient == "LIDC-IDRI-0001"
    (nodule,) = scan.nodules
    assert nodule.readers == 4 and nodule.in_lungs > 0.97
    assert [rating["malignancy"] for rating in nodule.ratings] == [5, 5, 5, 4]
    assert nodule.diameter_mm == pytest.approx(23.4, abs=0.2)
    majority = sitk.Resample(
        sitk.ReadImage(shared_data / "LIDC-IDRI-0001_nodules_ge2of4readers.nrrd"),
        scan.volume("nodules"),
        sitk.Transform(),
        sitk.sitkNearestNeighbor,
        0,
    )
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(scan.volume("nodules")) > 0, sitk.GetArrayFromImage(majority) > 0
    )
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(folder / "000001.dcm", other)
    (other / "x.xml").write_text(
        (folder / "069.xml").read_text().replace("9720603192<", "9720603193<")
    )
    with pytest.raises(InputError, match="which is not in"):
        prepare_lidc(other, tmp_path / "store-2")
