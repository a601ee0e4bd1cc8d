"""The 95 % interval of a measure grows with what makes measuring hard."""

import json

from LungNoduleSegLib.nodules.table import NoduleKind
from LungNoduleSegLib.nodules.uncertainty import MEASURES, MODEL, measurement_interval

EASY = {
    "volume_mm3": 500.0,
    "spacing": (1.0, 0.7, 0.7),
    "kind": NoduleKind.SOLID,
    "attached": False,
    "noise_hu": 20.0,
}


def test_thicker_slices_have_wider_intervals() -> None:
    easy = measurement_interval(**EASY)  # type: ignore[arg-type]
    hard = measurement_interval(**(EASY | {"spacing": (5.0, 0.7, 0.7)}))  # type: ignore[arg-type]
    assert hard.volume_mm3 > easy.volume_mm3
    assert hard.mean_mm > easy.mean_mm


def test_only_a_part_solid_nodule_has_a_solid_part() -> None:
    assert measurement_interval(**EASY).solid_mm is None  # type: ignore[arg-type]
    part_solid = EASY | {"kind": NoduleKind.PART_SOLID}
    assert measurement_interval(**part_solid).solid_mm  # type: ignore[arg-type]


def test_the_intervals_hold_the_truth_of_nodules_that_they_were_not_fitted_on() -> None:
    record = json.loads(MODEL.read_text(encoding="utf-8"))
    assert record["outlined"] - record["fitted"] >= 200
    assert set(record["held_by_the_others"]) == set(MEASURES)
    assert record["held_by_the_others"]["volume"] >= 0.9
    assert record["held_by_the_others"]["mean"] >= 0.9
