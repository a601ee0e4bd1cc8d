"""Nodules followed over several dates, and what Lung-RADS says of their change."""

import csv
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from CTLungScreeningLib.errors import InputError
from growth_cases import DAYS, at, at_days, dated, nodule
from LungNoduleSegLib.nodules.table import Nodule, NoduleKind, Outline, Side
from LungNoduleSegLib.results.growth_results import (
    assess_growth,
    curve_of,
    track_sentence,
    write_growth_page,
)
from LungNoduleSegLib.risk import growth as growth_module
from LungNoduleSegLib.risk.clinical_data import prior_facts
from LungNoduleSegLib.risk.facts import Status
from LungNoduleSegLib.risk.growth import ChestScan
from LungNoduleSegLib.risk.growth_rate import Change, growth_rate
from LungNoduleSegLib.risk.growth_table import TIMELINE_COLUMNS, growth_rows, write_timeline_csv
from LungNoduleSegLib.risk.lung_rads import change_by_lung_rads, nodule_change_by_lung_rads
from LungNoduleSegLib.risk.timeline import follow, lung_rads_status

pytestmark = pytest.mark.xdist_group("growth")


def four_dates(chest: ChestScan) -> list[ChestScan]:
    """One doubles every 200 days, one stays, one is missed once, one is new, one goes."""
    first = date(2021, 1, 1)
    scans = []
    for n, day in enumerate(DAYS):
        found = [
            at(60, 10 * 2 ** (day / 200 / 3), 1),
            at(100, 9, 2),
            *([at(75, 7, 3, 180)] if n != 1 else []),
            *([at(50, 8, 4, 180)] if n > 1 else []),
            *([at(115, 8, 5, 180)] if n < 2 else []),
        ]
        scans.append(
            dated(chest, first + timedelta(day), *(replace(o, side=Side.RIGHT) for o in found))
        )
    return scans


def test_a_nodule_is_followed_through_four_dates(chest: ChestScan, tmp_path: Path) -> None:
    timeline = follow(four_dates(chest))
    assert timeline.days == DAYS
    tracks = {one.last.id: one for one in timeline.tracks}
    assert len(tracks) == len(timeline.tracks) == 5
    grown, same, missed, new, gone = (tracks[number] for number in range(1, 6))
    assert grown.rate is not None
    assert grown.rate.doubling_days == pytest.approx(200, rel=0.01)
    low, high = grown.rate.doubling_interval
    assert low < 200 < high < 260
    assert (same.change, gone.change) == (Change.UNCHANGED, Change.VANISHED)
    assert [one is None for one in missed.nodules] == [False, True, False, False]
    assert missed.change is Change.UNCHANGED
    assert [one is None for one in new.nodules] == [True, True, False, False]
    assert len(gone.points) == 4
    assert lung_rads_status(grown) is Status.GROWING or lung_rads_status(grown) is None
    write_timeline_csv(tmp_path / "timeline.csv", timeline)
    with (tmp_path / "timeline.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == list(TIMELINE_COLUMNS)
    assert len(rows) == 5 * 4
    assert [row["days"] for row in rows[:4]] == ["0", "90", "365", "730"]
    assert all((row["id"] == "") == (row["volume_mm3"] == "") for row in rows)
    with pytest.raises(InputError, match="for two scans"):
        follow(four_dates(chest), days=90)
    with pytest.raises(InputError, match="at least two scans"):
        follow(four_dates(chest)[:1])


@pytest.mark.parametrize(
    ("later", "days", "said"),
    [
        (date(2021, 1, 1), 180, "180 days after the first, as entered"),
        (None, 1, "1 day after the first, as entered"),
        (date(2021, 6, 30), 90, "90 days after the first, as entered"),
        (date(2021, 6, 30), None, "180 days after the first"),
    ],
)
def test_days_that_were_entered_are_told_from_dates(
    chest: ChestScan, tmp_path: Path, later: date | None, days: int | None, said: str
) -> None:
    first = dated(chest, date(2021, 1, 1))
    timeline = follow([first, replace(first, date=later)], days)
    labels = [scan.lungs for scan in timeline.scans]
    write_growth_page(tmp_path / "page.html", timeline, labels, {"assessments": []})
    assert f", 0 nodules, {said}</dd>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_slow_growth_over_several_scans_is_called_slow(chest: ChestScan) -> None:
    """By 1 mm a year: below the 1.5 mm of Lung-RADS at each step, and measurable over three."""
    scans = [dated(chest, date(2020 + n, 1, 1), at(75, 9 + n)) for n in range(4)]
    (track,) = follow(scans).tracks
    assert track.change is Change.GROWN
    assert all(step and step.lung_rads is Status.STABLE for step in track.steps)
    assert lung_rads_status(track) is Status.SLOWLY_GROWING


@pytest.mark.parametrize(
    ("days", "sizes", "rated"),
    [
        ((0, 214, 314), (8.0, 8.0, 10.4), (1, 2)),
        ((0, 365, 730, 820), (8.0, 8.0, 8.0, 13.0), (2, 3)),
        ((0, 365, 730, 1095, 1185, 1275), (8.0, 8.0, 8.0, 8.0, 11.0, 15.0), (3, 4, 5)),
        ((0, 300, 600, 700), (14.0, 11.0, 9.0, 11.0), (2, 3)),
        ((0, 365, 730), (8.0, 9.5, 11.0), (0, 1, 2)),
    ],
)
def test_growth_after_a_stable_time_is_that_of_the_last_dates(
    chest: ChestScan, days: tuple[int, ...], sizes: tuple[float, ...], rated: tuple[int, ...]
) -> None:
    scans = at_days(chest, *((day, at(75, size)) for day, size in zip(days, sizes, strict=True)))
    timeline = follow(scans)
    (track,) = timeline.tracks
    assert (track.change, track.rated) == (Change.GROWN, rated)
    (alone,) = follow(scans[rated[0] :]).tracks
    assert track.rate is not None
    assert alone.rate is not None
    assert track.rate.per_day == pytest.approx(alone.rate.per_day)
    wider = 2.241403 / 1.959964 if rated[0] else 1  # a second look at the change
    assert track.rate.percent == (97.5 if rated[0] else 95)
    half = wider * (alone.rate.high - alone.rate.per_day)
    assert track.rate.high - track.rate.per_day == pytest.approx(half)
    assert track.rate.per_day - track.rate.low == pytest.approx(half)
    (row,) = growth_rows(timeline)
    assert row["doubling_days"] == round(alone.rate.doubling_days, 1)
    words = f"growth over the last {len(rated)} scans that show it"
    assert (words in track_sentence(track)) == (len(rated) < len(days))


@pytest.mark.parametrize("undated", [0, 1])
def test_dates_of_the_last_scans_suffice_for_their_growth(chest: ChestScan, undated: int) -> None:
    scans = at_days(chest, *((100 * n, at(75, 8 * 2 ** (n / 3))) for n in range(4)))
    scans[undated] = replace(scans[undated], date=None)
    timeline = follow(scans)
    assert timeline.days is None
    (track,) = timeline.tracks
    assert track.rated == tuple(range(undated + 1, 4))
    (row,) = growth_rows(timeline)
    assert row["doubling_days"] == pytest.approx(100, abs=0.1)
    assert "doubling time 100 days" in track_sentence(track)
    assert any(f"{undated} has no study date" in note for note in timeline.notes)
    assert all("more need study dates" in note for note in timeline.notes)
    curve = curve_of(track, timeline)
    assert curve is not None
    assert not curve.line  # the scans are not drawn by their days


def test_the_line_begins_at_the_first_date_that_it_was_fitted_to(chest: ChestScan) -> None:
    """The threshold changed between the first and the second scan."""
    scans = at_days(chest, (0, at(75, 6)), (1000, at(75, 8)), (1100, at(75, 11)))
    scans = [replace(one, method={"threshold": str(float(n > 0))}) for n, one in enumerate(scans)]
    timeline = follow(scans)
    (track,) = timeline.tracks
    curve = curve_of(track, timeline)
    assert track.rated == (1, 2)
    assert curve is not None
    assert curve.line == [pytest.approx(point[:2]) for point in curve.points[1:]]


def by_hand(size: float) -> Nodule:
    return replace(at(75, size), outline=Outline.HAND)


def by_image(size: float) -> Nodule:
    return replace(at(75, size), outline=Outline.IMAGE)


def part(solid_mm: float) -> Nodule:
    return replace(at(75, 14), kind=NoduleKind.PART_SOLID, solid_mm=solid_mm)


@pytest.mark.parametrize(
    ("found", "status", "change"),
    [
        (((0, by_image(7)), (300, None), (360, by_image(7))), Status.STABLE, Change.UNCHANGED),
        (((0, by_image(7)), (300, None), (360, by_image(9))), Status.GROWING, Change.GROWN),
        (((0, by_image(7)), (300, None), (720, by_image(9))), None, Change.GROWN),
        (((0, by_image(7)), (None, None), (720, by_image(7))), None, Change.UNCHANGED),
        (((0, by_hand(7)), (300, None), (360, by_image(7))), None, Change.NOT_COMPARABLE),
    ],
)
def test_a_nodule_that_one_scan_missed_is_compared_with_the_scan_before(
    chest: ChestScan,
    found: tuple[tuple[int | None, Nodule | None], ...],
    status: Status | None,
    change: Change,
) -> None:
    timeline = follow(at_days(chest, *found))
    (track,) = timeline.tracks
    assert [one is None for one in track.nodules] == [False, True, False]
    assert (lung_rads_status(track), track.change) == (status, change)
    (row,) = growth_rows(timeline)
    assert (row["prior_id"], row["current_id"]) == (None, 1)
    assert (row["prior_mean_mm"], row["days"]) == (7, found[-1][0] if found[1][0] else None)
    facts = prior_facts([row])[1]
    assert facts.get("status") is status
    alike = change is not Change.NOT_COMPARABLE
    assert facts.get("previous_mean_mm") == (7 if alike else None)
    assert ("since it was last found" in track_sentence(track)) == alike


def test_a_missed_nodule_is_not_compared_across_other_settings(chest: ChestScan) -> None:
    """The threshold changed with the scan that missed it."""
    scans = at_days(chest, (0, at(75, 7)), (300, None), (360, at(75, 7)))
    scans = [replace(one, method={"threshold": str(float(n > 0))}) for n, one in enumerate(scans)]
    (track,) = follow(scans).tracks
    assert (track.change, track.rate) == (Change.NOT_COMPARABLE, None)


@pytest.mark.parametrize(
    ("between", "far", "status"),
    [
        ("partial", 0, Status.GROWING),
        ("missed twice", 0, Status.GROWING),
        ("missed, partial", 0, Status.GROWING),
        ("missed twice", 10, None),
        ("missed twice", 25, Status.NEW),
    ],
)
def test_a_nodule_is_found_again_after_any_scans_without_it(
    chest: ChestScan, between: str, far: float, status: Status | None
) -> None:
    """The other scans miss the nodule, or show only the upper part of the lungs."""
    upper = replace(chest, hu=chest.hu[:, :, 14:], lungs=chest.lungs[:, :, 14:])
    middle = {
        "partial": [upper],
        "missed twice": [chest, chest],
        "missed, partial": [chest, upper],
    }[between]
    scans = [
        dated(one, date(2022, 1, 1) + timedelta(100 * n))
        for n, one in enumerate((chest, *middle, chest))
    ]
    before, now = at(40 + far, 8), at(40, 12)
    scans[0], scans[-1] = replace(scans[0], nodules=(before,)), replace(scans[-1], nodules=(now,))
    timeline = follow(scans)
    track = timeline.tracks[0]
    assert track.nodules[1:-1] == (None,) * len(middle)
    assert lung_rads_status(track) is status
    again = far <= 20
    assert (len(timeline.tracks), track.change) == ((1, Change.GROWN) if again else (2, Change.NEW))
    (row, *_) = growth_rows(timeline)
    assert row["days"] == 100 * (len(middle) + 1 if again else 1)
    assert any("check by eye" in note for note in timeline.notes) == (8 < far <= 20)


def test_the_nearest_is_found_again_first(chest: ChestScan) -> None:
    scans = at_days(chest, (0, at(75, 7)), (300, None), (360, None))
    scans[2] = replace(scans[2], nodules=(at(87, 7, 1), at(76, 7, 2)))
    timeline = follow(scans)
    assert [lung_rads_status(one) for one in timeline.tracks] == [Status.NEW, Status.STABLE]


def test_two_nodules_where_one_was_missed_are_both_followed(chest: ChestScan) -> None:
    scans = at_days(chest, (0, at(75, 7)), (300, None), (360, None))
    scans[2] = replace(scans[2], nodules=(at(75, 7, 1), at(83, 7, 2)))
    timeline = follow(scans)
    assert [row["current_id"] for row in growth_rows(timeline)] == [1, 2]
    assert [lung_rads_status(one) for one in timeline.tracks] == [Status.STABLE, Status.NEW]


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (((0, by_image(7)), (360, by_image(7.5)), (720, by_image(8.9))), Status.SLOWLY_GROWING),
        (((0, by_hand(7)), (360, by_image(7)), (720, by_image(8.4))), Status.STABLE),
        (
            ((0, by_hand(6)), *((360 * n, by_image(6 + n)) for n in (1, 2, 3))),
            Status.SLOWLY_GROWING,
        ),
        (((None, at(75, 7)), (None, at(75, 7)), (None, at(75, 9))), None),
        (((None, at(75, 9)), (None, at(75, 6)), (None, at(75, 7.5))), None),
        (((0, at(75, 4)), (400, at(75, 5.8)), (800, at(75, 7.6))), None),
        (((0, at(75, 4)), (400, at(75, 5.8)), (800, at(75, 6.5))), Status.STABLE),
        (((0, at(75, 7)), (300, None), (360, at(75, 8)), (720, at(75, 9))), Status.SLOWLY_GROWING),
    ],
)
def test_slow_growth_takes_three_comparable_dates_and_small_steps(
    chest: ChestScan, found: tuple[tuple[int | None, Nodule | None], ...], status: Status | None
) -> None:
    (track,) = follow(at_days(chest, *found)).tracks
    assert track.change is Change.GROWN
    assert lung_rads_status(track) is status


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (((0, at(75, 5.0)), (120, at(75, 5.9)), (240, at(75, 6.8))), Status.GROWING),
        (((0, at(75, 5.0)), (120, None), (180, at(75, 5.9)), (240, at(75, 6.8))), Status.GROWING),
        (((0, by_image(5)), (120, by_hand(5.9)), (240, by_image(6.8))), Status.GROWING),
        (((0, by_hand(5)), (120, by_image(5.9)), (240, by_image(6.8))), Status.STABLE),
        (((0, at(75, 5.0)), (120, at(75, 5.9)), (367, at(75, 6.8))), Status.SLOWLY_GROWING),
        (
            ((0, at(75, 5.0)), (120, at(75, 5.9)), (240, at(75, 6.8)), (700, at(75, 8.3))),
            Status.STABLE,
        ),
        (((0, at(75, 5.0)), (120, at(75, 7.0)), (240, at(75, 7.0))), Status.GROWING),
        (((0, part(3.0)), (120, part(3.9)), (240, part(4.8))), Status.GROWING),
        (((0, at(75, 6.0)), (90, at(75, 12.0)), (180, at(75, 8.2))), Status.STABLE),
        (((0, at(75, 6.0)), (90, at(75, 12.0)), (100, None), (180, at(75, 8.2))), Status.STABLE),
        (
            ((0, at(75, 6.0)), (90, at(75, 12.0)), (180, at(75, 8.2)), (240, at(75, 8.2))),
            Status.STABLE,
        ),
        (
            ((0, at(75, 5.5)), (90, at(75, 7.0)), (180, at(75, 5.5)), (270, at(75, 7.1))),
            Status.GROWING,
        ),
        (((0, at(75, 14)), (90, at(75, 17)), (180, at(75, 15.5))), Status.STABLE),
        (((0, at(75, 14)), (90, at(75, 17)), (180, at(75, 15.6))), Status.GROWING),
        (((0, part(3.0)), (120, part(6.0)), (240, part(4.0))), Status.STABLE),
    ],
)
def test_growth_within_twelve_months_counts_over_all_scans_of_them(
    chest: ChestScan, found: tuple[tuple[int | None, Nodule | None], ...], status: Status
) -> None:
    timeline = follow(at_days(chest, *found))
    (track,) = timeline.tracks
    assert lung_rads_status(track) is status
    (row,) = growth_rows(timeline)
    assert row["lung_rads_change"] == status


@pytest.mark.parametrize(("sizes", "named"), [((5, 5.9, 6.8), True), ((5, 5.2, 6.8), False)])
def test_a_note_names_an_earlier_scan_that_a_nodule_grew_since(
    chest: ChestScan, sizes: tuple[float, ...], named: bool
) -> None:
    timeline = follow(at_days(chest, *((120 * n, at(75, mm)) for n, mm in enumerate(sizes))))
    assert lung_rads_status(timeline.tracks[0]) is Status.GROWING
    note = "Nodule 1 of 2 counts as growing for Lung-RADS since 0, not since the scan before."
    assert (note in timeline.notes) == named


def test_growth_since_an_earlier_scan_leaves_bts_an_answer(chest: ChestScan) -> None:
    """Its volume is that of the last scan, so there is no doubling time."""
    found = at_days(chest, (0, at(75, 6)), (120, at(75, 7.7)), (240, at(75, 7.7)))
    (one,) = assess_growth(follow(found))
    lung_rads, _, bts, _ = one.guidelines
    assert lung_rads.category == "4A"
    assert (bts.category, bts.months) == ("solid, 80 to 300 mm³", (3, 3))


@pytest.mark.parametrize("day", [120, None])
def test_a_nodule_of_a_compared_scan_has_no_category_of_a_first_ct(
    chest: ChestScan, day: int | None
) -> None:
    """Whether it is new is left to a reader, as it was added by hand."""
    prior, current = at_days(chest, (0, at(75, 8)), (day, None))
    current = replace(current, nodules=(replace(at(115, 8), probability=None),))
    (one,) = assess_growth(follow([prior, current]))
    assert (one.nodule.status, one.guidelines[0].if_first) == (None, "")


@pytest.mark.parametrize(("shift", "doubt"), [(0, False), (10, True)])
def test_growth_since_an_earlier_scan_needs_the_same_nodule_in_between(
    chest: ChestScan, shift: float, doubt: bool
) -> None:
    found = (0, at(75, 5.0)), (120, at(75 + shift, 5.9)), (240, at(75 + shift, 6.8))
    (track,) = follow(at_days(chest, *found)).tracks
    assert (lung_rads_status(track) is Status.GROWING) == (not doubt)


def test_a_merger_is_no_growth_since_earlier_scans(chest: ChestScan) -> None:
    first = date(2020, 1, 1)
    both = replace(at(75, 16), volume_mm3=2 * at(75, 8).volume_mm3)
    scans = [
        dated(chest, first, at(72, 8, 1), at(80, 8, 2)),
        dated(chest, first + timedelta(100), both),
        dated(chest, first + timedelta(200), both),
    ]
    (track,) = (one for one in follow(scans).tracks if one.nodules[-1])
    assert lung_rads_status(track) is Status.STABLE


@pytest.mark.parametrize(
    ("before", "now", "days", "expected"),
    [
        (7.0, 8.5, 365, Status.STABLE),
        (7.0, 8.6, 365, Status.GROWING),
        (7.0, 8.6, (date(2024, 3, 1) - date(2023, 3, 1)).days, Status.GROWING),
        (7.0, 6.0, 365, Status.STABLE),
        (7.0, 8.6, 367, None),
        (7.0, 8.5, 730, Status.STABLE),
    ],
)
def test_growth_by_lung_rads(before: float, now: float, days: int, expected: Status | None) -> None:
    assert change_by_lung_rads(before, now, days) is expected


@pytest.mark.parametrize(
    ("before", "now", "days", "expected"),
    [
        (
            (NoduleKind.PART_SOLID, 14.0, 3.0),
            (NoduleKind.PART_SOLID, 14.8, 9.0),
            360,
            Status.GROWING,
        ),
        (
            (NoduleKind.PART_SOLID, 14.0, 3.0),
            (NoduleKind.PART_SOLID, 14.8, 4.5),
            360,
            Status.STABLE,
        ),
        ((NoduleKind.PART_SOLID, 14.0, 3.0), (NoduleKind.PART_SOLID, 14.8, 9.0), 500, None),
        (
            (NoduleKind.NON_SOLID, 14.0, None),
            (NoduleKind.PART_SOLID, 14.0, 5.0),
            360,
            Status.GROWING,
        ),
        ((NoduleKind.NON_SOLID, 14.0, None), (NoduleKind.PART_SOLID, 14.0, 1.5), 360, None),
        ((NoduleKind.NON_SOLID, 14.0, None), (NoduleKind.SOLID, 14.0, None), 360, None),
        ((NoduleKind.PART_SOLID, 14.0, 8.0), (NoduleKind.NON_SOLID, 14.0, None), 360, None),
        ((NoduleKind.SOLID, 8.0, None), (NoduleKind.CALCIFIED, 8.0, None), 360, Status.STABLE),
        ((NoduleKind.SOLID, 8.0, None), (NoduleKind.PART_SOLID, 10.0, 6.0), 360, Status.GROWING),
    ],
)
def test_a_growing_solid_component_is_growth(
    before: tuple[NoduleKind, float, float | None],
    now: tuple[NoduleKind, float, float | None],
    days: int,
    expected: Status | None,
) -> None:
    was, then = (
        replace(
            nodule(1, (0, 0, 0)), kind=kind, diameter_mm=mm, perpendicular_mm=mm, solid_mm=solid
        )
        for kind, mm, solid in (before, now)
    )
    assert nodule_change_by_lung_rads(was, then, days) is expected


@pytest.mark.parametrize("sizes", [(5.0, 7.0, 7.0), (9.0, 10.4, 10.2)])
def test_growth_that_was_fast_or_has_ended_is_not_slow(
    chest: ChestScan, sizes: tuple[float, ...]
) -> None:
    days = (0, 300, 395)
    scans = [
        dated(chest, date(2020, 1, 1) + timedelta(day), at(75, size))
        for day, size in zip(days, sizes, strict=True)
    ]
    (track,) = follow(scans).tracks
    assert track.change is Change.GROWN
    assert lung_rads_status(track) is Status.STABLE


def test_a_merger_is_no_growth(chest: ChestScan, tmp_path: Path) -> None:
    """Two of 8 mm become one of twice the volume; then that is measured as a quarter larger."""
    first = date(2020, 1, 1)
    both = replace(at(75, 16), volume_mm3=2 * at(75, 8).volume_mm3)
    grown = replace(both, volume_mm3=1.25 * both.volume_mm3)
    scans = [
        dated(chest, first, at(72, 8, 1), at(80, 8, 2)),
        dated(chest, first + timedelta(360), both),
        dated(chest, first + timedelta(460), grown),
    ]
    timeline = follow(scans[:2])
    (pair, *_) = timeline.steps[0].nodules
    assert pair.others
    assert (pair.change, pair.lung_rads, pair.diameter_change_mm) == (Change.UNCHANGED, None, None)
    (track,) = (one for one in timeline.tracks if one.nodules[-1])
    assert track.rate == pair.rate
    (track,) = (one for one in follow(scans).tracks if one.nodules[-1])
    assert track.rate is not None
    alone = growth_rate(
        (0, 360, 460),
        (both.volume_mm3, both.volume_mm3, grown.volume_mm3),
        [growth_module.deviation(one, scans[0]) for one in (at(72, 8), both, grown)],
    )
    assert track.rate.per_day == pytest.approx(alone.per_day)
