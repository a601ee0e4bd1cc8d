"""The 95 % interval of a measure grows with what makes measuring hard."""

import json

import numpy as np
import SimpleITK as sitk
from nodule_crops import CropSpec, make_crop

from LungNoduleSegLib.nodules.finding import NoduleRules, find_nodules
from LungNoduleSegLib.nodules.table import NoduleKind
from LungNoduleSegLib.nodules.uncertainty import MEASURES, MODEL, measurement_interval
from LungNoduleSegLib.pipeline import cut_nodules

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


def test_what_the_scan_cuts_is_noted_and_has_no_interval() -> None:
    crop = make_crop(CropSpec(14.0))
    crop.lungs[:, :, :3] = False
    middle = int(np.nonzero(crop.mask)[0].mean())
    for part, cut in ((slice(None), False), (slice(middle, None), True)):
        arrays = (crop.mask.astype(np.float32), crop.hu, crop.lungs.astype(np.uint8))
        probability, hu, lungs = (sitk.GetImageFromArray(one[part]) for one in arrays)
        for image in (probability, hu, lungs):
            image.SetSpacing(crop.spacing[::-1].tolist())
        found = find_nodules(probability, hu, lungs, NoduleRules(), hu)
        (nodule,) = found.nodules
        assert (nodule.volume_pm_mm3 is None) == cut
        assert [note.split(":")[0] for note in cut_nodules(found.labels)] == [
            "Nodule 1 reaches the end of the scan"
        ] * cut
