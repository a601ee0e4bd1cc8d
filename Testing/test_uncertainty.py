"""The 95 % interval of a measure grows with what makes measuring hard."""

import json

from LungNoduleSegLib.nodules.table import NoduleKind
from LungNoduleSegLib.nodules.uncertainty import MEASURES, MODEL, measurement_interval

EASY = {
    "diameter_mm": 10.0,
    "volume_mm3": 500.0,
    "spacing": (1.0, 0.7, 0.7),
    "kind": NoduleKind.SOLID,
    "attached": False,
    "contact": 0.0,
    "noise_hu": 20.0,
}


def test_thicker_slices_have_wider_intervals() -> None:
    easy = measurement_interval(**EASY)  # type: ignore[arg-type]
    hard = measurement_interval(**(EASY | {"spacing": (5.0, 0.7, 0.7)}))  # type: ignore[arg-type]
    assert hard.volume_mm3 > easy.volume_mm3
    assert hard.mean_mm > easy.mean_mm


def test_no_interval_is_wider_than_the_diameter() -> None:
    hard = EASY | {
        "spacing": (10.0, 1.0, 1.0),
        "attached": True,
        "contact": 1.0,
        "noise_hu": 300.0,
        "kind": NoduleKind.PART_SOLID,
    }
    for diameter, volume in ((4.0, 20.0), (10.0, 500.0), (60.0, 1e5)):
        half = measurement_interval(
            **(hard | {"diameter_mm": diameter, "volume_mm3": volume})  # type: ignore[arg-type]
        )
        assert half.solid_mm is not None
        assert max(half.longest_mm, half.across_mm, half.mean_mm, half.solid_mm) <= diameter / 2
        assert half.volume_mm3 <= volume


def test_what_borders_on_wall_or_vessel_has_wider_intervals() -> None:
    free = measurement_interval(**EASY)  # type: ignore[arg-type]
    attached = EASY | {"attached": True, "contact": 0.2}
    assert measurement_interval(**attached).mean_mm > free.mean_mm  # type: ignore[arg-type]


def test_only_a_part_solid_nodule_has_a_solid_part() -> None:
    assert measurement_interval(**EASY).solid_mm is None  # type: ignore[arg-type]
    part_solid = EASY | {"kind": NoduleKind.PART_SOLID}
    assert measurement_interval(**part_solid).solid_mm  # type: ignore[arg-type]


def test_the_intervals_hold_the_truth_of_nodules_that_they_were_not_fitted_on() -> None:
    record = json.loads(MODEL.read_text(encoding="utf-8"))
    assert record["outlined"] >= 800
    assert set(record["held"]) == set(MEASURES)
    for measure in ("longest", "across", "mean", "volume"):
        assert 0.93 <= record["held"][measure] <= 0.97
