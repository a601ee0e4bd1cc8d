"""T12 by the lowest ribs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.geometry import TOUCHING
from CTSliceToolsLib.localizer.body_grid import (
    COARSE_MM,
    Anchor,
    BodyGrid,
    Mask,
    component_sizes,
    grey,
)
from CTSliceToolsLib.slice_image import PIXEL_MM

RIB = grey(180)
THICK_PX = 7
"""Ribs are thinner than this in some direction; organs and vessels with contrast are not."""

BESIDE_SPINE_MM = (28.0, 52.0)
"""Here a rib or a transverse process is looked for, from the middle of the spine to the side."""

BEHIND_MM = (-15.0, 50.0)
"""The same from front to back."""

RIB_REACH_MM = 65.0
"""Ribs reach further to the side than this, transverse processes do not."""

SHORT_RIB_MM = 46.0
"""A twelfth rib that is too short for that still reaches further than transverse processes."""

LEAST_DROP_MM = 3.0
"""A rib falls towards its end, a transverse process of the lumbar spine does not."""

MOST_RIB_ML = 80.0
RIBS_APART_MM = (16.0, 48.0)
BELOW_RIBS_MM = 40.0
"""Minimum extent of the scan below the lowest rib, so that it is the last one."""

RIBS_LEVEL_MM = 45.0
"""The lowest ribs of both sides are not further apart along z; a side without a twelfth rib is."""

RIB_BELOW_T12_MM = 5.0
"""The twelfth rib passes the inner end of `BESIDE_SPINE_MM` so far below the centre of T12.

It is the median of the five scans of ../shared/data that show both.
"""


class _Process(NamedTuple):
    """A lateral protrusion of the spine: a rib, or a transverse process.

    LPS z of its inner and outer end within `BESIDE_SPINE_MM`, and how far it reaches to the side.
    """

    inner_z: float
    outer_z: float
    reach_mm: float

    @property
    def falls(self) -> bool:
        return self.inner_z - self.outer_z >= LEAST_DROP_MM


def rib_anchors(body: BodyGrid) -> Iterator[Anchor]:
    """Find T12 by the lowest ribs, where the scan goes on below them.

    Long ribs differ from transverse processes by their reach, a short twelfth rib by its descent.
    """
    spine = _spine(body)
    if spine is None:
        return
    right, left = (_lowest_rib(body, side) for side in _processes(body, *spine))
    if right is None or left is None or abs(right - left) > RIBS_LEVEL_MM:
        return
    sd = float(np.linalg.norm((9, abs(right - left) / 2, body.step_mm)))
    yield Anchor("Lowest ribs", "T12", (right + left) / 2 + RIB_BELOW_T12_MM, sd)


def _spine(body: BodyGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Row and column of the spine in each slice, in pixels of `fine`, (z,) each.

    It is where most bone is along 40 mm of z, behind the middle of the body and near its midline.
    """
    bone = ((body.coarse > RIB) & body.body).astype(np.float32)
    count, rows, columns = bone.shape
    middle = float(ndimage.center_of_mass(body.body)[2])
    strip: Mask = np.any(body.body[:, :, max(0, round(middle) - 5) : round(middle) + 6], axis=2)
    front, back = strip.argmax(1)[:, None], rows - 1 - strip[:, ::-1].argmax(1)[:, None]
    bone = ndimage.uniform_filter1d(bone, max(1, round(40 / body.step_mm)), axis=0)
    bone = ndimage.uniform_filter(bone, (0, 11, 11))
    bone *= np.exp(-0.5 * ((np.arange(columns) - middle) * COARSE_MM / 25) ** 2)
    behind = back - np.arange(rows)
    likely = (behind * COARSE_MM > 35) & (behind < 0.6 * (back - front))
    bone *= likely[:, :, None]
    seen = np.flatnonzero(strip.any(1) & bone.reshape(count, -1).any(1))
    if not len(seen):
        return None
    place = np.unravel_index(bone[seen].reshape(len(seen), -1).argmax(1), (rows, columns))
    window = 2 * round(40 / body.step_mm) + 1
    row, column = (
        ndimage.gaussian_filter1d(
            ndimage.median_filter(np.interp(np.arange(count), seen, at), window, mode="nearest"),
            15 / body.step_mm,
            mode="nearest",
        )
        for at in place
    )
    return 2 * row + 0.5, 2 * column + 0.5


def _processes(
    body: BodyGrid, row: NDArray[np.float64], column: NDArray[np.float64]
) -> Iterator[list[_Process]]:
    """Find what stands out from the spine on the right, then on the left."""
    rows, columns = (
        slice(max(0, round((at.min() - low) / PIXEL_MM)), round((at.max() + high) / PIXEL_MM))
        for at, low, high in ((row * PIXEL_MM, 100, 80), (column * PIXEL_MM, 160, 160))
    )
    fine = body.fine[:, rows, columns]
    inside = body.body.repeat(2, axis=1).repeat(2, axis=2)[:, rows, columns]
    bone = ((fine > RIB) & inside).view(np.uint8)
    thick = ndimage.minimum_filter(bone, (1, THICK_PX, THICK_PX))
    bone &= ~ndimage.maximum_filter(thick, (1, THICK_PX + 2, THICK_PX + 2))
    behind = (np.arange(fine.shape[1]) + rows.start - row[:, None]) * PIXEL_MM
    near = ((behind > BEHIND_MM[0]) & (behind < BEHIND_MM[1]))[:, :, None]
    for side in (-1, 1):
        aside = side * (np.arange(fine.shape[2]) + columns.start - column[:, None]) * PIXEL_MM
        yield list(_on_side(body, bone.astype(bool), near, aside))


def _on_side(
    body: BodyGrid, bone: Mask, near: Mask, aside_mm: NDArray[np.float64]
) -> Iterator[_Process]:
    inner, outer = BESIDE_SPINE_MM
    bone = bone & (aside_mm > inner)[:, None]
    whole, count = ndimage.label(bone, TOUCHING)
    size = component_sizes(whole, count + 1) * PIXEL_MM**2 * body.step_mm / 1000
    beside, _ = ndimage.label(bone & near & (aside_mm < outer)[:, None], TOUCHING)
    boxes = ndimage.find_objects(whole)
    for label, box in enumerate(ndimage.find_objects(beside), 1):
        k, y, x = np.nonzero(beside[box] == label)
        part = whole[box][k[0], y[0], x[0]]
        k += box[0].start
        here = aside_mm[k, x + box[2].start]
        if here.min() > inner + 6 or np.ptp(here) < 8 or size[part] > MOST_RIB_ML:
            continue
        slices, _, across = boxes[part - 1]
        yield _Process(
            float(body.z_mm[k[here < here.min() + 8]].mean()),
            float(body.z_mm[k[here > here.max() - 8]].mean()),
            float(aside_mm[slices, across].max()),
        )


def _lowest_rib(body: BodyGrid, processes: Sequence[_Process]) -> float | None:
    """LPS z of the inner end of the lowest rib on one side."""
    near, far = RIBS_APART_MM
    ribs = [one for one in processes if one.reach_mm > RIB_REACH_MM]
    in_row = [
        one.inner_z
        for one in ribs
        if one.falls
        and (
            any(near < other.inner_z - one.inner_z < far for other in ribs)
            or body.z_mm[-1] - one.inner_z < far
        )
    ]
    if not in_row:
        return None
    lowest = min(in_row)
    short = [
        one.inner_z
        for one in processes
        if one.falls and one.reach_mm > SHORT_RIB_MM and near < lowest - one.inner_z < far
    ]
    lowest = min([lowest, *short])
    return lowest if lowest - body.z_mm[0] > BELOW_RIBS_MM else None
