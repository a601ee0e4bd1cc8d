"""The lungs are found, told apart and closed, on real scans and on ones made harder."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import convex_hull_image
from sklearn.cluster import KMeans

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_reading import read_ct
from lidc_outlines import outlined_nodules
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, OWN_METHODS, RIGHT_LUNG, LungMethod
from LungNoduleSegLib.lungs.pleura import COSTAL_MM, bridged, standing_out
from LungNoduleSegLib.lungs.segmentation import segment_lungs
from LungNoduleSegLib.lungs.tutorial import _between_classes, find_lungs_in_slice
from LungNoduleSegLib.segmenter import NoduleSegmenter
from trachea import trachea_lumen

Array = NDArray[Any]


def as_image(array: Array, like: sitk.Image) -> sitk.Image:
    image = sitk.GetImageFromArray(np.round(array).clip(-1024, 3071).astype(np.int16))
    image.CopyInformation(like)
    return image


def labels_of(image: sitk.Image, method: LungMethod = LungMethod.VOLUME) -> NDArray[np.uint8]:
    result = segment_lungs(image, method)
    assert result.GetPixelID() == sitk.sitkUInt8
    assert result.GetSize() == image.GetSize()
    assert result.GetOrigin() == image.GetOrigin()
    assert result.GetSpacing() == image.GetSpacing()
    assert result.GetDirection() == image.GetDirection()
    return sitk.GetArrayFromImage(result)


def dice(found: Array, truth: Array) -> float:
    return 2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))


def assert_same_lungs(found: Array, truth: Array, least: float) -> None:
    for side in (RIGHT_LUNG, LEFT_LUNG):
        assert dice(found == side, truth == side) > least


def tissue(count: int | np.integer) -> Array:
    return np.random.default_rng(5).normal(30, 15, count)


# --- a made chest: the side, the trachea and bowel gas are known exactly ---------------------


def ellipsoid(grid: list[Array], centre: tuple[float, ...], radii: tuple[float, ...]) -> Array:
    return np.array(
        sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) < 1
    )


@pytest.fixture(scope="module")
def made_chest() -> tuple[sitk.Image, dict[str, Array]]:
    spacing = (1.6, 1.6, 3.0)
    z, y, x = np.indices((120, 200, 240), sparse=True)
    grid = [z * 3.0, (y - 100) * 1.6, (x - 120) * 1.6]
    parts = {
        "right": ellipsoid(grid, (200, 0, -75), (120, 85, 55)),
        "left": ellipsoid(grid, (200, 0, 75), (120, 85, 55)),
        "trachea": (grid[1] ** 2 + grid[2] ** 2 < 9**2) & (grid[0] > 200),
        "bowel": ellipsoid(grid, (35, -20, 60), (25, 50, 40)),
    }
    hu = np.full(np.broadcast_shapes(*(g.shape for g in grid)), -1000.0)
    hu[np.broadcast_to((grid[1] / 120) ** 2 + (grid[2] / 165) ** 2 < 1, hu.shape)] = 40
    for name, value in (("right", -850), ("left", -850), ("trachea", -1000), ("bowel", -1000)):
        hu[parts[name]] = value
    hu += np.random.default_rng(1).normal(0, 20, hu.shape)
    image = sitk.GetImageFromArray(hu.astype(np.float32))
    image.SetSpacing(spacing)
    image.SetOrigin((-190.0, -160.0, -400.0))
    return image, parts


def test_sides_are_the_patients_and_other_gas_is_left_out(
    made_chest: tuple[sitk.Image, dict[str, Array]],
) -> None:
    image, parts = made_chest
    labels = labels_of(image)
    assert dice(labels == RIGHT_LUNG, parts["right"]) > 0.98
    assert dice(labels == LEFT_LUNG, parts["left"]) > 0.98
    assert not labels[parts["trachea"]].any()
    assert not labels[parts["bowel"]].any()


@pytest.mark.parametrize("code", ["RAS", "LPI", "SAL", "PSR"])
def test_orientation_does_not_matter(
    made_chest: tuple[sitk.Image, dict[str, Array]], code: str
) -> None:
    image, _ = made_chest
    turned = sitk.DICOMOrient(segment_lungs(image), code)
    np.testing.assert_array_equal(
        labels_of(sitk.DICOMOrient(image, code)), sitk.GetArrayFromImage(turned)
    )


def test_a_scan_without_lungs_is_refused(
    made_chest: tuple[sitk.Image, dict[str, Array]],
) -> None:
    image, _ = made_chest
    with pytest.raises(InputError, match="no lung was found"):
        segment_lungs(image[:, :, :25])  # bowel only
    with pytest.raises(InputError, match="no lung was found"):
        segment_lungs(image * 0 - 1000)
    with pytest.raises(InputError, match="no lung was found"):
        segment_lungs(image * 0 - 1000, LungMethod.TUTORIAL)


def test_progress_ends_complete(made_chest: tuple[sitk.Image, dict[str, Array]]) -> None:
    image, _ = made_chest
    for method in OWN_METHODS:
        seen: list[tuple[str, int, int]] = []
        segment_lungs(image[:, :, 60:75], method, lambda *step, seen=seen: seen.append(step))
        assert {stage for stage, _, _ in seen} == {"Lungs"}
        assert seen[-1][1] == seen[-1][2]


def test_tutorial_finds_both_lungs_and_no_air_outside(
    made_chest: tuple[sitk.Image, dict[str, Array]],
) -> None:
    image, parts = made_chest
    middle = image[:, :, 60:75]
    labels = labels_of(middle, LungMethod.TUTORIAL)
    for name, side in (("right", RIGHT_LUNG), ("left", LEFT_LUNG)):
        assert np.mean(labels[parts[name][60:75]] == side) > 0.99
    assert not labels[:, :8].any()


def test_the_classes_are_those_of_k_means() -> None:
    rng = np.random.default_rng(2)
    for share, spread in ((0.3, 0.2), (0.6, 0.5), (0.97, 0.3)):
        values = np.where(rng.random(5000) < share, 0.0, 2.0) + rng.normal(0, spread, 5000)
        values[:20] = 15  # metal
        classes = KMeans(n_clusters=2, n_init=10, random_state=0).fit(values[:, None])
        assert _between_classes(values) == pytest.approx(classes.cluster_centers_.mean(), abs=1e-3)


def test_tutorials_lengths_follow_the_size_of_the_slice(
    made_chest: tuple[sitk.Image, dict[str, Array]],
) -> None:
    plane = sitk.GetArrayViewFromImage(made_chest[0])[66]
    large = find_lungs_in_slice(np.kron(plane, np.ones((2, 2), np.float32)))
    assert dice(large[::2, ::2], find_lungs_in_slice(plane)) > 0.97


# --- LIDC-IDRI-0001 --------------------------------------------------------------------------


def test_lidc_nodules_are_inside_and_the_trachea_is_not(shared_data: Path) -> None:
    image = read_ct(shared_data / "LIDC-IDRI-0001").image
    landmarks = json.loads((shared_data / "landmarks.json").read_text())["LIDC-IDRI-0001"]
    nodules = (
        sitk.GetArrayFromImage(
            outlined_nodules(shared_data / "LIDC-IDRI-0001" / "069.xml", image, 1)
        )
        > 0
    )
    trachea = trachea_lumen(
        image, landmarks["C7"]["index"], landmarks["Bifurcation of trachea"]["index"]
    )
    labels = labels_of(image)
    assert nodules.sum() > 5000
    assert np.mean(labels[nodules] == LEFT_LUNG) >= 0.99
    assert trachea.any((1, 2)).sum() > 30
    assert np.mean(labels[trachea] > 0) <= 0.02


# --- a real chest at half the resolution, made harder ----------------------------------------


@pytest.fixture(scope="module")
def chest(shared_data: Path) -> tuple[sitk.Image, NDArray[np.uint8]]:
    image = sitk.BinShrink(read_ct(shared_data / "CMB-CRC-MSB-01068.nrrd").image, [2, 2, 1])
    return image, labels_of(image)


Chest = tuple[sitk.Image, NDArray[np.uint8]]


def test_both_lungs_of_a_real_chest(chest: Chest) -> None:
    _, labels = chest
    ml = 1.8**2 * 2.5 / 1000
    assert 2000 < np.count_nonzero(labels == RIGHT_LUNG) * ml < 3000
    assert 1600 < np.count_nonzero(labels == LEFT_LUNG) * ml < 2500
    right, left = (np.nonzero(labels == side)[2] for side in (RIGHT_LUNG, LEFT_LUNG))
    assert np.percentile(right, 98) < np.percentile(left, 2) + 12


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("lost", [RIGHT_LUNG, LEFT_LUNG])
def test_an_opaque_lung_leaves_the_other_on_its_side(
    chest: Chest, lost: int, clipped: bool
) -> None:
    """Also where the picture ends in the ribs of the other."""
    image, labels = chest
    hu = sitk.GetArrayFromImage(image)
    hu[labels == lost] = tissue(np.count_nonzero(labels == lost))
    other = RIGHT_LUNG + LEFT_LUNG - lost
    if clipped:
        columns = np.flatnonzero((labels == other).any((0, 1)))
        part = slice(columns[0] - 2, None) if other == RIGHT_LUNG else slice(columns[-1] + 3)
        hu, labels, image = hu[:, :, part], labels[:, :, part], image[part]
    found = labels_of(as_image(hu, image))
    assert dice(found == other, labels == other) > 0.98
    assert np.count_nonzero(found == lost) < 0.01 * np.count_nonzero(labels == lost)


@pytest.mark.parametrize("margin", [-16, -8, 0, 8, 16])
@pytest.mark.parametrize("skin", [True, False])
@pytest.mark.parametrize("side", [RIGHT_LUNG, LEFT_LUNG])
def test_a_picture_of_one_lung_names_its_side(
    chest: Chest, side: int, skin: bool, margin: int
) -> None:
    """It ends in the mediastinum, and beyond the skin or in the ribs."""
    image, labels = chest
    columns = np.nonzero(labels == side)[2]
    first, last = int(columns.min()), int(columns.max())
    middle = image.GetSize()[0] // 2 + margin
    outer = 40 if skin else 4
    part = slice(first - outer, middle) if side == RIGHT_LUNG else slice(middle, last + outer)
    found, truth = labels_of(image[part, 60:200]), labels[:, 60:200, part]
    both = (found > 0) & (truth > 0)
    assert np.mean(found[both] == truth[both]) > 0.98
    assert np.mean(found[truth == side] > 0) > 0.98


@pytest.mark.parametrize("circle", [False, True])
@pytest.mark.parametrize("width_mm", [200, 230])
@pytest.mark.parametrize("side", [RIGHT_LUNG, LEFT_LUNG])
def test_a_picture_around_one_lung_tells_it_from_a_slice_of_the_other(
    chest: Chest, side: int, width_mm: int, circle: bool
) -> None:
    image, labels = chest
    half = round(width_mm / 2 / image.GetSpacing()[0])
    rows, columns = (np.flatnonzero((labels == side).any(axes)) for axes in ((0, 2), (0, 1)))
    y, x = (int(one[0] + one[-1]) // 2 for one in (rows, columns))
    part = slice(max(0, x - half), x + half), slice(max(0, y - half), y + half)
    cut = image[(*part, slice(None))]
    hu, truth = sitk.GetArrayFromImage(cut), labels[:, part[1], part[0]]
    if circle:
        j, i = np.ogrid[: hu.shape[1], : hu.shape[2]]
        padded = np.hypot(j - (y - part[1].start), i - (x - part[0].start)) > half
        hu[:, padded], truth = -1000, np.where(padded, 0, truth)
    found = labels_of(as_image(hu, cut))
    aerated = (truth > 0) & (hu < -500)
    assert np.mean(found[aerated] == truth[aerated]) > 0.97


@pytest.mark.parametrize("value", [-1000, 0])
def test_blank_slices_end_a_scan(chest: Chest, value: int) -> None:
    """Lungs, nodules and notes are those of the scan without them."""
    image, _ = chest
    cut = image[:, :, 30:60]
    padded = sitk.ConstantPad(cut, [0, 0, 4], [0, 0, 7], value)
    expected, found = (NoduleSegmenter().apply(one) for one in (cut, padded))
    assert "at the bottom and the top" in "".join(found.notes)
    assert found.notes == expected.notes
    assert found.nodules
    assert [replace(one, slice=one.slice - 4) for one in found.nodules] == list(expected.nodules)
    lungs, alone = (sitk.GetArrayViewFromImage(one.lungs) for one in (found, expected))
    np.testing.assert_array_equal(lungs[4:-7], alone)


def test_a_consolidated_lobe_takes_nothing_else_away(chest: Chest) -> None:
    image, labels = chest
    hu = sitk.GetArrayFromImage(image)
    lobe = labels == LEFT_LUNG
    lobe[:, : int(np.nonzero(lobe)[1].mean())] = False
    lobe[40:] = False
    hu[lobe] = tissue(np.count_nonzero(lobe))
    found = labels_of(as_image(hu, image))
    assert dice(found == RIGHT_LUNG, labels == RIGHT_LUNG) > 0.99
    assert dice(found == LEFT_LUNG, (labels == LEFT_LUNG) & ~lobe) > 0.95


def with_mass(
    chest: Chest, start: tuple[int, int, int], inwards: Array, diameter_mm: float
) -> tuple[sitk.Image, Array]:
    """Put a mass that sits broadly on the pleura into the right lung, and give its voxels."""
    image, labels = chest
    hu = sitk.GetArrayFromImage(image)
    spacing = np.array(image.GetSpacing())[::-1]
    centre = start + 0.15 * diameter_mm * inwards / spacing
    grid = np.indices(hu.shape, sparse=True)
    distance = sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, spacing, strict=True))
    mass = (distance < (diameter_mm / 2) ** 2) & (labels == RIGHT_LUNG)
    hu[mass] = tissue(np.count_nonzero(mass))
    return as_image(hu, image), mass


@pytest.mark.parametrize(
    ("inwards", "diameter_mm", "least"),
    [
        ((0, 0, 1), 12, 0.98),
        ((0, 0, 1), 30, 0.95),
        ((0, 0, 1), 45, 0.96),
        ((0, 1, 0), 20, 0.8),
        ((0, 1, 0), 40, 0.9),
        ((0, -1, 0), 20, 0.8),
        ((0, -1, 0), 40, 0.8),
        ((1, 0, 0), 20, 0.95),
    ],
)
def test_a_mass_on_the_pleura_is_inside(
    chest: Chest, inwards: tuple[int, int, int], diameter_mm: float, least: float
) -> None:
    assert_inside(chest, (0, 0, 0), inwards, diameter_mm, least)


@pytest.mark.parametrize("above", [0, 15, 25])
@pytest.mark.parametrize("diameter_mm", [20, 30])
def test_a_mass_that_stands_out_from_the_mediastinum_is_inside(
    chest: Chest, above: int, diameter_mm: float
) -> None:
    assert_inside(chest, (above, -24, 0), (0, 0, -1), diameter_mm, 0.9)


def assert_inside(
    chest: Chest,
    beside: tuple[int, int, int],
    inwards: tuple[int, int, int],
    diameter_mm: float,
    least: float,
) -> None:
    """Put a mass on the pleura, some voxels beside the lung's middle, and look what is held."""
    lung = np.argwhere(chest[1] == RIGHT_LUNG)
    place = np.median(lung, axis=0) + beside
    across = np.flatnonzero(np.array(inwards) == 0)
    line = lung[(np.abs(lung[:, across] - place[across]) < 1).all(1)]
    start = line[np.argmin(line @ inwards)]
    scan, mass = with_mass(chest, start, np.array(inwards), diameter_mm)
    found = labels_of(scan)
    assert np.mean(found[mass] == RIGHT_LUNG) > least
    assert_same_lungs(found, chest[1], 0.99)


def test_the_chest_wall_of_a_thin_patient_holds_the_lungs(chest: Chest) -> None:
    image, labels = chest
    hu = sitk.GetArrayFromImage(image)
    for plane, lungs in zip(hu, labels > 0, strict=True):
        if not lungs.any():
            continue
        outside = ~convex_hull_image(lungs)
        plane[ndimage.distance_transform_edt(outside, sampling=image.GetSpacing()[0]) > 4] = -1000
    assert_same_lungs(labels_of(as_image(hu, image)), labels, 0.99)


def cut_by_the_field_of_view(hu: Array, labels: Array) -> tuple[Array, Array]:
    first = np.flatnonzero((labels == RIGHT_LUNG).any((0, 1)))[0]
    return hu[:, :, first + 25 :], labels[:, :, first + 25 :]


def cut_by_the_circle(hu: Array, labels: Array) -> tuple[Array, Array]:
    columns = np.flatnonzero(labels.any((0, 1)))
    rows = np.flatnonzero(labels.any((0, 2)))
    y, x = np.ogrid[: hu.shape[1], : hu.shape[2]]
    outside = (y - rows.mean()) ** 2 + (x - columns.mean()) ** 2 > (0.46 * len(columns)) ** 2
    hu, labels = hu.copy(), labels.copy()
    hu[:, outside], labels[:, outside] = -1000, 0
    return hu, labels


def emphysema(hu: Array, labels: Array) -> tuple[Array, Array]:
    lung = (labels > 0) & (hu < -500)
    return np.where(lung, hu - 980 - np.median(hu[lung]), hu), labels


def noise(hu: Array, labels: Array) -> tuple[Array, Array]:
    return hu + np.random.default_rng(2).normal(0, 60, hu.shape), labels


def slices_of_7_5_mm(hu: Array, labels: Array) -> tuple[Array, Array]:
    return hu[:99].reshape(33, 3, *hu.shape[1:]).mean(1), labels[1:99:3]


def arm_and_hollow_table(hu: Array, labels: Array) -> tuple[Array, Array]:
    hu = hu.copy()
    y, x = np.ogrid[: hu.shape[1], : hu.shape[2]]
    for radius, value in ((25, 30), (7, 700)):
        hu[:, (y - 128) ** 2 + (x - 12) ** 2 < radius**2] = value
    hu[:, 228:250, 30:226] = -200
    hu[:, 229:249, 31:225] = -900
    return hu, labels


def the_bases_only(hu: Array, labels: Array) -> tuple[Array, Array]:
    return hu[:22], labels[:22]


@pytest.mark.parametrize(
    ("change", "least"),
    [
        (cut_by_the_field_of_view, 0.98),
        (cut_by_the_circle, 0.98),
        (emphysema, 0.98),
        (noise, 0.98),
        (slices_of_7_5_mm, 0.96),
        (arm_and_hollow_table, 0.99),
        (the_bases_only, 0.96),
    ],
)
def test_a_harder_scan_gives_the_same_lungs(
    chest: Chest, change: Callable[[Array, Array], tuple[Array, Array]], least: float
) -> None:
    image, labels = chest
    hu, expected = change(sitk.GetArrayFromImage(image), labels)
    harder = sitk.GetImageFromArray(np.round(hu).clip(-1024, 3071).astype(np.int16))
    sx, sy, sz = image.GetSpacing()
    harder.SetSpacing((sx, sy, sz * round(len(labels) / len(hu)) if len(hu) == 33 else sz))
    assert_same_lungs(labels_of(harder), expected, least)


@pytest.mark.parametrize(("degrees", "axis"), [(12, 0), (25, 0), (25, 2)])
def test_an_oblique_scan_gives_the_same_lungs(chest: Chest, degrees: float, axis: int) -> None:
    image, labels = chest
    turn = sitk.VersorTransform(np.eye(3)[axis].tolist(), float(np.radians(degrees)))
    turn.SetCenter(image.TransformContinuousIndexToPhysicalPoint([n / 2 for n in image.GetSize()]))
    oblique = sitk.Image(image.GetSize(), image.GetPixelID())
    oblique.SetSpacing(image.GetSpacing())
    oblique.SetOrigin(turn.TransformPoint(image.GetOrigin()))
    oblique.SetDirection(turn.GetMatrix())
    tilted = sitk.Resample(image, oblique, sitk.Transform(), sitk.sitkLinear, -1000)
    truth = sitk.Resample(
        as_image(labels, image), oblique, sitk.Transform(), sitk.sitkNearestNeighbor, 0
    )
    assert_same_lungs(labels_of(tilted), sitk.GetArrayFromImage(truth), 0.96)


# --- scans that show little or no lung ------------------------------------------------------


def test_head_and_arms_hold_no_lung(shared_data: Path) -> None:
    labels = labels_of(read_ct(shared_data / "ACRIN-FLT-Breast_001_headchest.nrrd").image)
    assert not labels[27:].any()  # C7 and above
    for side in (RIGHT_LUNG, LEFT_LUNG):
        assert (labels[:20] == side).any((1, 2)).all()


def test_bowel_is_not_lung(shared_data: Path) -> None:
    labels = labels_of(read_ct(shared_data / "ACRIN-FLT-Breast_001_abdopelvis.nrrd").image)
    assert not labels[:75].any()  # T12 and below
    for side in (RIGHT_LUNG, LEFT_LUNG):
        assert (labels[92:] == side).any((1, 2)).all()


def test_only_the_bases_of_an_abdominal_scan(shared_data: Path) -> None:
    labels = labels_of(read_ct(shared_data / "TotalSegmentator_example.nii.gz").image)
    slices = np.flatnonzero(labels.any((1, 2)))
    assert slices[0] > 95
    assert slices[-1] == len(labels) - 1


def test_a_head_and_neck_scan_is_refused(shared_data: Path) -> None:
    image = read_ct(shared_data / "pyCERR_HN_pt1.nrrd").image
    with pytest.raises(InputError, match="no lung was found"):
        segment_lungs(image)


@pytest.mark.parametrize(
    ("depth", "length", "hu", "kept"),
    [(2, 1, 40, True), (-2, 1, 40, False), (2, 24, 40, False), (2, 1, 180, False)],
    ids=["mass", "bulge", "vessel", "contrast"],
)
def test_what_stands_out_into_the_lung_is_a_mass(
    depth: int, length: int, hu: float, kept: bool
) -> None:
    z, y, x = np.indices((40, 40, 40))
    along = np.clip(np.abs(z - 20) - length, 0, None)
    grown = along**2 + (y - 20) ** 2 + (x - 20 - depth) ** 2 < 36
    lung = (x > 20) & ~grown
    density = np.where(lung, -850, hu).astype(np.float32)
    found = standing_out(grown & (x > 20), lung, density, (2.5, 2.5, 2.5))
    assert found.any() == kept
    if kept:
        assert found.sum() > 0.9 * (grown & (x > 20)).sum()


@pytest.mark.parametrize("depth_mm", [45, 80])
def test_a_dent_with_one_ray_past_it_is_as_deep_as_the_rest(depth_mm: float) -> None:
    y, x = np.indices((60, 60)) - 30
    dent = np.hypot(y, x) * 2 < 28
    heights = np.where(dent, 100 - depth_mm, 100).astype(np.float32)
    heights[30, 30] = 20
    found = bridged(heights, (2, 2), COSTAL_MM)
    is_mass = depth_mm < 70
    assert (found[dent] >= 99).all() == is_mass
    assert (found > heights).any() == is_mass


def test_a_flat_dent_is_no_deeper_for_one_ray() -> None:
    y, x = np.indices((60, 60)) - 30
    heights = np.where(np.hypot(y, x) < 10, 92, 100).astype(np.float32)
    heights[30, 30] = 10
    assert np.array_equal(bridged(heights, (2, 2), COSTAL_MM), heights)
