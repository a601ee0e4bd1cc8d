"""Detection is scored as the LUNA16 challenge scores it, whatever the submission looks like."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from PIL import Image
from typer.testing import CliRunner

import froc_oracle
from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.cli import app
from LungNoduleSegLib.evaluation import subgroups
from LungNoduleSegLib.evaluation.detection import match_marks, score_detection
from LungNoduleSegLib.evaluation.froc import OPERATING_POINTS, Band, bootstrap_band
from LungNoduleSegLib.evaluation.luna_files import Places, Truth, read_challenge, read_scans
from LungNoduleSegLib.evaluation.plots import plot_calibration
from LungNoduleSegLib.evaluation.subgroups import TrueNodule
from LungNoduleSegLib.nodules.table import NoduleKind, Place
from submissions import luna_submission, write_findings, write_submission, write_uids

Row = tuple[str, tuple[float, float, float], float]
Rows = list[Row]

# A coarse lattice, so that marks lie exactly on borders of nodules and many values are equal.
COORDINATE = st.integers(-4, 4).map(float)
POSITION = st.tuples(COORDINATE, COORDINATE, COORDINATE)
SERIES = st.sampled_from(["a", "b", "c", "elsewhere"])
PROBABILITY = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.9, 1.0, -3.0])
DIAMETER = st.sampled_from([-1.0, 0.0, 2.0, 4.0, 6.0, 9.5])
MARKS = st.lists(st.tuples(SERIES, POSITION, PROBABILITY), max_size=40)
FINDINGS = st.lists(st.tuples(SERIES, POSITION, DIAMETER), max_size=8)


def as_dicts(rows: Rows, name: str) -> list[dict[str, str]]:
    return [
        {
            "seriesuid": series,
            **dict(zip(("coordX", "coordY", "coordZ"), map(repr, position), strict=True)),
            name: repr(value),
        }
        for series, position, value in rows
    ]


@settings(max_examples=150)
@given(MARKS, FINDINGS, FINDINGS, st.sampled_from([0, 1, 3, 100]), st.integers(0, 5))
def test_equal_to_the_literal_scoring(
    marks: Rows, nodules: Rows, excluded: Rows, limit: int, more_scans: int
) -> None:
    uids = ["a", "b", "c", *(f"empty {n}" for n in range(more_scans))]
    nodules = [*nodules, ("b", (0.0, 0.0, 0.0), 3.0)]
    truth = Truth(tuple(uids), Places.of(nodules), Places.of(excluded))
    listed, tally = froc_oracle.entries(
        as_dicts(marks, "probability"),
        as_dicts(nodules, "diameter_mm"),
        as_dicts(excluded, "diameter_mm"),
        uids,
        limit,
    )
    score = score_detection(Places.of(marks), truth, limit, resamples=0)
    expected = froc_oracle.sensitivities(listed, len(uids))
    assert score.sensitivity.tolist() == pytest.approx(expected, abs=1e-15)
    assert score.cpm == pytest.approx(np.mean(expected), abs=1e-15)
    assert score.matching.candidates == tally["candidates"]
    assert score.matching.on_excluded == tally["excluded"]
    assert score.matching.repeated == tally["double"]
    if limit == 3:
        assert_same_band(bootstrap_band(score.matching.marks, 20, 3), listed, uids, 20, 3)


def assert_same_band(
    band: Band | None, listed: list[froc_oracle.Entry], uids: list[str], resamples: int, seed: int
) -> None:
    assert band is not None
    curves = froc_oracle.bootstrap(listed, uids, resamples, seed)
    ours = (band.curve.mean, band.curve.lower, band.curve.upper)
    np.testing.assert_allclose(ours, curves, atol=1e-6)


def test_equal_to_the_literal_scoring_on_the_challenge_itself(
    shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "luna16"
    submission = luna_submission(folder, tmp_path / "s.csv", marks=30_000)
    nodules, excluded = (folder / f"annotations{name}.csv" for name in ("", "_excluded"))
    uids = froc_oracle.read_uids(folder / "seriesuids.csv")
    marks, truth, notes = read_challenge(submission, nodules, excluded, folder / "seriesuids.csv")
    assert len(truth.scans) == len(uids) == 886
    assert len(truth.nodules.series) == 1183
    assert "rows whose scan is not in seriesuids.csv" in notes[0]
    # A third of the scans, so that the slow one stays bearable.
    part = uids[::3]
    mark_rows, nodule_rows, excluded_rows = (
        [row for row in froc_oracle.read(path) if row["seriesuid"] in set(part)]
        for path in (submission, nodules, excluded)
    )
    listed, _ = froc_oracle.entries(mark_rows, nodule_rows, excluded_rows, part, 40)
    truth = Truth(tuple(part), truth.nodules, truth.excluded)
    score = score_detection(marks, truth, 40, resamples=0)
    assert score.sensitivity.tolist() == froc_oracle.sensitivities(listed, len(part))
    assert 0.2 < score.cpm < 0.95
    assert score.matching.over_limit > 0
    assert score.matching.on_excluded > 0
    assert score.matching.repeated > 0


@pytest.mark.slow
def test_the_whole_challenge(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "luna16"
    submission = luna_submission(folder, tmp_path / "s.csv")
    nodules, excluded = (folder / f"annotations{name}.csv" for name in ("", "_excluded"))
    uids = froc_oracle.read_uids(folder / "seriesuids.csv")
    marks, truth, _ = read_challenge(submission, nodules, excluded, folder / "seriesuids.csv")
    mark_rows, nodule_rows, excluded_rows = map(froc_oracle.read, (submission, nodules, excluded))
    listed, _ = froc_oracle.entries(mark_rows, nodule_rows, excluded_rows, uids, 100)
    score = score_detection(marks, truth)
    assert score.sensitivity.tolist() == froc_oracle.sensitivities(listed, len(uids))
    assert_same_band(bootstrap_band(score.matching.marks, 30, 5), listed, uids, 30, 5)


def one_scan(nodules: Rows, excluded: Iterable[Row] = ()) -> Truth:
    return Truth(("a",), Places.of(nodules), Places.of(excluded))


def test_a_mark_on_the_border_is_outside() -> None:
    nodule: Rows = [("a", (0, 0, 0), 6)]
    for x, found in ((3.0, 0), (2.999999, 1)):
        matched = match_marks(Places.of([("a", (x, 0, 0), 1)]), one_scan(nodule))
        assert matched.marks.found.sum() == found
        assert (~matched.marks.found).sum() == 1 - found


def test_the_best_mark_stands_for_a_nodule_and_others_on_it_count_neither_way() -> None:
    marks: Rows = [("a", (0, 0, 0), 0.2), ("a", (1, 0, 0), 0.9), ("a", (0, 1, 0), 0.5)]
    matched = match_marks(Places.of(marks), one_scan([("a", (0, 0, 0), 6)]))
    assert matched.marks.probability.tolist() == [0.9]
    assert matched.repeated == 2


def test_one_mark_finds_both_of_two_nodules_that_overlap() -> None:
    nodules: Rows = [("a", (0, 0, 0), 6), ("a", (2, 0, 0), 6)]
    matched = match_marks(Places.of([("a", (1, 0, 0), 0.7)]), one_scan(nodules))
    assert matched.nodule_probability.tolist() == [0.7, 0.7]
    assert matched.marks.found.tolist() == [True, True]


def test_an_excluded_finding_hides_a_mark_but_no_nodule() -> None:
    marks: Rows = [("a", (0, 0, 0), 0.9), ("a", (20, 0, 0), 0.8), ("a", (40, 0, 0), 0.7)]
    truth = one_scan([("a", (0, 0, 0), 6)], [("a", (1, 0, 0), 8), ("a", (24, 0, 0), -1)])
    matched = match_marks(Places.of(marks), truth)
    assert matched.marks.probability.tolist() == [0.9, 0.7]
    assert matched.marks.found.tolist() == [True, False]
    assert matched.on_excluded == 1


def test_a_scan_with_too_many_marks_keeps_those_above_the_first_beyond() -> None:
    marks: Rows = [("a", (x, 0, 0), p) for x, p in enumerate((0.9, 0.5, 0.5, 0.5, 0.1))]
    truth = one_scan([("a", (90, 0, 0), 6)])
    for limit, kept in ((0, 5), (1, 1), (2, 1), (3, 1), (4, 4), (5, 5)):
        matched = match_marks(Places.of(marks), truth, limit)
        assert matched.candidates == kept
        assert matched.over_limit == 5 - kept


def test_scans_without_marks_count_in_the_rate_of_false_positives() -> None:
    marks: Rows = [("a", (0, 0, 0), 0.5), ("a", (50, 0, 0), 0.9)]
    nodules = Places.of([("a", (0, 0, 0), 6)])
    for scans, sensitivity in ((1, [0.0] * 3 + [1.0] * 4), (4, [0.0] + [1.0] * 6)):
        uids = ("a", "b", "c", "d")[:scans]
        score = score_detection(Places.of(marks), Truth(uids, nodules, Places.of(())), resamples=0)
        assert score.sensitivity.tolist() == sensitivity


def test_resamples_that_all_lack_nodules_give_no_band() -> None:
    truth = Truth(tuple(map(str, range(50))), Places.of([("0", (0, 0, 0), 6)]), Places.of(()))
    score = score_detection(Places.of([("0", (0, 0, 0), 0.5)]), truth, resamples=1, seed=2)
    assert score.band is None
    assert "CPM 1.0000" in score.to_text()


def test_nothing_marked_and_nothing_wrong() -> None:
    nodules: Rows = [("a", (0, 0, 0), 6), ("a", (30, 0, 0), 6)]
    nothing = score_detection(Places.of(()), one_scan(nodules), resamples=5)
    assert nothing.cpm == 0
    assert nothing.to_dict()["threshold"] == [None] * 7
    half = score_detection(Places.of([("a", (0, 0, 0), 0.1)]), one_scan(nodules), resamples=5)
    assert half.sensitivity.tolist() == [0.5] * 7
    assert half.band is not None and half.band.cpm.lower == [0.5]


Files = dict[str, Path]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    rng = np.random.default_rng(0)
    uids = [f"1.2.{n}" for n in range(20)]
    places = rng.uniform(-100, 100, (20, 3)).tolist()
    nodules = [(uid, *place, 8) for uid, place in zip(uids, places, strict=True)]
    marks = [(uid, *place, 0.9 - n / 50) for n, (uid, *place, _) in enumerate(nodules[:15])]
    marks += [(uid, 300 + n, 0, 0, n / 20) for n, uid in enumerate(uids)]
    return {
        "submission": write_submission(tmp_path / "s.csv", marks),
        "annotations": write_findings(tmp_path / "a.csv", nodules),
        "excluded": write_findings(tmp_path / "e.csv", [(uids[0], 300, 0, 0, -1)]),
        "seriesuids": write_uids(tmp_path / "u.csv", uids),
    }


def arguments(files: Files) -> list[str]:
    return [word for name, path in files.items() for word in (f"--{name}", str(path))]


def test_the_command_writes_figures_curve_plot_and_nodules(files: Files, tmp_path: Path) -> None:
    out = tmp_path / "out"
    results = {"json": "o.json", "curve": "c.csv", "plot": "p.png", "nodules": "n.csv"}
    given = [word for name, file in results.items() for word in (f"--{name}", str(out / file))]
    command = ["evaluate", "detection", *arguments(files), *given, "--progress", "none"]
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 0, run.output
    figures = json.loads((out / "o.json").read_text())
    assert figures["false_positives_per_scan"] == list(OPERATING_POINTS)
    assert len(figures["sensitivity"]) == 7
    assert figures["cpm"] == pytest.approx(np.mean(figures["sensitivity"]))
    assert f"CPM {figures['cpm']:.4f}" in run.stdout
    limits = figures["bootstrap"]["cpm"]
    assert limits["lower"] < figures["cpm"] < limits["upper"]
    assert (figures["found"], figures["missed"], figures["false_positives"]) == (15, 5, 19)
    assert figures["ignored_on_excluded_findings"] == 1
    curve = np.genfromtxt(out / "c.csv", delimiter=",", names=True)
    assert np.all(np.diff(curve["sensitivity"]) >= 0)
    assert np.all(curve["lower"] <= curve["upper"])
    assert curve["sensitivity"][0] == pytest.approx(figures["sensitivity"][0])
    assert sum(line.endswith(",") for line in (out / "n.csv").read_text().split()) == 5
    assert np.asarray(Image.open(out / "p.png").convert("L")).std() > 10

    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, InputError)
    assert "nothing was overwritten" in str(again.exception)

    twice = ["--json", str(out / "x"), "--curve", str(out / ".." / "out" / "x")]
    (files["submission"]).unlink()  # it is refused before anything is read
    run = CliRunner().invoke(app, ["evaluate", "detection", *arguments(files), *twice])
    assert isinstance(run.exception, InputError) and "written twice" in str(run.exception)
    assert not (out / "x").exists()


def test_columns_in_any_order_a_byte_order_mark_and_more_columns(
    files: Files, tmp_path: Path
) -> None:
    straight = read_challenge(**files)[0]
    turned = tmp_path / "turned.csv"
    lines = [line.split(",") for line in files["submission"].read_text().split()]
    text = "".join(f"{p}, x,{z},{y},{x},{uid}\n" for uid, x, y, z, p in lines)
    turned.write_text("\ufeff" + text.replace("probability, x", "probability,note", 1), "utf-8")
    other = read_challenge(**files | {"submission": turned})[0]
    np.testing.assert_array_equal(straight.position, other.position)
    np.testing.assert_array_equal(straight.value, other.value)


def test_empty_cells_beyond_the_last_column_count_for_nothing(files: Files) -> None:
    straight = read_challenge(**files)
    for name in ("submission", "annotations"):
        for ends in (",,", " ,"):
            lines = files[name].read_text().split("\n")
            files[name].write_text("\n".join(line and line.rstrip() + ends for line in lines))
            other = read_challenge(**files)
            np.testing.assert_array_equal(straight[0].value, other[0].value)
            np.testing.assert_array_equal(straight[1].nodules.value, other[1].nodules.value)


def test_oddities_are_scored_as_in_the_challenge_and_noted(files: Files) -> None:
    text = files["submission"].read_text()
    first = text.split("\n")[1].strip()
    files["submission"].write_text(text + f"{first}\nelsewhere,1,2,3,nonsense\n")
    marks, _, notes = read_challenge(**files)
    assert len(marks.series) == 36
    assert len(notes) == 2
    assert "s.csv line 38 is the first of 1 row whose scan is not in u.csv" in notes[0]
    assert "s.csv line 37 repeats line 2" in notes[1]


Change = Callable[[str], str]


@pytest.mark.parametrize(
    ("name", "change", "figures"),
    [
        ("submission", lambda t: t.replace("probability", "score"), "line 1 lacks the column prob"),
        ("submission", lambda t: t.replace(",", ";"), "line 1 separates its columns by semicolons"),
        ("submission", lambda t: t.replace(",", "\t"), "line 1 separates its columns by tabs"),
        (
            "submission",
            lambda t: re.sub(r"\n1\.2\.3,[^,]*,", "\n1.2.3,abc,", t, count=1),
            "line 5: 'abc' is no",
        ),
        (
            "submission",
            lambda t: t.replace("\n1.2.3,", "\n1.2.3,7,", 1),
            "line 5 has 6 values for 5 columns: quote a cell that holds a comma, and write decimal",
        ),
        (
            "submission",
            lambda t: t.replace("0.9", "nan", 1),
            "'nan' is not a number for probability",
        ),
        (
            "submission",
            lambda t: t.replace("0.9", "inf", 1),
            "'inf' is not a number for probability",
        ),
        ("submission", lambda t: t.replace("0.9", "", 1), "'' is not a number for"),
        ("submission", lambda t: t + "1.2.3,4,5\n", "line 37 has 3 values for 5 columns"),
        ("submission", lambda _: "", "line 1 is empty"),
        ("submission", lambda t: t.split("\n")[0] + "\n", "no marks in the scans of u.csv"),
        ("submission", lambda t: t.replace("1.2.", "9.9."), "no marks in the scans of u.csv"),
        ("submission", lambda t: t + '"', "cannot be read as CSV near line 37"),
        ("annotations", lambda t: t.replace("diameter_mm", "d"), "lacks the column diameter_mm"),
        ("annotations", lambda t: t.replace("1.2.", "9.9."), "no nodules in the scans of u.csv"),
        ("annotations", lambda t: t.replace(",8", ",8,0", 1), "line 2 has 6 values for 5 columns"),
        ("annotations", lambda t: t.replace(",8", ",300.5", 1), "line 2: no nodule has 300.5 as"),
        ("annotations", lambda t: t.replace(",8", ",0", 1), "line 2: no nodule has 0 as its diam"),
        ("annotations", lambda t: t.replace(",8", ",-10", 1), "line 2: no nodule has -10 as its d"),
        ("excluded", lambda t: t.replace("-1", "301"), "line 2: no nodule has 301 as its diameter"),
        ("excluded", lambda t: t.replace("-1", "none"), "line 2: 'none' is not a number for diam"),
        ("seriesuids", lambda t: t + "1.2.3\n", "line 21 repeats the scan of line 4"),
        ("seriesuids", lambda _: "\n\n", "lists no scans"),
    ],
)
def test_a_bad_file_is_named_with_its_line(
    files: Files, name: str, change: Change, figures: str
) -> None:
    files[name].write_text(change(files[name].read_text()))
    with pytest.raises(InputError) as error:
        read_challenge(**files)
    sentence = str(error.value)
    assert str(files[name]) in sentence
    assert figures in sentence
    assert sentence.endswith(".") and "\n" not in sentence


def test_bytes_that_are_no_text_and_a_file_that_is_not_there(files: Files, tmp_path: Path) -> None:
    files["submission"].write_bytes(b"seriesuid,\xff\xfe\n")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read_challenge(**files)
    with pytest.raises(InputError, match="is not a file"):
        read_challenge(**files | {"submission": tmp_path / "none.csv"})


@pytest.mark.parametrize(
    "header", ["seriesuid", "SeriesInstanceUID", "series_instance_uid", "Series_UID", "scan"]
)
def test_a_header_in_the_list_of_scans_is_no_scan(files: Files, header: str) -> None:
    files["seriesuids"].write_text(f"{header}\n" + files["seriesuids"].read_text())
    assert len(read_challenge(**files)[1].scans) == 20
    files["seriesuids"].write_text(f"{header}\na\nscan\n")
    assert read_scans(files["seriesuids"]) == ("a", "scan")


def test_findings_need_not_be_excluded(files: Files) -> None:
    del files["excluded"]
    marks, truth, _ = read_challenge(**files, excluded=None)
    assert score_detection(marks, truth, resamples=0).matching.on_excluded == 0


def test_subgroups_have_counts_limits_and_no_empty_rows() -> None:
    missed = -np.inf
    nodules = [
        TrueNodule(4.0, NoduleKind.SOLID, Place.FREE, 0.9, 0.8),
        TrueNodule(6.0, NoduleKind.SOLID, Place.PLEURA, 0.4, 0.1),
        TrueNodule(7.9, None, Place.PLEURA, 0.8, 0.6),
        TrueNodule(35.0, NoduleKind.NON_SOLID, None, missed, 0.0),
        TrueNodule(3.9, None, None, missed, 0.0),
    ]
    rows = {(one.by, one.name): one for one in subgroups.subgroups(nodules, 0.5)}
    assert [(one.found, one.nodules) for one in rows.values()] == [
        (2, 5), (0, 1), (1, 1), (1, 2), (0, 1), (1, 2), (0, 1), (1, 1), (1, 2)
    ]  # fmt: skip
    assert list(rows) == [
        ("all", "all"),
        ("size", "under 4 mm"),
        ("size", "4-6 mm"),
        ("size", "6-8 mm"),
        ("size", "from 30 mm"),
        ("texture", "solid"),
        ("texture", "non-solid"),
        ("place", "free"),
        ("place", "pleura"),
    ]
    every = rows["all", "all"]
    assert every.dice == pytest.approx(0.7) and every.least_dice == 0.6
    # Wilson's limits of 2 of 5, by the formula.
    z, p, n = 1.959964, 0.4, 5
    middle = (p + z**2 / 2 / n) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / 4 / n**2) / (1 + z**2 / n)
    assert (every.lower, every.upper) == pytest.approx((middle - half, middle + half), abs=1e-6)
    none = rows["texture", "non-solid"]
    assert none.dice is None and none.sensitivity == 0 and none.upper > 0.7
    assert "0 of 1" in subgroups.to_text(list(rows.values()), None)
    assert subgroups.subgroups([], 0.5) == []


def test_calibration_of_a_known_detector() -> None:
    rng = np.random.default_rng(0)
    probability = rng.uniform(0, 1, 20_000)
    true = rng.random(20_000) < probability
    honest = subgroups.calibration(probability, true)
    assert honest is not None and honest.error < 0.02
    assert [one.findings > 1500 for one in honest.bins] == [True] * subgroups.BINS
    boastful = subgroups.calibration(np.sqrt(probability), true)
    assert boastful is not None
    assert boastful.error == pytest.approx(2 / 3 - 1 / 2, abs=0.02)  # mean of sqrt(p) - p
    one = subgroups.calibration(np.array([1.0, 0.25]), np.array([True, False]))
    assert one is not None and one.findings == 2 and one.error == pytest.approx(0.125)
    nothing: list[float] = []
    for bad in ([2.0], [-0.1], nothing):
        assert subgroups.calibration(np.array(bad), np.ones(len(bad), bool)) is None


def test_a_bar_stands_in_the_bin_of_its_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of three times 0.7 is a little less than 0.7, where a bin begins."""
    middles: list[float] = []
    bar = Axes.bar

    def spied(axes: Axes, x: list[float], *more: Any, **how: Any) -> Any:
        middles.extend(x)
        return bar(axes, x, *more, **how)

    monkeypatch.setattr(Axes, "bar", spied)
    found = subgroups.calibration(np.array([0.7, 0.7, 0.7]), np.ones(3, bool))
    assert found is not None and found.bins[0].probability < 0.7
    plot_calibration(tmp_path / "c.png", found)
    assert (found.bins[0].number, middles) == (7, [0.75])


def test_the_command_prints_texture_place_and_calibration(files: Files, tmp_path: Path) -> None:
    lines = files["annotations"].read_text().split()
    words = ["texture,place", "5,free", "ground,", *[",pleura"] * 18]
    text = "".join(f"{line},{more}\n" for line, more in zip(lines, words, strict=True))
    files["annotations"].write_text(text)
    with pytest.raises(InputError, match="line 3: 'ground' is not a texture"):
        read_challenge(**files)
    files["annotations"].write_text(text.replace("ground", "1"))
    out = {name: tmp_path / "new" / name for name in ("o.json", "s.csv", "c.png")}
    options = ("--json", "--subgroups", "--calibration")
    given = [w for pair in zip(options, map(str, out.values()), strict=True) for w in pair]
    run = CliRunner().invoke(app, ["evaluate", "detection", *arguments(files), *given])
    assert run.exit_code == 0, run.output
    figures = json.loads(out["o.json"].read_text(), parse_constant=pytest.fail)
    rows = {(row["by"], row["name"]): row for row in figures["subgroups"]["rows"]}
    assert rows["all", "all"]["nodules"] == rows["size", "8-12 mm"]["nodules"] == 20
    assert rows["texture", "non-solid"]["nodules"] == rows["texture", "solid"]["nodules"] == 1
    assert rows["place", "pleura"]["nodules"] == 18
    assert figures["calibration"]["findings"] == 34
    assert len(out["s.csv"].read_text().splitlines()) == len(rows) + 1
    assert np.asarray(Image.open(out["c.png"]).convert("L")).std() > 10

    marks = files["submission"].read_text().replace("0.9\n", "9.9\n").replace("0.9\r\n", "9.9\n")
    files["submission"].write_text(marks)
    again = CliRunner().invoke(
        app, ["evaluate", "detection", *arguments(files), "--calibration", str(tmp_path / "d.png")]
    )
    assert again.exit_code == 0, again.output
    assert "alibration" not in again.stdout
    assert (tmp_path / "d.png").is_file()
