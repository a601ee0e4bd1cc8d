"""Masks are compared slice by slice, scan by scan and nodule by nodule, on one grid only."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.json_files import read_object, write_object
from LungNoduleSegLib.cli import app
from LungNoduleSegLib.evaluation.dice import (
    ScanDice,
    compare_masks,
    evaluate_dice,
    slice_dice,
    summary,
    to_text,
)
from LungNoduleSegLib.evaluation.masks import read_mask
from LungNoduleSegLib.results.segments import write_segmentation
from risk_tables import write_run

SPACING = (0.7, 0.8, 2.5)
OBLIQUE = sitk.VersorTransform([0.2, 1.0, 0.1], np.radians(12)).GetMatrix()


def image(array: NDArray[np.generic], direction: tuple[float, ...] | None = None) -> sitk.Image:
    result = sitk.GetImageFromArray(array)
    result.SetSpacing(SPACING)
    result.SetOrigin((-40, 30, -100))
    if direction is not None:
        result.SetDirection(direction)
    return result


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> NDArray[np.bool_]:
    offset = [axis - c for axis, c in zip(np.indices(shape), centre, strict=True)]
    return sum(o * o for o in offset) <= radius * radius


def two_nodules() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Truth of two nodules, one found in two parts a pixel off, and something that is none."""
    shape = (12, 40, 40)
    truth = ball(shape, (5, 12, 12), 5) | ball(shape, (6, 30, 30), 3)
    found = ball(shape, (5, 12, 13), 5) | ball(shape, (10, 6, 34), 1)
    found[:, 12] = False
    return truth.astype(np.uint8), found.astype(np.uint8)


def dice_of(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(2 * ((a > 0) & (b > 0)).sum() / ((a > 0).sum() + (b > 0).sum()))


def test_slices_of_arrays_are_compared_as_in_the_tutorial() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((6, 16, 16)) > 0.8).astype(np.float32)
    truth[2] = 0
    predicted = rng.random((6, 16, 16)).astype(np.float32)
    for t, p, dice in zip(truth, predicted, slice_dice(truth, predicted), strict=True):
        flat_t, flat_p = t.flatten().astype(float), p.flatten().astype(float)
        expected = (2.0 * (flat_t * flat_p).sum() + 1.0) / (flat_t.sum() + flat_p.sum() + 1.0)
        assert dice == pytest.approx(expected, rel=1e-6)


def test_arrays_of_the_tutorial_count_every_slice(tmp_path: Path) -> None:
    truth = np.zeros((4, 1, 8, 8), np.float32)
    truth[:2, 0, 2:5, 2:5] = 1
    predicted = truth.copy()
    predicted[1] = 0.5
    np.save(tmp_path / "testMasks.npy", truth)
    np.save(tmp_path / "predicted.npy", predicted)
    means = summary(evaluate_dice(tmp_path / "predicted.npy", tmp_path / "testMasks.npy"))
    each = [1, (2 * 4.5 + 1) / (9 + 32 + 1), 1, 1]
    assert means["mean_slice_dice"] == pytest.approx(np.mean(each))
    assert (means["slices"], means["mean_scan_dice"], means["mean_nodule_dice"]) == (4, None, None)


def test_each_nodule_is_held_against_all_that_belongs_to_it() -> None:
    truth, found = two_nodules()
    scan = compare_masks("x", image(found), image(truth))
    first = ball(truth.shape, (5, 12, 12), 5)
    own = found.astype(bool) & ball(truth.shape, (5, 12, 13), 5)
    assert [one.dice for one in scan.nodules] == pytest.approx([dice_of(first, own), 0])
    assert scan.false_positives == 1
    assert scan.scan is not None and scan.scan.dice == pytest.approx(dice_of(truth, found))
    voxel = np.prod(SPACING)
    assert scan.nodules[0].truth == pytest.approx(first.sum() * voxel)
    means = summary([scan])
    assert (means["nodules"], means["found"], means["false_positives"]) == (2, 1, 1)
    assert means["mean_slice_dice"] > means["mean_slice_dice_marked"] > 0


def test_nodules_are_counted_by_size() -> None:
    truth, found = two_nodules()
    scan = compare_masks("x", image(found), image(truth))
    rows = summary([scan])["subgroups"]["rows"]
    assert (rows[0]["by"], rows[0]["nodules"], rows[0]["found"]) == ("all", 2, 1)
    sizes = [float(np.cbrt(6 * one.truth / np.pi)) for one in scan.nodules]
    for row in rows[1:]:
        low, high = map(float, row["name"].removesuffix(" mm").split("-"))
        assert row["by"] == "size"
        assert row["nodules"] == sum(low <= size < high for size in sizes)
    assert rows[0]["dice"] == pytest.approx(scan.nodules[0].dice)  # of those found
    assert "1 of 2" in to_text([scan]) and "mm" in to_text([scan])


def test_labels_keep_nodules_that_touch_apart() -> None:
    truth = np.zeros((6, 20, 20), np.uint8)
    truth[2:4, 4:10, 4:10], truth[2:4, 4:10, 10:16] = 1, 2
    together = compare_masks("x", image((truth > 0).astype(np.uint8)), image(truth))
    # The one prediction belongs to the first nodule, as it shares as much with both.
    assert [one.dice for one in together.nodules] == pytest.approx([2 / 3, 0])
    apart = compare_masks("x", image(truth), image(truth))
    assert [one.dice for one in apart.nodules] == [1, 1]
    assert len(compare_masks("x", image(truth), image((truth > 0) * np.uint8(7))).nodules) == 1


def test_a_numbered_nodule_in_two_pieces_stays_one(tmp_path: Path) -> None:
    pieces = np.zeros((6, 20, 20), np.uint8)
    pieces[2:4, 4:10, 4:10], pieces[2:4, 4:10, 12:14] = 1, 1
    none = np.zeros_like(pieces)
    write_segmentation(tmp_path / "s.seg.nrrd", image(none), image(pieces.astype(np.uint16)))
    for value in (1, 3, 255):
        sitk.WriteImage(image(pieces * np.uint8(value)), tmp_path / f"{value}.nrrd")
    write_run(tmp_path / "run", nodules=1)
    labels = sitk.ReadImage(tmp_path / "run" / "nodules.nii.gz")
    labels[:, 11, :] = 0
    sitk.WriteImage(labels, tmp_path / "run" / "nodules.nii.gz")
    for name, numbers in (
        ("1.nrrd", [1, 2]),
        ("255.nrrd", [1, 2]),
        ("3.nrrd", [3]),
        ("s.seg.nrrd", [1]),
        ("run", [1]),
    ):
        (scan,) = evaluate_dice(tmp_path / name, tmp_path / name)
        assert [one.number for one in scan.nodules] == numbers, name
        assert scan.scan is not None and scan.scan.dice == 1


def test_empty_masks_have_no_coefficient() -> None:
    empty, some = np.zeros((4, 8, 8), np.uint8), np.zeros((4, 8, 8), np.uint8)
    some[1, 2:4, 2:4] = 1
    nothing = compare_masks("x", image(empty), image(empty))
    assert (nothing.scan, nothing.slices, nothing.nodules) == (None, (), ())
    assert summary([nothing])["mean_scan_dice"] is None
    false = compare_masks("x", image(some), image(empty))
    assert false.scan is not None and false.scan.dice == 0
    assert false.false_positives == 1
    missed = compare_masks("x", image(empty), image(some))
    assert [one.dice for one in missed.nodules] == [0]


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.5), st.floats(0, 0.5))
def test_coefficients_agree_with_the_formula(seed: int, often: float, found_often: float) -> None:
    rng = np.random.default_rng(seed)
    truth = (rng.random((4, 6, 5)) < often).astype(np.uint8)
    found = (rng.random((4, 6, 5)) < found_often).astype(np.uint8)
    scan = compare_masks("x", image(found), image(truth))
    if truth.any() or found.any():
        assert scan.scan is not None and scan.scan.dice == pytest.approx(dice_of(truth, found))
    assert all(0 <= one.dice <= 1 for one in (*scan.slices, *scan.nodules))
    assert sum(one.truth for one in scan.nodules) == pytest.approx(truth.sum() * np.prod(SPACING))
    for one in (*scan.slices, *scan.false_slices):
        both = (truth[one.number] & found[one.number]).sum()
        total = truth[one.number].sum() + found[one.number].sum()
        assert one.dice == pytest.approx((2 * both + 1) / (total + 1))
    assert len(scan.slices) == truth.any(axis=(1, 2)).sum()


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz", ".mha"])
@pytest.mark.parametrize("direction", [None, (-1, 0, 0, 0, -1, 0, 0, 0, 1), OBLIQUE])
def test_any_form_and_direction_gives_the_same(
    suffix: str, direction: tuple[float, ...] | None, tmp_path: Path
) -> None:
    truth, found = two_nodules()
    expected = summary([compare_masks("t", image(found), image(truth))])
    sitk.WriteImage(image(truth, direction), tmp_path / f"t{suffix}")
    sitk.WriteImage(image(found, direction), tmp_path / "p.nrrd")
    means = summary(evaluate_dice(tmp_path / "p.nrrd", tmp_path / f"t{suffix}"))
    for key in ("mean_slice_dice", "mean_scan_dice", "mean_nodule_dice"):
        assert means[key] == pytest.approx(expected[key])


def test_slices_are_axial_however_the_volume_is_stored(tmp_path: Path) -> None:
    truth, found = (image(array) for array in two_nodules())
    expected = compare_masks("t", found, truth)
    turned = (sitk.PermuteAxes(one, (2, 0, 1))[::-1] for one in (found, truth))
    for one, name in zip(turned, ("p", "t"), strict=True):
        sitk.WriteImage(one, tmp_path / f"{name}.nrrd")
    (scan,) = evaluate_dice(tmp_path / "p.nrrd", tmp_path / "t.nrrd")
    assert [one.number for one in scan.slices] == [one.number for one in expected.slices]
    assert [one.dice for one in scan.slices] == pytest.approx([o.dice for o in expected.slices])


def test_other_grids_are_refused_unless_resampling_is_asked_for(tmp_path: Path) -> None:
    truth, found = (image(array) for array in two_nodules())
    sitk.WriteImage(truth, tmp_path / "t.nrrd")
    expected = compare_masks("t", found, truth).scan
    cropped = found[3:37, 2:38, :]
    sitk.WriteImage(cropped, tmp_path / "p.nrrd")
    with pytest.raises(InputError, match=r"34 × 36 × 12 and 40 × 40 × 12 voxels.*--resample"):
        evaluate_dice(tmp_path / "p.nrrd", tmp_path / "t.nrrd")
    (scan,) = evaluate_dice(tmp_path / "p.nrrd", tmp_path / "t.nrrd", resample=True)
    assert scan.scan == expected
    found.SetOrigin(np.add(found.GetOrigin(), (0, 0, 2.5)).tolist())
    sitk.WriteImage(found, tmp_path / "moved.nrrd")
    with pytest.raises(InputError, match=r"voxels up to 2.5 mm apart"):
        evaluate_dice(tmp_path / "moved.nrrd", tmp_path / "t.nrrd")


def test_nodules_of_a_segmentation_without_its_lungs(tmp_path: Path) -> None:
    truth, _ = two_nodules()
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(image(truth), True)).astype(np.uint16)
    lungs = np.ones(truth.shape, np.uint8)
    write_segmentation(tmp_path / "s.seg.nrrd", image(lungs), image(labels))
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(read_mask(tmp_path / "s.seg.nrrd")), labels
    )
    sitk.WriteImage(image(truth), tmp_path / "t.nii.gz")
    means = summary(evaluate_dice(tmp_path / "s.seg.nrrd", tmp_path / "t.nii.gz"))
    assert (means["mean_scan_dice"], means["mean_nodule_dice"], means["nodules"]) == (1, 1, 2)


def test_the_lungs_of_a_run_without_nodules_are_no_nodules(tmp_path: Path) -> None:
    truth, _ = two_nodules()
    sides = np.where(np.arange(40) < 20, 1, 2).astype(np.uint8) * np.ones_like(truth)
    none = np.zeros(truth.shape, np.uint16)
    write_segmentation(tmp_path / "s.seg.nrrd", image(sides), image(none))
    assert not sitk.GetArrayFromImage(read_mask(tmp_path / "s.seg.nrrd")).any()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("Right lung", "lung_lower_lobe_left"), []),
        (("Lungs", "Tumor of the lung"), [2]),
        (("Nodule 1", "Tumor"), [1]),
        (("Segment_1", "Segment_2"), [1, 2]),
    ],
)
def test_segments_that_are_named_as_lungs_never_count(
    names: tuple[str, ...], expected: list[int], tmp_path: Path
) -> None:
    labels, _ = two_nodules()
    labels[0] = 2
    write_segments(tmp_path / "s.seg.nrrd", labels, names)
    read = sitk.GetArrayFromImage(read_mask(tmp_path / "s.seg.nrrd"))
    assert sorted(np.unique(labels[read > 0])) == expected


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (("nodules",), 2),
        (("Segment_1", "Lungs"), 2),
        (("Nodule", "Other"), 2),
        (("Nodule 1",), 1),
        (("nodule_07",), 1),
        (("Nodule", "Nodule_1"), 2),
    ],
)
def test_one_segment_of_all_nodules_is_divided_as_a_mask_is(
    names: tuple[str, ...], count: int, tmp_path: Path
) -> None:
    truth, _ = two_nodules()
    truth[0] = 2
    write_segments(tmp_path / "s.seg.nrrd", truth, names)
    assert sitk.GetArrayFromImage(read_mask(tmp_path / "s.seg.nrrd")).max() == count


@pytest.mark.parametrize(
    ("key", "value"), [("LabelValue", "abc"), ("Layer", "3"), ("Layer", "-1"), ("Layer", "x")]
)
def test_a_segment_of_no_label_or_layer_is_named(key: str, value: str, tmp_path: Path) -> None:
    labels, _ = two_nodules()
    file = tmp_path / "s.seg.nrrd"
    write_segments(file, labels, ("A",), **{f"Segment0_{key}": value})
    with pytest.raises(InputError, match=r"nrrd does not have the label .* Segment0 names"):
        read_mask(file)


HOSTILE_HEADERS = {
    "directory above": ({"data file": "../v.raw"}, "in another folder"),
    "data beside": ({"data file": "v.raw"}, "keeps its voxels in another file"),
    "like a text": ({"data file": "%999999d.raw :=1 8 1"}, "over several files"),
    "format": ({"data file": "%999999d.raw 1 8 1"}, "over several files"),
    "list": ({"data file": "LIST"}, "over several files"),
    "sheared": ({"space directions": "(7,3,0) (0,7,0) (0,0,8)"}, "not perpendicular"),
    "flat": ({"space directions": "none (0,7,0) (0,0,8)"}, "give a 3-D volume"),
    "no origin": ({"space origin": "(nan,0,0)"}, "does not say where it lies"),
    "huge": ({"sizes": "60000 60000 9"}, "is cut short"),
    "layers": ({"dimension": "4", "sizes": "9999999 2 3 4", "kinds": "list domain domain domain",
                "space directions": "none (7,0,0) (0,7,0) (0,0,8)"}, "makes no sense"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_HEADERS)
def test_a_segmentation_with_a_hostile_header_is_refused(case: str, tmp_path: Path) -> None:
    changes, message = HOSTILE_HEADERS[case]
    (tmp_path / "v.raw").write_bytes(bytes(24))
    file = write_nrrd(tmp_path / "s.seg.nrrd", Segment0_LabelValue="1", **changes)
    with pytest.raises(InputError, match=message):
        read_mask(file)


def test_the_grid_of_a_segmentation_is_in_mm_and_its_keys_may_be_any_words(tmp_path: Path) -> None:
    changes = {"space units": '"cm" "cm" "cm"', "My_Seg_LabelValue": "1", "My_Seg_Name": "nodule"}
    read = read_mask(write_nrrd(tmp_path / "s.seg.nrrd", **changes))
    assert read.GetSpacing() == (70, 70, 80)
    assert (sitk.GetArrayFromImage(read) == 1).all()


def test_segments_that_overlap_are_read_from_their_layers(tmp_path: Path) -> None:
    layers = np.zeros((12, 20, 30, 2), np.uint8)
    layers[:, 3:9, 4:8, 0] = layers[:, 5:9, 6:12, 1] = 1
    segments = {"Segment0_Name": "Body", "Segment0_LabelValue": "1", "Segment0_Layer": "0"}
    segments |= {"Segment1_Name": "Nodule", "Segment1_LabelValue": "1", "Segment1_Layer": "1"}
    result = sitk.GetImageFromArray(layers, isVector=True)
    result.SetSpacing(SPACING)
    for key, value in segments.items():
        result.SetMetaData(key, value)
    sitk.WriteImage(result, tmp_path / "s.seg.nrrd", useCompression=True)
    read = read_mask(tmp_path / "s.seg.nrrd")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), layers[..., 1])
    np.testing.assert_allclose(read.GetSpacing(), SPACING)


def write_nrrd(file: Path, **changes: str) -> Path:
    """Write a `.seg.nrrd` of 4 x 3 x 2 voxels of 1, with other fields or texts."""
    fields = {
        "type": "uchar",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "4 3 2",
        "space directions": "(7,0,0) (0,7,0) (0,0,8)",
        "encoding": "raw",
        "space origin": "(0,0,0)",
    }
    lines = [
        f"{key}:={value}" if "_" in key else f"{key}: {value}"
        for key, value in (fields | changes).items()
    ]
    file.write_bytes("\n".join(["NRRD0004", *lines, "", ""]).encode() + b"\1" * 24)
    return file


def write_segments(
    file: Path, labels: NDArray[np.uint8], names: tuple[str, ...], **more: str
) -> None:
    """Write a `.seg.nrrd` with one layer, whose segments have names and no codes."""
    result = image(labels)
    for n, name in enumerate(names):
        result.SetMetaData(f"Segment{n}_Name", name)
        result.SetMetaData(f"Segment{n}_LabelValue", str(n + 1))
    for key, value in more.items():
        result.SetMetaData(key, value)
    sitk.WriteImage(result, file, useCompression=True)


@pytest.mark.parametrize("name", ["t.nii.gz", "t.nii", "t.nrrd", "t.mha", "t.seg.nrrd"])
def test_a_mask_that_is_cut_short_is_refused(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (20, 40, 40)).astype(np.uint8)
    write_segments(tmp_path / name, labels, ("A", "B"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_mask(tmp_path / name)), labels)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=name):
        read_mask(tmp_path / name)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1e12, r"values up to 1e\+12"),
        (2.0**32, r"values up to 4\.29497e\+09"),
        (np.inf, "not numbers"),
        (-np.inf, "not numbers"),
        (np.nan, "not numbers"),
    ],
)
def test_values_that_are_no_labels_are_refused(value: float, message: str, tmp_path: Path) -> None:
    labels = two_nodules()[0].astype(np.float64)
    labels[0, 0, 0] = 2.0**32 - 1
    sitk.WriteImage(image(labels), tmp_path / "m.nrrd")
    assert sitk.GetArrayFromImage(read_mask(tmp_path / "m.nrrd")).max() == 2**32 - 1
    labels[0, 0, 0] = value
    sitk.WriteImage(image(labels), tmp_path / "m.nrrd")
    with pytest.raises(InputError, match=rf"m\.nrrd has .*{message}"):
        read_mask(tmp_path / "m.nrrd")


def test_folders_are_paired_by_name_and_runs_stand_for_their_nodules(tmp_path: Path) -> None:
    predicted, truth = tmp_path / "predicted", tmp_path / "truth"
    true, found = two_nodules()
    for folder in (predicted, truth):
        folder.mkdir()
    write_run(predicted / "chest.1")
    nodules = sitk.ReadImage(predicted / "chest.1" / "nodules.nii.gz")
    sitk.WriteImage(nodules, truth / "chest.1.nrrd")
    sitk.WriteImage(image(found), predicted / "b.nii.gz")
    sitk.WriteImage(image(true), truth / "b.nrrd")
    sitk.WriteImage(image(true), predicted / "spare.nrrd")
    scans = evaluate_dice(predicted, truth)
    assert [scan.name for scan in scans] == ["b", "chest.1"]
    assert [scan.scan.dice for scan in scans if scan.scan] == pytest.approx(
        [dice_of(true, found), 1]
    )
    (predicted / "b.nii.gz").unlink()
    with pytest.raises(InputError, match=r"b\.nrrd has no counterpart"):
        evaluate_dice(predicted, truth)


def test_a_nodule_whose_row_was_deleted_counts_no_more(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    table = tmp_path / "run" / "nodules.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:2]))
    assert set(np.unique(sitk.GetArrayFromImage(read_mask(tmp_path / "run")))) == {0, 1}


def test_the_command_writes_means_and_rows(tmp_path: Path) -> None:
    for name, array in zip(("t", "p"), two_nodules(), strict=True):
        sitk.WriteImage(image(array), tmp_path / f"{name}.nrrd")
    outputs = ["--json", str(tmp_path / "o.json"), "--csv", str(tmp_path / "o.csv")]
    masks = [str(tmp_path / "p.nrrd"), str(tmp_path / "t.nrrd")]
    run = CliRunner().invoke(app, ["evaluate", "dice", *masks, *outputs, "--progress", "none"])
    assert run.exit_code == 0, run.output
    means = json.loads((tmp_path / "o.json").read_text())
    assert f"{means['mean_nodule_dice']:.4f}" in run.stdout
    with (tmp_path / "o.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    slices = [float(r["dice"]) for r in rows if r["level"] == "slice" and float(r["true_mm3"])]
    assert np.mean(slices) == pytest.approx(means["mean_slice_dice"], abs=1e-5)
    assert sum(row["level"] == "nodule" for row in rows) == 2


def test_a_name_that_is_no_unicode_is_written(tmp_path: Path) -> None:
    figures = summary([ScanDice("bad\udcff.nii", (), (), None, (), 0)])
    write_object(tmp_path / "o.json", figures)
    assert read_object(tmp_path / "o.json")["scans"] == figures["scans"]


def test_what_is_no_mask_is_named(tmp_path: Path) -> None:
    truth, _ = two_nodules()
    good = tmp_path / "t.nrrd"
    sitk.WriteImage(image(truth), good)
    sitk.WriteImage(image(truth * np.float32(0.4)), tmp_path / "probability.nrrd")
    sitk.WriteImage(image(truth.astype(np.int16) - 900), tmp_path / "ct.nrrd")
    sitk.WriteImage(image(truth)[:, :, 3], tmp_path / "flat.nrrd")
    sitk.WriteImage(image(truth), tmp_path / "plain.seg.nrrd")
    (tmp_path / "broken.nrrd").write_text("NRRD0004\n")
    (tmp_path / "pickled.npy").write_bytes(b"\x80\x04N.")
    text = b"{'descr': '<f4', 'shape': (9, \n"
    (tmp_path / "open.npy").write_bytes(b"\x93NUMPY\1\0" + bytes([len(text), 0]) + text)
    np.save(tmp_path / "flat.npy", truth[0])
    np.save(tmp_path / "high.npy", truth * 255)
    np.save(tmp_path / "good.npy", truth)
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("probability.nrrd", "apply a threshold"),
        ("ct.nrrd", "name a mask, not a CT"),
        ("flat.nrrd", "give a 3-D volume"),
        ("plain.seg.nrrd", "names no segment"),
        ("broken.nrrd", "has a header that makes no sense"),
        ("none.nrrd", "does not exist"),
        ("empty", "is one mask"),
        ("good.npy", "an array and a volume"),
    ):
        with pytest.raises(InputError, match=message) as error:
            evaluate_dice(tmp_path / name, good)
        assert "\n" not in str(error.value)
    for name, message in (
        ("pickled.npy", "cannot be read as an array"),
        ("open.npy", "cannot be read as an array"),
        ("flat.npy", "save slices"),
        ("high.npy", "values outside"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate_dice(tmp_path / name, tmp_path / "good.npy")
