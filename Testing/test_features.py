"""Features of scans: the tutorial's nine, ours in mm, and the table that holds them."""

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_reading import IndexedScan
from CTLungScreeningLib.staging import only_writer
from LungNoduleSegLib.feature_extraction import (
    features_of,
    find_scans,
    results_folder,
    write_feature_table,
)
from LungNoduleSegLib.phantom.dicom import write_dicom_series
from LungNoduleSegLib.risk.features import (
    IDENTIFIERS,
    NODULE_FEATURES,
    SCAN_FEATURES,
    SLICE_FEATURES,
    nodule_features,
    scan_features,
    slice_features,
)
from risk_tables import image, two_squares, write_run


def ellipsoid(
    spacing: tuple[float, float, float], axes_mm: tuple[float, float, float], size_mm: float = 44
) -> sitk.Image:
    """An ellipsoid by its axes along x, y and z in the middle of a grid."""
    shape = [round(size_mm / s) for s in spacing]
    x, y, z = (
        (np.arange(n) - (n - 1) / 2) * s / (axis / 2)
        for n, s, axis in zip(shape, spacing, axes_mm, strict=True)
    )
    inside = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= 1
    return image(inside.astype(np.uint8), spacing)


def test_the_tutorials_nine_features_equal_those_worked_out_by_hand() -> None:
    features = slice_features(image(two_squares()))
    diameters = np.sqrt(4 * np.array([9, 25]) / np.pi)
    assert list(features) == list(SLICE_FEATURES)
    assert features["average_area"] == 17
    assert features["max_area"] == 25
    assert features["average_eccentricity"] == pytest.approx(0, abs=1e-6)
    assert features["average_equivalent_diameter"] == pytest.approx(diameters.mean())
    assert features["std_equivalent_diameter"] == pytest.approx(diameters.std())
    assert features["weighted_x"] == pytest.approx((5 * 9 + 15 * 25) / 34)
    assert features["weighted_y"] == pytest.approx((10 * 9 + 6 * 25) / 34)
    assert features["number_of_nodes"] == 2
    assert features["nodes_per_slice"] == 0.5


@pytest.mark.parametrize("form", ["probability", "labels", "255"])
def test_a_mask_a_label_image_and_probabilities_give_the_same(form: str) -> None:
    mask = two_squares()
    noise = np.random.default_rng(0).uniform(0, 0.4, mask.shape)
    other = {
        "probability": np.where(mask, 0.9, noise).astype(np.float32),
        "labels": mask * np.arange(4, dtype=np.uint16)[:, None, None],
        "255": mask * np.uint8(255),
    }[form]
    assert slice_features(image(other)) == slice_features(image(mask))


def test_a_region_above_a_tenth_of_the_slice_is_left_out_and_one_of_a_tenth_kept() -> None:
    mask = two_squares()
    expected = slice_features(image(mask))
    mask[0, :2, :] = 1
    with_tenth = slice_features(image(mask))
    assert with_tenth["number_of_nodes"] == 3
    assert with_tenth["max_area"] == 40
    mask[0, 2, 0] = 1
    assert slice_features(image(mask)) == expected


@pytest.mark.parametrize("value", [0, 1])
def test_without_a_region_every_feature_is_zero(value: int) -> None:
    features = scan_features(image(np.full((3, 9, 9), value, np.uint8)), [])
    assert features == dict.fromkeys(SCAN_FEATURES, 0.0)


def test_a_single_nodule_and_a_single_voxel_have_finite_features() -> None:
    mask = np.zeros((5, 40, 40), np.uint8)
    mask[2, 20, 20] = 1
    labels = image(mask, (0.7, 0.7, 2.5))
    nodules = nodule_features(labels)
    features = scan_features(labels, nodules.values())
    assert features["nodule_count"] == 1
    assert features["std_diameter_mm"] == features["std_equivalent_diameter"] == 0
    measured = [n for n in NODULE_FEATURES if not np.isnan(features[f"largest_{n}"])]
    assert measured == list(NODULE_FEATURES)[: list(NODULE_FEATURES).index("mean_hu")]
    assert features["largest_volume_mm3"] == pytest.approx(0.7 * 0.7 * 2.5)


@settings(max_examples=12)
@given(
    axes=st.tuples(*[st.floats(14, 30)] * 3),
    spacing=st.tuples(*[st.sampled_from([0.7, 1.0, 1.4])] * 3),
)
def test_shape_follows_that_of_an_ellipsoid_on_any_grid(
    axes: tuple[float, float, float], spacing: tuple[float, float, float]
) -> None:
    (features,) = nodule_features(ellipsoid(spacing, axes)).values()
    third, second, first = sorted(axes)
    coarse = 0.5 * max(spacing) / first  # half a voxel on either axis of the ratio
    assert features["volume_mm3"] == pytest.approx(np.pi / 6 * np.prod(axes), rel=0.05)
    assert features["longest_3d_mm"] == pytest.approx(first, abs=2 * max(spacing))
    assert features["elongation"] == pytest.approx(second / first, abs=0.04 + coarse)
    assert features["flatness"] == pytest.approx(third / first, abs=0.04 + coarse)
    assert features["diameter_mm"] == pytest.approx(max(axes[:2]), abs=2 * max(spacing))
    assert features["surface_regularity"] > 0.85


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_flipped_and_turned_grids_give_the_same_features(axes: tuple[int, ...]) -> None:
    labels = ellipsoid((0.8, 1.0, 1.5), (24, 14, 18))
    turned = sitk.Flip(sitk.PermuteAxes(labels, axes), (True, False, True))
    (one,), (other,) = nodule_features(labels).values(), nodule_features(turned).values()
    assert one == pytest.approx(other, rel=1e-3, nan_ok=True)


def test_a_ball_is_rounder_and_more_regular_than_a_bar_and_a_star() -> None:
    star = np.zeros((41, 41, 41), np.uint8)
    for axis in range(3):
        bar = [slice(18, 23)] * 3
        bar[axis] = slice(2, 39)
        star[tuple(bar)] = 1
    bar_mask = np.zeros_like(star)
    bar_mask[18:23, 18:23, 2:39] = 1
    shapes = [ellipsoid((1, 1, 1), (20, 20, 20)), image(bar_mask), image(star)]
    ball, rod, spiky = (next(iter(nodule_features(shape).values())) for shape in shapes)
    assert 0.9 < ball["sphericity"] <= 1
    assert ball["sphericity"] > rod["sphericity"] > spiky["sphericity"]
    assert rod["surface_regularity"] == pytest.approx(1, abs=0.02)
    assert spiky["surface_regularity"] < 0.9
    assert rod["elongation"] < 0.2


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_folder_of_runs_and_masks_becomes_one_table_with_identifiers(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_run(data / "b" / "run")
    write_run(data / "c", patient="P2", nodules=0)
    sitk.WriteImage(image(two_squares()), data / "a.nrrd")
    outcome = write_feature_table(data, tmp_path / "features.csv")
    rows = read(tmp_path / "features.csv")
    assert outcome.added == ("a.nrrd", "b/run", "c") and not outcome.errors
    assert [[row[name] for name in IDENTIFIERS] for row in rows] == [
        ["a.nrrd", "", "", "segmentation"],
        ["b/run", "P1", "1.2.3", "run"],
        ["c", "P2", "1.2.3", "run"],
    ]
    mask, run, empty = rows
    assert mask["largest_mean_hu"] == "" and mask["nodule_count"] == "2"
    assert float(run["largest_mean_hu"]) == 20
    assert float(run["largest_right_lung"]) == 1
    assert float(run["largest_relative_height"]) == pytest.approx(0.5, abs=0.05)
    assert float(run["total_volume_mm3"]) == 2 * (4 * 64 + 2 * 9)
    assert {empty[name] for name in SCAN_FEATURES} == {"0"}
    nodules = read(tmp_path / "features-nodules.csv")
    assert [(n["scan"], n["nodule"]) for n in nodules if n["scan"] == "b/run"] == [
        ("b/run", "1"),
        ("b/run", "2"),
    ]


def test_a_table_goes_on_keeps_its_rows_and_tries_failures_again(tmp_path: Path) -> None:
    data, table = tmp_path / "data", tmp_path / "features.csv"
    write_run(data / "good")
    write_run(data / "bad")
    whole = (data / "bad" / "nodules.csv").read_text()
    (data / "bad" / "nodules.csv").write_text("nothing\n")
    outcome = write_feature_table(data, table)
    assert outcome.added == ("good",)
    (error,) = read(tmp_path / "features-errors.csv")
    assert error["scan"] == "bad" and "no column" in error["error"]

    marked = table.read_text().replace("P1", "KEPT")
    table.write_text(marked)
    (data / "bad" / "nodules.csv").write_text(whole)
    outcome = write_feature_table(data, table)
    assert (outcome.added, outcome.kept, dict(outcome.errors)) == (("bad",), ("good",), {})
    assert table.read_text().startswith(marked)
    assert read(tmp_path / "features-errors.csv") == []
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["features.csv", "features-nodules.csv"])
def test_a_table_that_is_open_elsewhere_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    data, table = tmp_path / "data", tmp_path / "features.csv"
    write_run(data / "a")
    write_feature_table(data, table)
    write_run(data / "b")
    write_run(data / "c")
    tries, replaces = [], Path.replace

    def replace(file: Path, target: Path) -> Path:
        """As on Windows, until the spreadsheet is closed."""
        if target.name == name:
            tries.append(target)
            if len(tries) <= closed_after:
                raise PermissionError(13, "Access is denied", str(file), None, str(target))
        return replaces(file, target)

    monkeypatch.setattr(Path, "replace", replace)
    closed_after = 9
    with pytest.raises(InputError, match=rf"{name} cannot be written .*close it where it is open"):
        write_feature_table(data, table)
    assert len(tries) == 3  # after each scan and at the end

    tries.clear()
    closed_after = 2
    outcome = write_feature_table(data, table)
    assert (outcome.kept, outcome.added) == (("a",), ("b", "c"))
    assert [row["scan"] for row in read(table)] == ["a", "b", "c"]
    assert {row["scan"] for row in read(tmp_path / "features-nodules.csv")} == {"a", "b", "c"}


def test_a_loop_of_links_gives_each_scan_once(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(two_squares()), tmp_path / "mask.nii.gz")
    for k in range(3):
        (tmp_path / f"loop{k}").symlink_to(tmp_path)
    assert list(find_scans(tmp_path).values()) == [tmp_path / "mask.nii.gz"]


def write_series(folder: Path, level: int) -> str:
    """Write six slices of a CT whose voxels have one value; returns its SeriesInstanceUID."""
    apart = folder / str(level)
    files = write_dicom_series(image(np.full((6, 16, 16), level, np.int16)), apart)
    for file in files:
        file.rename(folder / f"{level} {file.name}")
    apart.rmdir()
    return str(pydicom.dcmread(folder / f"{level} {files[0].name}").SeriesInstanceUID)


def test_dicom_beside_other_scans_hides_none_of_them(tmp_path: Path) -> None:
    one, two = tmp_path / "p1", tmp_path / "p2"
    write_series(one, -900)
    uids = [write_series(two, level) for level in (-800, -700)]
    sitk.WriteImage(image(two_squares()), two / "mask.nii.gz")
    write_run(tmp_path / "p3" / "run")
    write_run(tmp_path / ".hidden")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (file,) = one.glob("*1.dcm")
    report = pydicom.dcmread(file)
    report.Modality, report.SOPClassUID = "SR", pydicom.uid.ComprehensiveSRStorage
    report.save_as(tmp_path / "report.dcm")
    scans = find_scans(tmp_path)
    assert list(scans) == sorted(["p1", *(f"p2/{uid}" for uid in uids), "p2/mask.nii.gz", "p3/run"])
    series = scans[f"p2/{uids[0]}"]
    assert isinstance(series, IndexedScan)
    assert sitk.GetArrayViewFromImage(series.read().image).max() == -800


def test_a_table_that_named_a_series_by_its_folder_goes_on(tmp_path: Path) -> None:
    data, table = tmp_path / "data", tmp_path / "features.csv"
    uids = [write_series(data, level) for level in (-800, -700)]
    write_run(tmp_path / "run", uid=uids[0])
    write_feature_table(tmp_path / "run", table)
    table.write_text(table.read_text().replace("run,P1", "data,P1"))
    outcome = write_feature_table(data, table)
    assert outcome.kept == (f"data/{uids[0]}",)
    assert list(outcome.errors) == [f"data/{uids[1]}"]  # it has no lungs


def test_another_scan_at_the_same_place_has_results_of_its_own(tmp_path: Path) -> None:
    file, runs = tmp_path / "ct.mhd", tmp_path / "runs"
    sitk.WriteImage(image(two_squares()), file)
    write_series(tmp_path / "dicom", -900)
    for place in (file, find_scans(tmp_path / "dicom")["dicom"], tmp_path / "dicom"):
        before = results_folder(place, "ct", runs)
        assert results_folder(place, "ct", runs) == before
        voxels = file.with_suffix(".raw")
        for other in (voxels, *(tmp_path / "dicom").iterdir()):
            other.write_bytes(other.read_bytes()[:-1] + b"\7")
            os.utime(other, (0, 0))
        assert results_folder(place, "ct", runs) != before
        for other in (voxels, *(tmp_path / "dicom").iterdir()):
            os.utime(other)


def test_a_second_writer_of_a_table_is_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(two_squares()), tmp_path / "mask.nii.gz")
    table = tmp_path / "features.csv"
    with only_writer(table, "writing"), pytest.raises(InputError, match="Another run"):
        write_feature_table(tmp_path / "mask.nii.gz", table)
    assert not table.exists()
    write_feature_table(tmp_path / "mask.nii.gz", table)
    assert table.exists()


def test_a_file_that_is_no_feature_table_is_not_touched(tmp_path: Path) -> None:
    write_run(tmp_path / "data")
    table = tmp_path / "notes.csv"
    table.write_text("my notes\n")
    with pytest.raises(InputError, match="nothing was overwritten"):
        write_feature_table(tmp_path / "data", table)
    assert table.read_text() == "my notes\n"


def test_a_table_that_a_spreadsheet_saved_goes_on(tmp_path: Path) -> None:
    write_run(tmp_path / "data" / "a")
    table = tmp_path / "features.csv"
    write_feature_table(tmp_path / "data", table)
    for file in (table, tmp_path / "features-nodules.csv"):
        lines = file.read_text().splitlines()
        file.write_text("\n".join(f"{line},," for line in lines), encoding="utf-8-sig")
    write_run(tmp_path / "data" / "b")
    outcome = write_feature_table(tmp_path / "data", table)
    assert (outcome.kept, outcome.added) == (("a",), ("b",))


@pytest.mark.parametrize("end", [",more", ""])
def test_a_line_with_more_or_fewer_cells_than_columns_is_named(tmp_path: Path, end: str) -> None:
    write_run(tmp_path / "data")
    table = tmp_path / "features.csv"
    write_feature_table(tmp_path / "data", table)
    whole = table.read_text().rstrip()
    table.write_text(whole + end if end else whole.rpartition(",")[0])
    before = table.read_text()
    with pytest.raises(InputError, match=r"features\.csv line 2 has \d+ values for \d+ columns"):
        write_feature_table(tmp_path / "data", table)
    assert table.read_text() == before


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.full((3, 4, 4), -1, np.int16), "neither a CT in HU nor a segmentation"),
        (np.arange(2000, dtype=np.uint16).reshape(20, 10, 10), "1999 different values"),
        (np.arange(256, dtype=np.uint8).reshape(4, 8, 8), "255 different values"),
        (np.linspace(0, 255, 48, dtype=np.float32).reshape(3, 4, 4), "different values"),
        (np.pad(np.ones((2, 2, 151), np.uint8), 1), "is not a segmentation of nodules"),
        (np.full((3, 4, 4), np.nan, np.float32), "has voxels that are not numbers"),
    ],
)
def test_volumes_that_are_neither_are_named(
    tmp_path: Path, array: NDArray[np.generic], sentence: str
) -> None:
    sitk.WriteImage(image(array), tmp_path / "odd.nrrd")
    outcome = write_feature_table(tmp_path, tmp_path / "out" / "features.csv")
    assert sentence in outcome.errors["odd.nrrd"]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no scan"):
        write_feature_table(tmp_path, tmp_path / "features.csv")


def test_the_docs_have_every_feature_as_the_code_has_it() -> None:
    docs = (Path(__file__).parents[1] / "docs" / "risk.md").read_text(encoding="utf-8")
    rows = SLICE_FEATURES | NODULE_FEATURES
    rows |= {n: f for n, f in SCAN_FEATURES.items() if not n.startswith("largest_")}
    for name, f in rows.items():
        assert f"| `{name}` | {f.unit} | {f.description} | {f.ibsi} |" in docs


def _table(old: str, new: str) -> Callable[[Path], object]:
    def edit(run: Path) -> None:
        file = run / "nodules.csv"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    return edit


def _labels(name: str, change: Callable[[sitk.Image], sitk.Image]) -> Callable[[Path], object]:
    def edit(run: Path) -> None:
        sitk.WriteImage(change(sitk.ReadImage(run / name)), run / name)

    return edit


def _moved(labels: sitk.Image) -> sitk.Image:
    labels.SetOrigin((50, 0, 0))
    return labels


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_table("\n2,", "\n1,"), "has the id 1"),
        (_table("\n2,", "\n-2,"), "has the id -2"),
        (_table("\n2,", "\n99999999999999999999,"), "has the id 9999"),
        (_table("\n2,", "\n7,"), "names the nodules 7, which"),
        (_labels("nodules.nii.gz", lambda image: image * 0), "names the nodules 1, 2, which"),
        (_labels("nodules.nii.gz", _moved), "lie on different grids"),
        (_labels("lungs.nii.gz", _moved), "lie on different grids"),
        (
            _labels("lungs.nii.gz", lambda image: sitk.Cast(image, sitk.sitkFloat32) * 0.5),
            "values that are not labels",
        ),
        (
            _labels("nodules.nii.gz", lambda image: sitk.Cast(image, sitk.sitkInt16) * -1),
            "values that are not labels",
        ),
    ],
)
def test_results_edited_by_hand_are_refused_where_they_contradict_themselves(
    tmp_path: Path, edit: Callable[[Path], object], words: str
) -> None:
    write_run(tmp_path / "run")
    edit(tmp_path / "run")
    with pytest.raises(InputError, match=re.escape(words)):
        features_of(tmp_path / "run", "run", tmp_path / "runs")


def test_a_nodule_whose_row_was_deleted_counts_no_more(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    write_run(tmp_path / "other", nodules=1)
    table = tmp_path / "run" / "nodules.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:2]))
    rejected, never = (features_of(tmp_path / n, n, tmp_path) for n in ("run", "other"))
    assert list(rejected.nodules) == [1]
    assert rejected.features == never.features


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_record_is_read_in_any_unicode_encoding(tmp_path: Path, encoding: str) -> None:
    run = tmp_path / "run"
    write_run(run, patient="Ångström")
    record = run / "run.json"
    record.write_text(record.read_text(), encoding=encoding)
    assert features_of(run, "a", tmp_path).patient_id == "Ångström"


def test_labels_that_another_program_stored_as_floats_are_read(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    before = features_of(tmp_path / "run", "run", tmp_path / "runs")
    _labels("nodules.nii.gz", lambda image: sitk.Cast(image, sitk.sitkFloat32))(tmp_path / "run")
    assert features_of(tmp_path / "run", "run", tmp_path / "runs").features == before.features


def test_a_nodule_on_a_slice_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    table = tmp_path / "run" / "nodules.csv"
    text = table.read_text().replace(",9,", ",20,", 1).replace(",10,", ",20,", 1)
    table.write_text(text)
    with pytest.raises(InputError, match=r"nodules\.csv has nodule 1 on a slice that"):
        features_of(tmp_path / "run", "run", tmp_path)
