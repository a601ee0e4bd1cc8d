"""Scans with nodules of known places and sizes, for the tests of growth."""

import functools
import math
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import SimpleITK as sitk

from LungNoduleSegLib.nodules.table import Nodule, NoduleKind, Side
from LungNoduleSegLib.risk.alignment import Alignment
from LungNoduleSegLib.risk.growth import ChestScan

DAYS = (0, 90, 365, 730)
STILL = Alignment({side: sitk.AffineTransform(3) for side in Side}, {}, {})


def nodule(
    id: int, at: tuple[float, float, float], side: Side = Side.RIGHT, size: float = 8
) -> Nodule:
    volume = math.pi / 6 * size**3
    x, y, z = at
    return Nodule(
        id=id,
        x=x,
        y=y,
        z=z,
        slice=0,
        diameter_mm=size,
        perpendicular_mm=size,
        equivalent_diameter_mm=size,
        volume_mm3=volume,
        mean_hu=0,
        std_hu=0,
        min_hu=0,
        p10_hu=0,
        median_hu=0,
        p90_hu=0,
        max_hu=0,
        kind=NoduleKind.SOLID,
        solid_mm=None,
        side=side,
        pleura_mm=5,
        probability=0.9,
        mean_probability=0.8,
    )


@functools.cache
def chest_scan() -> ChestScan:
    """A box with two lungs, as small as can be aligned."""
    lungs = np.zeros((30, 40, 60), np.uint8)
    lungs[4:26, 6:34, 6:26], lungs[4:26, 6:34, 34:54] = 1, 2
    rng = np.random.default_rng(0)
    hu = np.where(lungs > 0, rng.normal(-800, 60, lungs.shape), 30).astype(np.int16)
    images = []
    for array in (hu, lungs):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((4.0, 4.0, 5.0))
        images.append(image)
    return ChestScan("scan", images[0], images[1], ())


def at(z: float, size: float, id: int = 1, x: float = 60.0, probability: float = 0.9) -> Nodule:
    return replace(nodule(id, (x, 80.0, z), size=size), probability=probability)


def dated(chest: ChestScan, day: date, *nodules: Nodule, **changes: Any) -> ChestScan:
    return replace(chest, name=str(day), date=day, nodules=nodules, **changes)


def at_days(chest: ChestScan, *found: tuple[int | None, Nodule | None]) -> list[ChestScan]:
    """A scan on each day, None for one without a date, with a nodule or without."""
    return [
        replace(
            chest,
            name=str(n),
            nodules=() if one is None else (one,),
            date=None if day is None else date(2020, 1, 1) + timedelta(day),
        )
        for n, (day, one) in enumerate(found)
    ]
