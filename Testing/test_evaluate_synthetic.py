"""Lesions of the stress test lie where they should and are scored like any others."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.model_card import read_card
from LungNoduleSegLib.cli import app
from LungNoduleSegLib.evaluation.detection import score_detection, true_nodules
from LungNoduleSegLib.evaluation.lesion_placement import (
    SYNTHETIC,
    LesionType,
    PlacedLesion,
    find_lung_sites,
    insert_real_nodules,
    insert_synthetic_lesions,
)
from LungNoduleSegLib.evaluation.luna_files import Places, Truth
from LungNoduleSegLib.evaluation.plots import plot_sensitivity
from LungNoduleSegLib.evaluation.subgroups import LARGER, SIZES_MM, SMALLER, place_of, size_of
from LungNoduleSegLib.evaluation.synthetic_lesions import (
    OUTPUTS,
    SyntheticLesionResult,
    evaluate_synthetic_lesions,
    nodule_spheres,
)
from LungNoduleSegLib.lesions import VESSEL_HU
from LungNoduleSegLib.network.transplants import NoduleCube
from LungNoduleSegLib.nodules.finding import NoduleRules
from LungNoduleSegLib.nodules.table import NoduleKind, Place
from LungNoduleSegLib.options import DEFAULT_MODEL
from LungNoduleSegLib.phantom.chest import PhantomSpec, make_phantom, write_phantom

SPACING = (2.0, 2.0, 3.0)
SHAPE = (80, 105, 165)


def chest(direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1)) -> tuple[sitk.Image, ...]:
    """Two lungs of noisy air with vessels as parallel tubes, and their labels."""
    z, y, x = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(SHAPE, SPACING[::-1], strict=True))
    lungs = np.zeros(SHAPE, np.uint8)
    for label, side in ((1, -75), (2, 75)):
        distance = (
            (z[:, None, None] / 110) ** 2 + (y[None, :, None] / 95) ** 2 + ((x - side) / 68) ** 2
        )
        lungs[distance < 1] = label
    hu = np.where(lungs > 0, -850, 40) + np.random.default_rng(0).normal(0, 20, lungs.shape)
    across = np.hypot((y[:, None] + 12) % 50 - 25, x[None, :] % 50 - 25)
    hu[:, across < 3] = 30
    images = []
    for array in (hu.astype(np.int16), lungs):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(SPACING)
        image.SetDirection(direction)
        image.SetOrigin((-10, 20, 30))
        images.append(image)
    return tuple(images)


@pytest.mark.parametrize(
    "direction",
    [
        (1, 0, 0, 0, 1, 0, 0, 0, 1),
        (-1, 0, 0, 0, -1, 0, 0, 0, 1),
        sitk.VersorTransform([0.3, 1, 0.2], np.radians(4)).GetMatrix(),
    ],
)
def test_one_lesion_of_each_type_and_size_where_it_belongs(direction: tuple[float, ...]) -> None:
    hu, lungs = chest(direction)
    sites = find_lung_sites(hu, lungs)
    own = hu.TransformIndexToPhysicalPoint((45, 52, 40))
    occupied = [(np.array(own), 10.0)]
    changed, lesions = insert_synthetic_lesions(
        hu, lungs, sites, occupied, np.random.default_rng(1)
    )
    assert len(lesions) == len(SIZES_MM) * len(SYNTHETIC)
    assert changed.IsSameImageGeometryAs(hu)
    before, after = (sitk.GetArrayFromImage(image) for image in (hu, changed))
    inside = sitk.GetArrayFromImage(lungs) > 0
    assert (after >= before).all()
    depth = sitk.SignedMaurerDistanceMap(lungs > 0, False, False, True)
    for one in lesions:
        radius = one.diameter_mm / 2
        assert size_of(one.diameter_mm) in SIZES_MM
        assert np.linalg.norm(np.subtract(one.centre, own)) > radius + 10
        i, j, k = hu.TransformPhysicalPointToIndex(one.centre)
        assert inside[k, j, i]
        assert after[k, j, i] > before[k, j, i] or before[k, j, i] > VESSEL_HU
        at_depth = 1 - depth[hu.TransformPhysicalPointToIndex(one.centre)]
        if one.type is LesionType.JUXTAPLEURAL:
            assert at_depth < radius + 1
        else:
            assert at_depth > radius
    for n, one in enumerate(lesions):
        for other in lesions[n + 1 :]:
            apart = np.linalg.norm(np.subtract(one.centre, other.centre))
            assert apart > (one.diameter_mm + other.diameter_mm) / 2
    touching = [one for one in lesions if one.type is LesionType.JUXTAVASCULAR]
    vessels = sites.position[sites.vessel_mm <= 0]
    for one in touching:
        nearest = np.linalg.norm(vessels - one.centre, axis=1).min()
        assert nearest < one.diameter_mm / 2 + max(SPACING)


def test_the_seed_decides() -> None:
    hu, lungs = chest()
    sites = find_lung_sites(hu, lungs)
    (first, lesions), (again, same) = (
        insert_synthetic_lesions(hu, lungs, sites, (), np.random.default_rng(1)) for _ in range(2)
    )
    assert lesions == same
    assert np.array_equal(*(sitk.GetArrayFromImage(image) for image in (first, again)))


def test_lungs_without_room_get_fewer() -> None:
    hu, lungs = chest()
    sites = find_lung_sites(hu, lungs)
    middle = sites.position.mean(axis=0)
    _, lesions = insert_synthetic_lesions(
        hu, lungs, sites, [(middle, 500.0)], np.random.default_rng(0)
    )
    assert lesions == ()


def test_real_nodules_lie_where_they_belong() -> None:
    hu, lungs = chest()
    sites = find_lung_sites(hu, lungs)
    cubes = [nodule(3), nodule(5), nodule(9), nodule(4, wall=True), nodule(6, wall=True)]
    changed, placed = insert_real_nodules(hu, lungs, sites, (), cubes, np.random.default_rng(0))
    assert len(placed) >= 4  # not every wall fits every pleura
    assert {one.type for one in placed} == {LesionType.TRANSPLANTED}
    assert {one.texture for one in placed} == {NoduleKind.SOLID}
    assert Place.PLEURA in {one.place for one in placed}
    before, after = (sitk.GetArrayFromImage(image) for image in (hu, changed))
    inside = sitk.GetArrayFromImage(lungs) > 0
    for one in placed:
        own = after[one.box][one.mask]
        assert np.median(own) > -200
        assert inside[one.box][one.mask].all()
        volume = np.count_nonzero(one.mask) * np.prod(SPACING)
        assert one.diameter_mm == pytest.approx(np.cbrt(6 * volume / np.pi))
    assert np.mean(after != before) < 0.1


def test_a_place_follows_from_mask_and_lungs() -> None:
    hu, lungs = (sitk.GetArrayFromImage(image) for image in chest())
    inside = lungs > 0
    hu[inside] = -850
    z, y, x = np.indices(SHAPE)
    row = np.flatnonzero(inside[40, 52])
    for x0, dense, place in (
        (row[0] + 2, 0, Place.PLEURA),
        (row[0] + 15, 0, Place.FREE),
        (row[0] + 15, 2.5, Place.VESSEL),
    ):
        away = ((z - 40) * 3.0) ** 2 + ((y - 52) * 2.0) ** 2 + ((x - x0) * 2.0) ** 2
        mask = away < 5**2
        scan = np.where(np.hypot((z - 40) * 3.0, (y - 52) * 2.0) < dense, 30, hu)
        assert place_of(scan, inside, SPACING[::-1], mask & inside) is place


def nodule(radius_mm: float, wall: bool = False) -> NoduleCube:
    """A solid nodule in air, 1 mm a voxel, on a wall at larger x if asked for."""
    n = int(radius_mm) + 9
    z, y, x = np.indices((2 * n + 1,) * 3) - n
    mask = z**2 + y**2 + x**2 <= radius_mm**2
    beyond = x > radius_mm - 2 if wall else mask & ~mask
    mask &= ~beyond
    noise = np.random.default_rng(0).normal(0, 20, mask.shape)
    hu = np.where(mask | beyond, 40, -850) + noise
    return NoduleCube("nodule", hu.astype(np.int16), mask, (1.0, 1.0, 1.0), NoduleKind.SOLID)


def test_marks_anywhere_on_a_long_nodule_lie_in_its_sphere() -> None:
    array = np.zeros(SHAPE, np.uint8)
    array[20:22, 30:33, 10:25] = 1
    array[60, 60, 60] = 1
    labels = sitk.GetImageFromArray(array)
    labels.SetSpacing(SPACING)
    labels.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    (centre, radius), point = nodule_spheres(labels)
    ends = [labels.TransformIndexToPhysicalPoint(i) for i in ((10, 30, 20), (24, 32, 21))]
    assert all(np.linalg.norm(np.subtract(end, centre)) < radius for end in ends)
    assert radius > 3 * np.cbrt(array[20:22].sum() * np.prod(SPACING) * 3 / 4 / np.pi) / 2
    assert point[1] == pytest.approx(max(SPACING) / 2)
    assert point[0] == pytest.approx(labels.TransformIndexToPhysicalPoint((60, 60, 60)))


@pytest.mark.parametrize(
    ("diameters", "more"),
    [((3.2, 3.9), [SMALLER]), ((30.0, 41.0), [LARGER]), ((3.2, 5.0, 30.0), [SMALLER, LARGER])],
)
def test_lesions_of_every_size_are_counted_and_drawn(
    diameters: tuple[float, ...], more: list[str], tmp_path: Path
) -> None:
    box, mask = (slice(0, 1),) * 3, np.ones((1, 1, 1), bool)
    lesions = tuple(
        PlacedLesion(LesionType.TRANSPLANTED, mm, None, Place.FREE, (0, 0, 0), box, mask)
        for mm in diameters
    )
    truth = Truth(("a",), Places.of(("a", (0, 0, 0), mm) for mm in diameters), Places.of(()))
    score = score_detection(Places.of([("a", (0, 0, 0), 0.9)]), truth, resamples=0)
    nodules = true_nodules(score, truth)
    result = SyntheticLesionResult(read_card(DEFAULT_MODEL), 0.5, lesions, nodules, score)
    counts = result.sensitivity()
    assert set(counts[Place.FREE]) == {*SIZES_MM, *more}
    assert sum(of for _, of in counts[Place.FREE].values()) == len(diameters)
    plot_sensitivity(tmp_path / "found.png", counts)
    assert (tmp_path / "found.png").stat().st_size


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "froc.png").touch()
    with pytest.raises(InputError, match="nothing was overwritten"):
        evaluate_synthetic_lesions(tmp_path / "scan.nrrd", tmp_path)


@pytest.mark.slow
def test_a_phantom_with_the_bundled_model(tmp_path: Path) -> None:
    write_phantom(make_phantom(PhantomSpec(seed=5)), tmp_path / "phantom")
    own = next((tmp_path / "phantom" / "truth").glob("*nodules*"))
    out = tmp_path / "out"
    command = ["evaluate", "synthetic", str(tmp_path / "phantom" / "dicom"), "-o", str(out)]
    options = ["--nodules", str(own), "--rounds", "1", "--progress", "none"]
    run = CliRunner().invoke(app, [*command, *options])
    assert run.exit_code == 0, run.output
    assert {path.name for path in out.iterdir()} == set(OUTPUTS)
    figures = json.loads((out / "synthetic.json").read_text())
    by_size = figures["at_threshold"]["found_of_by_size"]
    assert by_size["12-20 mm"][0] >= by_size["12-20 mm"][1] / 2
    with (out / "lesions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with (out / "annotations_excluded.csv").open(newline="") as stream:
        around = len(list(csv.DictReader(stream)))
    assert around == len(rows) + 6  # what lies on a lesion, or on the phantom's own, is no mistake
    with (out / "submission.csv").open(newline="") as stream:
        marks = [float(row["probability"]) for row in csv.DictReader(stream)]
    shown_from = NoduleRules(**read_card(DEFAULT_MODEL).rules).threshold
    assert min(marks) < shown_from  # a FROC curve asks for more than a run shows
    threshold = figures["at_threshold"]["threshold"]
    found = sum(float(row["probability"] or 0) >= threshold for row in rows)
    assert found == sum(found for found, _ in by_size.values())
    names = {
        "submission": "submission.csv",
        "annotations": "annotations.csv",
        "excluded": "annotations_excluded.csv",
        "seriesuids": "seriesuids.csv",
    }
    files = [word for name, file in names.items() for word in (f"--{name}", str(out / file))]
    again = ["evaluate", "detection", *files, "--json", str(tmp_path / "o.json")]
    run = CliRunner().invoke(app, [*again, "--progress", "none"])
    assert run.exit_code == 0, run.output
    scored = json.loads((tmp_path / "o.json").read_text())
    for key in ("cpm", "sensitivity", "found", "false_positives", "candidates"):
        assert scored[key] == figures[key]
