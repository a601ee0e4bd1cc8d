"""From a probability volume to a table of nodules, on shapes whose measures are known."""

import csv
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import TOUCHING, AxialView
from LungNoduleSegLib.nodules.attenuation import CALCIUM_HU, lung_noise, nodule_kind, solid_part
from LungNoduleSegLib.nodules.finding import NoduleFindings, NoduleRules, find_nodules
from LungNoduleSegLib.nodules.marks import pieces_of
from LungNoduleSegLib.nodules.measures import NoduleMeter, axial_diameters, measure_labels
from LungNoduleSegLib.nodules.outline import NoduleOutline
from LungNoduleSegLib.nodules.table import (
    COLUMNS,
    LIMITS,
    Nodule,
    NoduleKind,
    Outline,
    Plane,
    Side,
    mean_axial_mm,
    read_nodules_csv,
    write_nodules_csv,
)

SIZE_MM = np.array([60.0, 80.0, 120.0])
LUNG_HU, TISSUE_HU = -850, 40
BOX = (slice(0, 1), slice(0, 1), slice(0, 1))
Shape = Callable[[NDArray[np.float64]], NDArray[np.bool_]]


def ellipsoid(centre: Any, semi_axes: Any) -> Shape:
    return lambda p: (((p - centre) / semi_axes) ** 2).sum(-1) <= 1


def ball(centre: Any, diameter: float) -> Shape:
    return lambda p: np.linalg.norm(p - centre, axis=-1) <= diameter / 2


def tube(start: Any, end: Any, diameter: float) -> Shape:
    start, end = np.asarray(start, float), np.asarray(end, float)

    def inside(p: NDArray[np.float64]) -> NDArray[np.bool_]:
        along = np.clip((p - start) @ (end - start) / ((end - start) ** 2).sum(), 0, 1)
        return np.linalg.norm(p - start - along[..., None] * (end - start), axis=-1) <= diameter / 2

    return inside


def union(*shapes: Shape) -> Shape:
    return lambda p: np.any([shape(p) for shape in shapes], axis=0)


@cache
def grid_points(spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    shape = (SIZE_MM / spacing).astype(int) + 1
    return np.moveaxis(np.indices(tuple(shape.tolist())), 0, -1) * np.array(spacing)


class Scene:
    """Two box-shaped lungs, right at x 5…55 mm and left at 65…115 mm, and shapes drawn in them.

    Points are (z, y, x) in mm from the first voxel's centre; the grid lies at `origin` (LPS).
    """

    origin = (-120.0, -40.0, 300.0)

    def __init__(self, spacing: tuple[float, float, float] = (1.0, 0.7, 0.7)) -> None:
        self.spacing = spacing
        self.points = grid_points(spacing)
        z, y, x = np.moveaxis(self.points, -1, 0)
        deep = (z > 4) & (z < 56) & (y > 5) & (y < 75)
        self.lungs = np.where(deep & (x > 5) & (x < 55), 1, 0)
        self.lungs += np.where(deep & (x > 65) & (x < 115), 2, 0)
        self.hu = np.where(self.lungs > 0, LUNG_HU, TISSUE_HU).astype(np.int16)
        self.probability = np.zeros(z.shape, np.float32)

    def draw(self, shape: Shape, hu: float = TISSUE_HU, probability: float = 0.9) -> "Scene":
        inside = shape(self.points)
        self.hu[inside] = hu
        self.probability[inside] = probability
        return self

    def image(self, array: NDArray[Any]) -> sitk.Image:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(self.spacing[::-1])
        image.SetOrigin(self.origin)
        return image

    def find(self, rules: NoduleRules | None = None) -> NoduleFindings:
        hu = self.image(self.hu)
        return find_nodules(
            self.image(self.probability),
            hu,
            self.image(self.lungs.astype(np.uint8)),
            rules or NoduleRules(),
            hu,
        )

    def measure(self) -> tuple[Nodule, ...]:
        """Measure what was drawn, as it was drawn: edges without blur are no image of a scanner."""
        labels, _ = ndimage.label(self.probability >= 0.5)
        hu, lungs = self.image(self.hu), self.image(self.lungs.astype(np.uint8))
        meter = NoduleMeter.of(hu, lungs, self.image(self.probability), hu, labels)
        return tuple(
            meter.measure(number, NoduleOutline(box, labels[box] == number, Outline.NETWORK))
            for number, box in enumerate(ndimage.find_objects(labels), start=1)
        )


def test_a_ball_has_its_known_measures() -> None:
    scene = Scene().draw(ball((30, 40, 30), 10), probability=0.8)
    (nodule,) = scene.measure()
    assert (nodule.x, nodule.y, nodule.z) == pytest.approx((-90, 0, 330), abs=0.1)
    assert nodule.slice == 30
    assert nodule.diameter_mm == pytest.approx(10, abs=0.35)
    assert nodule.perpendicular_mm == pytest.approx(10, abs=0.5)
    assert nodule.volume_mm3 == pytest.approx(np.pi / 6 * 1000, rel=0.03)
    assert nodule.equivalent_diameter_mm == pytest.approx(10, abs=0.1)
    assert (nodule.mean_hu, nodule.min_hu, nodule.max_hu) == (40, 40, 40)
    assert (nodule.probability, nodule.mean_probability) == (0.8, 0.8)
    assert (nodule.id, nodule.kind, nodule.side) == (1, NoduleKind.SOLID, Side.RIGHT)
    assert nodule.pleura_mm == pytest.approx(20, abs=0.7)


@pytest.mark.parametrize(
    ("slice_mm", "semi_axes", "plane"),
    [
        (1.0, (9, 6, 3), Plane.SAGITTAL),
        (1.0, (9, 3, 6), Plane.CORONAL),
        (1.0, (3, 9, 6), Plane.AXIAL),
        (2.5, (9, 6, 3), Plane.AXIAL),
    ],
)
def test_thin_slices_tell_the_plane_in_which_a_nodule_is_largest(
    slice_mm: float, semi_axes: tuple[float, float, float], plane: Plane
) -> None:
    scene = Scene((slice_mm, 0.7, 0.7)).draw(ellipsoid((30, 40, 30), semi_axes))
    (nodule,) = scene.measure()
    assert nodule.largest_plane is plane
    if plane is Plane.AXIAL:
        assert nodule.largest_plane_mm == nodule.mean_diameter_mm
    else:
        assert nodule.largest_plane_mm == pytest.approx(15, abs=0.8)


def test_distance_to_pleura_is_zero_where_it_touches_and_the_gap_elsewhere() -> None:
    scene = Scene((1, 1, 1))
    scene.draw(ball((30, 20, 8), 8)).draw(ball((30, 60, 20), 10)).draw(ball((30, 40, 112), 10))
    by_centre = {(round(n.y), round(n.x)): n for n in scene.measure()}
    assert by_centre[-20, -112].pleura_mm == 0, "cut by the pleura"
    assert by_centre[20, -100].pleura_mm == 9, "voxels 15…25, the pleura between 5 and 6"
    assert by_centre[0, -8].pleura_mm == 0
    assert by_centre[0, -8].side is Side.LEFT


def test_a_nodule_missing_from_the_lung_mask_counts_as_lung() -> None:
    scene = Scene((1, 1, 1)).draw(ball((30, 40, 30), 10))
    shape = ball((30, 40, 30), 10)(scene.points)
    whole = scene.find()
    scene.lungs[shape] = 0
    left_out = scene.find(NoduleRules(min_lung_fraction=None))
    assert left_out.nodules == whole.nodules


@given(diameter=st.floats(4.5, 30), spacing=st.floats(0.5, 1.0))
@settings(max_examples=25)
def test_a_disc_keeps_its_diameter(diameter: float, spacing: float) -> None:
    half = int(diameter / spacing / 2) + 2
    pixels = np.moveaxis(np.mgrid[-half : half + 1, -half : half + 1], 0, -1)
    longest = []
    for shift in np.random.default_rng(0).uniform(-0.5, 0.5, (25, 2)):
        mask = (np.linalg.norm(pixels - shift, axis=-1) * spacing <= diameter / 2)[None]
        measured = axial_diameters(mask, BOX, np.array([1, spacing, spacing]))
        assert measured.longest_mm == pytest.approx(diameter, abs=0.75 * spacing)
        assert measured.across_mm == pytest.approx(diameter, abs=1.25 * spacing)
        assert measured.across_mm <= measured.longest_mm + 1e-9
        longest.append(measured.longest_mm)
    assert np.mean(longest) == pytest.approx(diameter, abs=0.5 * spacing)


@pytest.mark.parametrize("degrees", [0, 25, 45, 70, 90, 130])
def test_an_ellipse_gives_both_axes_and_their_places(degrees: float) -> None:
    angle = np.radians(degrees)
    pixel = np.array([0.6, 0.9])
    y, x = (np.mgrid[:80, :100] - np.array([40, 50])[:, None, None]) * pixel[:, None, None]
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    mask = np.stack([(u / 6) ** 2 + (v / 3) ** 2 <= 1, (u / 10) ** 2 + (v / 5) ** 2 <= 1])
    box = (slice(7, 9), slice(100, 180), slice(200, 300))
    measured = axial_diameters(mask, box, np.array([2.0, *pixel]))
    assert measured.slice == 8
    assert measured.longest_mm == pytest.approx(20, abs=0.75)
    assert measured.across_mm == pytest.approx(10, abs=0.75)
    long, across = (
        (ends[1] - ends[0]) * pixel[::-1] for ends in (measured.longest, measured.across)
    )
    assert np.linalg.norm(long) == pytest.approx(measured.longest_mm)
    assert long @ across == pytest.approx(0, abs=1e-6)
    assert measured.longest.mean(axis=0) == pytest.approx([250, 140], abs=0.5)
    assert abs(long @ [np.cos(angle), np.sin(angle)]) == pytest.approx(20, abs=0.75)


def test_a_long_thin_section_beside_a_mass_is_not_measured() -> None:
    z, y, x = np.mgrid[-40:41, -40:41, -40:41]
    mass = z**2 + y**2 + x**2 <= 25**2
    satellites = (abs(z - 24) <= 2) & (abs(y) <= 3) & (abs(x) <= 35)
    for mask in (mass | satellites, (mass | satellites).astype(np.float32)):
        measured = axial_diameters(mask, BOX, np.ones(3))
        assert measured.longest_mm == pytest.approx(51, abs=1)
        assert measured.across_mm == pytest.approx(51, abs=1)


def test_one_voxel_is_measured() -> None:
    measured = axial_diameters(np.ones((1, 1, 1), bool), BOX, np.array([2.0, 0.7, 0.7]))
    assert measured.longest_mm == pytest.approx(0.7, abs=0.35)


@pytest.mark.parametrize("spacing", [(1.0, 0.7, 0.7), (2.5, 0.7, 0.7)])
@pytest.mark.parametrize(
    ("diameter", "rim", "core_diameter", "core", "kind"),
    [
        (5, TISSUE_HU, 1, TISSUE_HU, NoduleKind.SOLID),
        (12, TISSUE_HU, 1, TISSUE_HU, NoduleKind.SOLID),
        (5, -601, -600, 0, NoduleKind.NON_SOLID),
        (12, -601, -600, 0, NoduleKind.NON_SOLID),
        (12, -600, 6, 0, NoduleKind.PART_SOLID),
        (5, TISSUE_HU, 4, 400, NoduleKind.CALCIFIED),
        (12, TISSUE_HU, 8, 400, NoduleKind.CALCIFIED),
    ],
)
def test_the_four_types_as_a_scanner_blurs_them(
    spacing: tuple[float, float, float],
    diameter: float,
    rim: float,
    core_diameter: float,
    core: float,
    kind: NoduleKind,
) -> None:
    scene = Scene(spacing)
    scene.draw(ball((30, 40, 30), diameter), rim)
    scene.draw(ball((30, 40, 30), core_diameter), core)
    blurred = sitk.DiscreteGaussian(scene.image(scene.hu.astype(np.float32)), [0.4] * 3)
    rng = np.random.default_rng(0)
    scene.hu = (sitk.GetArrayFromImage(blurred) + rng.normal(0, 25, scene.hu.shape)).astype(
        np.int16
    )
    (nodule,) = scene.find().nodules
    assert nodule.kind is kind
    if kind is NoduleKind.PART_SOLID:
        assert nodule.solid_mm == pytest.approx(core_diameter, abs=0.75)
    else:
        assert nodule.solid_mm is None


@pytest.mark.parametrize("sharpened", [0.0, 1.0])
@pytest.mark.parametrize(
    ("diameter", "tissue", "noise_hu", "kind"),
    [
        (4, 600, 30, NoduleKind.CALCIFIED),
        (6, 450, 30, NoduleKind.CALCIFIED),
        (10, 450, 130, NoduleKind.CALCIFIED),
        (6, 40, 60, NoduleKind.SOLID),
        (12, 60, 130, NoduleKind.SOLID),
    ],
)
def test_noise_and_sharp_kernels_do_not_decide_what_is_calcified(
    diameter: float, tissue: float, noise_hu: float, kind: NoduleKind, sharpened: float
) -> None:
    spacing = np.array([1.25, 0.7, 0.7])
    z, y, x = (np.mgrid[-12:13, -16:17, -16:17].T * spacing).T
    distance = np.sqrt(z**2 + y**2 + x**2)
    hu = ndimage.gaussian_filter(np.where(distance <= diameter / 2, tissue, -860.0), 0.6 / spacing)
    hu += sharpened * (hu - ndimage.gaussian_filter(hu, (0, *(1 / spacing[1:]))))
    hu += np.random.default_rng(0).normal(0, noise_hu, hu.shape)
    assert nodule_kind(hu, distance <= diameter / 2, spacing, lung_noise(hu)) is kind


def test_the_noise_of_the_lung_around_is_allowed_for() -> None:
    scene = Scene().draw(ball((30, 40, 30), 12), 60)
    scene.hu = (scene.hu + np.random.default_rng(0).normal(0, 130, scene.hu.shape)).astype(np.int16)
    (nodule,) = scene.measure()
    assert nodule.p90_hu > CALCIUM_HU
    assert nodule.kind is NoduleKind.SOLID


def test_attenuation_is_that_of_the_voxels() -> None:
    scene = Scene((1, 1, 1)).draw(ball((30, 40, 30), 12))
    inside = ball((30, 40, 30), 12)(scene.points)
    values = np.random.default_rng(1).integers(-200, 150, inside.sum())
    scene.hu[inside] = values
    (nodule,) = scene.measure()
    ordered = np.sort(values)
    assert nodule.std_hu == pytest.approx(np.sqrt(np.mean((values - values.mean()) ** 2)), abs=1e-3)
    assert (nodule.min_hu, nodule.max_hu) == (ordered[0], ordered[-1])
    for share, found in ((0.1, nodule.p10_hu), (0.5, nodule.median_hu), (0.9, nodule.p90_hu)):
        place = share * (len(ordered) - 1)
        assert ordered[int(place)] <= found <= ordered[int(np.ceil(place))]


def test_the_solid_part_is_the_largest_piece() -> None:
    hu = np.full((5, 20, 20), -600)
    hu[2, 3:7, 3:7] = 0
    hu[2, 12:14, 12:14] = 0
    solid = solid_part(hu, np.ones(hu.shape, bool))
    assert solid.sum() == 16 and solid[2, 4, 4]


NODULES = {
    "ball": ball((30, 40, 30), 10),
    "small ball": ball((30.4, 40.2, 30.3), 4.5),
    "2:1 in plane": ellipsoid((30, 40, 30), (4, 4, 8)),
    "2:1 across slices": ellipsoid((30, 40, 30), (9, 4.5, 4.5)),
    "2.5:1": ellipsoid((30, 40, 30), (4, 10, 4)),
    "lobulated": union(ball((30, 36, 27), 9), ball((32, 43, 32), 9)),
    "flat on the pleura": ellipsoid((30, 12, 30), (8, 4, 8)),
    "with a vessel's stump": union(ball((30, 40, 30), 9), tube((30, 40, 30), (30, 54, 30), 2.5)),
    "cavity": lambda p: ball((30, 40, 30), 20)(p) & ~ball((30, 40, 30), 15)(p),
}

VESSELS = {
    "in plane": tube((30, 20, 15), (30, 45, 40), 4),
    "across slices": tube((12, 40, 30), (48, 40, 30), 4),
    "oblique": tube((15, 25, 20), (45, 55, 40), 5),
    "Y": union(
        tube((30, 40, 30), (30, 22, 30), 4),
        tube((30, 40, 30), (30, 52, 42), 4),
        tube((30, 40, 30), (30, 52, 18), 4),
    ),
    "bent": union(
        tube((30, 20, 20), (30, 40, 20), 4),
        tube((30, 40, 20), (30, 48, 32), 4),
        tube((30, 48, 32), (30, 40, 46), 4),
    ),
    "tapering": union(*(ball((15 + 2 * i, 40, 20 + i), 7 - i / 3) for i in range(13))),
}

SPACINGS = [(1.0, 0.7, 0.7), (2.5, 0.7, 0.7), (5.0, 0.8, 0.8)]


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("name", NODULES)
def test_nodules_pass_the_tube_rule(name: str, spacing: tuple[float, float, float]) -> None:
    found = Scene(spacing).draw(NODULES[name]).find()
    assert (len(found.nodules), found.rejected) == (1, ())


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("name", VESSELS)
def test_vessels_do_not_unless_the_rule_is_off(
    name: str, spacing: tuple[float, float, float]
) -> None:
    scene = Scene(spacing).draw(VESSELS[name])
    found = scene.find()
    assert found.nodules == ()
    assert set(found.rejected_by_rule) == {"max_elongation"}
    off = scene.find(NoduleRules(max_elongation=None))
    assert off.nodules
    assert off.rejected == ()


def test_rules_drop_the_small_and_the_outside_and_can_be_turned_off() -> None:
    scene = Scene((1, 1, 1)).draw(ball((30, 40, 30), 10))
    scene.draw(ball((20, 20, 20), 2), probability=0.95).draw(ball((30, 40, 60), 8), probability=0.7)
    found = scene.find()
    assert [nodule.id for nodule in found.nodules] == [1]
    small, outside = sorted(found.rejected, key=lambda candidate: candidate.volume_mm3)
    assert (small.rule, outside.rule) == ("min_diameter_mm", "min_lung_fraction")
    assert (outside.x, outside.y, outside.z) == (-60, 0, 330)
    assert (small.probability, outside.probability) == (0.95, 0.7)
    off = scene.find(NoduleRules(min_diameter_mm=None, min_lung_fraction=None))
    assert len(off.nodules) == 3
    assert off.rejected == ()
    assert off.nodules[2].side in Side
    assert len(scene.find(NoduleRules(threshold=0.92)).nodules) == 0


def test_a_candidate_that_is_never_sure_is_dropped_where_the_rule_is_on() -> None:
    scene = Scene((1, 1, 1))
    scene.draw(ball((30, 40, 20), 8), probability=0.7).draw(ball((30, 20, 40), 8), probability=0.95)
    assert len(scene.find().nodules) == 2
    found = scene.find(NoduleRules(min_probability=0.9))
    assert [nodule.probability for nodule in found.nodules] == [0.95]
    assert found.rejected_by_rule == {"min_probability": 1}


def test_ids_follow_probability_then_volume_and_label_the_image() -> None:
    scene = Scene((1, 1, 1))
    scene.draw(ball((30, 40, 20), 6), probability=0.7)
    scene.draw(ball((30, 20, 40), 8), probability=0.901)
    scene.draw(ball((30, 60, 90), 12), probability=0.899)
    found = scene.find()
    assert [round(n.equivalent_diameter_mm) for n in found.nodules] == [12, 8, 6]
    labels = sitk.GetArrayFromImage(found.labels)
    assert labels.dtype == np.uint16
    assert found.labels.GetOrigin() == scene.origin
    assert np.array_equal(labels > 0, scene.probability >= 0.5)
    for nodule in found.nodules:
        index = found.labels.TransformPhysicalPointToIndex((nodule.x, nodule.y, nodule.z))
        assert found.labels[index] == nodule.id
        assert nodule.volume_mm3 == pytest.approx((labels == nodule.id).sum(), rel=0.03)


@pytest.mark.parametrize("density", [0, 0.02, 0.3, 1])
def test_pieces_are_numbered_in_the_order_of_the_grid(density: float) -> None:
    mask = np.random.default_rng(0).random((20, 12, 9)) < density
    mask[[0, 5, 6, 13, 19]] = False
    wanted, count = ndimage.label(mask, TOUCHING)
    numbers, found = pieces_of(mask)
    assert found == count
    np.testing.assert_array_equal(numbers, wanted)


def test_parts_that_meet_at_a_corner_are_one_nodule() -> None:
    scene = Scene((1, 1, 1))
    scene.probability[28:31, 38:41, 28:31] = 0.9
    scene.probability[31:34, 41:44, 31:34] = 0.9
    assert len(scene.find().nodules) == 1


@pytest.mark.parametrize("lungs", [0, 1])
def test_a_lung_mask_without_border_is_refused(lungs: int) -> None:
    scene = Scene().draw(ball((30, 40, 30), 10))
    scene.lungs[:] = lungs
    with pytest.raises(InputError, match="lung mask"):
        scene.find(NoduleRules(min_lung_fraction=None))


def test_nothing_found_is_an_empty_table() -> None:
    found = Scene().find()
    assert found.nodules == ()
    assert found.rejected == ()
    assert not sitk.GetArrayViewFromImage(found.labels).any()


def test_a_drawn_mask_is_measured_without_probability_and_keeps_its_ids() -> None:
    scene = Scene().draw(ball((30, 40, 30), 10)).draw(ball((30, 40, 90), 8))
    found = scene.find()
    labels = sitk.GetArrayFromImage(found.labels)
    labels[labels == 2] = 7
    hu, lungs = scene.image(scene.hu), scene.image(scene.lungs.astype(np.uint8))
    drawn = measure_labels(scene.image(labels), hu, lungs, hu)
    assert [one.id for one in drawn] == [1, 7]
    for one, seen in zip(drawn, found.nodules, strict=True):
        assert (one.outline, seen.outline) == (Outline.HAND, Outline.IMAGE)
        assert (one.probability, one.mean_probability) == (None, None)
        assert (one.x, one.y, one.z, one.mean_hu) == (seen.x, seen.y, seen.z, seen.mean_hu)


@pytest.mark.parametrize("axes", ["LPS", "RAS", "LAI", "SPR"])
def test_slice_numbers_and_centres_are_those_of_the_input(axes: str) -> None:
    scene = Scene((2, 1, 1)).draw(ball((36, 40, 30), 8))
    original = sitk.DICOMOrient(scene.image(scene.hu), axes)
    view = AxialView.of(original, LUNG_HU)
    probability, lungs = (
        sitk.DICOMOrient(scene.image(a), "LPS")
        for a in (scene.probability, scene.lungs.astype(np.uint8))
    )
    (nodule,) = find_nodules(probability, view.image, lungs, NoduleRules(), original).nodules
    centre = (nodule.x, nodule.y, nodule.z)
    assert centre == pytest.approx((-90, 0, 336), abs=0.01)
    assert original.TransformPhysicalPointToIndex(centre)[2] == nodule.slice


def possible(name: str, kind: Any) -> Any:
    """Values of a column, for hypothesis."""
    if name not in LIMITS:
        return st.integers(1, 2**16 - 1) if name == "id" else st.from_type(kind)
    low, high = LIMITS[name]
    if kind is int:
        return st.integers(int(low), int(high))
    numbers = st.floats(low, high)
    return numbers if kind is float else st.none() | numbers


nodule_rows = (
    st.builds(
        Nodule, **{name: possible(name, kind) for name, kind in get_type_hints(Nodule).items()}
    )
    .map(
        lambda one: replace(
            one, diameter_mm=max(one.diameter_mm, one.perpendicular_mm, one.solid_mm or 0)
        )
    )
    .map(
        lambda one: replace(
            one,
            mean_diameter_mm=None
            if one.mean_diameter_mm is None
            else mean_axial_mm(one.diameter_mm, one.perpendicular_mm),
            volume_mm3=np.pi / 6 * one.equivalent_diameter_mm**3 or 1e-300,
        )
    )
)


@given(nodules=st.lists(nodule_rows, max_size=4, unique_by=lambda one: one.id).map(tuple))
def test_csv_returns_every_number_exactly(
    tmp_path_factory: pytest.TempPathFactory, nodules: tuple[Nodule, ...]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "nodules.csv"
    write_nodules_csv(path, nodules)
    assert read_nodules_csv(path) == nodules
    assert path.read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)


def test_sizes_that_were_corrected_fit_together_again(tmp_path: Path) -> None:
    (nodule,) = Scene().draw(ball((30, 40, 30), 10)).find().nodules
    assert None not in (nodule.mean_diameter_pm_mm, nodule.volume_pm_mm3)
    path = tmp_path / "diameters.csv"
    write_nodules_csv(path, [replace(nodule, diameter_mm=16.0, perpendicular_mm=14.0)])
    (corrected,) = read_nodules_csv(path)
    assert corrected.mean_diameter_mm == 15
    assert corrected.diameter_pm_mm is corrected.perpendicular_pm_mm is None
    assert corrected.mean_diameter_pm_mm is None
    assert corrected.volume_pm_mm3 == nodule.volume_pm_mm3
    path = tmp_path / "volume.csv"
    write_nodules_csv(path, [replace(nodule, volume_mm3=1767.1)])
    (corrected,) = read_nodules_csv(path)
    assert corrected.equivalent_diameter_mm == pytest.approx(15, abs=0.001)
    assert corrected.volume_pm_mm3 is None
    assert corrected.diameter_pm_mm == nodule.diameter_pm_mm
    assert corrected.mean_diameter_mm == nodule.mean_diameter_mm


def test_every_field_is_described() -> None:
    assert list(COLUMNS) == [one.name for one in fields(Nodule)]


def test_a_damaged_csv_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "nodules.csv"
    write_nodules_csv(path, Scene().draw(ball((30, 40, 30), 10)).find().nodules)
    text = path.read_text(encoding="utf-8")
    damaged = {
        text.replace(",solid,", ",stone,"): "line 2: 'stone' is not a value for kind",
        text.replace("volume_mm3", "volume"): "no column volume_mm3",
        text.replace(",right,", ",,"): "line 2: '' is not a value for side",
        text.replace(",40.0,", ",nan,", 1): "'nan' is not a value for mean_hu",
        text.rstrip() + ",1\n": r"line 2 has \d+ values for \d+ columns",
        text.replace(",", ";"): "line 1 separates its columns by semicolons: save it with commas",
        "": "no column id",
    }
    first = csv.DictReader(text.splitlines())
    row = next(first)
    for name, value in (
        ("diameter_mm", "-7"),
        ("diameter_mm", "1e300"),
        ("volume_mm3", "0"),
        ("volume_pm_mm3", "-1"),
        ("probability", "5"),
        ("slice", "-1"),
        ("x", "1e9"),
    ):
        cells = ",".join((row | {name: value}).values())
        damaged[f"{','.join(row)}\n{cells}\n"] = f"line 2: '{value}' is not a value for {name}"
    cells = ",".join((row | {"perpendicular_mm": "999"}).values())
    damaged[f"{','.join(row)}\n{cells}\n"] = "line 2: perpendicular_mm exceeds diameter_mm"
    for content, message in damaged.items():
        path.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=message) as error:
            read_nodules_csv(path)
        assert str(path) in str(error.value)
    path.write_bytes(b"\xff\xfe\x00id")
    with pytest.raises(InputError, match=r"nodules\.csv"):
        read_nodules_csv(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_nodules_csv(tmp_path / "missing.csv")
