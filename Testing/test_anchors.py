"""Landmarks found without a network: in bodies made of simple shapes, and in real scans."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from CTLungScreeningLib.hu import SLICE_WINDOW
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTSliceToolsLib.localizer.anchors import examine
from CTSliceToolsLib.localizer.body_grid import Anchor
from CTSliceToolsLib.slice_image import PIXEL_MM, SIZE, slice_images

AIR, LUNG, SOFT, BONE = -1000, -850, 40, 700
STEP_MM = 3.0

X, Y = np.meshgrid(*(np.arange(SIZE) * PIXEL_MM - SIZE * PIXEL_MM / 2,) * 2)
"""mm from the middle of the picture, to the left and to the back."""


def slices(low: float, high: float) -> NDArray[np.float64]:
    return np.arange(low, high, STEP_MM)


def disc(x: float, y: float, radius: float, wide: float = 1.0) -> NDArray[np.bool_]:
    return ((X - x) / wide) ** 2 + (Y - y) ** 2 < radius**2


def grey(hu: NDArray[np.floating]) -> NDArray[np.uint8]:
    return SLICE_WINDOW.to_uint8(hu)


def chest(z_mm: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Apices at 0, bifurcation at −80, right dome at −150; the trachea reaches 40 mm higher."""
    pictures = []
    for z in z_mm:
        hu = np.where(disc(0, 0, 110, 1.4), float(SOFT), AIR)
        rising = np.clip(-z / 40, 0, 1)
        for side in (-1, 1):
            if z < 0:
                hu[disc(75 * side, 0, 62 * np.sqrt(rising))] = LUNG
        if z < -150:  # a dome as round as a ball of 80 mm
            radius = np.sqrt(max(0.0, 80.0**2 - (80 - min(80, -150 - z)) ** 2))
            hu[disc(-75, 0, radius)] = SOFT
        if -80 < z < 40:
            hu[disc(0, 10, 9)] = AIR
        elif -110 < z <= -80:
            for side in (-1, 1):
                hu[disc(side * (9 + (-80 - z) / 3), 10, 6)] = AIR
        pictures.append(grey(hu))
    return np.stack(pictures)


def head(z_mm: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A skull of radius 75 mm under 6 mm of skin, its vertex at 0; a neck below."""
    pictures = []
    for z in z_mm:
        hu = np.full((SIZE, SIZE), float(AIR))
        outer, skull, brain = (np.sqrt(max(0.0, r**2 - (z + 81) ** 2)) for r in (81.0, 75.0, 66.0))
        hu[disc(0, 0, outer) | (disc(0, 20, 50) & (z < -81))] = SOFT
        if z > -130:
            hu[disc(0, 0, skull)] = BONE
            hu[disc(0, 0, brain)] = SOFT
        pictures.append(grey(hu))
    return np.stack(pictures)


def pelvis(z_mm: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Crests at 0, centres of the heads of the femur at −140, a spine in the middle."""
    pictures = []
    for z in z_mm:
        hu = np.where(disc(0, 0, 110, 1.5), float(SOFT), AIR)
        hu[disc(0, 50, 22)] = 250
        for side in (-1, 1):
            if -110 < z <= 0:
                wing = disc(side * 90, 30, 12 + 30 * np.clip(-z / 40, 0, 1), 0.6)
                hu[wing & ~disc(side * 84, 30, 6 + 30 * np.clip(-z / 40, 0, 1), 0.6)] = BONE
            ball = 24.0**2 - (z + 140) ** 2
            if ball > 0:
                hu[disc(side * 85, 20, np.sqrt(ball))] = 350
        pictures.append(grey(hu))
    return np.stack(pictures)


def trunk(z_mm: NDArray[np.float64], last_reach: float = 120.0) -> NDArray[np.uint8]:
    """A spine, ribs 27 mm apart that fall to the side, the lowest at 0 and as long as told.

    Below it are level transverse processes; on the right a liver from 40 down to −60.
    """
    pictures = []
    for z in z_mm:
        hu = np.where(disc(0, 0, 100, 1.4), -90.0, AIR)
        hu[disc(0, 50, 20)] = 300
        if -60 < z < 40:
            hu[disc(-70, -10, 60)] = 60
        aside, back = np.abs(X), np.abs(Y - 65) < 5
        for n in range(5):
            reach = last_reach if n == 0 else 120.0
            rib = back & (aside > 18) & (aside < reach)
            hu[rib & (np.abs(z - (27 * n - (aside - 20) / 3)) < 5)] = BONE
            process = back & (aside > 18) & (aside < 42) & (np.abs(z + 32 * (n + 1)) < 5)
            hu[process] = BONE
        pictures.append(grey(hu))
    return np.stack(pictures)


def found(pictures: NDArray[np.uint8], z_mm: NDArray[np.float64]) -> dict[str, Anchor]:
    return {anchor.landmark: anchor for anchor in examine(pictures, z_mm).anchors}


def test_the_air_of_a_chest_shows_trachea_dome_and_apices() -> None:
    z_mm = slices(-230, 30)
    anchors = found(chest(z_mm), z_mm)
    assert anchors["Bifurcation of trachea"].z_mm == pytest.approx(-80, abs=4)
    assert anchors["Right dome of diaphragm"].z_mm == pytest.approx(-150, abs=5)
    assert anchors["T1"].z_mm == pytest.approx(0, abs=6)


def test_lung_beside_the_trachea_is_no_bronchus() -> None:
    """Slices 10 mm apart, one of which shows a scrap of lung close to the trachea."""
    z_mm = np.arange(-230.0, 30, 10)
    pictures = chest(z_mm)
    assert found(pictures, z_mm)["Bifurcation of trachea"].z_mm == pytest.approx(-80, abs=10)
    pictures[z_mm == -20, disc(-16, 10, 4)] = grey(np.array(LUNG))
    assert "Bifurcation of trachea" not in found(pictures, z_mm)


def test_the_order_of_the_slices_does_not_matter_and_places_move_with_them() -> None:
    z_mm = slices(-230, 30)
    order = np.random.default_rng(0).permutation(len(z_mm))
    moved = examine(chest(z_mm)[order], z_mm[order] + 500).anchors
    for anchor, there in zip(examine(chest(z_mm), z_mm).anchors, moved, strict=True):
        assert there.z_mm == pytest.approx(anchor.z_mm + 500)


def test_what_is_cut_off_is_not_found() -> None:
    for low, high, missing in (
        (-230, -10, "T1"),
        (-230, -85, "Bifurcation of trachea"),
        (-70, 30, "Bifurcation of trachea"),
        (-230, -190, "Right dome of diaphragm"),
        (-130, 30, "Right dome of diaphragm"),
    ):
        z_mm = slices(low, high)
        assert missing not in found(chest(z_mm), z_mm), (low, high)


def test_the_vertex_is_that_of_the_skin_also_just_above_the_scan() -> None:
    z_mm = slices(-200, 60)
    assert found(head(z_mm), z_mm)["Top of head"].z_mm == pytest.approx(0, abs=4)
    cut = slices(-200, -6)
    anchor = found(head(cut), cut)["Top of head"]
    assert anchor.z_mm == pytest.approx(0, abs=6)
    assert anchor.sd_mm > 4
    deep = slices(-200, -40)
    assert "Top of head" not in found(head(deep), deep)


def test_crests_and_heads_of_the_femur_are_found_by_their_bone() -> None:
    z_mm = slices(-200, 60)
    anchors = found(pelvis(z_mm), z_mm)
    assert set(anchors) == {"Tip of iliac crest", "Head of femur"}
    assert anchors["Tip of iliac crest"].z_mm == pytest.approx(0, abs=6)
    assert anchors["Head of femur"].z_mm == pytest.approx(-140, abs=5)
    cut = slices(-200, -20)
    assert "Tip of iliac crest" not in found(pelvis(cut), cut)


@pytest.mark.parametrize("reach", [120.0, 60.0])
def test_t12_is_found_by_the_lowest_ribs_long_or_short(reach: float) -> None:
    z_mm = slices(-120, 120)
    assert found(trunk(z_mm, reach), z_mm)["T12"].z_mm == pytest.approx(0, abs=7)


def test_ribs_that_may_go_on_below_the_scan_do_not_count() -> None:
    for low in (-30.0, 20.0):
        z_mm = slices(low, 120)
        assert "T12" not in found(trunk(z_mm), z_mm)


def test_a_liver_on_the_left_is_named_and_no_reason_to_tell_nothing() -> None:
    z_mm = slices(-120, 120)
    assert not examine(trunk(z_mm), z_mm).warnings
    mirrored = examine(trunk(z_mm)[:, :, ::-1], z_mm)
    assert "mirrored" in mirrored.warnings[0]
    assert not mirrored.strange
    (expected,) = examine(trunk(z_mm), z_mm).anchors
    (anchor,) = mirrored.anchors
    assert anchor.z_mm == pytest.approx(expected.z_mm, abs=3)


def test_a_dome_above_the_scan_is_not_taken_from_its_slope() -> None:
    for top in (-170.0, -180.0, -200.0):
        z_mm = slices(-260, top)
        assert "Right dome of diaphragm" not in found(chest(z_mm), z_mm)


def test_two_legs_are_no_trunk() -> None:
    z_mm = slices(-100, 100)
    hu = np.full((SIZE, SIZE), float(AIR))
    for side in (-1, 1):
        hu[disc(side * 90, 0, 70)] = SOFT
        hu[disc(side * 90, 0, 17)] = BONE
    pictures = np.broadcast_to(grey(hu), (len(z_mm), SIZE, SIZE))
    assert any("legs" in sentence for sentence in examine(pictures, z_mm).strange)


def test_the_bowl_of_a_pelvis_is_no_skull_and_a_head_no_pelvis() -> None:
    z_mm = slices(-200, 60)
    assert set(found(head(z_mm), z_mm)) == {"Top of head", "Center of orbit"}


@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_nothing_is_found_in_nothing(count: int) -> None:
    z_mm = np.arange(count, dtype=float) * 3
    for value in (0, 120, 255):
        pictures = np.full((count, SIZE, SIZE), value, np.uint8)
        assert examine(pictures, z_mm).anchors == ()


def _marked(shared_data: Path) -> Iterator[tuple[Path, dict[str, dict[str, float]]]]:
    scripts = Path(__file__).parents[1] / "CTSliceTools" / "Scripts"
    for file in (shared_data / "landmarks.json", scripts / "landmarks.json"):
        for scan, landmarks in json.loads(file.read_text(encoding="utf-8")).items():
            yield shared_data / scan, landmarks


@pytest.mark.slow
def test_anchors_in_real_scans_lie_where_the_landmarks_were_marked(shared_data: Path) -> None:
    count = 0
    for path, landmarks in _marked(shared_data):
        pictures, z_mm = slice_images(read_ct(path).image)
        for name, anchor in found(pictures, z_mm).items():
            if name in landmarks:
                place = landmarks[name]
                limit = 2 * np.hypot(anchor.sd_mm, place["uncertainty_mm"])
                assert abs(anchor.z_mm - place["z_mm"]) < limit, (path.name, name)
                count += 1
    assert count > 15
