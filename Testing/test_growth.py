"""Growth: pairs of nodules, doubling times, and rates fitted to two or more dates."""

import math
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from CTLungScreeningLib.errors import InputError
from docs_scripts import script_of
from growth_cases import DAYS, STILL, at, dated, nodule
from LungNoduleSegLib.nodules.table import Nodule, Outline, Side
from LungNoduleSegLib.results.growth_results import track_sentence
from LungNoduleSegLib.risk import growth as growth_module
from LungNoduleSegLib.risk.facts import Status
from LungNoduleSegLib.risk.growth import ChestScan, compare_scans, match, method_of, study_date
from LungNoduleSegLib.risk.growth_rate import (
    REPEATABILITY,
    Change,
    growth_rate,
    latest_growth,
    volume_deviation,
    volume_interval,
)
from LungNoduleSegLib.risk.timeline import follow, lung_rads_status

pytestmark = pytest.mark.xdist_group("growth")


def test_pairs_are_one_to_one_within_the_gate_and_the_lung() -> None:
    assert match([], [nodule(1, (0, 0, 0))], STILL) == []
    # 9 and 11 mm apart, rather than 1 and 19
    prior = [nodule(1, (0, 0, 0)), nodule(2, (8, 0, 0))]
    current = [nodule(1, (9, 0, 0)), nodule(2, (19, 0, 0))]
    assert [(a.id, b.id) for a, b, _ in match(prior, current, STILL)] == [(1, 1), (2, 2)]
    assert match([nodule(1, (0, 0, 0))], [nodule(1, (0, 0, 20.1))], STILL) == []
    ((_, _, apart),) = match([nodule(1, (0, 0, 0))], [nodule(1, (0, 0, 19.9))], STILL)
    assert apart == pytest.approx(19.9)
    assert match([nodule(1, (0, 0, 0))], [nodule(1, (1, 0, 0), Side.LEFT)], STILL) == []


def test_a_far_pair_is_never_made_at_the_cost_of_a_near_one() -> None:
    prior = [nodule(1, (0, 0, 0)), nodule(2, (0, 0, 15))]
    current = [nodule(1, (0, 0, 1)), nodule(2, (0, 0, 60))]
    assert [(a.id, b.id) for a, b, _ in match(prior, current, STILL)] == [(1, 1)]


def doubling_days(prior_mm3: float, current_mm3: float, days: float) -> float:
    return growth_rate((0, days), (prior_mm3, current_mm3), (0.1, 0.1)).doubling_days


def test_doubling_time_by_hand() -> None:
    # A doubling in 100 days; 8 times in 300 days; 10 mm to 12 mm in 90 days: 90·ln2 / (3·ln1.2).
    assert doubling_days(500, 1000, 100) == pytest.approx(100)
    assert doubling_days(100, 800, 300) == pytest.approx(100)
    assert doubling_days(10**3, 12**3, 90) == pytest.approx(114.05, abs=0.01)
    assert doubling_days(1000, 500, 100) == pytest.approx(-100)


@given(st.floats(1, 1e5), st.floats(1.01, 50), st.integers(1, 4000))
def test_after_that_many_doubling_times_the_volume_is_reached(
    volume: float, ratio: float, days: int
) -> None:
    found = doubling_days(volume, volume * ratio, days)
    assert volume * 2 ** (days / found) == pytest.approx(volume * ratio, rel=1e-9)


@pytest.mark.parametrize(
    ("size", "change", "doubling", "lung_rads"),
    [
        (10.7, Change.UNCHANGED, None, Status.STABLE),  # +22.5 % of volume
        (10.8, Change.GROWN, 365 * math.log(2) / (3 * math.log(1.08)), Status.STABLE),
        (11.5, Change.GROWN, 365 * math.log(2) / (3 * math.log(1.15)), Status.STABLE),
        (11.6, Change.GROWN, 365 * math.log(2) / (3 * math.log(1.16)), Status.GROWING),
        (9.3, Change.UNCHANGED, None, Status.STABLE),  # −19.6 %: 1/1.25 is −20 %
        (9.2, Change.SHRUNK, None, Status.STABLE),
    ],
)
def test_bands_of_variability(
    chest: ChestScan,
    size: float,
    change: Change,
    doubling: float | None,
    lung_rads: Status,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On thin slices, where two scans of an unchanged nodule differ by up to 25 %."""
    at = (60.0, 80.0, 75.0)
    prior = replace(chest, nodules=(nodule(1, at, size=10),), date=date(2022, 3, 1))
    current = replace(chest, nodules=(nodule(1, at, size=size),), date=date(2023, 3, 1))
    monkeypatch.setattr(growth_module, "volume_deviation", lambda *_: REPEATABILITY)
    growth = compare_scans(prior, current)
    (one,) = growth.nodules
    assert growth.days == 365
    assert one.change is change
    assert one.doubling_days == (None if doubling is None else pytest.approx(doubling))
    assert one.lung_rads is lung_rads
    # 13 months apart Lung-RADS does not say
    longer = compare_scans(prior, current, days=400).nodules[0]
    assert longer.lung_rads is (None if lung_rads is Status.GROWING else Status.STABLE)


def test_dates_that_tell_no_interval_are_said(chest: ChestScan) -> None:
    day = date(2020, 2, 3)
    grown = (nodule(1, (60.0, 80.0, 75.0), size=20),)
    prior = replace(chest, name="old", nodules=(nodule(1, (60.0, 80.0, 75.0)),), date=day)
    undated = compare_scans(prior, replace(chest, name="now", nodules=grown))
    assert any("now has no study date: enter the days" in note for note in undated.notes)
    assert undated.nodules[0].change is Change.GROWN
    assert undated.nodules[0].doubling_days is undated.nodules[0].lung_rads is None
    same = compare_scans(prior, replace(chest, nodules=grown, date=day))
    assert any("both scans are dated 2020-02-03" in note for note in same.notes)
    earlier = replace(chest, name="now", nodules=grown, date=date(2019, 2, 3))
    with pytest.raises(InputError, match=r"old \(2020-02-03\) is later.*swap"):
        compare_scans(prior, earlier)
    compared = compare_scans(prior, earlier, days=100)
    assert compared.notes == ()
    assert compared.nodules[0].doubling_days == pytest.approx(100 / (3 * math.log2(2.5)))
    with pytest.raises(InputError, match="0 days"):
        compare_scans(prior, earlier, days=0)


def test_other_patients_other_slices_and_missing_lungs_are_said(chest: ChestScan) -> None:
    coarse = sitk.Resample(
        chest.hu, (60, 40, 15), sitk.Transform(), sitk.sitkLinear, (0, 0, 0), (4.0, 4.0, 10.0)
    )
    other = replace(chest, hu=coarse, patient_id="B")
    notes = " ".join(compare_scans(replace(chest, patient_id="A"), other, 10).notes)
    assert "different patient IDs, A and B" in notes
    assert "5 mm apart in the prior and 10 mm in the current" in notes
    one_lung = replace(chest, lungs=sitk.Mask(chest.lungs, chest.lungs == 1))
    assert "left lung is not in both scans" in compare_scans(chest, one_lung, 10).notes[0]
    left_only = replace(chest, lungs=sitk.Mask(chest.lungs, chest.lungs == 2))
    with pytest.raises(InputError, match="no lung in common"):
        compare_scans(one_lung, left_only, 10)
    with pytest.raises(InputError, match="shows no lung"):
        compare_scans(chest, replace(chest, lungs=chest.lungs * 0), 10)


def test_study_dates() -> None:
    assert study_date("20240229") == date(2024, 2, 29)
    assert study_date("") is study_date("20230229") is study_date("2024-02-29") is None


def test_only_like_is_compared_with_like(chest: ChestScan) -> None:
    """Two thresholds, or a brush and a network, make a nodule another size without growth."""
    made = {"model": "U-Net (01234567)", "threshold": "0.5"}
    prior = dated(chest, date(2022, 1, 1), at(75, 10), method=made)
    same = compare_scans(prior, dated(chest, date(2022, 7, 1), at(75, 13), method=made))
    assert same.nodules[0].change is Change.GROWN
    assert not same.notes
    lower = dated(chest, date(2022, 7, 1), at(75, 13), method=made | {"threshold": "0.3"})
    growth = compare_scans(prior, lower)
    (one,) = growth.nodules
    assert one.change is Change.NOT_COMPARABLE
    assert one.doubling_days is one.volume_change is one.lung_rads is None
    assert growth.notes == (
        "The threshold was 0.5 for 2022-01-01 and 0.3 for 2022-07-01: volumes are not compared, "
        "and nodules that seem new may have been missed before. Run both scans with the same "
        "settings.",
    )
    assert "grown" not in track_sentence(follow([prior, lower]).tracks[0])
    unknown = compare_scans(prior, dated(chest, date(2022, 7, 1), at(75, 13)))
    assert "The model was U-Net (01234567) for 2022-01-01 and not recorded" in unknown.notes[0]
    drawn = replace(at(75, 13), probability=None)
    by_hand = compare_scans(prior, dated(chest, date(2022, 7, 1), drawn, method=made))
    assert by_hand.nodules[0].change is Change.NOT_COMPARABLE
    clicked, brushed = (
        replace(at(75, 13), probability=None, outline=how) for how in (Outline.IMAGE, Outline.HAND)
    )
    found = replace(at(75, 10), outline=Outline.IMAGE)
    by_image = dated(chest, date(2022, 1, 1), found, method=made)
    for later, change in ((clicked, Change.GROWN), (brushed, Change.NOT_COMPARABLE)):
        growth = compare_scans(by_image, dated(chest, date(2022, 7, 1), later, method=made))
        assert growth.nodules[0].change is change


@pytest.mark.parametrize(
    ("before", "now", "status"),
    [
        ({"threshold": "0.5"}, {"threshold": "0.3"}, None),
        ({"threshold": "0.3"}, {"threshold": "0.5"}, Status.NEW),
        ({"threshold": "0.9"}, {"threshold": "1e-05"}, None),
        ({}, {"threshold": "0.5"}, None),
        ({"model": "a"}, {"model": "b"}, None),
        ({}, {"second opinion": "a"}, None),
        ({"classifier": "a"}, {}, None),
        ({"volume measurement": "1"}, {"volume measurement": "2"}, Status.NEW),
    ],
)
def test_only_settings_that_find_more_nodules_deny_that_one_is_new(
    chest: ChestScan, before: dict[str, str], now: dict[str, str], status: Status | None
) -> None:
    growth = compare_scans(
        dated(chest, date(2022, 1, 1), at(115, 8), method=before),
        dated(chest, date(2022, 7, 1), at(115, 8, 1), at(75, 8, 2), method=now),
    )
    assert [(one.change, one.lung_rads) for one in growth.nodules] == [
        (Change.NOT_COMPARABLE, None),
        (Change.NEW, status),
    ]
    (note,) = growth.notes
    assert "volumes are not compared" in note
    assert ("seem new may have been missed" in note) == (status is None)


@pytest.mark.parametrize(
    ("before", "threshold", "by_hand", "status", "words"),
    [
        ((), "0.5", False, Status.NEW, ()),
        ((), "0.3", False, None, ("seem new may have been missed",)),
        ((), "0.5", True, None, ("Nodule 2 of 2022-07-01 was added by hand, but none of 2022",)),
        ((at(110, 8),), "0.5", True, None, ("check by eye whether it is new",)),
        ((replace(at(110, 8), probability=None),), "0.5", True, Status.NEW, ()),
    ],
)
def test_a_nodule_is_new_if_the_prior_run_would_have_shown_it(
    chest: ChestScan,
    before: tuple[Nodule, ...],
    threshold: str,
    by_hand: bool,
    status: Status | None,
    words: tuple[str, ...],
) -> None:
    found = at(75, 9, 2)
    now = replace(found, probability=None if by_hand else found.probability)
    prior = dated(chest, date(2022, 1, 1), *before, method={"threshold": "0.5"})
    current = dated(chest, date(2022, 7, 1), now, method={"threshold": threshold})
    timeline = follow([prior, current])
    track = timeline.tracks[0]
    assert (track.change, lung_rads_status(track)) == (Change.NEW, status)
    for note, word in zip(timeline.notes, words, strict=True):
        assert word in note


def test_a_nodule_that_the_scan_cuts_off_is_not_compared(chest: ChestScan) -> None:
    prior = dated(chest, date(2022, 1, 1), at(75, 8, 3))
    current = dated(chest, date(2022, 7, 1), at(75, 12, 4))
    for cut, where in (((3, 0), "3 of 2022-01-01"), ((0, 4), "4 of 2022-07-01")):
        scans = [
            replace(scan, cut=frozenset({number}))
            for scan, number in zip((prior, current), cut, strict=True)
        ]
        timeline = follow(scans)
        (track,) = timeline.tracks
        (step,) = track.steps
        assert step is not None
        assert (track.change, track.rate, step.lung_rads) == (Change.NOT_COMPARABLE, None, None)
        assert timeline.notes == (
            f"Nodule {where} reaches the end of the scan: its volume is not compared.",
        )


def test_a_nodule_far_from_where_it_is_expected_is_checked_by_eye(chest: ChestScan) -> None:
    prior = dated(chest, date(2022, 1, 1), at(65, 8))
    for z, status, notes in (
        (73, Status.STABLE, ()),
        (
            80,
            None,
            (
                "Nodule 1 of 2022-07-01 lies 15 mm from where nodule 1 of 2022-01-01 is expected: "
                "check by eye that they are the same.",
            ),
        ),
    ):
        timeline = follow([prior, dated(chest, date(2022, 7, 1), at(z, 8))])
        (track,) = timeline.tracks
        assert track.change is Change.UNCHANGED
        assert (lung_rads_status(track), timeline.notes) == (status, notes)


def test_lungs_that_do_not_look_alike_tell_no_lung_rads_change(chest: ChestScan) -> None:
    lungs = sitk.GetArrayViewFromImage(chest.lungs)
    noise = np.random.default_rng(1).normal(-800, 60, lungs.shape)
    hu = sitk.GetImageFromArray(np.where(lungs > 0, noise, 30).astype(np.int16))
    hu.CopyInformation(chest.hu)
    prior = dated(chest, date(2022, 1, 1), at(65, 8))
    other = dated(replace(chest, hu=hu), date(2022, 7, 1), at(65, 8, 1), at(115, 8, 2))
    growth = compare_scans(prior, other)
    assert [one.change for one in growth.nodules] == [Change.UNCHANGED, Change.NEW]
    assert [one.lung_rads for one in growth.nodules] == [None, None]
    for side, note in zip(Side, growth.notes, strict=True):
        assert f"The {side} lungs of 2022-01-01 and 2022-07-01 do not look alike" in note


def test_what_volumes_depend_on_is_in_the_record_of_a_run() -> None:
    record = {
        "model": {
            "name": "U-Net",
            "sha256": "0123456789",
            "second_opinion_sha256": "abcdef012",
            "classifier_sha256": "9876543210",
        },
        "parameters": {
            "lung_method": "volume",
            "rules": {"threshold": 0.4, "min_diameter_mm": 3},
            "volume_measurement": "by voxels",
        },
    }
    assert method_of(record) == {
        "model": "U-Net (01234567)",
        "second opinion": "abcdef01",
        "classifier": "98765432",
        "threshold": "0.4",
        "volume measurement": "by voxels",
    }
    assert method_of({"input": {}}) == {}


def test_merged_and_split_nodules_are_no_new_or_lost_ones(chest: ChestScan) -> None:
    apart = dated(chest, date(2022, 1, 1), at(70, 10, 1), at(81, 10, 2))
    together = dated(chest, date(2022, 7, 1), at(75, 22, 1))
    merged = {one.change: one for one in compare_scans(apart, together).nodules}
    lost = merged[Change.MERGED]
    assert lost.prior is not None
    assert lost.part_of is together.nodules[0]
    (grown,) = (one for one in merged.values() if one.current)
    assert grown.others == (lost.prior,)
    both = sum(one.volume_mm3 for one in apart.nodules)
    assert grown.volume_change == pytest.approx(22**3 * math.pi / 6 / both - 1)
    by_hand = replace(apart, nodules=(at(70, 10, 1), replace(at(81, 10, 2), probability=None)))
    (main, *_) = compare_scans(by_hand, together).nodules
    assert (main.change, len(main.others)) == (Change.NOT_COMPARABLE, 1)
    back = follow([replace(together, date=date(2021, 1, 1)), apart])
    assert {one.change for one in back.tracks} == {Change.SPLIT, Change.NOT_COMPARABLE}
    (split,) = (one for one in back.tracks if one.change is Change.SPLIT)
    assert "split off from nodule 1" in track_sentence(split)
    assert all(one.lung_rads is None for one in back.steps[0].nodules)


@pytest.mark.parametrize(
    ("places", "merged"),
    [
        (((60.0, 69.0), (60.0, 81.0)), True),  # above each other
        (((53.0, 75.0), (69.0, 75.0)), False),  # beside it
        (((60.0, 72.0), (60.0, 90.0)), False),  # above it
    ],
)
def test_nodules_above_each_other_merge(
    chest: ChestScan, places: tuple[tuple[float, float], tuple[float, float]], merged: bool
) -> None:
    """The merged one is no wider than each, but as high as both; others near it are lost."""
    together = replace(at(75, 8), volume_mm3=2.1 * at(75, 8).volume_mm3)
    apart = [at(z, 8, n, x) for n, (x, z) in enumerate(places, start=1)]
    growth = compare_scans(
        dated(chest, date(2022, 1, 1), *apart), dated(chest, date(2022, 7, 1), together)
    )
    (main, lost) = growth.nodules
    assert lost.change is (Change.MERGED if merged else Change.VANISHED)
    assert main.change is (Change.UNCHANGED if merged else Change.GROWN)


def test_a_fitted_rate_and_its_interval_by_hand() -> None:
    """Two points: slope ln 2 / 100, standard error sqrt(2) 0.1 / 100."""
    rate = growth_rate((0, 100), (500, 1000), (0.1, 0.1))
    assert rate.per_day == pytest.approx(math.log(2) / 100)
    half = 1.959964 * math.sqrt(2) * 0.1 / 100
    assert rate.high - rate.per_day == pytest.approx(half)
    assert rate.doubling_interval == pytest.approx(
        (math.log(2) / rate.high, math.log(2) / rate.low)
    )
    assert rate.volume(0) == pytest.approx(500)
    unsure = growth_rate((0, 100), (500, 600), (0.1, 0.1))
    assert unsure.change is Change.UNCHANGED
    assert unsure.doubling_interval[1] == math.inf
    # 25 % is the limit on thin slices, both ways
    thin = (REPEATABILITY, REPEATABILITY)
    assert growth_rate((0, 1), (100, 125.1), thin).change is Change.GROWN
    assert growth_rate((0, 1), (100, 124.9), thin).change is Change.UNCHANGED
    assert growth_rate((0, 1), (125.1, 100), thin).change is Change.SHRUNK


def test_thick_slices_make_small_nodules_less_sure() -> None:
    thin = volume_deviation(250, (0.7, 0.7, 1.0))
    assert thin == REPEATABILITY
    assert volume_deviation(250, (0.7, 0.7, 5.0)) > volume_deviation(2000, (0.7, 0.7, 5.0)) > thin
    scan = ChestScan("", sitk.Image((9, 9, 9), sitk.sitkInt16), sitk.Image(1, 1, 1, 1), ())
    sure, unsure = (
        replace(at(0, 8), volume_pm_mm3=share * at(0, 8).volume_mm3) for share in (0.05, 0.5)
    )
    assert growth_module.deviation(sure, scan) == REPEATABILITY
    assert growth_module.deviation(unsure, scan) == pytest.approx(math.log(1.5) / 1.959964)
    thick = sitk.Image((9, 9, 9), sitk.sitkInt16)
    thick.SetSpacing((0.7, 0.7, 5.0))
    scan = replace(scan, hu=thick)
    larger = replace(at(0, 12), volume_pm_mm3=sure.volume_pm_mm3)
    assert growth_module.deviation(sure, scan) == pytest.approx(math.log(2) / 1.959964)
    assert growth_module.deviation(larger, scan) == REPEATABILITY
    low, high = volume_interval(100, REPEATABILITY)
    assert low * high == pytest.approx(100**2)


@pytest.mark.parametrize("doubling", [150, 400, math.inf])
def test_intervals_hold_the_truth_as_often_as_they_say(doubling: float) -> None:
    rng = np.random.default_rng(0)
    deviations = (0.08, 0.12, 0.1, 0.15)
    held = called = 0
    for _ in range(1000):
        true = np.log(300) + np.log(2) * np.array(DAYS) / doubling
        rate = growth_rate(
            DAYS, np.exp(true + deviations * rng.normal(size=4)).tolist(), deviations
        )
        held += rate.low <= math.log(2) / doubling <= rate.high
        called += rate.change is Change.GROWN
    assert held > 940
    if doubling == math.inf:
        assert called < 40


@pytest.mark.parametrize("dates", [2, 3, 5])
def test_more_dates_hardly_make_an_unchanged_nodule_change(dates: int) -> None:
    rng = np.random.default_rng(0)
    deviations = [REPEATABILITY] * dates
    called = 0
    for _ in range(3000):
        volumes = np.exp(np.log(300) + REPEATABILITY * rng.normal(size=dates)).tolist()
        rate, _ = latest_growth(range(0, 365 * dates, 365), volumes, deviations)
        called += rate.change is not Change.UNCHANGED
    assert called < 0.077 * 3000


def test_phantom_nodules_at_four_dates_are_measured_within_their_intervals() -> None:
    """Three realizations of what docs/growth_realizations.py does a hundred times."""
    script = script_of("growth_realizations")
    (setting, _) = script.SETTINGS
    for seed in range(3):
        for doubling, change in ((200.0, Change.GROWN), (math.inf, Change.UNCHANGED)):
            assert script.realization(setting, doubling, seed) == (True, change)
